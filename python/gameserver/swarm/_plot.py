"""Line charts as SVG, without any script: what a report in one file needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

__all__ = ["Band", "Line", "plot"]

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 34
TICKS = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One series: its name and its points; None is a gap."""

    name: str
    points: Sequence[tuple[float, float | None]]


class Band(NamedTuple):
    """A stretch of the lower axis with a name."""

    start: float
    end: float
    name: str


def plot(
    title: str,
    lines: Sequence[Line],
    *,
    unit: Callable[[float], str],
    x_label: str = "s",
    x_ticks: Sequence[tuple[float, str]] | None = None,
    logarithmic: bool = False,
    bands: Sequence[Band] = (),
) -> str:
    """A figure with its caption and legend; empty if there is nothing to draw.

    Args:
        unit: how a value is written at the axis.
        x_ticks: where the lower axis is marked, and with what; None: evenly.
        logarithmic: the left axis is.
        bands: phases; the lower axis has all of them.
    """
    values = [
        value for line in lines for _, value in line.points if value is not None and (value > 0 or not logarithmic)
    ]
    xs = [x for line in lines for x, _ in line.points] + [x for band in bands for x in band[:2]]
    if not values or not xs:
        return ""
    low_x, high_x = min(xs), max(max(xs), min(xs) + 1e-9)
    ticks = _log_ticks(min(values), max(values)) if logarithmic else _even_ticks(max(values))
    low_y, high_y = ticks[0], ticks[-1]

    def x_of(x: float) -> float:
        return LEFT + (x - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)

    def y_of(y: float) -> float:
        share = math.log(y / low_y) / math.log(high_y / low_y) if logarithmic else (y - low_y) / (high_y - low_y)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = []
    for place, (start, end, name) in enumerate(bands):
        left, width = x_of(start), x_of(end) - x_of(start)
        parts.append(
            f'<rect class="band{place % 2}" x="{left:.1f}" y="{TOP}" width="{width:.1f}" height="{HEIGHT - TOP - BOTTOM}"/>'
        )
        if width > 6 * len(name):
            parts.append(f'<text x="{left + 4:.1f}" y="{TOP + 11}">{escape(name)}</text>')
    for tick in ticks:
        y = y_of(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(unit(tick))}</text>')
    marks = x_ticks if x_ticks is not None else _x_ticks(low_x, high_x)
    for x, text in marks:
        parts.append(
            f'<text class="axis" x="{x_of(x):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{escape(text)}</text>'
        )
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>')
    for number, line in enumerate(lines):
        parts.append(f'<path class="line l{number}" d="{_path(line, x_of, y_of, low_y if logarithmic else None)}"/>')
    legend = "".join(f'<span class="l{number}">{escape(line.name)}</span>' for number, line in enumerate(lines))
    return (
        f'<figure><figcaption>{escape(title)}<span class="legend">{legend}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )


def _path(line: Line, x_of: Callable[[float], float], y_of: Callable[[float], float], least: float | None) -> str:
    steps, is_open = [], False
    for x, value in line.points:
        if value is None or (least is not None and value <= 0):
            is_open = False
            continue
        value = value if least is None else max(value, least)
        steps.append(f"{'L' if is_open else 'M'}{x_of(x):.1f} {y_of(value):.1f}")
        if not is_open:
            steps.append(f"L{x_of(x):.1f} {y_of(value):.1f}")  # a point alone is seen, too
        is_open = True
    return "".join(steps)


def _even_ticks(high: float) -> list[float]:
    step = _nice(high / TICKS) if high > 0 else 1.0
    return [number * step for number in range(max(2, math.ceil(high / step - 1e-9) + 1))]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high) - 1e-9)
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _x_ticks(low: float, high: float) -> list[tuple[float, str]]:
    step = max(1.0, _nice((high - low) / 6))
    first = math.ceil(low / step) * step
    return [(x, f"{x:.0f}") for x in (first + number * step for number in range(int((high - first) / step + 1e-9) + 1))]


def _nice(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step - 1e-12)
