"""Some of a room's members, addressed together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from gameserver._delivery import Delivery
from gameserver._member import Member
from gameserver._types import Pushable

if TYPE_CHECKING:
    from gameserver._core import Session
    from gameserver._room import Room

M = TypeVar("M", bound=Member)


class RoomGroup(Generic[M]):
    """Members of one room that are pushed to together: a team, say. Made by `Room.group`; who leaves the room leaves it.

    >>> from gameserver import App, Member, Room, on
    >>> app = App("doc")
    >>> @app.room("match")
    ... class Game(Room[Member]):
    ...     def on_join(self, seat: Member) -> None:
    ...         self.group("red" if seat.number % 2 else "blue").add(seat)
    ...     @on("team")
    ...     def team(self, seat: Member, body: bytes) -> None:
    ...         for group in self.groups:
    ...             if seat in group:
    ...                 group.push("team", body, skip=seat)
    """

    def __init__(self, room: Room[M], name: str) -> None:
        self._room = room
        self._seats: dict[int, M] = {}
        # No group of the app has such a name.
        self._key = f"\0{room.number}\0{name}"
        self.name = name

    def add(self, seat: M) -> bool:
        """Adds a member; False if it is in already.

        Raises:
            ValueError: it is none of this room.
        """
        if seat._room is not self._room or seat._number not in self._room._seats:
            raise ValueError(f"{seat!r} is no member of {self._room!r}")
        if seat._number in self._seats:
            return False
        self._seats[seat._number] = seat
        if seat._session is not None:
            self._enter(seat._session)
        return True

    def remove(self, seat: M) -> bool:
        """Takes a member out; False if it is not in."""
        if self._seats.get(seat._number) is not seat:
            return False
        del self._seats[seat._number]
        if seat._session is not None:
            self._room._app._core_running().group_remove(self._key, seat._session)
        return True

    @overload
    def push(self, message: Pushable, /, *, skip: M | None = None, delivery: Delivery | None = None) -> int: ...
    @overload
    def push(self, route: str, body: Any = None, *, skip: M | None = None, delivery: Delivery | None = None) -> int: ...
    def push(self, route: Any, body: Any = None, *, skip: M | None = None, delivery: Delivery | None = None) -> int:
        """Pushes to each of them but `skip`; see `Room.push`. Returns to how many."""
        session = skip.session if skip is not None else None
        return self._room._core_rooms().push(self._room.number, route, body, session, self._key, delivery)

    def __len__(self) -> int:
        return len(self._seats)

    def __contains__(self, seat: object) -> bool:
        return isinstance(seat, Member) and self._seats.get(seat._number) is seat

    def __iter__(self) -> Iterator[M]:
        """Its members, away or not, in the order in which they came."""
        return iter(tuple(self._seats.values()))

    def __repr__(self) -> str:
        return f"<RoomGroup {self.name!r} of room {self._room.number}>"

    def _enter(self, session: Session) -> None:
        self._room._app._core_running().group_add(self._key, session)
