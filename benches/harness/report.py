"""Figures of all benches in one form: tables in Markdown, and one page in HTML that loads nothing.

Each bench is a section. It prints its table and keeps its figures in `out/NAME.json`; `all.py` joins them.
"""

from __future__ import annotations

import json
import math
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from statistics import median

from benches.harness import processes
from benches.harness.processes import OUT, ROOT

STYLE = ROOT / "python/gameserver/swarm/page.css"
OWN_STYLE = """
.margins .must { stroke: var(--ink); stroke-width: 1.5 } .margins text { fill: var(--ink); font-size: 12px }
.margins line.reached, .margins line.missed { stroke-width: 3; opacity: .45 }
line.reached { stroke: var(--good) } line.missed { stroke: var(--bad) }
circle.reached { fill: var(--good) } circle.missed { fill: var(--bad) }
table.text th, table.text td { text-align: left; white-space: normal }
"""
LEAST, MOST = 0.1, 30.0  # margins that a plot has room for
LABELS, WIDTH, VALUES, ROW = 470, 430, 100, 20  # px


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure."""

    measure: str
    must: str
    """As it is asked for; ``stated``: nothing is."""
    measured: str
    reached: str
    """``aim``, ``must``, ``NO``, or why there is nothing to say."""
    margin: float | None = None
    """How far it is beyond what must be, 1 at that: 2 is twice as good, 0.5 half."""
    spread: tuple[float, float] | None = None
    """The same of the worst and the best round."""


@dataclass(frozen=True, slots=True)
class Section:
    """What one bench found."""

    name: str
    title: str
    figures: list[Figure]
    notes: list[str]

    def markdown(self) -> str:
        """A table, and what is to be said of it."""
        lines = ["| measure | must | measured | reached |", "|---|---|---|---|"]
        lines += [f"| {f.measure} | {f.must} | {f.measured} | {f.reached} |" for f in self.figures]
        return "\n".join([*lines, "", *self.notes] if self.notes else lines)


def asked(
    measure: str,
    values: Sequence[float],
    must: float,
    *,
    aim: float | None = None,
    more_is_better: bool = False,
    spelled: str = "",
    unit: str = "",
    detail: str = "",
) -> Figure:
    """A figure that must reach something: the median of its rounds.

    Args:
        spelled: what must be; by default the number.
        unit: behind it.
        detail: what it comes from, in words.
    """
    value = median(values)

    def margin(value: float) -> float:
        return value / must if more_is_better else must / value if value else MOST

    def holds(bound: float | None) -> bool:
        return bound is not None and (value >= bound if more_is_better else value <= bound)

    ends = sorted(map(margin, values)) if must else []
    spread = f"{spell(min(values))} to {spell(max(values))}" if len(values) > 1 else ""
    inside = "; ".join(filter(None, (spread, detail)))
    sign = "" if more_is_better else "<= "
    return Figure(
        measure,
        spelled or f"{sign}{spell(must)}{unit}",
        f"**{spell(value)}{unit}**" + (f" ({inside})" if inside else ""),
        "aim" if holds(aim) else "must" if holds(must) else "NO",
        margin(value) if must else None,
        (ends[0], ends[-1]) if must and len(ends) > 1 else None,
    )


def stated(measure: str, measured: str, must: str = "stated") -> Figure:
    """A figure that is told, and must reach nothing."""
    return Figure(measure, must, measured, "")


def spell(value: float) -> str:
    """Three digits of it."""
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}"


def publish(section: Section) -> None:
    """Prints it, and keeps it for `all.py`."""
    print(section.markdown(), flush=True)
    OUT.mkdir(exist_ok=True)
    (OUT / f"{section.name}.json").write_text(json.dumps(asdict(section), indent=1) + "\n")


def read(name: str) -> Section | None:
    """What a bench has kept, if it has."""
    path = OUT / f"{name}.json"
    if not path.exists():
        return None
    kept = json.loads(path.read_text())
    figures = [Figure(**figure) for figure in kept.pop("figures")]
    return Section(**kept, figures=figures)


def machine() -> str:
    """What it was measured on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cores = f"server on core {processes.SERVER_CORE}, load on core {processes.LOAD_CORE}"
    if processes.SERVER_CORE == processes.LOAD_CORE:
        cores = "server and load share the only core: these figures mean little"
    return (
        f"{model.group(1).strip() if model else platform.machine()}, {len(processes.CORES)} cores ({cores}); "
        f"Linux {platform.release().split('-')[0]}; CPython {platform.python_version()} ({Path(sys.executable).resolve().parent})"
    )


