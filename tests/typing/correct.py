"""What a checker infers of correct use: read by mypy in strict mode, never run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any, assert_type

import numpy as np

from gameserver import (
    App,
    Batch,
    Clock,
    Field,
    Group,
    Handler,
    Left,
    MaxLen,
    Message,
    Protos,
    Range,
    Refuse,
    Router,
    Session,
    Timer,
    User,
    f32,
    load_protos,
    u8,
    u32,
)


class Player(Session):
    name: str = "?"


app = App("typed", session=Player, tick_rate=30, port=0)
chat = Router("chat")


@app.on("echo")
def echo(player: Player, body: bytes) -> bytes:
    assert_type(player.name, str)
    return body


@chat.on("say", concurrent=True)
async def say(session: Session, body: dict[str, int]) -> None:
    raise Refuse("no", "not now", {"why": "test"})


class Move(Message):
    dx: f32


class Moved(Message):
    x: f32


@app.on
def move(player: Player, msg: Move) -> Moved | None:
    assert_type(msg.dx, float)
    assert_type(player.push(Moved(x=1)), None)
    return Moved(x=msg.dx)


@chat.on("chat", concurrent=True)
async def chat_move(msg: Move) -> Moved:
    return Moved(x=msg.dx)


@app.on(keep="last")
def moves(batch: Batch[Move]) -> None:
    assert_type(batch.sessions, list[Session])
    assert_type(batch.dx, np.ndarray[Any, Any])
    assert_type(len(batch), int)


assert_type(move(Player(), Move(dx=1)), Moved | None)
assert_type(app.push(Moved(x=1), skip=Player()), int)
assert_type(app.group("red").push(Moved(x=1)), int)
assert_type(app.user("ann").push(Moved(x=1)), bool)
assert_type(app.messages(Moved, Move), None)


@app.authenticate
async def who(user: dict[str, Any]) -> str | None:
    return None


@app.on_leave
def leave(player: Player, why: Left) -> None:
    assert_type(why.value, str)
    assert_type(Left("kicked"), Left)


@app.tick
def step(dt: float) -> None: ...


@app.every(5)
async def save() -> int:
    return 1


# A decorated function keeps its own type.
assert_type(echo(Player(), b""), bytes)
assert_type(asyncio.run(save()), int)
assert_type(leave(Player(), Left.LOST), None)

assert_type(app.after(1, step, 0.1), Timer)
assert_type(app.after(1, step, 0.1).left, float)
assert_type(app.after(1, step, 0.1).cancel(), None)
assert_type(app.after(1, step, 0.1).restart(3), None)
assert_type(app.task(save()), asyncio.Task[int])
assert_type(app.group("red"), Group)
assert_type(app.group("red").push("x", {"a": 1}, skip=Player()), int)
assert_type(app.group("red").add(Player()), bool)
assert_type(list(app.group("red")), list[Session])
assert_type(app.user("ann"), User)
assert_type(app.user("ann").session, Session | None)
assert_type(app.user("ann").push("x"), bool)
assert_type(app.push("x"), int)
assert_type(app.sessions, list[Session])
assert_type(app.stats(), dict[str, Any])
assert_type(app.clock, Clock)
assert_type(app.clock.now(), float)
assert_type(app.random.random(), float)
assert_type(app.port, int)
assert_type(app.handlers, Sequence[Handler])
assert_type(app.include(chat), None)
assert_type(app.run(port=7777), None)
assert_type(Player().id, int)
assert_type(Player().uid, str | None)
assert_type(Player().rtt, float | None)
assert_type(Player().push("x", [1]), None)
assert_type(Player().kick("enough"), None)
assert_type(Player().close(), None)


class Team(Enum):
    NONE = 0


class Point(Message):
    x: f32
    y: f32 = 0.0


class Walk(Message):
    seq: u32
    at: Point
    team: Team = Team.NONE
    tags: Annotated[list[str], MaxLen(3)] = []
    by: dict[u8, Point] = {}
    speed: Annotated[f32, Range(0, 1), Field(9)] = 0.5
    target: Point | None = None


walk = Walk(1, Point(1, y=2), tags=["a"])
assert_type(walk.seq, int)
assert_type(walk.speed, float)
assert_type(walk.at, Point)
assert_type(walk.tags, list[str])
assert_type(walk.by, dict[int, Point])
assert_type(walk.target, Point | None)
assert_type(walk.encode(), bytes)
assert_type(Walk.decode(b""), Walk)
assert_type(Walk.from_json("{}"), Walk)
assert_type(walk.to_json(), str)
assert_type(walk.to_dict(), dict[str, Any])
match walk:
    case Walk(seq, Point(x, y)):
        assert_type(seq, int)
        assert_type(x, float)
assert_type(load_protos("proto/"), Protos)
