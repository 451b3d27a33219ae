"""What must come out of a run: ``p99 < 50ms``, ``errors < 0.1%``, ``tick_skipped == 0``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gameserver.errors import ConfigError

__all__ = ["FIGURES", "Threshold", "figure"]

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
}
UNITS = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "%": 0.01, "/s": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def _of(*path: str) -> Callable[[Mapping[str, Any]], float | None]:
    def read(result: Mapping[str, Any]) -> float | None:
        value: Any = result
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return None if value is None else float(value)

    return read


FIGURES: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], float | None]]] = {
    "p50": ("s", _of("total", "latency", "p50")),
    "p90": ("s", _of("total", "latency", "p90")),
    "p99": ("s", _of("total", "latency", "p99")),
    "p99.9": ("s", _of("total", "latency", "p999")),
    "max": ("s", _of("total", "latency", "max")),
    "mean": ("s", _of("total", "latency", "mean")),
    "errors": ("share", _of("total", "error_share")),
    "timeouts": ("", _of("total", "timed_out")),
    "lost": ("", _of("total", "lost")),
    "dropped": ("", _of("total", "dropped")),
    "rate": ("/s", _of("total", "answered_per_second")),
    "connect_p99": ("s", _of("total", "connecting", "p99")),
    "resume_p99": ("s", _of("total", "resuming", "p99")),
    "renewed": ("", _of("total", "renewed")),
    "snapshot_gap_p99": ("s", _of("total", "snapshot_gaps", "p99")),
    "snapshot_age_p99": ("s", _of("total", "snapshot_ages", "p99")),
    "kb_per_client": ("kB/s", _of("total", "kb_in_per_client_second")),
    "lateness_p99": ("s", _of("total", "lateness", "p99")),
    "tick_p99": ("s", _of("server", "tick_lateness_p99")),
    "tick_skipped": ("", _of("server", "tick_skipped")),
    "gc_max": ("s", _of("server", "gc_max")),
    "cpu": ("cores", _of("server", "cpu")),
    "memory": ("B", _of("server", "memory_max")),
}
"""By name: the unit, and where it stands in a result. Times are from the intended send time; `tick_p99` is how late ticks began."""


def figure(result: Mapping[str, Any], name: str) -> float | None:
    """A result's figure; None: it was not measured."""
    return FIGURES[name][1](result)


@dataclass(frozen=True, slots=True)
class Threshold:
    """One of them."""

    text: str
    name: str
    sign: str
    limit: float

    @classmethod
    def read(cls, text: str) -> Threshold:
        """Reads one.

        Raises:
            ConfigError: it is none.
        """
        match = re.fullmatch(r"\s*([a-z0-9_.]+)\s*(<=|>=|==|<|>)\s*([0-9.]+)\s*([a-zA-Z%/]*)\s*", text)
        try:
            if match and match[1] in FIGURES:
                return cls(text.strip(), match[1], match[2], float(match[3]) * UNITS[match[4]])
        except (ValueError, KeyError):
            pass
        raise ConfigError(
            f'{text!r} is no threshold: NAME < VALUE as in "p99 < 50ms", "errors < 0.1%"; names: {", ".join(FIGURES)}; '
            f"units: {', '.join(filter(None, UNITS))}"
        )

    def holds(self, result: Mapping[str, Any]) -> bool:
        """Whether it does; what was not measured does not."""
        value = figure(result, self.name)
        return value is not None and OPERATORS[self.sign](value, self.limit)
