"""Ranked matchmaking: people of like strength, in teams, found in rounds; sans-I/O."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gameserver.errors import ConfigError

__all__ = ["Backfill", "Match", "RankedQueue", "Ticket"]

LOOKED_AT = 20  # candidates for each person that a match lacks: a bound on what one round costs


@dataclass(slots=True, eq=False)
class Ticket:
    """A party that waits for a match.

    >>> Ticket("ann", rating=1500, size=1, since=0.0).size
    1
    """

    id: Hashable
    rating: float
    size: int
    """People who want to be in one team."""
    since: float
    """When it came, in s of the queue's clock."""


@dataclass(slots=True, eq=False)
class Backfill:
    """A match that goes on and lacks people."""

    id: Hashable
    rating: float
    missing: list[int]
    """People that each team lacks."""
    since: float


@dataclass(frozen=True, slots=True)
class Match:
    """Who plays together."""

    teams: tuple[tuple[Ticket, ...], ...]
    """Parties by team."""
    backfill: Hashable = None
    """The id of the match that they join; None: a new one."""

    @property
    def tickets(self) -> Iterator[Ticket]:
        """All parties."""
        return itertools.chain.from_iterable(self.teams)


@dataclass
class RankedQueue:
    """Puts parties of like rating into teams. `round` is called now and then, `add` and `cancel` whenever something happens.

    Whoever waits longest is served first. Those whose rating is within both its window and theirs are looked at, the
    nearest first (of equals the stronger, then who came first), at most `LOOKED_AT` for each person that lacks; each
    goes into the team that lacks most, if it fits there. A match is found if that fills all teams. A window is `window`
    wide at first and `widen` wider each second, up to `window_max`. A match that lacks people (`backfill`) is served
    before new ones, in the same way.

    Args:
        teams: in a match.
        team_size: people in a team.
        window: difference in rating that is fine at once.
        widen: by so much more each second.
        window_max: but never more.

    Raises:
        ConfigError: an argument is not above 0 (`widen` may be 0).

    >>> queue = RankedQueue(teams=2, team_size=1, window=50, widen=10)
    >>> for name, rating in (("ann", 1500), ("bob", 1580), ("cid", 1900)):
    ...     _ = queue.add(name, rating, now=0.0)
    >>> queue.round(now=0.0)  # 80 apart: not yet
    []
    >>> [[ticket.id for ticket in match.tickets] for match in queue.round(now=3.0)]
    [['ann', 'bob']]
    >>> queue.cancel("cid"), len(queue)
    (True, 0)
    """

    teams: int = 2
    team_size: int = 1
    window: float = 100.0
    widen: float = 10.0
    window_max: float = 1000.0
    _tickets: dict[Hashable, Ticket] = field(default_factory=dict, init=False, repr=False)
    _backfills: dict[Hashable, Backfill] = field(default_factory=dict, init=False, repr=False)
    _ladder: list[tuple[float, int, Ticket]] = field(default_factory=list, init=False, repr=False)
    _places: dict[Hashable, tuple[float, int]] = field(default_factory=dict, init=False, repr=False)
    _count: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("teams", "team_size", "window", "window_max"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"RankedQueue({name}={getattr(self, name)!r}): above 0")
        if not self.widen >= 0:
            raise ConfigError(f"RankedQueue(widen={self.widen!r}): 0 or more")

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, id: Hashable) -> bool:
        return id in self._tickets

    def add(self, id: Hashable, rating: float, *, size: int = 1, now: float) -> Ticket:
        """A party comes.

        Raises:
            ValueError: it waits already, is larger than a team, or its rating is no number.
        """
        if id in self._tickets:
            raise ValueError(f"{id!r} waits already")
        if not 1 <= size <= self.team_size:
            raise ValueError(f"a party of {size}: teams are of {self.team_size}")
        if not abs(rating) < 1e12:
            raise ValueError(f"rating={rating!r}: a number")
        ticket = Ticket(id, float(rating), size, now)
        self._count += 1
        place = (ticket.rating, self._count)
        self._tickets[id], self._places[id] = ticket, place
        bisect.insort(self._ladder, (*place, ticket))
        return ticket

    def cancel(self, id: Hashable) -> bool:
        """A party waits no more; False if it did not."""
        if id not in self._tickets:
            return False
        self._take(self._tickets[id])
        return True

    def backfill(self, id: Hashable, rating: float, missing: Sequence[int], *, now: float) -> None:
        """A match lacks people from now on: so many in each team. All 0: it lacks nobody any more.

        Raises:
            ValueError: these are no teams of this queue.
        """
        if len(missing) != self.teams or not all(0 <= lacks <= self.team_size for lacks in missing):
            raise ValueError(f"missing={missing!r}: of each of {self.teams} teams, 0 to {self.team_size}")
        if any(missing):
            self._backfills[id] = Backfill(id, float(rating), list(missing), now)
        else:
            self._backfills.pop(id, None)

    def round(self, now: float) -> list[Match]:
        """Who can play now; they wait no more."""
        found: list[Match] = []
        for wanting in list(self._backfills.values()):
            teams = self._fill(wanting.missing, self._near(wanting.rating, wanting.since, now))
            if teams is not None:
                found.append(Match(teams, wanting.id))
                del self._backfills[wanting.id]
        empty = [self.team_size] * self.teams
        for anchor in sorted(self._tickets.values(), key=lambda ticket: (ticket.since, self._places[ticket.id][1])):
            if anchor.id not in self._tickets:
                continue  # of a match of this round
            others = (other for other in self._near(anchor.rating, anchor.since, now) if other is not anchor)
            teams = self._fill(empty, itertools.chain((anchor,), others))
            if teams is not None:
                found.append(Match(teams))
        return found

    def width(self, since: float, now: float) -> float:
        """The window of who has waited since then."""
        return min(self.window_max, self.window + self.widen * max(0.0, now - since))

    def _near(self, rating: float, since: float, now: float) -> Iterator[Ticket]:
        """Those within both windows: the nearest first, of equals the stronger, then who came first."""
        width = self.width(since, now)
        ladder = self._ladder
        up = bisect.bisect_left(ladder, (rating, 0))
        down = up - 1
        while True:
            above = ladder[up][0] - rating if up < len(ladder) else width + 1
            below = rating - ladder[down][0] if down >= 0 else width + 1
            if min(above, below) > width:
                return
            if above <= below:
                ticket, up, distance = ladder[up][2], up + 1, above
            else:
                # Of one rating, those who came first: the run is walked from its start.
                start = bisect.bisect_left(ladder, (ladder[down][0], 0))
                for place in range(start, down + 1):
                    if below <= self.width(ladder[place][2].since, now):
                        yield ladder[place][2]
                down = start - 1
                continue
            if distance <= self.width(ticket.since, now):
                yield ticket

    def _fill(self, missing: Sequence[int], candidates: Iterable[Ticket]) -> tuple[tuple[Ticket, ...], ...] | None:
        """Takes parties in this order as long as they fit somewhere, each into the emptiest team; None unless all get full."""
        left = list(missing)
        teams: list[list[Ticket]] = [[] for _ in left]
        lacks = sum(left)
        for ticket in itertools.islice(candidates, LOOKED_AT * lacks):
            team = max(range(len(left)), key=lambda index: left[index])
            if ticket.size > left[team]:
                continue
            teams[team].append(ticket)
            left[team] -= ticket.size
            lacks -= ticket.size
            if not lacks:
                break
        if lacks:
            return None
        for team_tickets in teams:
            for ticket in team_tickets:
                self._take(ticket)
        return tuple(map(tuple, teams))

    def _take(self, ticket: Ticket) -> None:
        del self._tickets[ticket.id]
        place = self._places.pop(ticket.id)
        del self._ladder[bisect.bisect_left(self._ladder, place)]
