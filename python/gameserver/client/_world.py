"""The replicated world, as one client sees it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar, overload

from gameserver import _core
from gameserver._entity import Entity, table_of
from gameserver.errors import ProtocolError, SchemaError

__all__ = ["Entities", "RemoteEntity", "RemoteWorld"]

E = TypeVar("E")
F = TypeVar("F", bound=Callable[[Any], object])
Listener = Callable[[Any], object]


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


class RemoteWorld:
    """What this client sees of the server's world.

    Attributes:
        entities: by class or name, then by id: what is in view, as of the newest snapshot.
        tick: of that; 0: there was none yet.
        tick_rate: ticks per second.
        cell: a grid cell's edge.
    """

    def __init__(self) -> None:
        self._tables: dict[str, dict[int, RemoteEntity]] = {}
        self._own: dict[tuple[str, int], RemoteEntity] = {}
        self._replica = _core.WorldReplica("[]")
        self._listeners: dict[tuple[str, str], list[Listener]] = {}
        self._enums: dict[tuple[str, str], Callable[[Any], Any]] = {}
        self._is_anew = False
        self.entities: Entities[Any] = Entities(self._tables)
        self.tick = 0
        self.tick_rate = 30.0
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
        """Calls a function for each entity that comes into view, once the whole snapshot is applied. A decorator
        without one.

        >>> world = RemoteWorld()
        >>> @world.on_add("Player")
        ... def hello(player):
        ...     print(player.name)
        """
        return self._listen("add", table, listener)

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
        """Calls a function for each entity that goes out of view, or is no more. A decorator without one."""
        return self._listen("remove", table, listener)

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

    def _begin(self, shape: Any, goes_on: bool) -> list[tuple[Listener, RemoteEntity]]:
        """A connection is there, whose schema says this of the world.

        Raises:
            ProtocolError: it is no such shape.
        """
        shape = shape if isinstance(shape, dict) else {"tables": []}
        try:
            self._replica = _core.WorldReplica(json.dumps(shape.get("tables")))
        except SchemaError as error:
            raise ProtocolError(f"a world that is none: {error}") from None
        rate, cell = shape.get("tick_rate"), shape.get("cell")
        self.tick_rate = float(rate) if isinstance(rate, int | float) and rate > 0 else 30.0
        self.cell = float(cell) if isinstance(cell, int | float) else 0.0
        self._is_anew = True
        for table in shape.get("tables") or []:
            self._tables.setdefault(table["name"], {})
        if goes_on:
            return []
        told = [("remove", table, entity) for table, entities in self._tables.items() for entity in entities.values()]
        for entities in self._tables.values():
            entities.clear()
        self._own.clear()
        return self._calls(told)

    def _apply(self, snapshot: bytes) -> list[tuple[Listener, RemoteEntity]]:
        """A snapshot has come: whom to tell of what.

        Raises:
            ProtocolError: it is none, or none that follows the last.
        """
        changes = self._replica.apply(snapshot)
        if changes is None:
            return []
        self.tick = self._replica.tick
        own = dict.fromkeys(self._replica.owned())
        told: list[tuple[str, str, RemoteEntity]] = []
        if self._is_anew:
            # It began with nothing: what we knew and it does not tell of is gone.
            self._is_anew = False
            there = {(table, id) for verb, table, id in changes if verb == "add"}
            gone = [
                (table, id) for table, entities in self._tables.items() for id in entities if (table, id) not in there
            ]
            changes = [*(("remove", table, id) for table, id in gone), *changes]
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
        return self._calls(told)

    def _calls(self, told: list[tuple[str, str, RemoteEntity]]) -> list[tuple[Listener, RemoteEntity]]:
        return [(call, entity) for verb, table, entity in told for call in self._listeners.get((verb, table), ())]


def name_of(table: type[Entity] | str) -> str:
    """A table's name."""
    return table if isinstance(table, str) else table.__name__
