"""How the connection does, for who draws it: the figures that the browser's overlay shows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gameserver.client._timeline import Timing

if TYPE_CHECKING:
    from gameserver.client import Client, Traffic

__all__ = ["Netgraph", "NetgraphReading"]

INTERVAL = 0.25  # s between two readings
PING_INTERVAL = 1.0  # s between two pings
READINGS_MAX = 240  # a minute
WINDOW = 4  # rates are of the last so many readings
TABLES_MAX = 6


@dataclass(frozen=True, slots=True)
class NetgraphReading:
    """How the connection did in the last second."""

    rtt: float | None
    """s of the last round trip; None: there was none yet, or the connection is lost."""
    timing: Timing
    """Of the world's snapshots; zeros without a world. `late`: in this second."""
    bytes_in: float
    """A second."""
    bytes_out: float
    """A second."""
    tables: Mapping[str, float]
    """Bytes a second of snapshots by table of the world, most first; "" has what belongs to none."""


@dataclass(frozen=True, slots=True)
class _Counters:
    at: float
    traffic: Traffic
    tables: Mapping[str, int]
    late: int


class Netgraph:
    """Round trip, jitter, what comes and goes, by table of the world, and how much is there to be drawn. In a frame loop::

        netgraph = Netgraph(client)
        while drawing():
            client.pump()
            netgraph.update()
            for line in netgraph.lines():
                screen.write(line)

    Attributes:
        readings: four a second, those of a minute, the newest last.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._counters: deque[_Counters] = deque(maxlen=WINDOW + 1)
        self._rtt: float | None = None
        self._ping: Any = None
        self._ping_took = 0.0
        self._pinged_at = float("-inf")
        self.readings: deque[NetgraphReading] = deque(maxlen=READINGS_MAX)

    def update(self, now: float | None = None) -> None:
        """To be called in each frame, or as often as it is looked at; pings, and takes a reading when one is due.

        Args:
            now: s, of any clock that does not jump; None: `time.monotonic()`.
        """
        now = time.monotonic() if now is None else now
        self._look_at_ping(now)
        if not self._counters or now - self._counters[-1].at >= INTERVAL:
            self._read(now)

    def lines(self) -> list[str]:
        """The newest reading as text, to be drawn; empty before the first."""
        if not self.readings:
            return []
        reading, world = self.readings[-1], self._client.world
        timing = reading.timing
        lines = [
            f"rtt {_ms(reading.rtt)}   jitter {_ms(timing.jitter)}   {self._client.state}",
            f"in {_kb(reading.bytes_in)}   out {_kb(reading.bytes_out)}",
        ]
        if world is not None:
            lines.append(f"delay {_ms(timing.delay)}   buffer {_ms(timing.buffer)}   late {timing.late}")
            shown = list(reading.tables.items())[:TABLES_MAX]
            lines += [f"{name or 'own, other':14.14} {_kb(rate):>12}" for name, rate in shown]
            lines.append(f"tick {world.tick}   {world.tick_rate:g} Hz")
        return lines

    def _look_at_ping(self, now: float) -> None:
        if self._ping is not None and self._ping.done():
            failed = self._ping.cancelled() or self._ping.exception() is not None
            self._rtt = None if failed else self._ping_took
            self._ping = None
        if self._ping is None and now - self._pinged_at >= PING_INTERVAL and self._client.state == "open":
            self._pinged_at = now
            self._ping_took = 0.0
            began = time.perf_counter()

            def answered(_: Any) -> None:
                self._ping_took = time.perf_counter() - began

            self._ping = self._client.request("$ping", b"")
            self._ping.add_done_callback(answered)

    def _read(self, now: float) -> None:
        world = self._client.world
        timing = world.timing if world is not None else Timing(0.0, 0.0, 0.0, 0)
        tables = world.bytes if world is not None else {}
        self._counters.append(_Counters(now, self._client.traffic, tables, timing.late))
        first, last = self._counters[0], self._counters[-1]
        passed = max(last.at - first.at, 1e-3)
        rates = {name: (total - first.tables.get(name, 0)) / passed for name, total in last.tables.items()}
        self.readings.append(
            NetgraphReading(
                rtt=self._rtt,
                timing=Timing(timing.delay, timing.jitter, timing.buffer, last.late - first.late),
                bytes_in=(last.traffic.bytes_in - first.traffic.bytes_in) / passed,
                bytes_out=(last.traffic.bytes_out - first.traffic.bytes_out) / passed,
                tables=dict(sorted(rates.items(), key=lambda rate: -rate[1])),
            )
        )


def _ms(seconds: float | None) -> str:
    return "- ms" if seconds is None else f"{seconds * 1e3:.{1 if seconds < 0.01 else 0}f} ms"


def _kb(bytes_a_second: float) -> str:
    return f"{bytes_a_second / 1e3:.1f} kB/s"
