"""Messages about goods, and what they hear of people."""

from __future__ import annotations

from happened import Bought, Registered

from gameserver import App, Message, Refuse, Router, Session, u32
from goods.services import CanNotBuy, Inventory, Shop


class Buy(Message):
    name: str
    item: str


class Have(Message):
    name: str


class Things(Message):
    gold: u32
    items: list[str]


router = Router("goods")


@router.on("buy")
def buy(session: Session, msg: Buy, shop: Shop, inventory: Inventory, app: App) -> Things:
    try:
        price = shop.buy(msg.name, msg.item)
    except CanNotBuy as error:
        raise Refuse("can-not-buy", str(error)) from None
    app.emit(Bought(msg.name, msg.item, price), key=msg.name)
    return things(inventory, msg.name)


@router.on("have")
def have(session: Session, msg: Have, inventory: Inventory) -> Things:
    return things(inventory, msg.name)


@router.on_event(Registered)
def open_inventory(event: Registered, inventory: Inventory) -> None:
    inventory.open(event.name)


def things(inventory: Inventory, name: str) -> Things:
    gold, items = inventory.of(name)
    return Things(gold, items)
