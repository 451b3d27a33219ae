"""A shop in layers: `python examples/shop/game.py`, then `gameserver swarm`, or any client.

Two modules, `people` (accounts, mail) and `goods` (inventory, shop), know each other only by the events of `happened.py`. In each,
handlers translate messages, services hold the rules, repositories keep things: arrows point down only, which a test checks.
All is kept in `game.db`, or where `GAMESERVER_DATABASE_URL` says.
"""

from __future__ import annotations

import goods.handlers
import people.handlers
from dishka import Provider, provide
from goods.repositories import SqlStock, Stock
from goods.services import Inventory, Shop
from people.repositories import Letters, People, SqlLetters, SqlPeople
from people.services import Accounts, Mail
from tables import Base

from gameserver import App
from gameserver.middleware import audit
from gameserver.services import Scope
from gameserver.storage import transaction


class Services(Provider):
    """Who is made of what, for each message: it has a transaction of its own. Another store is another line here."""

    scope = Scope.MESSAGE
    people = provide(SqlPeople, provides=People)
    letters = provide(SqlLetters, provides=Letters)
    stock = provide(SqlStock, provides=Stock)
    accounts = provide(Accounts)
    mail = provide(Mail)
    inventory = provide(Inventory)
    shop = provide(Shop)


app = App("shop", tick_rate=0)
app.storage(Base.metadata)
app.provide(Services())
app.include(people.handlers.router)
app.include(goods.handlers.router)
app.middleware(audit())
app.middleware(transaction)

if __name__ == "__main__":
    app.run()
