"""`Batch`: what came of one message since the last tick, as columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import numpy as np

    from gameserver._core import Session

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
            x[[player.row for player in batch.sessions]] += batch.dx

    ``@app.on(keep="last")`` keeps only each session's newest. What a session sent that has left is left out.
    """

    __slots__ = ("_columns", "_ids", "_sessions")

    def __init__(
        self, columns: Mapping[str, np.ndarray[Any, Any]], ids: np.ndarray[Any, Any], sessions: list[Session]
    ) -> None:
        self._columns = columns
        self._ids = ids
        self._sessions = sessions

    @property
    def sessions(self) -> list[Session]:
        """Who sent each row."""
        return self._sessions

    @property
    def ids(self) -> np.ndarray[Any, Any]:
        """`Session.id` of who sent each row: uint64."""
        return self._ids

    def __getattr__(self, name: str) -> np.ndarray[Any, Any]:
        try:
            return self._columns[name]
        except KeyError:
            known = ", ".join(self._columns)
            raise AttributeError(f"{name} is no column of this batch; columns are: {known}") from None

    def __len__(self) -> int:
        return len(self._sessions)

    def __repr__(self) -> str:
        return f"<Batch of {len(self)}: {', '.join(self._columns)}>"
