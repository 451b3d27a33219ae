"""How often a client may do something: read once from what the game writes, enforced by the core before Python runs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from gameserver.errors import ConfigError

Over = Literal["drop", "refuse", "kick"]

RATE_MAX = 1e9  # a token a nanosecond, the core's unit of time
BURST_MAX = (1 << 32) - 1

_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_RATE = re.compile(r"(?P<count>[0-9]+(?:\.[0-9]+)?)\s*/\s*(?P<unit>s|min|h)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket of each client: `per_second` messages, at most `burst` of them at once; and what becomes of more."""

    per_second: float
    burst: int
    over: Over


def per_second(rate: object) -> float | None:
    """What a rate is in a second; None: it is none.

    >>> per_second("10/s"), per_second("90/min"), per_second("10 per second")
    (10.0, 1.5, None)
    """
    match = _RATE.fullmatch(rate.strip()) if isinstance(rate, str) else None
    if match is None:
        return None
    value = float(match["count"]) / _UNITS[match["unit"]]
    return value if 0 < value <= RATE_MAX else None


def usual_burst(rate: float) -> int:
    """As many as come in two seconds."""
    return max(1, math.ceil(2 * rate))


def limit_of(rate: str | None, burst: int | None, over: str, where: str) -> Limit | None:
    """The limit that a decorator's arguments ask for; None: there is none.

    Raises:
        ConfigError: one of them is wrong.
    """
    if over not in get_args(Over):
        raise ConfigError(f"{where}: over={over!r}: 'drop', 'refuse' (a request is answered with GS-429) or 'kick'")
    if rate is None:
        if burst is not None:
            raise ConfigError(f"{where}: burst={burst!r} goes with a rate: rate='10/s', burst={burst!r}")
        return None
    value = per_second(rate)
    if value is None:
        raise ConfigError(
            f"{where}: rate={rate!r}: write how many in a second, minute or hour: '10/s', '90/min', '5/h'"
        )
    if burst is None:
        return Limit(value, usual_burst(value), over)  # type: ignore[arg-type] # checked above
    if not isinstance(burst, int) or isinstance(burst, bool) or not 1 <= burst <= BURST_MAX:
        raise ConfigError(f"{where}: burst={burst!r}: how many may come at once, a whole number from 1")
    return Limit(value, burst, over)  # type: ignore[arg-type] # checked above
