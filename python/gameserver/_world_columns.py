"""Columns of entities as NumPy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np

from gameserver import _core
from gameserver._columns import ColumnShape
from gameserver._entity import Entity, TableShape
from gameserver._signature import suggest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Array", "Columns", "dtype_of", "view"]

E = TypeVar("E", bound=Entity)
Array = np.ndarray[Any, Any]


def dtype_of(column: ColumnShape) -> np.dtype[Any]:
    """What NumPy calls the rows of a column.

    Texts and bytes are ``S<n>``, references the `id` of an entity or 0, lists a count and their items.
    """
    match column.kind:
        case "vector":
            return np.dtype((NUMBERS[column.item], (column.length,)))
        case "str" | "bytes":
            return np.dtype(f"S{column.length}")
        case "list":
            item = np.dtype(NUMBERS[column.item])
            offset = max(4, item.itemsize)
            size = -(-(offset + item.itemsize * column.length) // offset) * offset
            parts = {"names": ["count", "items"], "formats": ["u4", (item, (column.length,))], "offsets": [0, offset]}
            return np.dtype({**parts, "itemsize": size})  # type: ignore[call-overload,no-any-return]
        case "enum":
            return np.dtype("i4")
        case "entity":
            return np.dtype("u8")
        case _:
            return np.dtype(NUMBERS[column.kind])


NUMBERS = {"bool": "?", **{f"{sign}{bits}": f"{sign}{bits // 8}" for sign in "iu" for bits in (8, 16, 32, 64)}} | {
    "f32": "f4",
    "f64": "f8",
}


class Columns(Generic[E]):
    """The columns of an entity class, as NumPy arrays over the world's own memory; made by `World.columns`.

    One row for each live entity, the same row in each column. Writing into an array, or assigning to a column, is writing to
    the entities: ``c.hp = np.minimum(c.hp + 1, 100)``. What cannot be (NaN, a number that an enum does not have) is found at
    the end of the tick: it is not sent, the row gets its last good value back, and it is logged once.

    An array keeps its length: of rows that are spawned later, another call of `World.columns` knows. It keeps its memory,
    also when the world is gone. Rows move only at the end of a tick. As long as there are as many rows, the same object is given
    again, with the same arrays.

    >>> from gameserver import Entity, World, f32
    >>> class Food(Entity):
    ...     x: f32 = 0.0
    ...     y: f32 = 0.0
    >>> world = World()
    >>> _ = world.spawn_many(Food, 3, x=[1, 2, 3])
    >>> food = world.columns(Food)
    >>> food.x += 10
    >>> food.x
    array([11., 12., 13.], dtype=float32)
    """

    _count: int
    _shape: TableShape
    _world: _core.World

    def __init__(self, core: _core.World, shape: TableShape, count: int) -> None:
        self.__dict__.update(_world=core, _shape=shape, _count=count)  # past `__setattr__`

    def __getattr__(self, name: str) -> Array:
        found = self.__dict__[name] = self._array(name)  # from now on without coming here
        return found

    def __setattr__(self, name: str, value: ArrayLike) -> None:
        getattr(self, name)[...] = value

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self._shape.name}.{name}: a column can't be deleted")

    def _array(self, name: str) -> Array:
        for index, column in enumerate(self._shape.columns):
            if column.name == name:
                return view(self._world, self._shape, index, self._count)
        known = [column.name for column in self._shape.columns]
        raise AttributeError(
            f"{self._shape.name} has no column {name!r}{suggest(name, known) or '; columns are: ' + ', '.join(known)}"
        )

    @property
    def ids(self) -> Array:
        """`Entity.id` of each row, as references hold it: uint64, a copy."""
        return np.frombuffer(self._world.ids(self._shape.cls, self._count), "u8")

    def __len__(self) -> int:
        return self._count

    def __dir__(self) -> list[str]:
        return [*(column.name for column in self._shape.columns), "ids"]

    def __repr__(self) -> str:
        return f"<Columns of {self._count} {self._shape.name}: {', '.join(c.name for c in self._shape.columns)}>"


def view(core: _core.World, shape: TableShape, index: int, count: int) -> Array:
    dtype = dtype_of(shape.columns[index])
    if count == 0:
        return np.empty(0, dtype)
    buffer = core.column(shape.cls, index, count)
    base, inner = dtype.base, dtype.shape
    return np.ndarray((count, *inner), base, cast("Any", buffer))
