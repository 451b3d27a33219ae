"""A run on a terminal: a live view while it goes on, a summary at its end, a comparison with an earlier one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gameserver.swarm._compare import Change
from gameserver.swarm._scenario import Scenario
from gameserver.swarm._thresholds import FIGURES

__all__ = ["LiveView", "amount", "duration", "show_changes", "show_result"]

ROWS = 12  # stretches that the live view shows
SAID_EVERY = 10.0  # s, where the output is no terminal
ENDS = 8  # kinds of ends, errors and pushes that a summary shows


class LiveView:
    """What clients notice, stretch by stretch. Where the output is no terminal: a line every ten seconds."""

    def __init__(self, console: Console, scenario: Scenario, name: str) -> None:
        self._console = console
        self._scenario = scenario
        self._name = name
        self._phases = scenario.core_phases()
        self._told: list[tuple[Mapping[str, Any], Mapping[str, Any] | None]] = []
        self._said_at = 0.0
        self._errors: Counter[str] = Counter()
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def add(self, stretch: Mapping[str, Any], server: Mapping[str, Any] | None) -> None:
        """One more."""
        self._told = [*self._told[1 - ROWS :], (stretch, server)]
        for counts in (stretch["errors"], stretch["ended"]):
            self._errors.update(counts)
        for name in ("timed_out", "lost"):
            self._errors[name.replace("_", " ")] += stretch[name]
        if self._live is not None:
            self._live.update(self._table())
        elif stretch["at"] >= self._said_at:
            self._said_at = stretch["at"] + SAID_EVERY
            latency = stretch["latency"]
            self._console.print(
                f"{stretch['at']:6.1f} s  {self._phase(stretch)}  {stretch['clients']} clients  "
                f"{rate(stretch, 'answered')}/s answered  "
                f"p50 {duration(latency['p50'])}  p99 {duration(latency['p99'])}  {_trouble(stretch)} errors",
                highlight=False,
            )

    def _phase(self, stretch: Mapping[str, Any]) -> str:
        number = stretch["phase"]
        return str(self._phases[number]["name"]) if number < len(self._phases) else "end"

    def _table(self) -> RenderableType:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in (
            "s",
            "phase",
            "clients",
            "sent/s",
            "answers/s",
            "p50",
            "p99",
            "p99.9",
            "errors",
            "kB/s a client",
        ):
            table.add_column(column, justify="left" if column == "phase" else "right")
        has_server = any(server is not None for _, server in self._told)
        if has_server:
            table.add_column("server", justify="right")
        for stretch, server in self._told:
            latency = stretch["latency"]
            row = [
                f"{stretch['at']:.1f}",
                self._phase(stretch),
                str(stretch["clients"]),
                rate(stretch, "sent"),
                rate(stretch, "answered"),
                *(duration(latency[name]) if latency["count"] else "-" for name in ("p50", "p99", "p999")),
                str(_trouble(stretch)),
                f"{stretch['bytes_in'] / stretch['clients'] / max(1e-3, stretch['seconds']) / 1e3:.1f}"
                if stretch["clients"]
                else "-",
            ]
            if has_server:
                row.append(f"{server['memory'] / 1e6:.0f} MB" if server is not None else "")
            table.add_row(*row, style="red" if _trouble(stretch) else None)
        seconds = self._told[-1][0]["at"] if self._told else 0.0
        head = f"{self._name}: {seconds:.0f} of {self._scenario.seconds:.0f} s; Ctrl-C ends it early"
        parts: list[RenderableType] = [Text(head, style="bold"), table]
        if worst := [f"{name} {amount(count)}" for name, count in self._errors.most_common(ENDS) if count]:
            parts.append(Text(f"errors: {', '.join(worst)}", style="red"))
        return Group(*parts)


def show_result(console: Console, result: Mapping[str, Any]) -> None:
    """What came of a run."""
    total, server = result["total"], result["server"]
    console.print(
        f"\n{result['name']}: {amount(total['sent'])} messages of {result['scenario']['clients']} clients in "
        f"{total['seconds']:.1f} s, {amount(total['answered_per_second'])} answers a second",
        markup=False,
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("", "count", "p50", "p90", "p99", "p99.9", "max"):
        table.add_column(column, justify="left" if not column else "right")
    for action in total["actions"]:
        verb = "ask" if action["is_request"] else "tell"
        table.add_row(f"{verb} {action['route']}", amount(action["sent"]), *_times(action["latency"]))
    if len(total["actions"]) != 1:
        table.add_row("all requests", amount(total["answered"]), *_times(total["latency"]), style="bold")
    table.add_row("let in", amount(total["opened"]), *_times(total["connecting"]))
    if total["joining"]["count"]:
        table.add_row("seated in a room", amount(total["joining"]["count"]), *_times(total["joining"]))
    if total["resuming"]["count"]:
        table.add_row("gone on after a cut", amount(total["resumed"]), *_times(total["resuming"]))
    if total["snapshots"]:
        table.add_row("between snapshots", amount(total["snapshots"]), *_times(total["snapshot_gaps"]))
    if total["snapshot_ages"]["count"]:
        table.add_row("age of snapshots", "", *_times(total["snapshot_ages"]))
    if total["lateness"]["count"]:
        table.add_row("the swarm's own lateness", "", *_times(total["lateness"]), style="dim")
    console.print(table)
    for title, counts in (("errors", total["errors"]), ("ended by the server", total["ended"])):
        for name, count in sorted(counts.items(), key=lambda item: -item[1])[:ENDS]:
            console.print(f"{title}: {name}: {count}", style="red", markup=False, highlight=False)
    if total["renewed"]:
        console.print(f"sessions that could not go on, and began anew: {total['renewed']}", style="red")
    for name in ("timed_out", "lost"):
        if total[name]:
            console.print(f"requests {name.replace('_', ' ')}: {total[name]}", style="red")
    pushes = sorted(total["pushes"].items(), key=lambda item: -item[1][1])[:ENDS]
    if pushes:
        console.print(
            "pushes: " + ", ".join(f"{route} {amount(n)} ({amount(size)}B)" for route, (n, size) in pushes),
            markup=False,
        )
    console.print(
        f"a client: {total['kb_in_per_client_second']:.2f} kB/s in, {total['kb_out_per_client_second']:.2f} kB/s out; "
        f"swarm: {result['swarm_cpu']:.2f} cores, {result['swarm_memory'] / 1e6:.0f} MB",
        highlight=False,
    )
    if server is not None:
        console.print(
            f"server: {server['cpu']:.2f} cores, {server['memory_max'] / 1e6:.0f} MB; {server['ticks']} ticks, "
            f"{server['tick_skipped']} skipped, late by {duration(server['tick_lateness_p99'])} (p99); longest garbage collection "
            f"{duration(server['gc_max'])}",
            highlight=False,
        )
    if (bots := result["bots"]) is not None:
        latency = bots["latency"]
        console.print(
            f"bots: {bots['count']} of Python, {amount(bots['answered'])} answers, {amount(bots['answered_per_second'])} a second, "
            f"p50 {duration(latency['p50'])}, p99 {duration(latency['p99'])}, {bots['cpu']:.2f} cores",
            highlight=False,
        )
        for name, count in bots["errors"].items():
            console.print(f"bots: {name}: {count}", style="red", markup=False, highlight=False)
        if bots["traceback"]:
            console.print(bots["traceback"].rstrip(), style="red", markup=False, highlight=False)
    if total["decoded"]:
        console.print(
            f"snapshots decoded: {amount(total['decoded'])}, with {total['entities_each']:.1f} entities in view",
            highlight=False,
        )
    for threshold in result["thresholds"]:
        mark, style = ("holds", "green") if threshold["holds"] else ("FAILS", "bold red")
        value = "not measured" if threshold["value"] is None else _figure(threshold["text"], threshold["value"])
        console.print(f"{mark}: {threshold['text']} (it is {value})", style=style, markup=False, highlight=False)
    for why in result["invalid"]:
        console.print(f"INVALID: {why}", style="bold yellow", markup=False, highlight=False)


def show_changes(console: Console, changes: Sequence[Change]) -> None:
    """Two results, side by side."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("", "before", "now", "change", "noise", ""):
        table.add_column(column, justify="left" if not column else "right")
    for change in changes:
        unit = FIGURES[change.name][0]
        table.add_row(
            change.name,
            spelled(change.before, unit),
            spelled(change.now, unit),
            f"{change.share:+.1%}" if change.share is not None else "-",
            f"{change.noise:.1%}" if change.noise is not None else "unknown",
            change.verdict,
            style={"worse": "red", "better": "green"}.get(change.verdict),
        )
    console.print(table)


