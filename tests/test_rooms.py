"""Rooms over real sockets: who gets in, whose a message is, what a member lives through, and what ends a room."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve, eventually
from wire_client import Client, connected, notify, request

from gameserver import App, ConfigError, Left, Member, Message, Refuse, Room, Session, every, on, u8
from gameserver.testing import RunningServer, replay, running


class Play(Message):
    """A card is played."""

    card: u8


class Bid(Message):
    """What is waited for."""

    points: u8


class Seat(Member):
    """A seat with a hand."""

    def __init__(self) -> None:
        self.hand: list[int] = []


Start = Callable[..., RunningServer]


@pytest.fixture
def start(serve: Serve) -> Iterator[Start]:
    """Starts an app that runs until the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda app, **settings: stack.enter_context(serve(app, **settings))
        while Client.opened:
            Client.opened.pop().close()


def login(server: RunningServer, name: str) -> Client:
    client = Client(server.port)
    user = json.dumps({"sys": {"gs": {"serializer": "json"}}, "user": {"name": name}}).encode()
    assert client.handshake(user)["code"] == 200
    return client


def ask(client: Client, route: str, **body: Any) -> Any:
    answer = client.request(route, json.dumps(body).encode())
    assert not answer.error, answer
    return json.loads(answer.body)


def refused(client: Client, route: str, body: bytes = b"{}") -> str:
    answer = client.request(route, body)
    assert answer.error, answer
    code: str = json.loads(answer.body)["code"]
    return code


class Game:
    """An app with rooms that note what happens to them."""

    def __init__(self, **options: Any) -> None:
        self.app = app = App("rooms", seed=1)
        self.story = story = []  # type: list[str]

        @app.authenticate
        def who(user: dict[str, Any]) -> str | None:
            return user.get("name")

        @app.on("say")
        def say_to_all(body: bytes) -> bytes:
            return b"app " + body

        @app.room("table", **{"max_members": 10, "waits": (Bid,), **options})
        class Table(Room[Seat]):
            async def on_create(self, options: dict[str, Any]) -> None:
                if options.get("fail"):
                    raise ValueError("on_create fails")
                story.append(f"create {options}")

            def on_auth(self, session: Session, options: dict[str, Any]) -> None:
                if options.get("secret") == "wrong":
                    raise Refuse("bad-secret", "no")

            async def on_join(self, seat: Seat) -> None:
                story.append(f"join {seat.uid} {seat.number}")

            def on_drop(self, seat: Seat) -> None:
                story.append(f"drop {seat.uid}")

            def on_resume(self, seat: Seat) -> None:
                story.append(f"resume {seat.uid}")

            async def on_leave(self, seat: Seat, why: Left) -> None:
                story.append(f"leave {seat.uid} {why}")

            def on_dispose(self) -> None:
                story.append("dispose")

            @on("say")
            def say(self, seat: Seat, body: bytes) -> bytes:
                self.push("said", body, skip=seat)
                return f"{seat.uid} in {self.number}: ".encode() + body

            @on
            async def play(self, seat: Seat, msg: Play) -> Play:
                seat.hand.append(msg.card)
                return Play(card=len(seat.hand))

            @on("auction")
            async def auction(self, seat: Seat) -> str:
                bid = await self.wait_for(Bid, timeout=10)
                return f"{bid.points} points"

            @on("fail")
            def fail(self) -> None:
                raise ValueError("a room's own")

            @on("lock")
            def close_doors(self) -> None:
                self.lock()

            @on("end")
            def end(self) -> None:
                self.after(3600, story.append, "never")
                self.dispose()

            @on("count")
            def count(self) -> list[int]:
                return [len(self.members), self.errors]

        self.Table = Table


def test_a_message_is_the_rooms_that_it_names_or_of_the_only_one_that_handles_it(start: Start) -> None:
    server = start(Game().app)
    ann, bob = login(server, "ann"), login(server, "bob")
    assert ann.request("say", b"x").body == b"app x"
    first = ask(ann, "$join_or_create", name="table")
    assert ask(bob, "$join_or_create", name="table") == {**first, "seat": 2}
    room = first["room"]
    assert ann.request("say", b"x").body == f"ann in {room}: x".encode()
    assert bob.push().route == f"said@{room}"
    assert bob.request(f"say@{room}", b"y").body == f"bob in {room}: y".encode()
    assert ask(ann, "Play", card=7) == {"card": 1}
    second = ask(ann, "$create", name="table")["room"]
    assert refused(ann, "say") == "GS-404"  # of which one?
    assert ann.request(f"say@{second}", b"z").body == f"ann in {second}: z".encode()
    assert refused(bob, f"say@{second}") == refused(bob, "say@999") == refused(bob, f"nobody@{room}") == "GS-404"
    assert refused(ann, "$leave_room", b'{"room": 999}') == "no-seat"
    ask(ann, "$leave_room", room=room)
    assert ann.request("say", b"").body == f"ann in {second}: ".encode()
    assert refused(ann, f"say@{room}") == "GS-404"


