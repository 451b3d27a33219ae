"""Two results: what has changed, and whether by more than seconds of one run differ from each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from gameserver.swarm._thresholds import FIGURES, figure

__all__ = ["Change", "changes"]

HIGHER_IS_BETTER = frozenset({"rate"})
SURE = 3.0  # times the noise of both
# What of a second shows how much a figure wavers.
SECONDS: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "p50": lambda second: second["latency"]["p50"],
    "p90": lambda second: second["latency"]["p90"],
    "p99": lambda second: second["latency"]["p99"],
    "p99.9": lambda second: second["latency"]["p999"],
    "mean": lambda second: second["latency"]["mean"],
    "max": lambda second: second["latency"]["max"],
    "rate": lambda second: second["answered"],
    "snapshot_gap_p99": lambda second: second["snapshot_gaps"]["p99"],
    "lateness_p99": lambda second: second["lateness"]["p99"],
    "kb_per_client": lambda second: second["bytes_in"] / max(1, second["clients"]) / 1e3,
    "cpu": lambda second: second["cpu"],
}
MADS = 1.4826  # times the median absolute deviation is a standard deviation, of what is normal


@dataclass(frozen=True, slots=True)
class Change:
    """Of one figure."""

    name: str
    before: float | None
    now: float | None
    noise: float | None
    """The standard error of the difference, as a share of `before`, by how seconds of each run differ; None: not known."""

    @property
    def share(self) -> float | None:
        """Of the value before."""
        if self.before is None or self.now is None or self.before == 0:
            return None
        return self.now / self.before - 1

    @property
    def verdict(self) -> Literal["better", "worse", "within the noise", "", "new"]:
        """Beyond three standard errors it is one or the other."""
        if self.before is None or self.now is None:
            return "new" if self.before is None and self.now is not None else ""
        if self.now == self.before:
            return ""
        if self.share is None:
            return "worse" if self.now > self.before and self.name not in HIGHER_IS_BETTER else "better"
        if self.noise is None:
            return ""
        if abs(self.share) <= SURE * self.noise:
            return "within the noise"
        return "better" if (self.share > 0) == (self.name in HIGHER_IS_BETTER) else "worse"


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Of all figures that either result has."""
    found = []
    for name in FIGURES:
        old, new = figure(before, name), figure(now, name)
        if old is not None or new is not None:
            found.append(Change(name, old, new, _noise(name, before, now, old)))
    return found


def _noise(name: str, before: Mapping[str, Any], now: Mapping[str, Any], old: float | None) -> float | None:
    errors = [_standard_error(name, result) for result in (before, now)]
    if not old or None in errors:
        return None
    return math.hypot(*(error for error in errors if error is not None)) / old


def _standard_error(name: str, result: Mapping[str, Any]) -> float | None:
    values = _values(name, result)
    if len(values) < 5:
        return None
    middle = median(values)
    return MADS * median(abs(value - middle) for value in values) / math.sqrt(len(values))


def _values(name: str, result: Mapping[str, Any]) -> Sequence[float]:
    if name == "cpu":
        return [second["cpu"] for second in (result["server"] or {}).get("series", [])]
    if name not in SECONDS:
        return []
    phases = result["scenario"]["phases"]
    whole = [
        second for second in result["series"] if second["phase"] < len(phases) and phases[second["phase"]]["counts"]
    ]
    return [SECONDS[name](second) for second in whole]