def spelled(value: float | None, unit: str) -> str:
    """A figure with its unit."""
    if value is None:
        return "-"
    match unit:
        case "s":
            return duration(value)
        case "share":
            return f"{value:.3%}"
        case "B":
            return f"{value / 1e6:.1f} MB"
        case _:
            return f"{value:,.2f}".rstrip("0").rstrip(".") + (f" {unit}" if unit else "")


def duration(seconds: float) -> str:
    """``"1.25 ms"``."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def amount(number: float) -> str:
    """``"12.3 k"``."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if number >= limit:
            return f"{number / (limit if unit != ' k' else 1e3):.1f}{unit}"
    return f"{number:.0f}"


def _figure(text: str, value: float) -> str:
    name = text.split()[0].rstrip("<>=0123456789%") if " " not in text else text.split()[0]
    return spelled(value, FIGURES[name][0] if name in FIGURES else "")


def _times(times: Mapping[str, float]) -> list[str]:
    names = ("p50", "p90", "p99", "p999", "max")
    return [duration(times[name]) for name in names] if times["count"] else ["-"] * len(names)


def rate(stretch: Mapping[str, Any], key: str) -> str:
    """So many a second; of a stretch that is too short to say, a dash."""
    return amount(stretch[key] / stretch["seconds"]) if stretch["seconds"] > 0.05 else "-"


def _trouble(stretch: Mapping[str, Any]) -> int:
    return int(stretch["failed"] + stretch["timed_out"] + stretch["lost"])
