"""`sync` fields of rooms and members: rows of the room's world."""

from __future__ import annotations

import types
from typing import Any, overload

from gameserver._columns import Sync
from gameserver._entity import Entity, _EntityType
from gameserver._scalars import u32
from gameserver.errors import GameServerError

__all__ = ["Synced", "find_synced", "row_class"]


class Synced:
    """A field whose value lies in the world of the room, where clients are told of it.

    What owns it has a row there (`_row`) until it is over; then the last values remain (`_last`), to be read.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, owner: None, cls: type) -> Synced: ...
    @overload
    def __get__(self, owner: Any, cls: type) -> Any: ...
    def __get__(self, owner: Any, cls: type) -> Any:
        if owner is None:
            return self
        row = owner._row
        return getattr(row, self.name) if row is not None else owner._last[self.name]

    def __set__(self, owner: Any, value: Any) -> None:
        if owner._row is None:
            raise GameServerError(f"{owner!r} is over: {self.name} can't be set any more")
        setattr(owner._row, self.name, value)


def find_synced(cls: type, frame: types.FrameType) -> None:
    """Takes the fields with `sync(...)` out of a class that was just made, and leaves descriptors.

    Args:
        frame: of the class statement, whose names annotations may use.
    """
    found = {name: value for name, value in vars(cls).items() if isinstance(value, Sync)}
    if not found:
        return
    annotations = vars(cls).get("__annotations__", {})
    names = {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)
    cls._synced = (found, {name: annotations[name] for name in found if name in annotations}, names)  # type: ignore[attr-defined]
    for name in found:
        setattr(cls, name, Synced(name))


def row_class(cls: type, base: type, **columns: Any) -> type[Entity] | None:
    """The entity class whose rows hold the fields of a class of rooms or members; None: it has none.

    Args:
        base: what `cls` derives from in the end, whose names are taken.
        columns: more of them: annotation by name.

    Raises:
        SchemaError: a field cannot be as it is written.
    """
    defaults: dict[str, Any] = {}
    annotations: dict[str, Any] = {}
    names: dict[str, Any] = {}
    for one in reversed(cls.__mro__):
        if "_synced" in vars(one):
            found, of, known = vars(one)["_synced"]
            defaults.update(found)
            annotations.update(of)
            names.update(known)
    if not defaults:
        return None
    namespace = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__annotations__": {**columns, **annotations},
        **dict.fromkeys(columns, 0),
        **defaults,
    }
    row: _EntityType = _make(namespace, names)
    for name in defaults:
        if name not in annotations:
            raise row.__source__.mistake(cls.__qualname__, name, "say its type: name: u32 = sync(0)")
        if hasattr(base, name):
            raise row.__source__.mistake(cls.__qualname__, name, f"every {base.__name__} has a member of this name")
    return row  # type: ignore[return-value]


def _make(namespace: dict[str, Any], names: dict[str, Any]) -> _EntityType:
    made = _EntityType(namespace["__qualname__"].rpartition(".")[2], (Entity,), namespace, table="global")
    assert isinstance(made, _EntityType)
    made.__source__.locals.update(names)
    made._is_row = True  # type: ignore[attr-defined]
    return made


SEAT_COLUMNS = {"number": u32}
"""What a member's row has beside its fields: `Member.number`."""
