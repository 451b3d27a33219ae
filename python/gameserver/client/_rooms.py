"""The rooms in which a client's session has a seat."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from gameserver._message import Message
from gameserver.client._bodies import Route, name_of
from gameserver.client._world import RemoteWorld

if TYPE_CHECKING:
    from gameserver import wire

__all__ = ["RemoteRoom", "Rooms", "room_of"]

F = TypeVar("F", bound=Callable[..., object])

EARLY_MAX = 100  # pushes of one room that came before anybody listened to their route
EARLY_AGE_MAX = 2.0  # s; older ones are of no use to who listens then

_ADDRESS = re.compile(r"@([1-9][0-9]{0,9})$")


class Caller(Protocol):
    """What a room needs of its client."""

    def request(self, route: str, body: Any = None, *, timeout: float | None = None, raw: bool = False) -> Any: ...
    def notify(self, route: str, body: Any = None) -> bool: ...
    def input(self, route: str, body: Any = None) -> None: ...
    def on(self, route: str, listener: Callable[..., object], /) -> object: ...


class RemoteRoom:
    """A room in which the client's session has a seat. Made by `Client.join_or_create` and its like.

    What is asked and told here goes to this room, also when the session is in several; `on` gets this room's pushes.

    Attributes:
        number: what stands behind its routes: ``Say@17``.
        name: of its class.
        seat: the number of this client's seat: the room never gives it to another member.
        world: what is seen of the room's world; None unless worlds were asked for.
        left: why the seat was given up: `left`, `kicked`, `disposed`, `shutdown`, or `lost` with its session; "" while it
            is held.
    """

    def __init__(self, client: Caller, place: Mapping[str, Any], world: RemoteWorld | None) -> None:
        self._client = client
        self._listeners: list[Callable[[str], object]] = []
        self.number = int(place["room"])
        self.name = str(place["name"])
        self.seat = int(place["seat"])
        self.world = world
        self.left = ""
        self._shape: Mapping[str, Any] = {}

    @property
    def state(self) -> Any:
        """The room's own fields, as attributes; None: it has none, or they are not here yet."""
        rows = self._rows("room")
        return rows[0] if rows else None

    @property
    def members(self) -> list[Any]:
        """The members' fields, by their `number`: that of this client's own is `seat`."""
        return sorted(self._rows("member"), key=lambda row: row.number)

    def _rows(self, key: str) -> list[Any]:
        table = self._shape.get(key)
        return list(self.world.entities[table].values()) if self.world is not None and table is not None else []

    def request(self, route: Route, body: Any = None, *, timeout: float | None = None, raw: bool = False) -> Any:
        """Asks the room; see `Client.request`."""
        return self._client.request(*self._address(route, body), timeout=timeout, raw=raw)

    def notify(self, route: Route, body: Any = None) -> bool:
        """Tells the room; see `Client.notify`."""
        return self._client.notify(*self._address(route, body))

    def input(self, route: Route, body: Any = None) -> None:
        """Tells the room what the player does; see `Client.input`."""
        self._client.input(*self._address(route, body))

    @overload
    def on(self, route: Route) -> Callable[[F], F]: ...
    @overload
    def on(self, route: Route, listener: F) -> F: ...
    def on(self, route: Route, listener: F | None = None) -> F | Callable[[F], F]:
        """Calls a function with each push of the room to a route; see `Client.on`."""

        def add(function: F) -> F:
            self._client.on(f"{name_of(route)}@{self.number}", function)
            return function

        return add if listener is None else add(listener)

    def on_leave(self, listener: F) -> F:
        """Calls a function once, when the seat is given up, with `left`."""
        self._listeners.append(listener)
        return listener

    def leave(self) -> Any:
        """Gives the seat up; a future that is done once the server has answered."""
        return self._client.request("$leave_room", {"room": self.number})

    def _begin(self, shapes: Any, goes_on: bool) -> list[tuple[Callable[[Any], object], Any]]:
        """A connection is there, whose schema says this of the rooms' worlds."""
        shape = shapes.get(self.name) if isinstance(shapes, dict) else None
        self._shape = shape if isinstance(shape, dict) else {}
        return self.world._begin(shape, goes_on) if self.world is not None else []

    def _address(self, route: Route, body: Any) -> tuple[str, Any]:
        return f"{name_of(route)}@{self.number}", route if isinstance(route, Message) else body

    def __repr__(self) -> str:
        return f"<{self.name} {self.number} seat {self.seat}>"


@dataclass(slots=True)
class Early:
    """A push that came before anybody listened to its route."""

    route: str
    at: float
    message: wire.Message


@dataclass(slots=True)
class Rooms:
    """The rooms of one client, sans-I/O."""

    joined: dict[int, RemoteRoom] = field(default_factory=dict)
    joining: int = 0
    """Requests in flight that may answer with a seat."""
    _early: dict[int, list[Early]] = field(default_factory=dict)

    def keep_early(self, now: float, route: str, message: wire.Message) -> None:
        """A push has come to which nobody listens: of a room, or of one that is about to be joined, it is kept for a moment."""
        number = room_of(route)
        if number in self.joined or (number and self.joining):
            early = self._early.setdefault(number, [])
            if len(early) < EARLY_MAX:
                early.append(Early(route, now, message))

    def take_early(self, now: float, route: str) -> list[Early]:
        """What was kept for a route to which somebody listens now."""
        early = self._early.get(room_of(route))
        if not early:
            return []
        fresh = [one for one in early if now - one.at <= EARLY_AGE_MAX]
        early[:] = [one for one in fresh if one.route != route]
        return [one for one in fresh if one.route == route]

    def begin(self, shapes: Any, goes_on: bool) -> list[tuple[Callable[[Any], object], Any]]:
        """A connection is there, whose schema says this of the rooms' worlds: whom to tell of what."""
        told: list[tuple[Callable[[Any], object], Any]] = []
        for room in self.joined.values():
            told += room._begin(shapes, goes_on)
        return told

    def end(self, number: int, why: str) -> list[tuple[Callable[[Any], object], Any]]:
        """A seat is given up: whom to tell why."""
        self._early.pop(number, None)
        room = self.joined.pop(number, None)
        if room is None:
            return []
        room.left = why
        return [(listener, why) for listener in room._listeners]

    def forget_strangers(self) -> None:
        """Nothing is being joined: what was kept of rooms that were not is of no use."""
        if not self.joining:
            for number in [number for number in self._early if number not in self.joined]:
                del self._early[number]


def room_of(route: str) -> int:
    """The number of the room whose route it is; 0: of none."""
    found = _ADDRESS.search(route)
    return int(found[1]) if found else 0
