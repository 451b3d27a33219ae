"""`World`: entities as columns, and who sees which of them."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import numpy as np

from gameserver import _core
from gameserver._entity import Entity, table_of
from gameserver._logging import LOGGER_NAME
from gameserver._signature import here, suggest
from gameserver._world_columns import Array, Columns, dtype_of
from gameserver._world_snapshot import WorldSnapshot
from gameserver.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from gameserver._core import Session
    from gameserver._signature import Handler

__all__ = ["Columns", "World", "classes_of"]

log = logging.getLogger(LOGGER_NAME)
E = TypeVar("E", bound=Entity)
P = ParamSpec("P")


CELLS_MAX = 10_000  # of one view


class World:
    """Entities in columns, replicated to the clients that see them; see docs/world.md.

    Args:
        cell: the side of a cell of the grid, in the unit of positions. What is sent is shared by all who see the cell.
        view: how far a session sees around what it follows, in the same unit, unless `follow` says otherwise.

    Give it to the app, ``App("arena", world=World(cell=50, view=200))``, or take the one that each app has. A world belongs to
    the thread of the handlers; before the server runs, to whoever has it.

    Raises:
        ConfigError: `cell` or `view` is not above 0.

    >>> from gameserver import Entity, World, f32, sync
    >>> class Player(Entity):
    ...     x: f32 = sync(0, quantize=0.01)
    ...     y: f32 = sync(0, quantize=0.01)
    >>> world = World(cell=50, view=200)
    >>> ann, bob = world.spawn(Player, x=1), world.spawn(Player, x=20)
    >>> world.near(ann, 30)
    [<Player 2: x=20.0 y=0.0>]
    """

    def __init__(self, cell: float = 100, view: float = 300) -> None:
        for name, value in (("cell", cell), ("view", view)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
                raise ConfigError(f"{here(1)}World({name}={value!r}): a length above 0, in the unit of positions")
        self._core = _core.World(float(cell), float(view))
        self._columns: dict[type[Entity], Columns[Any]] = {}  # that were given last
        self._leaving: Callable[[Entity], None] | None = None  # is told of rows before they are despawned

    def _like(self) -> World:
        """One more without entities, of the same classes."""
        made = World.__new__(World)
        made._core = self._core.like()
        made._columns, made._leaving = {}, None
        return made

    @property
    def cell(self) -> float:
        """The side of a cell of the grid."""
        return self._core.cell

    @property
    def view(self) -> float:
        """How far a session sees, unless it is told otherwise."""
        return self._core.view

    def declare(self, *classes: type[Entity]) -> None:
        """Takes entity classes that the app would not find by itself, before it starts.

        Clients are told of all classes when they connect. An app finds those that its handlers take, those that were spawned
        before it starts, and those at the top of modules in which these or its handlers are defined.

        Raises:
            ConfigError: the app has started without one of them, or two have one name.

        >>> from gameserver import Entity, World, u16
        >>> def arena(world: World) -> None:
        ...     class Flag(Entity):
        ...         points: u16 = 0
        ...     world.declare(Flag)
        >>> arena(World())
        """
        self._core.add([_entity_class(cls) for cls in classes])

    # -- who is there ------------------------------------------------------------------------------------------------

    def spawn(self, cls: Callable[P, E], /, *args: P.args, **kwargs: P.kwargs) -> E:
        """A new entity of class `cls`, with these columns; the others have their defaults.

        Args:
            kwargs: the columns by their names; `owner`: the session that it belongs to; `keep`: it stays when that leaves.

        Raises:
            TypeError, ValueError: a column that does not exist, or a value that it cannot have; says which.
            SessionClosed: the owner is gone.

        >>> world.spawn(Player, x=3, hp=50)  # doctest: +SKIP
        <Player 1: x=3.0 y=0.0 hp=50>
        """
        if args:
            raise TypeError(f"world.spawn({_name(cls)}, ...): give columns by their names: x=1")
        return cast("E", self._core.spawn(_entity_class(cls), kwargs))

    def spawn_many(self, cls: type[E], count: int, /, **columns: ArrayLike) -> Array:
        """As many new entities, which belong to nobody.

        Args:
            columns: an array of `count` values, or one value for all.

        Returns:
            Their rows, until the end of the tick: int64, 1-D.

        Raises:
            TypeError, ValueError: a column that does not exist or has to be given, or values of another type or number.

        >>> from gameserver import Entity, World, f32
        >>> class Food(Entity):
        ...     x: f32
        ...     y: f32 = 0.0
        >>> world = World()
        >>> world.spawn_many(Food, 3, x=[1, 2, 3])
        array([0, 1, 2])
        """
        shape = table_of(_entity_class(cls))
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"world.spawn_many({shape.name}, {count!r}): how many, 0 or more")
        known = {column.name: column for column in shape.columns}
        ready: dict[str, Array] = {}
        for name, values in columns.items():
            if name not in known:
                raise TypeError(f"{shape.name} has no column {name!r}{suggest(name, [*known])}")
            ready[name] = _fitting(f"{shape.name}.{name}", values, dtype_of(known[name]), count)
        for column in shape.columns:
            if column.is_required and column.name not in ready:
                raise TypeError(f"{shape.name}.{column.name} has no default: give it to spawn_many")
        first = self._core.spawn_rows(shape.cls, count)
        live = self.columns(cls)
        for name, values in ready.items():
            getattr(live, name)[first:] = values
        return np.arange(first, first + count)

    def despawn(self, entity: Entity) -> None:
        """Takes an entity out of the world at the end of the tick; its handles are stale at once.

        Raises:
            EntityGone: it is gone already.
        """
        self._own(entity).despawn()

    def despawn_rows(self, cls: type[Entity], rows: ArrayLike) -> int:
        """Takes these rows out at the end of the tick. Those that are gone already are skipped.

        Returns:
            How many were there.

        Raises:
            IndexError: there is no such row.
        """
        if self._leaving is not None:
            live = np.frombuffer(self._core.live_rows(_entity_class(cls), self.count(cls)), "?")
            wanted = np.unique(np.asarray(rows, "i8"))
            wanted = wanted[(wanted >= 0) & (wanted < len(live))]
            for entity in self.at(cls, wanted[live[wanted]]):
                self._leaving(entity)
        return self._core.despawn_rows(_entity_class(cls), _rows(rows))

    def at(self, cls: type[E], rows: ArrayLike) -> list[E]:
        """The entities of these rows.

        Raises:
            IndexError: there is no such row.
            EntityGone: one was despawned in this tick.
        """
        return cast("list[E]", self._core.at(_entity_class(cls), _rows(rows)))

    def owned(self, cls: type[E], session: Session) -> E | None:
        """The entity of this class, or of one that derives from it, that belongs to a session; of several the oldest."""
        return cast("E | None", self._core.owned(_entity_class(cls), session))

    def count(self, cls: type[Entity]) -> int:
        """How many rows a class has: those of this tick's despawned entities too, until it ends."""
        return self._core.count(_entity_class(cls))

    def __contains__(self, entity: object) -> bool:
        return isinstance(entity, Entity) and self._core.has(entity)

    def each(self, cls: type[E]) -> Iterator[E]:
        """Every live entity of a class, by rows; may be despawned on the way.

        For many entities, `columns` is faster by far.
        """
        core = self._core
        return (cast("E", entity) for entity in core.live(_entity_class(cls)) if core.has(entity))

    # -- columns and what is where -----------------------------------------------------------------------------------

    def columns(self, cls: type[E]) -> Columns[E]:
        """Live columns of `cls`: arrays of `count(cls)` rows, without a copy, dtype as declared.

        Writes reach clients at the end of this tick.
        """
        columns: Columns[E] | None = self._columns.get(cls)
        count = self._core.lend(cls if columns is not None else _entity_class(cls))
        if columns is None or columns._count != count:
            columns = self._columns[cls] = Columns(self._core, table_of(cls), count)
        return columns

    def query(self, cls: type[E], /, **ranges: tuple[float, float]) -> Array:
        """The rows whose columns are within these ranges, both ends included; all rows without any.

        Returns:
            Rows, ascending: int64, 1-D.

        Raises:
            AttributeError: there is no such column.
            TypeError: a column is no number, or a range no pair.

        >>> from gameserver import Entity, World, f32
        >>> class Food(Entity):
        ...     x: f32
        ...     y: f32 = 0.0
        >>> world = World()
        >>> _ = world.spawn_many(Food, 3, x=[1, 20, 5])
        >>> world.query(Food, x=(0, 10))
        array([0, 2])
        """
        live = self.columns(cls)
        found = np.frombuffer(self._core.live_rows(live._shape.cls, len(live)), "?").copy()
        for name, ends in ranges.items():
            values = getattr(live, name)
            if values.ndim != 1 or values.dtype.kind not in "iufb":
                raise TypeError(f"{live._shape.name}.{name} is no number: query takes numbers alone")
            if not isinstance(ends, tuple | list) or len(ends) != 2:
                raise TypeError(f"query({name}={ends!r}): give the ends of the range: {name}=(0, 10)")
            found &= (values >= ends[0]) & (values <= ends[1])
        return np.flatnonzero(found)

    def near(self, entity: E, radius: float) -> list[E]:
        """The other entities of its class within `radius` of an entity, by rows.

        Raises:
            EntityGone: it is gone.
            TypeError: its class is not on the grid.
        """
        return cast("list[E]", self._core.near(self._own(entity), float(radius)))

    def pairs(self, one: type[Entity], other: type[Entity], radius: float) -> tuple[Array, Array]:
        """All pairs of an entity of `one` and an entity of `other` within `radius` of each other, found on the grid.

        Of one class with itself, each pair once.

        Returns:
            The rows of `one` and, beside them, the rows of `other`: int64, 1-D, sorted.

        Raises:
            TypeError: a class is not on the grid.

        >>> from gameserver import Entity, World, f32
        >>> class Blob(Entity):
        ...     x: f32 = 0.0
        ...     y: f32 = 0.0
        >>> class Food(Entity):
        ...     x: f32 = 0.0
        ...     y: f32 = 0.0
        >>> world = World()
        >>> _ = world.spawn(Blob), world.spawn_many(Food, 3, x=[1, 50, 2])
        >>> world.pairs(Blob, Food, 10)
        (array([0, 0]), array([0, 2]))
        """
        first, second = self._core.pairs(_entity_class(one), _entity_class(other), float(radius))
        return np.frombuffer(first, "u4").astype("i8"), np.frombuffer(second, "u4").astype("i8")

    # -- who sees what -----------------------------------------------------------------------------------------------

    def follow(self, session: Session, entity: Entity | None = None, radius: float | None = None) -> bool:
        """From the end of this tick on a session sees what is around an entity, wherever that goes.

        Until it is told otherwise, each session follows the first entity of its own that is on the grid, as far as `view`.
        What is seen is whole cells: all of which a part is within `radius` of a part of the entity's cell.

        Args:
            entity: any that is on the grid; None: the first of its own again.
            radius: how far, in the unit of positions; None: `view`.

        Returns:
            False if the session's client does not show the world.

        Raises:
            EntityGone: the entity is gone.
            TypeError: its class is not on the grid.
            SessionClosed: the session is over, or its app does not show this world.
        """
        own = None if entity is None else self._own(entity)
        return self._core.follow(session, own, self._radius(radius))

    def watch(
        self,
        session: Session,
        *,
        at: tuple[float, float] | None = None,
        radius: float | None = None,
        cells: Sequence[tuple[int, int]] | None = None,
        everything: bool = False,
    ) -> bool:
        """From the end of this tick on a session looks at something that is no entity: a spectator's camera, say.

        Args:
            at: a place, seen as far as `radius` (None: `view`).
            cells: these cells of the grid: (column, row); that of a place is (x // cell, y // cell).
            everything: all there is.

        With none of them, it sees global tables alone.

        Returns:
            False if the session's client does not show the world.

        Raises:
            TypeError: more than one of them.
            SessionClosed: the session is over, or its app does not show this world.
        """
        if (at is not None) + (cells is not None) + everything > 1:
            raise TypeError("world.watch: give one of at=, cells= and everything=")
        if at is not None:
            x, y = at
            if not (math.isfinite(x) and math.isfinite(y)):
                raise ValueError(f"world.watch(at={at!r}): a place is two finite numbers")
            return self._core.watch_place(session, float(x), float(y), self._radius(radius))
        if cells is not None:
            if len(cells) > CELLS_MAX:
                raise ValueError(f"world.watch(cells=): {len(cells)} cells; at most {CELLS_MAX}")
            return self._core.watch_cells(session, [(int(column), int(row)) for column, row in cells])
        return self._core.watch_all(session, everything)

    def map(self, cls: type[Entity]) -> list[tuple[tuple[int, int] | None, int, int]]:
        """The cells that have entities of a class or are watched: cell (None of a global table), entities, viewers.

        >>> from gameserver import Entity, World, f32
        >>> class Food(Entity):
        ...     x: f32
        ...     y: f32 = 0.0
        >>> world = World(cell=10)
        >>> _ = world.spawn_many(Food, 3, x=[1, 20, 5])
        >>> world.map(Food)  # entities are in cells from the end of the tick on
        []
        """
        return self._core.map(_entity_class(cls))

    def snapshot(self) -> WorldSnapshot:
        """An immutable copy of all entities as they are now, but for those that were despawned in this tick.

        It costs about what copying the columns' memory costs. Called in a tick handler or a timer, it is the world between two
        ticks; from other threads, ask by `app.call_soon_threadsafe`. What it returns may be read in any thread.

        Raises:
            RuntimeError: this is not the thread of the world's server.

        >>> from gameserver import Entity, World, f32
        >>> class Food(Entity):
        ...     x: f32
        ...     y: f32 = 0.0
        >>> world = World()
        >>> food = world.spawn(Food, x=3)
        >>> snapshot = world.snapshot()
        >>> food.x = 5
        >>> snapshot.to_numpy(Food)["x"]
        array([3.], dtype=float32)
        """
        return WorldSnapshot(_core.WorldCopy.of(self._core))

    def restore(self, snapshot: WorldSnapshot) -> None:
        """Puts a snapshot's entities into this world, in which nothing was spawned yet: with their ids, so that references hold.

        They belong to nobody: sessions are gone. Those of classes that the snapshot has not are none.

        Raises:
            SchemaError: a class is unknown here (`declare` it before) or has other columns, or entities were spawned already.

        >>> from gameserver import Entity, World, f32
        >>> class Food(Entity):
        ...     x: f32
        ...     y: f32 = 0.0
        >>> old, new = World(), World()
        >>> food = old.spawn(Food, x=3)
        >>> new.declare(Food)
        >>> new.restore(old.snapshot())
        >>> new.at(Food, [0])[0].id == food.id
        True
        """
        snapshot._copy.restore(self._core)

    def load(self, path: str | os.PathLike[str]) -> None:
        """What `WorldSnapshot.save` wrote, as `restore` does it.

        Raises:
            OSError: there is no such file.
            ValueError: it is damaged.
            SchemaError: as in `restore`.
        """
        self.restore(WorldSnapshot(_core.WorldCopy.from_bytes(self._core, Path(path).read_bytes())))

    def _document(self) -> list[dict[str, Any]]:
        """What clients are told of the tables: docs/wire.md, "The world"."""
        tables: list[dict[str, Any]] = json.loads(self._core.document())
        enums = {
            (shape.name, column.name): column.of
            for shape in map(table_of, self._core.classes())
            for column in shape.columns
            if column.kind == "enum"
        }
        for table in tables:
            for column in table["columns"]:
                if of := enums.get((table["name"], column["name"])):
                    column["names"] = [of(value).name for value in column["values"]]
        return tables

    def _radius(self, radius: float | None) -> float:
        if radius is None:
            return self.view
        if isinstance(radius, bool) or not isinstance(radius, int | float) or not 0 <= radius < 1e30:
            raise ValueError(f"radius={radius!r}: a length, in the unit of positions")
        return float(radius)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _own(self, entity: Any) -> _core.EntityBase:
        if not isinstance(entity, Entity):
            raise TypeError(f"{entity!r} is no entity")
        return entity

    def __repr__(self) -> str:
        tables = ", ".join(f"{cls.__name__} {self._core.count(cls)}" for cls in self._core.classes())
        return f"<World: {tables or 'empty'}>"


