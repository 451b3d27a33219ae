"""Ranked matches of an app: who waits, and the rooms that they are put into."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gameserver._core import Session
from gameserver._types import Left
from gameserver.errors import GameServerError, Refuse
from gameserver.matchmaking import Match, RankedQueue

if TYPE_CHECKING:
    from gameserver._app import App
    from gameserver._room import Room
    from gameserver._rooms import RoomType

ROUND_INTERVAL = 1.0


class Ranked:
    """A ranked queue whose matches are rooms; made by `App.ranked`.

    >>> from gameserver import App, Member, Room
    >>> app = App("doc")
    >>> @app.room("duel", max_members=2, clients_create=False)
    ... class Duel(Room[Member]): ...
    >>> duels = app.ranked("duels", Duel, rating=lambda session: 1500.0)
    >>> len(duels.queue)
    0
    """

    def __init__(
        self, app: App, name: str, kind: RoomType, rating: Callable[[Session], float], queue: RankedQueue
    ) -> None:
        self._app = app
        self._kind = kind
        self._rating = rating
        self._parties: dict[Session, tuple[Session, ...]] = {}
        self._is_armed = False
        self.name = name
        self.queue = queue

    def enter(self, *party: Session) -> None:
        """Sessions that want to be in one team wait for a match; its rating is their mean.

        Raises:
            Refuse: one waits already.
            ValueError: they are more than a team.
        """
        if any(session in self._parties for session in party):
            raise Refuse("in-queue", f"you wait for a match of {self.name!r} already")
        rating = sum(self._rating(session) for session in party) / len(party)
        self.queue.add(party[0], rating, size=len(party), now=self._app.clock.now())
        self._parties.update(dict.fromkeys(party, party))
        self._arm()

    def cancel(self, session: Session) -> bool:
        """A session waits no more, nor does its party; False if it did not."""
        party = self._parties.get(session)
        if party is None:
            return False
        self._forget(party)
        return self.queue.cancel(party[0])

    def backfill(self, room: Room[Any], rating: float, missing: list[int]) -> None:
        """A room lacks so many people in each team: they are found before new matches are. All 0: it lacks nobody any more.

        Raises:
            ValueError: these are no teams of the queue.
        """
        self.queue.backfill(room.number, rating, missing, now=self._app.clock.now())
        self._arm()

    def _arm(self) -> None:
        if not self._is_armed:
            self._is_armed = True
            self._app.after(ROUND_INTERVAL, self._round)

    def _round(self) -> None:
        self._is_armed = False
        for match in self.queue.round(self._app.clock.now()):
            parties = [[self._parties[ticket.id] for ticket in team] for team in match.teams]  # type: ignore[index]
            for party in (party for team in parties for party in team):
                self._forget(party)
            self._app.task(self._play(match, parties))
        if len(self.queue):
            self._arm()

    async def _play(self, match: Match, parties: list[list[tuple[Session, ...]]]) -> None:
        """Seats all who are there still; the room sees who is not, and may ask for others."""
        rooms = self._app._rooms
        room = rooms._open.get(match.backfill) if isinstance(match.backfill, int) else None
        if room is None:
            if match.backfill is not None:
                return self._again(parties)  # it ended
            room = rooms.open(self._kind, {})
            room._publish()
            await rooms.create(self._kind, room)
        seated = [
            self._seat(room, session, team)
            for team, team_parties in enumerate(parties)
            for party in team_parties
            for session in party
        ]
        await asyncio.gather(*seated)
        room._start_idle()
        return None

    async def _seat(self, room: Room[Any], session: Session, team: int) -> None:
        rooms = self._app._rooms
        if rooms.directory.take_in(room.number) is None:
            return
        # Who has gone, or whom the room refuses, is not seated: the place is free again.
        with contextlib.suppress(GameServerError):
            place = await rooms._enter(session, room.number, {}, team)
            session.push("$matched", {"queue": self.name, "team": team, **place})

    def _again(self, parties: list[list[tuple[Session, ...]]]) -> None:
        for party in (party for team in parties for party in team):
            if all(session.state != "closed" for session in party):
                self.enter(*party)

    def _left(self, session: Session, why: Left) -> None:
        self.cancel(session)

    def _forget(self, party: tuple[Session, ...]) -> None:
        for session in party:
            self._parties.pop(session, None)

    def _end(self) -> None:
        """The run is over."""
        for party in list(self._parties.values()):
            self.queue.cancel(party[0])
        self._parties.clear()
        self._is_armed = False
