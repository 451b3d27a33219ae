"""A result as one HTML file, with nothing to load: for a pull request, or to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from gameserver.swarm._compare import Change
from gameserver.swarm._plot import Band, Line, plot
from gameserver.swarm._show import amount, duration, spelled
from gameserver.swarm._thresholds import FIGURES

__all__ = ["page"]

PUSHES = 6  # routes that have a row
STYLE = Path(__file__).with_name("page.css")


def page(result: Mapping[str, Any], changes: Sequence[Change] = ()) -> str:
    """The report.

    Args:
        changes: against an earlier result.
    """
    total, server, scenario = result["total"], result["server"], result["scenario"]
    where = result["url"] or "started for this run"
    networks = _networks(scenario["networks"])
    parts = [
        f"<h1>{escape(result['name'])}</h1>",
        f"<p>{scenario['clients']} clients, {escape(scenario['pace'])} each, {escape(scenario['serializer'])}; {escape(where)}; "
        f"{escape(result['when'])}; {escape(result['machine'])}; gameserver {escape(result['version'])}</p>",
        *(f'<div class="note"><b>This run is invalid.</b> {escape(why)}</div>' for why in result["invalid"]),
        *([f"<p>Networks of the clients: {escape(networks)}.</p>"] if networks else []),
        _cards(result),
    ]
    if result["thresholds"]:
        parts.append("<h2>Thresholds</h2>" + _thresholds(result))
    if changes:
        parts.append("<h2>Against the earlier run</h2>" + _changes(changes))
    parts.append(f'<h2>Over time</h2><div class="plots">{"".join(_plots(result))}</div>')
    parts.append("<h2>Messages</h2>" + _actions(total, result["bots"]))
    if total["pushes"]:
        parts.append("<h2>Pushes</h2>" + _pushes(total))
    if troubles := _troubles(result):
        parts.append("<h2>Errors and ends</h2>" + _table(["what", "how many"], troubles))
    parts.append(
        "<p>Latency counts from the time at which a message was to be sent. What the swarm itself was late by: p99 "
        f"{duration(total['lateness']['p99'])}. It used {result['swarm_cpu']:.2f} cores and "
        f"{result['swarm_memory'] / 1e6:.0f} MB.</p>"
    )
    if server is not None:
        parts.append(
            f"<p>The server collected garbage {server['gc_share']:.2%} of the time; it had {server['errors']} errors in handlers, "
            f"and {server['limited']} messages over a limit.</p>"
        )
    title = escape(f"swarm: {result['name']}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE.read_text()}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _networks(networks: Sequence[Mapping[str, Any]]) -> str:
    """What lies between clients and the server, and how many have it."""
    sum_of_shares = sum(network["share"] for network in networks)
    told = []
    for network in networks:
        parts = [f"{name} {duration(network[name])}" for name in ("delay", "jitter") if network[name]]
        parts += [f"{network['loss']:.2%} lost"] if network["loss"] else []
        parts += [f"{network['bytes_per_second'] / 1e3:,.0f} kB/s"] if network["bytes_per_second"] else []
        told.append(f"{network['share'] / sum_of_shares:.0%} {', '.join(parts) or 'the real one'}")
    return "; ".join(told)


def _cards(result: Mapping[str, Any]) -> str:
    total, server = result["total"], result["server"]
    latency = total["latency"]
    cards = []
    if latency["count"]:
        cards += [
            (duration(latency[name]), f"latency {text}")
            for name, text in (("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"))
        ]
    cards += [
        (amount(total["answered_per_second"]), "answers a second"),
        (f"{total['error_share']:.2%}", "errors, timeouts, lost"),
        (f"{total['kb_in_per_client_second']:.2f} kB/s", "to each client"),
    ]
    if total["snapshots"]:
        cards.append((duration(total["snapshot_gaps"]["p99"]), "between snapshots, p99"))
    if total["snapshot_ages"]["count"]:
        cards.append((duration(total["snapshot_ages"]["p99"]), "age of snapshots, p99"))
    if total["resumed"]:
        cards.append((duration(total["resuming"]["p99"]), f"until back, p99 of {amount(total['resumed'])} cuts"))
    if server is not None:
        cards += [
            (duration(server["tick_lateness_p99"]), "ticks late by, p99"),
            (str(server["tick_skipped"]), "ticks skipped"),
            (f"{server['cpu']:.2f}", "server, cores"),
            (f"{server['memory_max'] / 1e6:.0f} MB", "server, memory"),
        ]
    return (
        '<div class="cards">'
        + "".join(f"<div><b>{escape(a)}</b><span>{escape(b)}</span></div>" for a, b in cards)
        + "</div>"
    )


def _plots(result: Mapping[str, Any]) -> list[str]:
    series, total, server = result["series"], result["total"], result["server"]
    bands, began = [], 0.0
    for phase in result["scenario"]["phases"]:
        bands.append(Band(began, began + phase["seconds"], phase["name"]))
        began += phase["seconds"]

    def times(name: str, part: str) -> Line:
        text = {"p50": "p50", "p99": "p99", "p999": "p99.9"}[part]
        return Line(text, [(s["at"], s[name][part] if s[name]["count"] else None) for s in series])

    def line(text: str, key: str, per_client: bool = False) -> Line:
        whole = [s for s in series if s["seconds"] > 0.05]
        if per_client:
            return Line(
                text, [(s["at"], s[key] / s["clients"] / s["seconds"] / 1e3 if s["clients"] else None) for s in whole]
            )
        return Line(text, [(s["at"], s[key] / s["seconds"]) for s in whole])

    found = [
        plot(
            "Latency",
            [times("latency", p) for p in ("p50", "p99", "p999")],
            unit=duration,
            logarithmic=True,
            bands=bands,
        ),
        _curve(total),
        plot("Messages a second", [line("sent", "sent"), line("answered", "answered")], unit=amount, bands=bands),
        plot("Clients", [Line("in", [(s["at"], s["clients"]) for s in series])], unit=amount, bands=bands),
        plot(
            "Between snapshots of one client",
            [times("snapshot_gaps", p) for p in ("p50", "p99", "p999")],
            unit=duration,
            bands=bands,
        ),
        plot(
            "Age of snapshots when they come",
            [times("snapshot_ages", p) for p in ("p50", "p99", "p999")],
            unit=duration,
            bands=bands,
        ),
        plot(
            "kB/s of a client",
            [line("in", "bytes_in", True), line("out", "bytes_out", True)],
            unit=lambda v: f"{v:g}",
            bands=bands,
        ),
        plot(
            "Errors a second",
            [line("errors", "failed"), line("timed out", "timed_out"), line("lost", "lost")],
            unit=amount,
            bands=bands,
        )
        if any(s["failed"] or s["timed_out"] or s["lost"] for s in series)
        else "",
    ]
    if server is not None and server["series"]:
        own = server["series"]
        found += [
            plot(
                "Server: ticks late by, longest garbage collection",
                [
                    Line("tick p99", [(s["at"], s["tick_lateness_p99"]) for s in own]),
                    Line("garbage collection", [(s["at"], s["gc_longest"]) for s in own]),
                ],
                unit=duration,
                bands=bands,
            ),
            plot(
                "Server: ticks skipped",
                [Line("a second", [(s["at"], s["tick_skipped"]) for s in own])],
                unit=amount,
                bands=bands,
            )
            if any(s["tick_skipped"] for s in own)
            else "",
        ]
    cpu = [Line("swarm", [(s["at"], s["cpu"] / s["seconds"]) for s in series if s["seconds"] > 0.05])]
    memory = [Line("swarm", [(s["at"], s["memory"] / 1e6) for s in series])]
    if server is not None and server["series"]:
        cpu.insert(0, Line("server", [(s["at"], s["cpu"]) for s in server["series"]]))
        memory.insert(0, Line("server", [(s["at"], s["memory"] / 1e6) for s in server["series"]]))
    found.append(plot("CPU, cores", cpu, unit=lambda value: f"{value:g}", bands=bands))
    found.append(plot("Memory, MB", memory, unit=lambda value: f"{value:.0f}", bands=bands))
    return found


def _curve(total: Mapping[str, Any]) -> str:
    """The whole distribution: each step to the right is ten times rarer."""
    import math

    def x_of(share: float) -> float:
        return -math.log10(max(1.0 - share, 1e-6))

    lines = [
        Line(name, [(x_of(share), value) for share, value in total[key] if share < 1.0 - 1e-6])
        for name, key in (("latency", "curve"), ("the swarm's own lateness", "lateness_curve"))
        if total[key]
    ]
    ticks = [(0.0, "0"), (1.0, "90%"), (2.0, "99%"), (3.0, "99.9%"), (4.0, "99.99%"), (5.0, "99.999%")]
    highest = max((x for line in lines for x, _ in line.points), default=0.0)
    marks = [tick for tick in ticks if tick[0] <= highest]
    return plot(
        "Latency by share of requests", lines, unit=duration, x_label="percentile", x_ticks=marks, logarithmic=True
    )


def _actions(total: Mapping[str, Any], bots: Mapping[str, Any] | None) -> str:
    rows = []
    for action in total["actions"]:
        errors = sum(action["errors"].values())
        times = action["latency"]
        cells = [duration(times[name]) if times["count"] else "-" for name in ("p50", "p99", "p999", "max")]
        mean = action["bytes"] / action["sent"] if action["sent"] else 0
        verb = "ask" if action["is_request"] else "tell"
        each = _kb(action["bytes"], total)
        rows.append([f"{verb} {action['route']}", amount(action["sent"]), f"{mean:.0f} B", each, *cells, str(errors)])
    rows.append(_times_row("let in", total["opened"], total["connecting"]))
    if total["joining"]["count"]:
        rows.append(_times_row("seated in a room", total["joining"]["count"], total["joining"]))
    if total["resuming"]["count"]:
        rows.append(_times_row("gone on after a cut", total["resumed"], total["resuming"]))
    if total["snapshots"]:
        rows.append(_times_row("between snapshots", total["snapshots"], total["snapshot_gaps"]))
    if total["snapshot_ages"]["count"]:
        rows.append(_times_row("age of snapshots", total["snapshot_ages"]["count"], total["snapshot_ages"]))
    if bots is not None:
        rows.append(_bots_row(bots))
    return _table(["", "count", "body", "kB/s a client", "p50", "p99", "p99.9", "max", "errors"], rows)


def _bots_row(bots: Mapping[str, Any]) -> list[str]:
    """What functions of Python asked, beside the clients."""
    name = f"{bots['count']} bots of Python"
    return [*_times_row(name, bots["answered"], bots["latency"])[:-1], str(sum(bots["errors"].values()))]


def _times_row(name: str, count: int, times: Mapping[str, float]) -> list[str]:
    return [
        name,
        amount(count),
        "",
        "",
        *(duration(times[key]) if times["count"] else "-" for key in ("p50", "p99", "p999", "max")),
        "",
    ]


def _pushes(total: Mapping[str, Any]) -> str:
    ordered = sorted(total["pushes"].items(), key=lambda item: -item[1][1])
    rows = [
        [route, amount(count), f"{size / count:.0f} B", _kb(size, total), f"{size / 1e6:.2f} MB"]
        for route, (count, size) in ordered[:PUSHES]
    ]
    return _table(["route", "count", "each", "kB/s a client", "in all"], rows)


def _kb(size: float, total: Mapping[str, Any]) -> str:
    """Of bodies, for each client and second."""
    return f"{size / total['client_seconds'] / 1e3:.3f}"


def _troubles(result: Mapping[str, Any]) -> list[list[str]]:
    total = result["total"]
    found = [
        [f"answer {code}", str(count)] for code, count in sorted(total["errors"].items(), key=lambda item: -item[1])
    ]
    found += [[f"ended: {why}", str(count)] for why, count in sorted(total["ended"].items(), key=lambda item: -item[1])]
    names = (
        ("renewed", "sessions that could not go on, and began anew"),
        ("timed_out", "requests without an answer in time"),
        ("lost", "requests whose connection ended"),
    )
    return found + [[text, str(total[name])] for name, text in names if total[name]]


def _thresholds(result: Mapping[str, Any]) -> str:
    rows = []
    for threshold in result["thresholds"]:
        name = next(name for name in sorted(FIGURES, key=len, reverse=True) if threshold["text"].startswith(name))
        mark = ("holds", "good") if threshold["holds"] else ("fails", "bad")
        value = "not measured" if threshold["value"] is None else spelled(threshold["value"], FIGURES[name][0])
        rows.append([threshold["text"], value, mark])
    return _table(["must", "is", ""], rows)


def _changes(changes: Sequence[Change]) -> str:
    rows: list[list[str | tuple[str, str]]] = []
    for change in changes:
        unit = FIGURES[change.name][0]
        share = f"{change.share:+.1%}" if change.share is not None else "-"
        noise = f"{change.noise:.1%}" if change.noise is not None else "-"
        verdict = (change.verdict, {"worse": "bad", "better": "good"}.get(change.verdict, ""))
        rows.append([change.name, spelled(change.before, unit), spelled(change.now, unit), share, noise, verdict])
    return _table(["", "before", "now", "change", "noise", ""], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str | tuple[str, str]]]) -> str:
    def cell(content: str | tuple[str, str]) -> str:
        text, style = content if isinstance(content, tuple) else (content, "")
        return f'<td class="{style}">{escape(text)}</td>' if style else f"<td>{escape(text)}</td>"

    heads = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
