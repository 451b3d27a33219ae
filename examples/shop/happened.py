"""What the modules tell each other: in other processes, too, and for certain once a transaction has committed."""

from __future__ import annotations

from gameserver import Event, shared


@shared
class Registered(Event):
    """Somebody has an account."""

    name: str


@shared
class Bought(Event):
    """Somebody has bought something."""

    name: str
    item: str
    price: int
