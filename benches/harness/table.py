"""Runs -> ratios -> figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benches.harness.measures import ROWS, Row, Value
from benches.harness.report import Figure

Run = dict[str, Any]
"""What one server did in one round: the load generator's figures, and what the harness added."""

Failures = dict[tuple[str, str], str]
"""By scenario and server: why it has no runs."""

Runs = dict[tuple[str, str], dict[int, Run]]
"""By scenario and server, then by round."""

_FIGURES: dict[Value, Callable[[Run], float]] = {
    Value.CPU: lambda run: float(run["server_cpu_ns"]) / float(run["messages"]),
    Value.RATE: lambda run: float(run["messages"]) / float(run["elapsed_ns"]) * 1e9,
    Value.P50: lambda run: float(run["p50_ns"]),
    Value.LATE_P50: lambda run: float(run["lateness_p50_ns"]),
    Value.LATE_P99: lambda run: float(run["lateness_p99_ns"]),
    Value.MEMORY: lambda run: float(run["connection_bytes"]) / 1000,
}


@dataclass
class Result:
    """A row with its figures, or with the reason why there are none."""

    row: Row
    ratios: Sequence[float] = ()
    ours: Sequence[float] = ()
    reference: Sequence[float] = ()
    ours_cpu: Sequence[float] = ()
    reference_cpu: Sequence[float] = ()
    missing: str = ""

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def reached(self) -> str:
        """`aim`, `must`, `NO`; nothing where nothing is asked or measured."""
        if not self.ratios or (self.row.must is None and self.row.aim is None):
            return ""
        for name, bound in (("aim", self.row.aim), ("must", self.row.must)):
            if bound is not None and (self.ratio >= bound if self.row.value.more_is_better else self.ratio <= bound):
                return name
        return "NO" if self.row.must is not None else "not the aim"

    def as_json(self) -> dict[str, Any]:
        figures: dict[str, Any] = asdict(self)
        figures["row"]["value"] = self.row.value.value
        figures["ratio"] = self.ratio if self.ratios else None
        figures["reached"] = self.reached
        return figures


def results(runs: Runs, failures: Failures, scenarios: Iterable[str]) -> list[Result]:
    """All rows of these scenarios."""
    wanted = set(scenarios)
    return [_result(row, runs, failures) for row in ROWS if row.scenario in wanted]


def _result(row: Row, runs: Runs, failures: Failures) -> Result:
    figure = _FIGURES[row.value]
    ours, reference = runs.get((row.scenario, row.ours), {}), runs.get((row.scenario, row.reference), {})
    absent = [name for name, found in ((row.ours, ours), (row.reference, reference)) if not found]
    both = sorted(ours.keys() & reference.keys())
    result = Result(
        row,
        ours=[figure(run) for run in ours.values()],
        reference=[figure(run) for run in reference.values()],
        ours_cpu=_cpu(ours.values()),
        reference_cpu=_cpu(reference.values()),
        missing="; ".join(failures.get((row.scenario, name), f"{name} was not run") for name in absent),
    )
    if row.value is Value.MEMORY:
        result.ratios = result.ours
    else:
        pairs = [(figure(ours[n]), figure(reference[n])) for n in both]
        result.ratios = [(theirs / our if row.value is Value.CPU else our / theirs) for our, theirs in pairs]
    return result


def _cpu(runs: Iterable[Run]) -> list[float]:
    return [_FIGURES[Value.CPU](run) / 1000 for run in runs if run.get("messages")]


def figure(result: Result) -> Figure:
    """A row as all benches have it. Ratios: median over the rounds, smallest to largest; figures: medians."""
    row = result.row
    must = _bound(row.must, row.value) or ("stated" if row.aim is None else f"stated; aim {_bound(row.aim, row.value)}")
    if not result.ratios:
        return Figure(row.measure, must, f"not measured: {result.missing}", "")
    parts = [f"{min(result.ratios):.2f} to {max(result.ratios):.2f}"]
    if row.value is not Value.CPU:
        parts.append(_pair(result.ours, result.reference, row.value))
    if cpu := _cpu_pair(result):
        parts.append(f"CPU {cpu} us")
    margin = _margin(row)
    return Figure(
        row.measure,
        must,
        f"**{result.ratio:.2f}** ({'; '.join(parts)})",
        result.reached,
        margin(result.ratio) if margin else None,
        (min(map(margin, result.ratios)), max(map(margin, result.ratios))) if margin else None,
    )


def _margin(row: Row) -> Callable[[float], float] | None:
    bound = row.must if row.must is not None else row.aim
    if bound is None:
        return None
    return (lambda ratio: ratio / bound) if row.value.more_is_better else (lambda ratio: bound / ratio)


def _bound(bound: float | None, value: Value) -> str:
    if bound is None:
        return ""
    return f"{bound:g}" if value.more_is_better else f"<= {bound:g}"


def _pair(ours: Sequence[float], reference: Sequence[float], value: Value) -> str:
    return " / ".join(_spell(median(figures), value) if figures else "-" for figures in (ours, reference))


def _cpu_pair(result: Result) -> str:
    if not result.ours_cpu and not result.reference_cpu:
        return ""
    return " / ".join(f"{median(cpu):.3f}" if cpu else "-" for cpu in (result.ours_cpu, result.reference_cpu))


def _spell(figure: float, value: Value) -> str:
    match value:
        case Value.RATE:
            return f"{figure:,.0f}/s"
        case Value.MEMORY:
            return f"{figure:.3f} kB"
        case _:
            return f"{figure / 1000:.1f} us"
