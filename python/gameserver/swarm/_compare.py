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
WHOLE = 0.5  # s; shorter stretches waver more
# What of a stretch shows how much a figure wavers.
STRETCHES: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "p50": lambda s: s["latency"]["p50"],
    "p90": lambda s: s["latency"]["p90"],
    "p99": lambda s: s["latency"]["p99"],
    "p99.9": lambda s: s["latency"]["p999"],
    "mean": lambda s: s["latency"]["mean"],
    "max": lambda s: s["latency"]["max"],
    "rate": lambda s: s["answered"] / s["seconds"],
    "snapshot_gap_p99": lambda s: s["snapshot_gaps"]["p99"],
    "snapshot_age_p99": lambda s: s["snapshot_ages"]["p99"],
    "lateness_p99": lambda s: s["lateness"]["p99"],
    "kb_per_client": lambda s: s["bytes_in"] / max(1, s["clients"]) / s["seconds"] / 1e3,
    "cpu": lambda s: s["cpu"],
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
    if name not in STRETCHES:
        return []
    phases = result["scenario"]["phases"]
    whole = [
        stretch
        for stretch in result["series"]
        if stretch["seconds"] >= WHOLE and stretch["phase"] < len(phases) and phases[stretch["phase"]]["counts"]
    ]
    return [STRETCHES[name](stretch) for stretch in whole]
