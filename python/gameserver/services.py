"""Services: rules and repositories that handlers and rooms name in their signatures and get; wired by dishka. docs/services.md.

A provider says how a service is made, and how long it lives:

>>> from dishka import Provider, provide
>>> from gameserver import App, Session
>>> from gameserver.services import Scope
>>> class Shop:
...     def price(self, item: str) -> int:
...         return len(item)
>>> class Services(Provider):
...     scope = Scope.APP
...     shop = provide(Shop)
>>> app = App("doc")
>>> app.provide(Services())
>>> @app.on("price")
... def price(session: Session, body: bytes, shop: Shop) -> int:
...     return shop.price(body.decode())
"""

from __future__ import annotations

from dishka.entities.scope import BaseScope, new_scope

__all__ = ["Scope"]


class Scope(BaseScope):
    """How long a service lives. One that lives longer never needs one that lives less long.

    >>> Scope.APP < Scope.MESSAGE
    True
    """

    APP = new_scope("APP")
    """From before the first connection until after the last: one of each."""
    SESSION = new_scope("SESSION", skip=True)
    """As long as a session: made when a handler of its first needs it. May take the `Session`."""
    MESSAGE = new_scope("MESSAGE")
    """One for each call of a handler, also of a timer's: a unit of work. May take the `Session`, if there is one."""
    ROOM = new_scope("ROOM", skip=True)
    """As long as a room. May take the `Room`, and nothing of a session or a message."""