def markdown(sections: Sequence[Section], head: str) -> str:
    """All of them, one behind the other."""
    return "\n\n".join([head, *(f"## {section.title}\n\n{section.markdown()}" for section in sections)]) + "\n"


def html(sections: Sequence[Section], head: str) -> str:
    """All of them on one page."""
    body = "".join(
        f"<h2>{escape(section.title)}</h2>{_plot(section.figures)}{_table(section.figures)}"
        + "".join(f"<p>{escape(note)}</p>" for note in section.notes)
        for section in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>gameserver: benches</title><style>{STYLE.read_text()}{OWN_STYLE}</style></head><body><h1>gameserver: benches</h1>"
        f"<p>{escape(head)}</p><p>In the plots 1 is what must be reached, to the right of it is better: by so many times. "
        f"A line goes from the worst round to the best.</p>{body}</body></html>\n"
    )


def _x(margin: float) -> float:
    share = math.log(min(MOST, max(LEAST, margin)) / LEAST) / math.log(MOST / LEAST)
    return LABELS + share * WIDTH


def _plot(figures: Sequence[Figure]) -> str:
    shown = [figure for figure in figures if figure.margin is not None]
    if not shown:
        return ""
    height = ROW * len(shown) + 30
    parts = []
    for tick in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0):
        style = "must" if tick == 1.0 else "grid"
        parts.append(f'<line class="{style}" x1="{_x(tick):.1f}" x2="{_x(tick):.1f}" y1="4" y2="{height - 22}"/>')
        parts.append(f'<text x="{_x(tick):.1f}" y="{height - 6}" text-anchor="middle">{tick:g}</text>')
    for number, figure in enumerate(shown):
        assert figure.margin is not None
        y = ROW * number + 16
        style = "missed" if figure.reached == "NO" else "reached"
        label = figure.measure if len(figure.measure) <= 74 else figure.measure[:72] + "..."
        parts.append(f'<text x="{LABELS - 12}" y="{y + 4}" text-anchor="end">{escape(label)}</text>')
        if figure.spread is not None:
            low, high = map(_x, figure.spread)
            parts.append(f'<line class="{style}" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="{style}" cx="{_x(figure.margin):.1f}" cy="{y}" r="4"/>')
        parts.append(f'<text x="{LABELS + WIDTH + 14}" y="{y + 4}">{figure.margin:.2f}</text>')
    return (
        f'<div class="wide"><svg class="margins" viewBox="0 0 {LABELS + WIDTH + VALUES} {height}" role="img" '
        f'aria-label="How far beyond what must be each measure is">{"".join(parts)}</svg></div>'
    )


def _table(figures: Sequence[Figure]) -> str:
    rows = ""
    for figure in figures:
        measured = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(figure.measured))
        style = {"NO": ' class="bad"', "aim": ' class="good"', "must": ' class="good"'}.get(figure.reached, "")
        rows += (
            f"<tr><td>{escape(figure.measure)}</td><td>{escape(figure.must)}</td><td>{measured}</td>"
            f"<td{style}>{escape(figure.reached)}</td></tr>"
        )
    heads = "".join(f"<th>{text}</th>" for text in ("measure", "must", "measured", "reached"))
    return f'<div class="wide"><table class="text"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
