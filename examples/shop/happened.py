"""What the modules tell each other."""

from __future__ import annotations

from gameserver import Event


class Registered(Event):
    """Somebody has an account."""

    name: str


class Bought(Event):
    """Somebody has bought something."""

    name: str
    item: str
    price: int
