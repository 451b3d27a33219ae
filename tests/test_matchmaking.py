"""The ranked queue against a plain model: it looks at everybody, every time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gameserver import ConfigError, matchmaking
from gameserver.matchmaking import RankedQueue

Key = tuple[str, int]


@dataclass
class Model:
    """The rule of `RankedQueue`, as it reads."""

    teams: int
    team_size: int
    window: float
    widen: float
    window_max: float
    waiting: list[tuple[str, float, int, float]] = field(default_factory=list)  # id, rating, size, since; oldest first
    lacking: dict[str, tuple[float, list[int], float]] = field(default_factory=dict)

    def width(self, since: float, now: float) -> float:
        return min(self.window_max, self.window + self.widen * (now - since))

    def near(self, rating: float, since: float, now: float, but: str = "") -> list[tuple[str, float, int, float]]:
        def fits(one: tuple[str, float, int, float]) -> bool:
            distance = abs(one[1] - rating)
            return one[0] != but and distance <= self.width(since, now) and distance <= self.width(one[3], now)

        return sorted(filter(fits, self.waiting), key=lambda one: (abs(one[1] - rating), one[1] < rating))

    def fill(self, missing: list[int], candidates: list[tuple[str, float, int, float]]) -> list[list[str]] | None:
        left, teams = list(missing), [[] for _ in missing]  # type: tuple[list[int], list[list[str]]]
        for id, _, size, _ in candidates[: matchmaking.LOOKED_AT * sum(missing)]:
            team = left.index(max(left))
            if size <= left[team]:
                teams[team].append(id)
                left[team] -= size
        if any(left):
            return None
        self.waiting = [one for one in self.waiting if not any(one[0] in team for team in teams)]
        return teams

    def round(self, now: float) -> list[tuple[Any, list[list[str]]]]:
        found: list[tuple[Any, list[list[str]]]] = []
        for id, (rating, missing, since) in list(self.lacking.items()):
            teams = self.fill(missing, self.near(rating, since, now))
            if teams is not None:
                found.append((id, teams))
                del self.lacking[id]
        for one in list(self.waiting):
            if one in self.waiting:
                teams = self.fill([self.team_size] * self.teams, [one, *self.near(one[1], one[3], now, one[0])])
                if teams is not None:
                    found.append((None, teams))
        return found


# Exact: of two distances that differ by less than a float can say, either rule is right.
ratings = st.one_of(st.integers(0, 6).map(float), st.integers(0, 80).map(lambda eighths: eighths / 8))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), ratings, st.integers(1, 3)),
        st.tuples(st.just("add"), ratings, st.integers(1, 2)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("lack"), ratings, st.lists(st.integers(0, 2), min_size=2, max_size=2)),
        st.tuples(st.just("round"), st.floats(0, 3)),
    ),
    max_size=60,
)


@given(steps, st.integers(1, 3), st.floats(0.1, 8), st.floats(0, 3), st.sampled_from([1, 2, 20]))
@settings(max_examples=500, deadline=None)
def test_rounds_are_those_of_the_model(
    steps: list[Any], team_size: int, window: float, widen: float, looked_at: int
) -> None:
    with mock.patch.object(matchmaking, "LOOKED_AT", looked_at):
        check_rounds(steps, team_size, window, widen)


def check_rounds(steps: list[Any], team_size: int, window: float, widen: float) -> None:
    shape = {"teams": 2, "team_size": team_size, "window": window, "widen": widen, "window_max": 8.0}
    queue, model, now = RankedQueue(**shape), Model(**shape), 0.0  # type: ignore[arg-type]
    for count, (verb, *rest) in enumerate(steps):
        if verb == "add" and rest[1] <= team_size:
            queue.add(f"p{count}", rest[0], size=rest[1], now=now)
            model.waiting.append((f"p{count}", rest[0], rest[1], now))
        elif verb == "cancel":
            id = f"p{rest[0]}"
            assert queue.cancel(id) == any(one[0] == id for one in model.waiting)
            model.waiting = [one for one in model.waiting if one[0] != id]
        elif verb == "lack" and max(rest[1]) <= team_size:
            queue.backfill("m", rest[0], rest[1], now=now)
            model.lacking.pop("m", None)
            if any(rest[1]):
                model.lacking["m"] = (rest[0], rest[1], now)
        elif verb == "round":
            now += rest[0]
            found = queue.round(now)
            assert [(match.backfill, [[one.id for one in team] for team in match.teams]) for match in found] == (
                model.round(now)
            )
            assert all(sum(one.size for one in team) <= team_size for match in found for team in match.teams)
        assert len(queue) == len(model.waiting)
        assert all(one[0] in queue for one in model.waiting)


def test_who_waits_long_enough_meets_whoever_is_there() -> None:
    queue = RankedQueue(window=10, widen=1, window_max=100)
    queue.add("ann", 1000, now=0)
    queue.add("bob", 1090, now=50)
    assert queue.round(now=80) == []  # ann would, bob would not yet
    assert [ticket.id for match in queue.round(now=130) for ticket in match.tickets] == ["ann", "bob"]


def test_what_is_wrong_is_said() -> None:
    for wrong in ({"teams": 0}, {"team_size": 0}, {"window": 0}, {"widen": -1}, {"window_max": float("nan")}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            RankedQueue(**wrong)
    queue = RankedQueue(team_size=2)
    queue.add("ann", 1, now=0)
    for id, rating, size in (("ann", 1, 1), ("bob", float("nan"), 1), ("bob", 1, 3), ("bob", 1, 0)):
        with pytest.raises(ValueError, match=r"waits already|a number|teams are of"):
            queue.add(id, rating, size=size, now=0)
    for missing in ([1], [3, 0], [-1, 0]):
        with pytest.raises(ValueError, match="missing"):
            queue.backfill("m", 1, missing, now=0)
    assert len(queue) == 1
