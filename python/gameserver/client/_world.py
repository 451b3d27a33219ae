"""The replicated world, as one client sees it."""

from __future__ import annotations

import builtins
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from gameserver import _core
from gameserver._entity import Entity, table_of
from gameserver.client._drawn import Drawing, DrawnEntity
from gameserver.client._timeline import Timeline, Timing
from gameserver.errors import ProtocolError, SchemaError

__all__ = ["Entities", "RemoteEntity", "RemoteWorld", "Sample"]

E = TypeVar("E")
F = TypeVar("F", bound=Callable[[Any], object])
Listener = Callable[[Any], object]
Calls = list[tuple[Listener, "RemoteEntity"]]
TICK_RATE, TICK_RATE_MAX = 30.0, 1e6  # of a server that does not say, or nonsense


class RemoteEntity:
    """An entity of the server, as of the newest snapshot: its columns are attributes. None: this client is not told.

    A reference is the other's id. It keeps its identity while it is in view or one's own.
    """

    __slots__ = ("_table", "_world", "id")

    def __init__(self, world: RemoteWorld, table: str, id: int) -> None:
        self._world, self._table, self.id = world, table, id

    def __getattr__(self, name: str) -> Any:
        try:
            value = self._world._replica.value(self._table, self.id, name)
        except KeyError:
            raise AttributeError(f"{self._table} has no column {name!r} that clients are told") from None
        enum = self._world._enums.get((self._table, name))
        return enum(value) if enum is not None and value is not None else value

    @property
    def is_in_view(self) -> bool:
        """Whether the newest snapshot has it."""
        return self._world.entities[self._table].get(self.id) is self

    def __repr__(self) -> str:
        return f"<{self._table} {self.id}>"


class Entities(Generic[E]):
    """Tables by class or name: `world.entities[Player]` is a mapping of ids."""

    def __init__(self, tables: dict[str, dict[int, RemoteEntity]]) -> None:
        self._tables = tables

    @overload
    def __getitem__(self, table: type[Entity]) -> Mapping[int, Any]: ...
    @overload
    def __getitem__(self, table: str) -> Mapping[int, Any]: ...
    def __getitem__(self, table: type[Entity] | str) -> Mapping[int, Any]:
        return self._tables.setdefault(name_of(table), {})

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)


class Sample(Mapping[Any, Sequence[Any]]):
    """What is to be drawn, by class or name: `sample[Ship]` is a list of `DrawnEntity`. It iterates over names."""

    def __init__(self, drawn: dict[str, list[DrawnEntity]]) -> None:
        self._drawn = drawn

    def __getitem__(self, table: type[Entity] | str) -> Sequence[Any]:
        return self._drawn.get(name_of(table), [])

    def __iter__(self) -> Iterator[str]:
        return iter(self._drawn)

    def __len__(self) -> int:
        return len(self._drawn)


