"""`Entity`: tables of the replicated world, declared as Python classes."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, dataclass_transform

from gameserver import _core
from gameserver._columns import Audience, ColumnShape, columns_of
from gameserver._fields import Mistake
from gameserver._source import Source, annotations_of
from gameserver.errors import SchemaError

if TYPE_CHECKING:
    from gameserver._core import Session

__all__ = ["Entity", "TableShape", "table_of"]

TABLES = ("spatial", "global")
POSITION = ("x", "y")
FLOATS = ("f32", "f64")
NOT_HERE = {
    "__slots__": "an entity's values lie in the world's columns: leave __slots__ out",
    "__del__": "an entity object is a handle, of which there may be many: leave __del__ out",
    "__init__": "world.spawn sets the columns by their names: leave __init__ out",
    "__new__": "world.spawn makes the entities: leave __new__ out",
}


@dataclass(frozen=True, slots=True)
class TableShape:
    """One entity class as the world has it: plain values, for exporters too."""

    name: str
    columns: tuple[ColumnShape, ...]
    position: tuple[str, ...]
    """The columns that place an entity: two numbers, or one vector; empty in a global table."""
    cls: type[Entity]

    @property
    def is_global(self) -> bool:
        """Whether everybody sees all of it."""
        return not self.position


_unread: weakref.WeakSet[_EntityType] = weakref.WeakSet()


@dataclass_transform(kw_only_default=True)
class _EntityType(type):
    """Takes the columns out of a class's body and leaves descriptors."""

    __table__: TableShape | None
    __source__: Source

    def __new__(
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        table: Literal["spatial", "global"] | None = None,
        position: Sequence[str] | str | None = None,
        **unknown: Any,
    ) -> _EntityType:
        if not any(isinstance(base, _EntityType) for base in bases):
            return super().__new__(mcs, name, bases, namespace)  # Entity itself
        frame = sys._getframe(1)
        namespace.setdefault("__qualname__", name)  # both are there but in a call of type()
        namespace.setdefault("__module__", frame.f_globals.get("__name__", "builtins"))
        source = Source(namespace, annotations_of(namespace), frame)
        qualname = namespace["__qualname__"]
        for option in unknown:
            raise source.mistake(
                qualname, None, f"{option}=: no such option of an entity class; there are table, position"
            )
        for forbidden, text in NOT_HERE.items():
            if forbidden in namespace:
                raise source.mistake(qualname, None, text)
        parents = [base for base in bases if isinstance(base, _EntityType)]
        if len(parents) > 1:
            raise source.mistake(
                qualname, None, f"derives from {parents[0].__name__} and {parents[1].__name__}: one will do"
            )
        for base in bases:
            if base.__dictoffset__:
                raise source.mistake(qualname, None, f"its base {base.__name__} has no __slots__ = ()")
        inherited: tuple[str, ...] = parents[0].__columns__
        for column in source.annotations:
            if column in inherited:
                raise source.mistake(qualname, column, f"{parents[0].__name__} has this column already")
            namespace.pop(column, None)
        namespace["__slots__"] = ()
        namespace["__columns__"] = (*inherited, *source.annotations)
        namespace["__table__"] = None
        namespace["__source__"] = source
        namespace["__options__"] = _options(source, qualname, parents[0], table, position)
        cls = super().__new__(mcs, name, bases, namespace)
        for other in (cls, *_unread):
            if (other.__source__.module, other.__source__.scope) == (source.module, source.scope):
                other.__source__.locals[name] = cls
        try:
            _read(cls)
        except NameError:
            _unread.add(cls)  # later, when what it names is there
        return cls

    # What the class body became; a checker sees the class's own attributes.
    __columns__: tuple[str, ...]
    __options__: tuple[str | None, tuple[str, ...] | None]


def _options(
    source: Source, qualname: str, parent: _EntityType, table: Any, position: Any
) -> tuple[str | None, tuple[str, ...] | None]:
    """What the class says of its table; else what its base says."""
    if table is not None and table not in TABLES:
        raise source.mistake(qualname, None, f"table={table!r}: 'spatial' or 'global'")
    if position is not None:
        names = (position,) if isinstance(position, str) else position
        if (
            not isinstance(names, tuple | list)
            or not 1 <= len(names) <= 2
            or not all(isinstance(n, str) for n in names)
        ):
            raise source.mistake(
                qualname, None, f"position={position!r}: the names of two columns, ('px', 'py'), or of one vector"
            )
        if table == "global":
            raise source.mistake(qualname, None, "a global table has no position: everybody sees all of it")
        position = tuple(names)
    before: tuple[str | None, tuple[str, ...] | None] = getattr(parent, "__options__", (None, None))
    return table or (None if position else before[0]), position or (None if table == "global" else before[1])


