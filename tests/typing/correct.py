"""What a checker infers of correct use: read by mypy in strict mode, never run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, assert_type

from gameserver import App, Clock, Group, Handler, Left, Refuse, Router, Session, Timer, User


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