def test_two_hundred_at_once_make_twenty_rooms_of_ten(start: Start) -> None:
    server = start(Game().app)
    clients = [login(server, f"p{number}") for number in range(200)]
    for client in clients:
        client.send(request(1, "$join_or_create", b'{"name": "table"}'))
    rooms = [json.loads(client.response(1).body)["room"] for client in clients]
    assert sorted(map(rooms.count, set(rooms))) == [10] * 20
    assert server.call(lambda: [len(room.members) for room in server.app.rooms]) == [10] * 20


def test_a_members_life(start: Start) -> None:
    game = Game(grace=30)
    server = start(game.app)
    ann, bob = login(server, "ann"), login(server, "bob")
    room = ask(ann, "$join_or_create", name="table")["room"]
    ask(bob, "$join_by_id", room=room)
    ask(ann, "Play", card=7)
    again = login(server, "ann")  # replaces her session; the seat is hers
    eventually(server, lambda _: "resume ann" in game.story)
    assert ask(again, "Play", card=8) == {"card": 2}
    assert ask(again, "$join_by_id", room=room)["seat"] == 1
    ask(again, "$leave_room", room=room)
    bob.close()
    eventually(server, lambda _: "dispose" in game.story)
    assert game.story == [
        "create {}",
        "join ann 1",
        "join bob 2",
        "drop ann",
        "resume ann",
        "leave ann left",
        "leave bob left",
        "dispose",
    ]


def test_what_is_refused(start: Start) -> None:
    game = Game(max_members=2, max_rooms=2)
    server = start(game.app)
    ann, bob, cid = (login(server, name) for name in ("ann", "bob", "cid"))
    assert refused(ann, "$join", b'{"name": "table"}') == "no-room"
    assert refused(ann, "$create", b'{"name": "nothing"}') == "no-room"
    for wrong in (b"", b"[]", b"1", b"{", b'{"name": "table", "options": 1}'):
        assert refused(ann, "$create", wrong) == "GS-400"
    for wrong in (b'{"room": "1"}', b'{"room": -1}', b'{"room": 1e9}', b"{}"):
        assert refused(ann, "$join_by_id", wrong) == "no-room"
    assert refused(ann, "$create", b'{"name": "table", "options": {"fail": true}}') == "GS-500"
    assert refused(ann, "$create", b'{"name": "table", "options": {"secret": "wrong"}}') == "bad-secret"
    eventually(server, lambda _: not server.call(lambda: server.app.rooms))
    room = ask(ann, "$create", name="table")["room"]
    ask(bob, "$join", name="table")
    assert refused(cid, "$join_by_id", json.dumps({"room": room}).encode()) == "room-full"
    ask(bob, "$leave_room", room=room)
    ann.request("lock")
    assert refused(cid, "$join_by_id", json.dumps({"room": room}).encode()) == "room-locked"
    ask(bob, "$create", name="table")
    assert refused(cid, "$create", b'{"name": "table"}') == "rooms-full"


def test_an_exception_is_the_rooms_own(start: Start) -> None:
    game = Game()
    server = start(game.app)
    ann = login(server, "ann")
    room = ask(ann, "$create", name="table")["room"]
    other = ask(ann, "$create", name="table")["room"]
    assert refused(ann, f"fail@{room}") == "GS-500"
    assert (ask(ann, f"count@{room}"), ask(ann, f"count@{other}")) == ([1, 1], [1, 0])


def test_an_exception_may_end_its_room(start: Start) -> None:
    server = start(Game(dispose_on_error=True).app)
    ann = login(server, "ann")
    room = ask(ann, "$create", name="table")["room"]
    assert refused(ann, "fail") == "GS-500"
    assert json.loads(ann.push("$left").body) == {"room": room, "why": "disposed"}
    assert refused(ann, f"count@{room}") == "GS-404"