def _read(cls: _EntityType) -> None:
    """Evaluates the annotations.

    Raises:
        NameError: they name what is not there yet.
        SchemaError: a column cannot be as it is written.
    """
    source = cls.__source__
    (parent,) = (base for base in cls.__bases__ if isinstance(base, _EntityType))
    base = () if parent is Entity else table_of(parent).columns
    try:
        columns = columns_of(source.read(), source.defaults, Entity, base)
        position = _position(cls, {column.name: column for column in columns})
    except NameError:
        raise
    except Mistake as mistake:
        raise source.mistake(cls.__qualname__, mistake.field or None, str(mistake)) from None
    except Exception as error:
        raise source.mistake(cls.__qualname__, None, f"its annotations cannot be read: {error}") from error
    cls.__table__ = TableShape(cls.__name__, columns, position, cls)  # type: ignore[arg-type]
    _core.entity_install(cls, columns)
    _unread.discard(cls)


def _position(cls: _EntityType, columns: dict[str, ColumnShape]) -> tuple[str, ...]:
    table, named = cls.__options__
    if table == "global":
        return ()
    names = named or POSITION
    if named is None and not all(name in columns for name in names):
        if table == "spatial":
            raise Mistake("", "a spatial table has columns x and y, or says position=('px', 'py')")
        return ()
    for name in names:
        if name not in columns:
            raise Mistake("", f"position={names!r}: there is no column {name}")
        column = columns[name]
        if column.to not in (Audience.ALL, Audience.OTHERS):
            raise Mistake(name, f"to={column.to.name}: it places the entity, so ALL or OTHERS are told of it")
        is_vector = column.kind == "vector"
        if column.kind not in (*FLOATS, "vector") or is_vector != (len(names) == 1):
            where = "is what places an entity, as long as the class does not say table='global' or position=..."
            raise Mistake(name, f"{where}: two numbers (f32 or f64), or one vec2 or vec3" if named is None else
                          "a position is two numbers (f32 or f64), or one vec2 or vec3")  # fmt: skip
    return names


def table_of(cls: type) -> TableShape:
    """The columns of an entity class.

    Raises:
        SchemaError: a column cannot be as it is written, or names what does not exist.
    """
    assert isinstance(cls, _EntityType)
    if cls is Entity:
        raise SchemaError("Entity itself has no columns: subclass it")
    if cls.__dict__["__table__"] is None:
        try:
            _read(cls)
        except NameError as error:
            text = f"{error}: what an annotation names has to be defined when the class is first used"
            raise cls.__source__.mistake(cls.__qualname__, None, text) from None
    table = cls.__table__
    assert table is not None
    return table


class Entity(_core.EntityBase, metaclass=_EntityType):
    """The base of what lives in the replicated world: annotated columns, each an array in Rust.

    ::

        class Player(Entity):
            x: f32 = sync(0, quantize=0.01)
            y: f32 = sync(0, quantize=0.01)
            hp: u16 = sync(100)
            gold: u16 = sync(0, to=OWNER)
            name: Annotated[str, MaxLen(16)] = ""
            target: Player | None = None

    `World.spawn` makes one; an object of the class is a handle to its row: `player.hp -= 5` writes to the column, and clients
    are told at the end of the tick. A handle outlives its entity: then every access raises `EntityGone`. Two handles to one
    entity are equal. `sync` says what clients are told of a column, and how; a column without a default has to be given at
    each spawn.

    Columns are `bool`, numbers (`u8` to `u64`, `i8` to `i64`, `f32`, `f64`), enums of integers, `vec2` and `vec3` (and
    `dvec2`, `dvec3` of `f64`), ``Annotated[str, MaxLen(n)]`` and ``bytes``, of n bytes at most, ``Annotated[list[u8],
    MaxLen(n)]`` of numbers, and other entities, ``Player | None``: None again when that one is gone.

    `x` and `y` place an entity on the world's grid, and who is near sees it; ``class Tank(Entity, position=("px", "py"))``
    names other columns (or one vector). A class without them, or with ``table="global"``, is seen by everybody.

    Attributes:
        owner: the session that it belongs to. It despawns when that leaves.
        keep: it stays then, and belongs to nobody.

    >>> from gameserver import Entity, World, f32, sync, u16
    >>> class Player(Entity):
    ...     x: f32 = sync(0, quantize=0.01)
    ...     y: f32 = sync(0, quantize=0.01)
    ...     hp: u16 = sync(100)
    >>> world = World()
    >>> player = world.spawn(Player, x=5)
    >>> player.hp -= 30
    >>> player
    <Player 1: x=5.0 y=0.0 hp=70>
    """

    __slots__ = ()
    __columns__: ClassVar[tuple[str, ...]] = ()
    __table__: ClassVar[TableShape | None] = None

    if TYPE_CHECKING:
        owner: Session | None = None
        keep: bool = False
