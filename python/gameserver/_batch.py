"""`Batch`: what came of one message since the last tick, as columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gameserver import _core

if TYPE_CHECKING:
    import numpy as np

    from gameserver._core import Session
    from gameserver._entity import Entity

__all__ = ["Batch"]

M = TypeVar("M")


class Batch(Generic[M]):
    """Every `M` since the last tick: one row each, in the order in which they came.

    Annotates the parameter of a handler that is called once per tick, before `@app.tick`, if anything came. Each field of
    the message that is a number, a bool or an enum is a 1-D NumPy array of `len(batch)` rows, by its name: floats and
    integers as the field's type says (``f32``: float32, ``u16``: uint32, enums: int32). Fields of other types are checked
    and left out. Of a field that may be None, a row without it is 0. The arrays are the handler's own.

    ::

        @app.on
        def moves(batch: Batch[Move]) -> None:
            rows = batch.rows(Player)
            np.add.at(app.world.columns(Player).x, rows, batch.dx)

    ``@app.on(keep="last")`` keeps only each session's newest. What a session sent that has left is left out.
    """

    __slots__ = ("_columns", "_counts", "_ids", "_sessions")

    def __init__(
        self,
        columns: Mapping[str, np.ndarray[Any, Any]],
        ids: np.ndarray[Any, Any],
        sessions: list[Session],
        counts: np.ndarray[Any, Any] | None = None,
    ) -> None:
        """Of a test's own columns.

        Args:
            columns: By field, an array of one number a row.
            ids: `Session.id` of each of `sessions`.
            sessions: Who sent the rows, in their order.
            counts: How many rows each of `sessions` has, one behind the other; without it each has one.
        """
        self._columns = columns
        self._ids = ids
        self._sessions = sessions
        self._counts = counts

    @property
    def sessions(self) -> list[Session]:
        """Who sent each row."""
        self._spread()
        return self._sessions

    @property
    def ids(self) -> np.ndarray[Any, Any]:
        """`Session.id` of who sent each row: uint64."""
        self._spread()
        return self._ids

    def _spread(self) -> None:
        """One session and id for each row, from now on: most handlers never ask for them."""
        import numpy as np

        if self._counts is not None:
            repeated = zip(self._sessions, self._counts.tolist(), strict=True)
            self._sessions = [session for session, count in repeated for _ in range(count)]
            self._ids = np.repeat(self._ids, self._counts)
            self._counts = None

    def rows(self, cls: type[Entity]) -> np.ndarray[Any, Any]:
        """Narrows the batch to senders that have an entity of exactly this class, and says which row each one's is.

        Returns:
            `len(batch)` rows of `World.columns`, until the end of the tick: int64, 1-D. A sender of several messages has its
            row several times: ``np.add.at`` adds all of them, ``x[rows] +=`` the last.
        """
        import numpy as np

        has, rows = _core.world_rows(cls, self._sessions)
        keep = np.frombuffer(has, "?")
        if not keep.all():
            keep_rows = keep if self._counts is None else np.repeat(keep, self._counts)
            self._columns = {name: column[keep_rows] for name, column in self._columns.items()}
            self._sessions = [session for session, is_kept in zip(self._sessions, keep, strict=True) if is_kept]
            self._ids = self._ids[keep]
            self._counts = None if self._counts is None else self._counts[keep]
        of_senders = np.frombuffer(rows, "u4").astype("i8")
        return of_senders if self._counts is None else np.repeat(of_senders, self._counts)

    def __getattr__(self, name: str) -> np.ndarray[Any, Any]:
        if name in Batch.__slots__:
            raise AttributeError(name)  # not filled yet: it is being copied
        try:
            return self._columns[name]
        except KeyError:
            known = ", ".join(self._columns)
            raise AttributeError(f"{name} is no column of this batch; columns are: {known}") from None

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __repr__(self) -> str:
        return f"<Batch of {len(self)}: {', '.join(self._columns)}>"