def test_a_handler_waits_for_a_message(start: Start) -> None:
    server = start(Game().app)
    ann, bob = login(server, "ann"), login(server, "bob")
    for client in (ann, bob):
        ask(client, "$join_or_create", name="table")
    assert refused(bob, "Bid", b'{"points": 5}') == "GS-409"
    ann.send(request(50, "auction"))
    eventually(server, lambda _: server.call(lambda: bool(server.app.rooms[0]._waits)))
    assert not bob.request("Bid", b'{"points": 5}').error
    assert ann.response(50).body == b'"5 points"'


def test_a_room_ends_and_takes_its_timers_along(start: Start) -> None:
    game = Game()
    server = start(game.app)
    ann = login(server, "ann")
    ask(ann, "$create", name="table")
    ann.send(notify("end"))
    assert json.loads(ann.push("$left").body)["why"] == "disposed"
    assert game.story[-2:] == ["leave ann disposed", "dispose"] or game.story[-1] == "leave ann disposed"
    assert server.call(lambda: len(server.app._timers)) == 0
    assert server.call(lambda: server.app.rooms) == ()


def test_ticks_and_timers_of_a_rooms_own(start: Start) -> None:
    app = App("ticks")
    made = []

    @app.room("fast", tick_rate=100)
    class Fast(Room[Member]):
        def __init__(self) -> None:
            made.append(self)
            self.ticks: list[float] = []
            self.beats = 0

        def on_tick(self, dt: float) -> None:
            self.ticks.append(dt)
            if len(self.ticks) == 3:
                raise ValueError("one bad tick")
            self.push("tick", {"n": len(self.ticks)})

        @every(0.02)
        def beat(self) -> None:
            self.beats += 1

    server = start(app)
    client = connected(server.port)
    ask(client, "$create", name="fast")
    assert [json.loads(client.push().body)["n"] for _ in range(6)] == [1, 2, 4, 5, 6, 7]
    (room,) = made
    assert set(room.ticks) == {0.01}
    assert room.errors == 1
    eventually(server, lambda _: room.beats >= 3)


def test_people_meet_by_matched_options_and_in_the_order_asked_for(start: Start) -> None:
    app = App("match")

    @app.room("arena", max_members=3, match=("mode",), sort="-members")
    class Arena(Room[Member]):
        def on_create(self, options: dict[str, Any]) -> None:
            self.metadata = {"map": options.get("map", "ice")}

    server = start(app)
    clients = [connected(server.port) for _ in range(6)]
    duel = ask(clients[0], "$join_or_create", name="arena", options={"mode": 1})["room"]
    assert ask(clients[1], "$join_or_create", name="arena", options={"mode": True})["room"] != duel
    assert ask(clients[2], "$join_or_create", name="arena", options={"mode": 1})["room"] == duel
    ask(clients[3], "$create", name="arena", options={"mode": 1, "map": "lava"})
    assert ask(clients[4], "$join", name="arena", options={"mode": 1})["room"] == duel  # the fullest
    assert refused(clients[5], "$join", b'{"name": "arena", "options": {"mode": []}}') == "GS-400"
    listed = ask(clients[5], "$rooms", name="arena", filter={"map": "lava"})
    assert [(room["members"], room["metadata"]) for room in listed] == [(1, {"map": "lava"})]
    assert len(ask(clients[5], "$rooms")) == 2  # the duel is full


def test_groups_of_a_room_are_its_own(start: Start) -> None:
    app = App("groups")

    @app.authenticate
    def who(user: dict[str, Any]) -> str:
        return str(user["name"])

    @app.room("match", grace=30)
    class Game(Room[Member]):
        def on_join(self, seat: Member) -> None:
            red = self.group("red")
            assert red.add(seat)
            assert not red.add(seat)
            assert seat in red

        @on("shout")
        def shout(self, seat: Member) -> int:
            return self.group("red").push("heard", {"from": seat.number}, skip=seat)

        @on("out")
        def out(self, seat: Member) -> list[Any]:
            return [self.group("red").remove(seat), self.group("red").remove(seat), len(self.group("red"))]

    server = start(app)
    ann, bob, cid, dan = (login(server, name) for name in ("ann", "bob", "cid", "dan"))
    first = ask(ann, "$create", name="match")["room"]
    second = ask(dan, "$create", name="match")["room"]
    for client in (bob, cid):
        ask(client, "$join_by_id", room=first)
    assert ask(ann, "shout") == 2
    for client in (bob, cid):
        assert client.push().route == f"heard@{first}"
    assert (ask(dan, "shout"), ask(cid, "out")) == (0, [True, False, 2])
    assert ask(ann, "shout") == 1
    # Who comes back with another session is in it still.
    again = login(server, "bob")
    eventually(server, lambda _: server.call(lambda: all(seat.is_connected for seat in app.rooms[0].members)))
    assert ask(ann, "shout") == 1
    assert json.loads(again.push(f"heard@{first}").body) == {"from": 1}
    ask(again, "$leave_room", room=first)
    assert ask(ann, "shout") == 0
    group, other = server.call(lambda: [room.group("red") for room in app.rooms])
    (stranger,) = other
    with pytest.raises(ValueError, match="no member"):
        server.call(lambda: group.add(stranger))
    assert (second, len(group)) == (2, 1)


