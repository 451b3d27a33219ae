"""A shop in layers: `python examples/shop/game.py`, then `gameserver swarm`, or any client.

Two modules, `people` (accounts, mail) and `goods` (inventory, shop), know each other only by the events of `happened.py`. In each,
handlers translate messages, services hold the rules, repositories keep things: arrows point down only, which a test checks.
"""

from __future__ import annotations

import goods.handlers
import people.handlers
from dishka import Provider, provide
from goods.repositories import MemoryStock, Stock
from goods.services import Inventory, Shop
from people.repositories import Letters, MemoryLetters, MemoryPeople, People
from people.services import Accounts, Mail

from gameserver import App
from gameserver.middleware import audit
from gameserver.services import Scope


class Services(Provider):
    """Who is made of what. Another store is another line here."""

    scope = Scope.APP
    people = provide(MemoryPeople, provides=People)
    letters = provide(MemoryLetters, provides=Letters)
    stock = provide(MemoryStock, provides=Stock)
    accounts = provide(Accounts)
    mail = provide(Mail)
    inventory = provide(Inventory)
    shop = provide(Shop)


app = App("shop", tick_rate=0)
app.provide(Services())
app.include(people.handlers.router)
app.include(goods.handlers.router)
app.middleware(audit())

if __name__ == "__main__":
    app.run()
