"""`WorldSnapshot`: the world at one moment, for saving and for analysis while ticks go on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from gameserver import _core
from gameserver._entity import Entity, table_of
from gameserver._world_columns import Array, dtype_of

__all__ = ["WorldSnapshot"]


@final
class WorldSnapshot:
    """All entities of a world at one moment. Nothing changes it, and any thread may read it. Made by `World.snapshot`.

    >>> from gameserver import Entity, World, f32, u16
    >>> class Player(Entity):
    ...     x: f32 = 0.0
    ...     y: f32 = 0.0
    ...     hp: u16 = 100
    >>> world = World()
    >>> _ = world.spawn_many(Player, 3, hp=[10, 20, 60])
    >>> snapshot = world.snapshot()
    >>> float(snapshot.to_numpy(Player)["hp"].mean())
    30.0
    >>> again = WorldSnapshot.from_bytes(snapshot.to_bytes(), [Player])
    >>> again.count(Player)
    3
    """

    __slots__ = ("_copy",)

    def __init__(self, _copy: _core.WorldCopy) -> None:
        self._copy = _copy

    @property
    def tick(self) -> int:
        """How many ticks had ended."""
        return self._copy.tick

    def count(self, cls: type[Entity]) -> int:
        """How many entities there were of a class.

        Raises:
            KeyError: the world had no such class.
        """
        return self._copy.count(cls)

    def to_numpy(self, cls: type[Entity]) -> Array:
        """A record for each entity of a class: its `id`, and the columns as `World.columns` has them. Read-only, 1-D.

        Raises:
            KeyError: the world had no such class.
        """
        columns = table_of(cls).columns
        dtype = np.dtype([("id", "u8"), *((column.name, dtype_of(column)) for column in columns)])
        records = np.empty(self.count(cls), dtype)
        records["id"] = np.frombuffer(self._copy.ids(cls), "u8")
        for index, column in enumerate(columns):
            records[column.name] = np.frombuffer(self._copy.column(cls, index), dtype_of(column))
        records.flags.writeable = False
        return records

    def to_bytes(self) -> bytes:
        """As a file holds it: docs/world.md, "Saving"."""
        return self._copy.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes, classes: Sequence[type[Entity]]) -> WorldSnapshot:
        """What `to_bytes` gave, of a world with these classes.

        Raises:
            ValueError: it is damaged.
            SchemaError: it has a class that is none of these, or that had other columns.
        """
        world = _core.World(1.0, 0.0)
        world.add(classes)
        return WorldSnapshot(_core.WorldCopy.from_bytes(world, data))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file that is there whole, or not at all: also when the machine fails meanwhile.

        Raises:
            OSError: it can't be written.
        """
        target = Path(path)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name, too
        finally:
            os.close(folder)

    @classmethod
    def load(cls, path: str | os.PathLike[str], classes: Sequence[type[Entity]]) -> WorldSnapshot:
        """What `save` wrote. Raises as `from_bytes`, and OSError."""
        return cls.from_bytes(Path(path).read_bytes(), classes)

    def __repr__(self) -> str:
        return f"<WorldSnapshot of tick {self.tick}>"