def classes_of(handlers: Sequence[Handler], world: World) -> list[type[Entity]]:
    """The classes that clients are told of when they connect: those that handlers take and that the world has already, and
    all others at the top of the modules that these and the handlers are defined in.
    """
    named = [handler.entity_class for handler in handlers if handler.entity_class is not None]
    named = [*dict.fromkeys([*world._core.classes(), *named])]
    modules = {cls.__module__ for cls in named} | {getattr(handler.call, "__module__", None) for handler in handlers}
    beside = [cls for cls in _subclasses(Entity) if cls.__module__ in modules and is_found(cls)]
    return [*dict.fromkeys([*named, *beside])]


def is_found(cls: type[Entity]) -> bool:
    """Whether an app finds it by itself: it stands at the top of a module, and holds no fields of a room."""
    return "<locals>" not in cls.__qualname__ and "_is_row" not in vars(cls)


def report_fault(cls: type[Entity], column: str, entity_id: int) -> None:
    """Logs that a column held what it can't, by a write into its array."""
    log.error(
        "%s.%s of the entity with id %d held what the column can't: it was put back to its last good value and not sent. "
        "Writes into arrays are not checked one by one; of this column, no more is logged",
        cls.__qualname__,
        column,
        entity_id,
    )


def _subclasses(cls: type[Entity]) -> Iterator[type[Entity]]:
    for other in cls.__subclasses__():
        yield other
        yield from _subclasses(other)


