"""The server's clock as it is seen from here, and how far behind it one draws. Sans-I/O: times are arguments, in s."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

__all__ = ["Timeline", "Timing"]

DELAY_MAX = 0.5  # s; nothing is drawn further behind the server: what is later than that, no buffer helps against
DELAY_MARGIN = 0.004  # s beyond what jitter asks for: timers and frames are not exact either
LATENESS_SAMPLES = 128  # snapshots whose lateness is looked at
IN_TIME = 0.97  # of them come in time
OFFSET_SECONDS = 10  # the least delay of a path is that of so many: clocks drift, and routes change
SLEW = 0.1  # the drawn time goes at most so much faster or slower than time while it corrects itself
SLEW_MAX = 0.5  # s; further off, it jumps


@dataclass(frozen=True, slots=True)
class Timing:
    """How snapshots come."""

    delay: float
    """s of what is drawn behind the server."""
    jitter: float
    """s by which nearly all snapshots are late at most."""
    buffer: float
    """s of what is there to be drawn still; 0: nothing was drawn yet."""
    late: int
    """Snapshots that came when they should have been drawn."""


class Timeline:
    """So far behind the server that the snapshot after the time that is drawn is nearly always there: as the browser's
    client does it, after Valve's entity interpolation and the adaptive playout of audio over networks.

    Args:
        tick: s from one tick to the next.
    """

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._offsets: deque[tuple[int, float]] = deque()
        """The least of (arrival - tick) in each of the last seconds."""
        self._offset = math.inf
        self._lateness: deque[float] = deque(maxlen=LATENESS_SAMPLES)
        self._newest = 0
        self._drawn: tuple[float, float] | None = None
        """What is drawn: a tick, and when."""
        self._late = 0
        self._delay: float | None = None
        """None: it has to be computed anew; who draws nothing is spared that."""

    def arrived(self, tick: int, now: float) -> None:
        """A snapshot is here."""
        offset, second = now - tick * self._tick, math.floor(now)
        if self._offsets and self._offsets[-1][0] == second:
            self._offsets[-1] = second, min(self._offsets[-1][1], offset)
        else:
            self._offsets.append((second, offset))
        while self._offsets[0][0] <= second - OFFSET_SECONDS:
            self._offsets.popleft()
        self._offset = min(least for _, least in self._offsets)
        if self._drawn is not None and self._at(now) > tick:
            self._late += 1
        self._newest = tick
        if offset - self._offset < DELAY_MAX:
            self._lateness.append(offset - self._offset)
            self._delay = None

    def server_tick(self, now: float) -> float:
        """The tick that the server is at, with a fraction; 0: there was no snapshot yet."""
        return (now - self._offset) / self._tick if self._offsets else 0.0

    def draw(self, now: float) -> float:
        """The tick to draw, with a fraction. Never goes back but when it jumps."""
        if not self._offsets:
            return 0.0
        tick = self._at(now)
        self._drawn = tick, now
        return tick

    @property
    def timing(self) -> Timing:
        """How snapshots come."""
        shown = (self._newest - self._drawn[0]) * self._tick if self._drawn is not None else 0.0
        return Timing(self._delay_now(), self._jitter(), shown, self._late)

    def _at(self, now: float) -> float:
        target = self.server_tick(now) - self._delay_now() / self._tick
        if self._drawn is None:
            return target
        tick, then = self._drawn
        passed = max(0.0, now - then) / self._tick
        error = target - (tick + passed)
        if abs(error) * self._tick > SLEW_MAX:
            return target
        return tick + passed + min(max(error, -SLEW * passed), SLEW * passed)

    def _delay_now(self) -> float:
        if self._delay is None:
            self._delay = min(DELAY_MAX, self._tick + self._jitter() + DELAY_MARGIN)
        return self._delay

    def _jitter(self) -> float:
        if not self._lateness:
            return 0.0
        ordered = sorted(self._lateness)
        return ordered[min(len(ordered) - 1, math.floor(len(ordered) * IN_TIME))]
