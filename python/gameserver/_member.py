"""A person's seat in a room."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, overload

from gameserver._core import Session
from gameserver._delivery import Delivery
from gameserver._synced import find_synced
from gameserver._types import Left, Pushable

if TYPE_CHECKING:
    from gameserver._entity import Entity
    from gameserver._room import Room
    from gameserver._timer import Timer


class Member:
    """One person in one room: it survives a lost connection and, within the room's `grace`, a new login of the same uid.

    Subclass it for what your game keeps of a person there, and write the class into the room's: ``class Table(Room[Seat])``.
    An object is made, without arguments, when somebody joins.

    >>> from gameserver import Member
    >>> class Seat(Member):
    ...     def __init__(self) -> None:
    ...         self.hand: list[int] = []

    Fields with `sync` are seen by clients that show worlds: by all members, or with ``to=OWNER`` by this one alone.

    >>> from typing import Annotated
    >>> from gameserver import OWNER, MaxLen, sync, u8
    >>> class Player(Member):
    ...     hand: Annotated[list[u8], MaxLen(5)] = sync([], to=OWNER)
    ...     points: u8 = sync(0)
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        find_synced(cls, sys._getframe(1))

    _room: Room[Any]
    _session: Session | None
    _uid: str | None
    _number: int
    _team: int | None
    _is_dropped: bool
    _grace: Timer | None
    _row: Entity | None
    _last: dict[str, Any]
    _owned: list[Entity]

    def _take_place(
        self, room: Room[Any], session: Session | None, uid: str | None, number: int, team: int | None
    ) -> None:
        self._room, self._session, self._uid, self._number, self._team = room, session, uid, number, team
        self._is_dropped, self._grace, self._row, self._last, self._owned = session is None, None, None, {}, []

    @property
    def room(self) -> Room[Any]:
        """The room that it is in, or was."""
        return self._room

    @property
    def session(self) -> Session | None:
        """The person's session; None while they are away, and after they left."""
        return self._session

    @property
    def uid(self) -> str | None:
        """Who `authenticate` said it is; None for a guest."""
        return self._uid

    @property
    def number(self) -> int:
        """Counted by the room: 1 for its first member, 2 for the next; never given twice."""
        return self._number

    @property
    def team(self) -> int | None:
        """Of a match that a ranked queue has made: which team it plays in, from 0; None: it came by itself."""
        return self._team

    @property
    def is_connected(self) -> bool:
        """False while the person is cut off and may come back."""
        return self._session is not None and not self._is_dropped

    @overload
    def push(self, message: Pushable, /, *, delivery: Delivery | None = None) -> bool: ...
    @overload
    def push(self, route: str, body: Any = None, *, delivery: Delivery | None = None) -> bool: ...
    def push(self, route: Any, body: Any = None, *, delivery: Delivery | None = None) -> bool:
        """Pushes a message, or a body to a route, to this person, from the room: clients see the route ``Moved@17``.

        Returns:
            False if the person is away: nothing is kept for a session that has ended.
        """
        if self._session is None:
            return False
        return self._room._core_rooms().push_to(self._room.number, self._session, route, body, delivery)

    def kick(self) -> None:
        """Takes the seat away; the person's session goes on. They leave with `Left.KICKED`."""
        self._room._leave(self, Left.KICKED)

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} {self._number} of room {self._room.number} uid={self._uid!r}>"