def _name(cls: Any) -> str:
    return getattr(cls, "__qualname__", repr(cls))


def _entity_class(cls: Any) -> type[Entity]:
    if not (isinstance(cls, type) and issubclass(cls, Entity)) or cls is Entity:
        raise TypeError(f"{cls!r} is no subclass of Entity")
    table_of(cls)
    return cls


def _rows(rows: Any) -> bytes:
    array = np.asarray(rows)
    if array.size == 0:
        return b""
    if array.dtype == np.bool_ or array.dtype.kind not in "iu":
        raise IndexError(f"rows are whole numbers, not {array.dtype}; of a mask: np.flatnonzero(mask)")
    if (array < 0).any() or (array >= 2**32).any():
        raise IndexError("rows are 0 or more")
    return array.ravel().astype("u4").tobytes()


def _fitting(place: str, values: Any, dtype: np.dtype[Any], count: int) -> Array:
    base, inner = dtype.base, dtype.shape
    array = np.asarray(values)
    if array.dtype.kind == "U" and base.kind == "S":
        array = np.char.encode(array, "utf-8")
    if base.kind == "S" and array.dtype.itemsize > base.itemsize:
        raise ValueError(f"{place}: texts of up to {array.dtype.itemsize} bytes, MaxLen allows {base.itemsize}")
    if array.size and not np.can_cast(array.dtype, base, "same_kind") and not _holds(array, base):
        raise TypeError(f"{place}: an array of {array.dtype}, the column is {base}")
    try:
        return np.broadcast_to(array, (count, *inner))
    except ValueError:
        raise ValueError(f"{place}: an array of shape {array.shape} for {count} rows") from None


def _holds(array: Array, base: np.dtype[Any]) -> bool:
    """Whether whole numbers of another sign fit all the same: Python's own are int64."""
    if array.dtype.kind not in "iu" or base.kind not in "iu":
        return False
    ends = np.iinfo(base)
    return bool(array.min() >= ends.min and array.max() <= ends.max)
