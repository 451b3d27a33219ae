"""What a checker infers of correct use: read by mypy in strict mode, never run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any, assert_type

import numpy as np

from gameserver import (
    OWNER,
    App,
    Batch,
    Clock,
    Columns,
    Entity,
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
    World,
    f32,
    load_protos,
    sync,
    u8,
    u16,
    u32,
    vec2,
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


class Walk(Message):
    dx: f32


class Walked(Message):
    x: f32


@app.on
def walk(player: Player, msg: Walk) -> Walked | None:
    assert_type(msg.dx, float)
    assert_type(player.push(Walked(x=1)), None)
    return Walked(x=msg.dx)


@chat.on("chat", concurrent=True)
async def chat_walk(msg: Walk) -> Walked:
    return Walked(x=msg.dx)


@app.on(keep="last")
def walks(batch: Batch[Walk]) -> None:
    assert_type(batch.sessions, list[Session])
    assert_type(batch.dx, np.ndarray[Any, Any])
    assert_type(len(batch), int)


assert_type(walk(Player(), Walk(dx=1)), Walked | None)
assert_type(app.push(Walked(x=1), skip=Player()), int)
assert_type(app.group("red").push(Walked(x=1)), int)
assert_type(app.user("ann").push(Walked(x=1)), bool)
assert_type(app.messages(Walked, Walk), None)


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


class Move(Message):
    seq: u32
    at: Point
    team: Team = Team.NONE
    tags: Annotated[list[str], MaxLen(3)] = []
    by: dict[u8, Point] = {}
    speed: Annotated[f32, Range(0, 1), Field(9)] = 0.5
    target: Point | None = None


move = Move(1, Point(1, y=2), tags=["a"])
assert_type(move.seq, int)
assert_type(move.speed, float)
assert_type(move.at, Point)
assert_type(move.tags, list[str])
assert_type(move.by, dict[int, Point])
assert_type(move.target, Point | None)
assert_type(move.encode(), bytes)
assert_type(Move.decode(b""), Move)
assert_type(Move.from_json("{}"), Move)
assert_type(move.to_json(), str)
assert_type(move.to_dict(), dict[str, Any])
match move:
    case Move(seq, Point(x, y)):
        assert_type(seq, int)
        assert_type(x, float)
assert_type(load_protos("proto/"), Protos)


class Avatar(Entity):
    x: f32 = sync(0, quantize=0.01)
    y: f32 = 0.0
    at: vec2
    gold: u16 = sync(0, to=OWNER)
    team: Team = sync(Team.NONE)
    name: Annotated[str, MaxLen(8)] = sync("", rate=1)
    target: Avatar | None = None


class Tank(Entity, position=("px", "py")):
    px: f32 = sync()
    py: f32 = sync()


class Board(Entity, table="global"):
    total: u32 = 0


world = World(cell=10, view=30)
avatar = world.spawn(Avatar, owner=Player(), keep=True, at=(1, 2), x=3, target=None)
assert_type(avatar, Avatar)
assert_type(avatar.x, float)
assert_type(avatar.at, tuple[float, float])
assert_type(avatar.gold, int)
assert_type(avatar.name, str)
assert_type(avatar.team, Team)
assert_type(avatar.target, Avatar | None)
assert_type(avatar.owner, Session | None)
assert_type(avatar.keep, bool)
assert_type(avatar.id, int)
assert_type(world.spawn(Tank), Tank)
assert_type(world.at(Avatar, [0]), list[Avatar])
assert_type(world.owned(Avatar, Player()), Avatar | None)
assert_type(world.columns(Avatar), Columns[Avatar])
assert_type(world.columns(Avatar).x, np.ndarray[Any, Any])
assert_type(world.near(avatar, 3), list[Avatar])
assert_type(world.query(Avatar, x=(0, 1)), np.ndarray[Any, Any])
assert_type(app.world, World)


@app.on("steer")
def steer(me: Avatar, msg: Walk) -> None:
    me.x += msg.dx
