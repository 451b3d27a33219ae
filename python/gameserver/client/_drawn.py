"""What is drawn of the world: entities between two snapshots. Sans-I/O: ticks are arguments."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gameserver.client._world import RemoteEntity

__all__ = ["Drawing", "DrawnEntity"]

FRAMES_MAX = 64  # of one entity, if nobody draws them
REST_TICKS = 3  # an entity that was told nothing of for more than so many ticks stood still until the last one
# Those of 64 bits are ids and hashes.
NUMBERS = frozenset({"f32", "f64", "i8", "i16", "i32", "u8", "u16", "u32", "vector"})

Value = float | tuple[float, ...]


class DrawnEntity:
    """An entity as it is to be drawn now: its `id`, and its columns as attributes. `RemoteWorld.sample` gives it, and changes it
    with its next call."""

    id: int

    def __init__(self, id: int) -> None:
        self.id = id

    def __getattr__(self, name: str) -> Any:
        known = ", ".join(vars(self))
        raise AttributeError(f"this entity has no column {name!r} that clients are told; it has {known}")

    def __repr__(self) -> str:
        return f"<drawn {' '.join(f'{name}={value!r}' for name, value in vars(self).items())}>"


@dataclass(frozen=True, slots=True)
class _Plan:
    """Of a table."""

    between: tuple[str, ...]
    """Columns that lie between two snapshots."""
    newest: tuple[str, ...]
    """The others, as of the newest snapshot."""
    every: int
    """Ticks between two values of the slowest column that is drawn between snapshots."""


class _Track:
    """One entity on its way."""

    __slots__ = ("_frames", "_is_at_rest", "drawn", "entity", "since", "until")

    def __init__(self, entity: RemoteEntity, since: int) -> None:
        self.entity, self.since = entity, since
        self.until = 0
        self.drawn = DrawnEntity(entity.id)
        self._frames: deque[tuple[int, list[Value]]] = deque(maxlen=FRAMES_MAX)
        """At which tick it was where, oldest first; at least the last one before the time that is drawn."""
        self._is_at_rest = False

    def keep(self, tick: int, plan: _Plan) -> None:
        """A snapshot told of it."""
        shown = vars(self.drawn)
        for name in plan.newest:
            shown[name] = getattr(self.entity, name)
        values: list[Value] = [_number(getattr(self.entity, name)) for name in plan.between]
        frames = self._frames
        if frames and frames[-1][0] == tick:
            frames.pop()
        elif frames and tick - frames[-1][0] > REST_TICKS * plan.every:
            frames.append((tick - plan.every, frames[-1][1]))
        frames.append((tick, values))
        self._is_at_rest = False

    def draw(self, tick: float, plan: _Plan) -> DrawnEntity:
        """As it is at a tick."""
        if self._is_at_rest:
            return self.drawn
        time, frames, shown = tick - (plan.every - 1), self._frames, vars(self.drawn)
        while len(frames) > 1 and frames[1][0] <= time:
            frames.popleft()
        begin, before = frames[0]
        end, after = frames[1] if len(frames) > 1 else frames[0]
        part = max(0.0, (time - begin) / (end - begin)) if end != begin else 0.0
        for name, value, next_value in zip(plan.between, before, after, strict=True):
            shown[name] = _between(value, next_value, part)
        self._is_at_rest = end == begin and begin <= time
        return self.drawn


class Drawing:
    """What is drawn, by table. It learns what there is from `keep` and `leave`."""

    def __init__(self, tables: Sequence[Mapping[str, Any]]) -> None:
        self._plans = {table["name"]: _plan(table["columns"]) for table in tables}
        self._tracks: dict[str, dict[int, _Track]] = {name: {} for name in self._plans}
        self._leaving: list[tuple[str, _Track]] = []

    def keep(self, tick: int, table: str, entity: RemoteEntity, since: int | None = None) -> None:
        """The snapshot of a tick told of an entity; one that is new is drawn since then, or since another tick."""
        tracks = self._tracks[table]
        track = tracks.get(entity.id)
        if track is None:
            track = tracks[entity.id] = _Track(entity, tick if since is None else since)
        track.keep(tick, self._plans[table])

    def leave(self, tick: int, table: str, id: int) -> None:
        """It is in view no more: drawn until that tick."""
        track = self._tracks[table].pop(id, None)
        if track is not None:
            track.until = tick
            self._leaving.append((table, track))

    def draw(self, tick: float) -> dict[str, list[DrawnEntity]]:
        """All that is there at a tick."""
        drawn: dict[str, list[DrawnEntity]] = {}
        for table, tracks in self._tracks.items():
            plan = self._plans[table]
            drawn[table] = [track.draw(tick, plan) for track in tracks.values() if track.since <= tick]
        self._leaving = [(table, track) for table, track in self._leaving if track.until > tick]
        for table, track in self._leaving:
            if track.since <= tick:
                drawn[table].append(track.draw(tick, self._plans[table]))
        return drawn


def _plan(columns: Sequence[Mapping[str, Any]]) -> _Plan:
    between = [column for column in columns if _is_between(column)]
    names = tuple(column["name"] for column in between)
    newest = tuple(column["name"] for column in columns if column["name"] not in names)
    return _Plan(names, newest, max(map(_every, between), default=1))


def _is_between(column: Mapping[str, Any]) -> bool:
    return column.get("interpolate") is True and column["type"] in NUMBERS and column.get("to") != "owner"


def _every(column: Mapping[str, Any]) -> int:
    every = column.get("every")
    return every if isinstance(every, int) and every > 0 else 1  # as the core reads it


def _number(value: Any) -> Value:
    """Of a column that this client is not told, nothing is known: 0."""
    return 0.0 if value is None else value


def _between(value: Value, next_value: Value, part: float) -> Value:
    if isinstance(value, tuple) and isinstance(next_value, tuple):
        return tuple(a + (b - a) * part for a, b in zip(value, next_value, strict=True))
    if isinstance(value, tuple) or isinstance(next_value, tuple):
        return next_value  # it was not told before, or is not any more
    return value + (next_value - value) * part
