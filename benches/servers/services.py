"""Ours, with services: `echo` takes two that live as long as the app, `message` one that is made for each message."""

from __future__ import annotations

from benches.servers.announce import announce
from dishka import Provider

from gameserver import App, Session
from gameserver.services import Scope


class Shop: ...


class Mail: ...


class Work:
    def __init__(self, shop: Shop) -> None:
        self.shop = shop


services = Provider(scope=Scope.APP)
services.provide(Shop)
services.provide(Mail)
services.provide(Work, scope=Scope.MESSAGE)
app = App("bench-services")
app.provide(services)
announce(app)


@app.on("echo")
def echo(session: Session, body: bytes, shop: Shop, mail: Mail) -> bytes:
    return body


@app.on("message")
def message(session: Session, body: bytes, work: Work) -> bytes:
    return body


if __name__ == "__main__":
    app.run(port=0, log_level="warning")
