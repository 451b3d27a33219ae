"""The server that is attacked: a game with a little of everything. ``python target.py '{"port": 0, ...}'`` prints its port."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from typing import Any

from gameserver import App, Message, Session

settings: dict[str, Any] = json.loads(sys.argv[1])
if limit := settings.pop("descriptors", 0):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
app = App("target", **settings)
ran: dict[str, int] = {"take": 0, "buy": 0}


class Tree(Message):
    """A message that contains itself."""

    name: str
    child: Tree | None = None


@app.authenticate
def who(user: dict[str, Any]) -> str | None:
    name = user.get("name")
    return name if isinstance(name, str) else None


@app.on("echo")
def echo(session: Session, body: bytes) -> bytes:
    return body


@app.on("take")
def take(session: Session, body: bytes) -> None:
    ran["take"] += 1


@app.on("buy")
async def buy(session: Session, body: bytes) -> int:
    ran["buy"] += 1
    await asyncio.sleep(0.05)
    return ran["buy"]


@app.on("read")
def read(session: Session, body: bytes) -> None:
    for _ in range(int(body)):
        session.push("news", b"-" * 10_000)


@app.on("fail")
def fail(session: Session, body: bytes) -> None:
    raise ValueError(body)


@app.on("json")
def take_json(session: Session, body: dict[str, Any]) -> int:
    return len(body)


@app.on
def tree(session: Session, msg: Tree) -> Tree:
    return msg


@app.on("stats")
def stats(session: Session, body: bytes) -> dict[str, Any]:
    found = app.stats()
    return {**found, "errors": len(found["errors"]), "ran": ran}


@app.on_start
def start() -> None:
    print("PORT", app.port, os.getpid(), flush=True)


app.run()