def test_ranked_matches_are_rooms_with_teams(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gameserver._ranked.ROUND_INTERVAL", 0.01)
    app = App("ranked")

    @app.authenticate
    def who(user: dict[str, Any]) -> str:
        return str(user["name"])

    @app.room("duel", max_members=4, clients_create=False)
    class Duel(Room[Member]):
        @on("team")
        def team(self, seat: Member) -> list[Any]:
            return [seat.team, sorted(other.uid or "" for other in self.members if other.team == seat.team)]

    duels = app.ranked(
        "duels", Duel, rating=lambda session: float((session.uid or "0").strip("abc")), team_size=2, widen=0
    )
    with pytest.raises(ConfigError, match="do not fit"):
        app.ranked("x", Duel, rating=lambda _: 0.0, team_size=3)
    with pytest.raises(ConfigError, match="of this name"):
        app.ranked("duels", Duel, rating=lambda _: 0.0)
    server = start(app)
    people = {name: login(server, name) for name in ("a100", "b120", "c150", "a500", "b550", "c130", "a140")}
    assert refused(people["a100"], "$queue", b'{"name": "x"}') == "no-queue"
    for name, client in people.items():
        if name != "b120":
            ask(client, "$queue", name="duels")
    assert refused(people["a500"], "$queue", b'{"name": "duels"}') == "in-queue"
    places = {}
    for name in ("a100", "c150", "c130", "a140"):
        places[name] = json.loads(people[name].push("$matched").body)
    assert len({place["room"] for place in places.values()}) == 1
    assert sorted(place["team"] for place in places.values()) == [0, 0, 1, 1]
    for name, place in places.items():
        team, others = ask(people[name], "team")
        assert team == place["team"]
        assert others == sorted(other for other in places if places[other]["team"] == team)
    assert refused(people["a500"], "$create", b'{"name": "duel"}') == "no-room"
    # Of those who wait: one does no more, one leaves.
    assert ask(people["a500"], "$unqueue", name="duels") is True
    assert ask(people["a500"], "$unqueue", name="duels") is False
    people["b550"].close()
    eventually(server, lambda _: server.call(lambda: len(duels.queue)) == 0)
    # A match that lacks somebody is served by who comes.
    gone = next(name for name in places if places[name]["team"] == 1)
    ask(people[gone], "$leave_room", room=places[gone]["room"])
    server.call(lambda: duels.backfill(app.rooms[0], 120, [0, 1]))
    ask(people["b120"], "$queue", name="duels")
    place = json.loads(people["b120"].push("$matched").body)
    assert (place["room"], place["team"]) == (places[gone]["room"], 1)


def test_mistakes_are_found_at_once() -> None:
    app = App("wrong")
    with pytest.raises(ConfigError, match="subclass of gameserver.Room"):
        app.room("x")(int)  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="max_members"):

        @app.room("x", max_members=0)
        class A(Room[Member]): ...

    with pytest.raises(ConfigError, match=r"write Room\[Seat\]"):

        @app.room("x")
        class B(Room[Member]):
            @on("say")
            def say(self, seat: Seat) -> None: ...

    with pytest.raises(ConfigError, match="handled already"):

        @app.room("x", waits=(Play,))
        class C(Room[Member]):
            @on
            def play(self, msg: Play) -> None: ...


def test_rooms_are_replayed(tmp_path: Path) -> None:
    recording = tmp_path / "run"
    game = Game(grace=5)

    def play(server: RunningServer) -> None:
        ann, bob = login(server, "ann"), login(server, "bob")
        for client in (ann, bob):
            ask(client, "$join_or_create", name="table")
        ask(ann, "Play", card=3)
        ann.close()
        ask(bob, "$create", name="table")
        bob.close()
        eventually(server, lambda _: not server.call(lambda: server.app.sessions))

    app = game.app
    original = app.run
    app.run = lambda **settings: original(record=recording, **settings)  # type: ignore[method-assign]
    with running(app) as server:
        play(server)
    found = replay(Game(grace=5).app, recording)
    assert found.difference is None
    assert found.compared > 0
