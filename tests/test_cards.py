"""The game of cards, by clients in Python: hands that nobody else sees, turns, and somebody who comes back."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve
from processes import EXAMPLES

from gameserver.client import Client, RemoteRoom
from gameserver.testing import replay

sys.path.insert(0, str(EXAMPLES))
cards: Any = importlib.import_module("cards")
del sys.modules["cards"], sys.path[0]

DEADLINE = 20.0


@pytest.fixture(scope="module", autouse=True)
def known() -> Iterator[None]:
    """It is a module only while it is played: `gameserver schema` of another example would find it."""
    sys.modules["cards"] = cards
    yield
    del sys.modules["cards"]


class Player:
    """A client at a table, which knows when something there has changed."""

    def __init__(self, client: Client, room: RemoteRoom) -> None:
        assert room.world is not None
        self.client, self.room = client, room
        self.changed = asyncio.Event()
        for name in (cards.Seat.__name__, cards.Table.__name__):
            for listen in (room.world.on_add, room.world.on_change, room.world.on_remove):
                listen(name, lambda _: self.changed.set())

    async def until(self, true: Callable[[], object]) -> None:
        """Until snapshots have made something true."""
        async with asyncio.timeout(DEADLINE):
            while not true():
                self.changed.clear()
                await self.changed.wait()

    @property
    def hand(self) -> list[int]:
        (own,) = [seat for seat in self.room.members if seat.number == self.room.seat] or [None]
        return list(own.hand or ()) if own is not None else []

    def seat(self, number: int) -> Any:
        (found,) = [seat for seat in self.room.members if seat.number == number]
        return found


async def connect(port: int, name: str) -> Client:
    messages = [cards.Play, cards.Start, cards.Won]
    return await Client.connect(f"ws://127.0.0.1:{port}/", user={"name": name}, world=True, messages=messages)


async def lay(player: Player, watcher: Player) -> None:
    """Plays the highest card of a hand, once the player and somebody else have seen that it is their turn."""
    room, left = player.room, len(player.hand)
    await player.until(lambda: room.state.turn == room.seat)
    await room.request(cards.Play(player.hand[-1]))
    await watcher.until(lambda: watcher.seat(room.seat).cards == left - 1)
    await player.until(lambda: len(player.hand) == left - 1)


async def play(port: int) -> None:
    first, second = await connect(port, "ann"), await connect(port, "bob")
    ann = Player(first, await first.join_or_create("cards", {"stake": 5}))
    bob = Player(second, await second.join_or_create("cards", {"stake": 5}))
    assert (ann.room.number, ann.room.seat, bob.room.seat) == (bob.room.number, 1, 2)
    results: asyncio.Queue[Any] = asyncio.Queue()
    bob.room.on(cards.Won, results.put_nowait)
    await ann.until(lambda: len(ann.room.members) == 2)
    await bob.until(lambda: len(bob.room.members) == 2)
    assert {seat.name for seat in bob.room.members} == {"ann", "bob"}
    ann.room.notify(cards.Start())
    await ann.until(lambda: ann.room.state.turn == 1 and len(ann.hand) == 5)
    await bob.until(lambda: len(bob.hand) == 5)
    # What the other has in hand is not told; how much, is.
    assert (bob.seat(1).hand, bob.seat(1).cards) == (None, 5)
    assert not {*ann.hand} & {*bob.hand}
    # She comes back with another session, and seat, hand and turn are hers.
    third = await connect(port, "ann")
    again = Player(third, await third.join_by_id(ann.room.number))
    assert again.room.seat == 1
    await again.until(lambda: again.room.members and again.hand)
    assert again.hand == ann.hand
    for _ in range(2 * cards.HAND):
        await bob.until(lambda: bob.room.state.turn in (1, 2))
        await lay(again if bob.room.state.turn == 1 else bob, bob)
    async with asyncio.timeout(DEADLINE):
        result = await results.get()
    assert result.number in (1, 2)
    await bob.until(lambda: sum(seat.tricks for seat in bob.room.members) == cards.HAND)
    lost: list[str] = []
    bob.room.on_leave(lost.append)
    await bob.room.leave()
    assert (lost, bob.room.left) == (["left"], "left")
    for client in (first, second, third):
        await client.aclose()


def test_a_game_of_cards(serve: Serve) -> None:
    with serve(cards.app) as server:
        asyncio.run(play(server.port))


def test_a_recorded_game_replays(serve: Serve, tmp_path: Path) -> None:
    """What members see of their rooms' worlds, byte by byte: also of rooms without ticks, and what tasks have written."""
    with serve(cards.app, record=tmp_path / "run") as server:
        asyncio.run(play(server.port))
    found = replay(cards.app, tmp_path / "run")
    assert found.difference is None
    assert found.compared >= 20
