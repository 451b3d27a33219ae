"""Networks between clients and the server: what they add to the real one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gameserver.errors import ConfigError
from gameserver.swarm._place import at_caller
from gameserver.swarm._units import bandwidth, duration, share

__all__ = ["NETWORKS", "Network", "network_of"]


@dataclass(frozen=True, slots=True)
class Network:
    """What lies between a client and the server, each way alike; without arguments the real network alone.

    A proxy in the swarm's own process makes it, by a seed. TCP loses nothing, so a lost packet is a stall: the sender notices after
    a round trip and 200 ms, as Linux does, and all behind it waits.

    Args:
        delay: of each way: half of the round trip, which is beyond the real one.
        jitter: it takes at most so much longer, by chance. Nothing overtakes.
        loss: the share of packets (of 1,448 bytes at most) that are lost: ``"1%"`` or 0.01.
        bandwidth: ``"2MB/s"``, ``"500kB/s"``, or bytes a second; None: as much as there is.

    Raises:
        ConfigError: one of them can't be.

    >>> Network(delay="40ms", jitter="10ms", loss="1%").loss
    0.01
    """

    delay: float | str = 0.0
    jitter: float | str = 0.0
    loss: float | str = 0.0
    bandwidth: float | str | None = None
    _core: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        with at_caller():
            object.__setattr__(self, "delay", duration(self.delay, least=0.0, most=60.0))
            object.__setattr__(self, "jitter", duration(self.jitter, least=0.0, most=60.0))
            object.__setattr__(self, "loss", share(self.loss, most=0.5))
            if self.bandwidth is not None:
                object.__setattr__(self, "bandwidth", bandwidth(self.bandwidth))
        self._core.update(
            delay=self.delay,
            jitter=self.jitter,
            loss=self.loss,
            bytes_per_second=self.bandwidth,
            is_real=not (self.delay or self.jitter or self.loss or self.bandwidth),
        )

    def core(self, share: float) -> dict[str, Any]:
        """As the core takes it, for this share of clients."""
        return {**self._core, "share": share}


NETWORKS = {
    "cable": Network("8ms", "2ms", 0.0001, "10MB/s"),
    "wifi": Network("12ms", "8ms", 0.002, "4MB/s"),
    "mobile": Network("40ms", "25ms", 0.01, "1MB/s"),
    "poor": Network("120ms", "80ms", 0.04, "100kB/s"),
}
"""By name: rough middles of what players have, not measurements."""


def network_of(text: str) -> Network:
    """``"mobile"``, or ``"delay=40ms jitter=10ms loss=1% bandwidth=1MB/s"``.

    Raises:
        ConfigError: it is neither.
    """
    if text in NETWORKS:
        return NETWORKS[text]
    given: dict[str, str] = {}
    for part in text.replace(",", " ").split():
        name, _, given[name] = part.partition("=")
    if not given or not given.keys() <= {"delay", "jitter", "loss", "bandwidth"}:
        raise ConfigError(
            f'{text!r} is no network: {", ".join(NETWORKS)}, or "delay=40ms jitter=10ms loss=1% bandwidth=1MB/s"'
        )
    return Network(given.get("delay", 0.0), given.get("jitter", 0.0), given.get("loss", 0.0), given.get("bandwidth"))