class RemoteWorld:
    """What this client sees of the server's world.

    Args:
        tell: gets calls that are to be made beside those that snapshots bring.

    Attributes:
        entities: by class or name, then by id: what is in view, as of the newest snapshot.
        tick: of that; 0: there was none yet.
        tick_rate: ticks per second.
        cell: a grid cell's edge.
    """

    def __init__(self, tell: Callable[[Calls], object] = lambda calls: None) -> None:
        self._tell = tell
        self._tables: dict[str, dict[int, RemoteEntity]] = {}
        self._own: dict[tuple[str, int], RemoteEntity] = {}
        self._replica = _core.WorldReplica("[]")
        self._listeners: dict[tuple[str, str], list[Listener]] = {}
        self._enums: dict[tuple[str, str], Callable[[Any], Any]] = {}
        self._anew: _core.WorldReplica | None = None
        """Of a connection that has brought no snapshot yet: until then we know what we knew."""
        self._shapes: Sequence[Mapping[str, Any]] = ()
        self._timeline = Timeline(1 / TICK_RATE)
        self._drawing: Drawing | None = None
        """None: nobody has asked for a sample yet."""
        self._bytes_before: dict[str, int] = {}
        """Of connections before this one."""
        self.entities: Entities[Any] = Entities(self._tables)
        self.tick = 0
        self.tick_rate = TICK_RATE
        self.cell = 0.0

    def mine(self, table: type[Entity] | str) -> Any:
        """The newest entity of this class that this session owns, in view or not; None: none."""
        name = name_of(table)
        own = [entity for (of, _), entity in self._own.items() if of == name]
        return own[-1] if own else None

    @overload
    def on_add(self, table: type[Entity] | str) -> Callable[[F], F]: ...
    @overload
    def on_add(self, table: type[Entity] | str, listener: F) -> F: ...
    def on_add(self, table: type[Entity] | str, listener: F | None = None) -> F | Callable[[F], F]:
        """Calls a function for each entity that comes into view, once the whole snapshot is applied, and for those that are in
        view already. A decorator without one.

        >>> world = RemoteWorld()
        >>> @world.on_add("Player")
        ... def hello(player):
        ...     print(player.name)
        """

        def add(function: F) -> F:
            self._listen("add", table, function)
            self._tell([(function, entity) for entity in self._tables.get(name_of(table), {}).values()])
            return function

        return add if listener is None else add(listener)

    @overload
    def on_change(self, table: type[Entity] | str) -> Callable[[F], F]: ...
    @overload
    def on_change(self, table: type[Entity] | str, listener: F) -> F: ...
    def on_change(self, table: type[Entity] | str, listener: F | None = None) -> F | Callable[[F], F]:
        """Calls a function for each entity that a snapshot told something new of. A decorator without one."""
        return self._listen("change", table, listener)

    @overload
    def on_remove(self, table: type[Entity] | str) -> Callable[[F], F]: ...
    @overload
    def on_remove(self, table: type[Entity] | str, listener: F) -> F: ...
    def on_remove(self, table: type[Entity] | str, listener: F | None = None) -> F | Callable[[F], F]:
        """Calls a function for each entity that goes out of view, or is no more; `sample` has it until the time that is drawn gets
        there. A decorator without one.
        """
        return self._listen("remove", table, listener)

    def sample(self, now: float | None = None) -> Sample:
        """What is to be drawn now. Columns that the server declares with `interpolate` lie between two snapshots, the others are
        as of the newest; an entity is there from its first tick to its last. How far behind the server that is follows from the
        jitter of the connection: `timing` tells. The next call changes the entities that this one gave.

        Args:
            now: s, of `time.monotonic()`, which is the time of asyncio's loops, too; None: now.

        >>> RemoteWorld().sample()["Ship"]
        []
        """
        now = time.monotonic() if now is None else now
        if self._drawing is None:
            self._drawing = Drawing(self._shapes)
            for shape in self._shapes:
                for entity in self._tables[shape["name"]].values():
                    self._drawing.keep(self.tick, shape["name"], entity, since=0)
        return Sample(self._drawing.draw(self._timeline.draw(now)))

    def server_tick(self, now: float | None = None) -> float:
        """The tick that the server is at, as far as one can tell from here: when it happens there, its snapshot is on its way.
        With a fraction; 0: there was no snapshot yet.

        Args:
            now: as of `sample`.
        """
        return self._timeline.server_tick(time.monotonic() if now is None else now)

    @property
    def timing(self) -> Timing:
        """How snapshots come, and how far behind the server `sample` is."""
        return self._timeline.timing

    @property
    def bytes(self) -> Mapping[str, int]:
        """Bytes of all snapshots so far, by table; "" has what belongs to none."""
        now = dict(self._replica.bytes())
        return {table: self._bytes_before.get(table, 0) + now.get(table, 0) for table in {**self._bytes_before, **now}}

    def _listen(self, event: str, table: type[Entity] | str, listener: F | None) -> F | Callable[[F], F]:
        if isinstance(table, type):
            for column in table_of(table).columns:
                if column.kind == "enum" and column.of is not None:
                    self._enums[table.__name__, column.name] = column.of

        def add(function: F) -> F:
            self._listeners.setdefault((event, name_of(table)), []).append(function)
            return function

        return add if listener is None else add(listener)

    # -- for the client ------------------------------------------------------------------------------------------------

    def _begin(self, shape: Any, goes_on: bool) -> Calls:
        """A connection is there, whose schema says this of the world.

        Raises:
            ProtocolError: it is no such shape.
        """
        shape = shape if isinstance(shape, dict) else {"tables": []}
        try:
            self._anew = _core.WorldReplica(json.dumps(shape.get("tables")))
        except SchemaError as error:
            raise ProtocolError(f"a world that is none: {error}") from None
        rate, cell = shape.get("tick_rate"), shape.get("cell")
        rate = float(rate) if isinstance(rate, int | float) and 0 < rate <= TICK_RATE_MAX else TICK_RATE
        self.cell = float(cell) if isinstance(cell, int | float) else 0.0
        tables = shape.get("tables") or ()
        if not goes_on or (rate, tables) != (self.tick_rate, self._shapes):
            self.tick_rate, self._shapes = rate, tables
            self._timeline, self._drawing = Timeline(1 / rate), None
        for table in shape.get("tables") or []:
            self._tables.setdefault(table["name"], {})
        if goes_on:
            return []
        told = [("remove", table, entity) for table, entities in self._tables.items() for entity in entities.values()]
        for entities in self._tables.values():
            entities.clear()
        self._own.clear()
        return self._calls(told)

    def _apply(self, now: float, snapshot: builtins.bytes) -> Calls:
        """A snapshot has come, s: whom to tell of what.

        Raises:
            ProtocolError: it is none, or none that follows the last.
        """
        replica, is_anew = self._anew or self._replica, self._anew is not None
        changes = replica.apply(snapshot)
        if changes is None:
            return []
        if is_anew:
            self._bytes_before = dict(self.bytes)
            self._replica, self._anew = replica, None
        self.tick = self._replica.tick
        self._timeline.arrived(self.tick, now)
        own = dict.fromkeys(self._replica.owned())
        told: list[tuple[str, str, RemoteEntity]] = []
        if is_anew:
            # It began with nothing: what we knew and it does not tell of is gone.
            there = {(table, id) for verb, table, id in changes if verb == "add"}
            gone = [
                (table, id) for table, entities in self._tables.items() for id in entities if (table, id) not in there
            ]
            told = [("remove", table, self._tables[table].pop(id)) for table, id in gone]
        for verb, table, id in changes:
            entities = self._tables.setdefault(table, {})
            if verb == "remove":
                told.append((verb, table, entities.pop(id)))
                continue
            known = entities.get(id)
            if known is None:
                entities[id] = known = self._own.get((table, id)) or RemoteEntity(self, table, id)
                told.append(("add", table, known))
            else:
                told.append(("change", table, known))
        self._own = {
            (table, id): self._tables[table].get(id) or self._own.get((table, id)) or RemoteEntity(self, table, id)
            for table, id in own
        }
        if self._drawing is not None:
            for what, table, entity in told:
                if what == "remove":
                    self._drawing.leave(self.tick, table, entity.id)
                else:
                    self._drawing.keep(self.tick, table, entity)
        return self._calls(told)

    def _calls(self, told: list[tuple[str, str, RemoteEntity]]) -> Calls:
        return [(call, entity) for verb, table, entity in told for call in self._listeners.get((verb, table), ())]


def name_of(table: type[Entity] | str) -> str:
    """A table's name."""
    return table if isinstance(table, str) else table.__name__
