"""A call in the future of a room."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gameserver._timer import Timer, call_name

if TYPE_CHECKING:
    from gameserver._room import Room


class RoomTimer(Timer):
    """One call in the future, made by `Room.after`: it ends with the room."""

    __slots__ = ("_room", "arguments", "function")

    def __init__(
        self, room: Room[Any], seconds: float, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        super().__init__(room._app, seconds, call_name(function), ())
        self._arguments = (room._fire, self)
        self._room = room
        self.function = function
        self.arguments = arguments

    def cancel(self) -> None:
        """See `Timer.cancel`."""
        self._room._timers.pop(self, None)
        super().cancel()

    def restart(self, seconds: float | None = None) -> None:
        """See `Timer.restart`.

        Raises:
            GameServerError: the room has ended.
        """
        self._room._check_open("after")
        super().restart(seconds)
        self._room._timers[self] = None
