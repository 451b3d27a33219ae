"""The game that unchanged clients play: each of their steps is a route."""

from __future__ import annotations

from typing import Any

from gameserver import App, Refuse, Session

__all__ = ["game"]


def game() -> App:
    """A fresh app with the routes that the programs beside this file call."""
    app = App("peers")
    heard: dict[int, list[Any]] = {}
    drops: dict[str, int] = {}

    @app.on("room.room.join")
    def join(session: Session, body: dict[str, Any]) -> dict[str, Any]:
        app.group(body["room"]).add(session)
        app.group(body["room"]).push("onJoin", {"name": body["name"]})
        return {"code": 200, "room": body["room"]}

    @app.on("room.room.say")
    def say(session: Session, body: dict[str, Any]) -> None:
        app.group(body["room"]).push("onSay", {"text": body["text"]})

    @app.on("room.room.echo")
    def echo(body: dict[str, Any]) -> dict[str, Any]:
        return body

    @app.on("room.room.raw")
    def raw(body: bytes) -> bytes:
        return body

    @app.on("room.room.silent")
    def silent(session: Session, body: dict[str, Any]) -> None:
        heard.setdefault(session.id, []).append(body["n"])

    @app.on("room.room.heard")
    def what_was_heard(session: Session) -> dict[str, Any]:
        return {"n": heard.pop(session.id, [])}

    @app.on("room.room.null")
    def null(session: Session) -> None:
        session.push("onNull")

    @app.on("room.room.refuse")
    def refuse() -> None:
        raise Refuse("GAME-7", "not today")

    @app.on("room.room.cut")
    def cut(session: Session) -> None:
        session.close()

    @app.on("room.room.kick")
    def kick(session: Session) -> None:
        session.kick("bye")

    @app.on("room.room.drops")
    def dropped(body: dict[str, Any]) -> dict[str, Any]:
        return {"drops": drops.get(body["name"], 0)}

    @app.on("room.room.name")
    def name(session: Session, body: dict[str, Any]) -> dict[str, Any]:
        names[session.id] = body["name"]
        return {}

    names: dict[int, str] = {}

    @app.on_drop
    def count(session: Session) -> None:
        who = names.get(session.id, "")
        drops[who] = drops.get(who, 0) + 1

    return app
