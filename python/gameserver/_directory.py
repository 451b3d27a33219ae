"""Which rooms there are and which of them can be joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Scalar = str | int | float | bool | None


@dataclass(slots=True)
class Listing:
    """What is known of a room outside of it.

    >>> Listing(1, "arena", ("eu",), max_members=10).is_open
    True
    """

    number: int
    name: str
    match: tuple[Scalar, ...]
    """The values of the fields that its class matches by."""
    max_members: int
    taken: int = 0
    """Members, and places that are promised."""
    locked: bool = False
    private: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether matchmaking may put somebody there."""
        return self.taken < self.max_members and not (self.locked or self.private)


class Directory(Protocol):
    """Finds rooms for people. Each call is atomic: what `take` has given to one is nobody else's."""

    def publish(self, listing: Listing) -> None:
        """Adds a room, or takes note that something of it has changed."""

    def withdraw(self, number: int) -> None:
        """The room is gone."""

    def take(self, name: str, match: tuple[Scalar, ...], sort: str | None) -> Listing | None:
        """Takes a place in the first open room of this class and these values; None if there is none."""
        ...

    def take_in(self, number: int) -> Listing | None:
        """Takes a place in this room, private or not; None if it is full, locked or gone."""
        ...

    def give_back(self, number: int) -> None:
        """Frees a place."""

    def find(self, name: str | None, fields: Mapping[str, Any], limit: int) -> Sequence[Listing]:
        """Rooms that are open and whose metadata has these values, oldest first."""
        ...


class LocalDirectory:
    """The rooms of this process.

    >>> directory = LocalDirectory()
    >>> directory.publish(Listing(1, "arena", (), max_members=1))
    >>> directory.take("arena", (), None).number
    1
    >>> directory.take("arena", (), None) is None
    True
    """

    def __init__(self) -> None:
        self._listings: dict[int, Listing] = {}
        self._open: dict[tuple[str, tuple[Scalar, ...]], dict[int, Listing]] = {}

    def publish(self, listing: Listing) -> None:
        """See `Directory.publish`."""
        self._listings[listing.number] = listing
        self._sort_in(listing)

    def withdraw(self, number: int) -> None:
        """See `Directory.withdraw`."""
        listing = self._listings.pop(number, None)
        if listing is not None:
            self._take_out(listing)

    def take(self, name: str, match: tuple[Scalar, ...], sort: str | None) -> Listing | None:
        """See `Directory.take`."""
        rooms = self._open.get((name, _typed(match)))
        if not rooms:
            return None
        listing = next(iter(rooms.values())) if sort is None else min(rooms.values(), key=lambda one: _rank(one, sort))
        listing.taken += 1
        self._sort_in(listing)
        return listing

    def take_in(self, number: int) -> Listing | None:
        """See `Directory.take_in`."""
        listing = self._listings.get(number)
        if listing is None or listing.locked or listing.taken >= listing.max_members:
            return None
        listing.taken += 1
        self._sort_in(listing)
        return listing

    def give_back(self, number: int) -> None:
        """See `Directory.give_back`."""
        listing = self._listings.get(number)
        if listing is not None:
            listing.taken -= 1
            self._sort_in(listing)

    def find(self, name: str | None, fields: Mapping[str, Any], limit: int) -> Sequence[Listing]:
        """See `Directory.find`."""
        found: list[Listing] = []
        for listing in self._listings.values():
            if len(found) >= limit:
                break
            if listing.is_open and name in (None, listing.name):
                known = listing.metadata
                if all(key in known and known[key] == value for key, value in fields.items()):
                    found.append(listing)
        return found

    def _sort_in(self, listing: Listing) -> None:
        if listing.is_open:
            self._open.setdefault((listing.name, _typed(listing.match)), {})[listing.number] = listing
        else:
            self._take_out(listing)

    def _take_out(self, listing: Listing) -> None:
        key = (listing.name, _typed(listing.match))
        rooms = self._open.get(key)
        if rooms is not None and rooms.pop(listing.number, None) is not None and not rooms:
            del self._open[key]


def _typed(match: tuple[Scalar, ...]) -> tuple[Any, ...]:
    """A key that tells 1 from True and from 1.0."""
    return tuple((type(value).__name__, value) for value in match)


def _rank(listing: Listing, sort: str) -> tuple[float, int]:
    name = sort.removeprefix("-")
    value = listing.taken if name == "members" else listing.metadata.get(name)
    number = float(value) if isinstance(value, (int, float)) else float("inf")
    return (-number if sort.startswith("-") and number != float("inf") else number, listing.number)
