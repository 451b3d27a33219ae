"""Messages about goods, and what they hear of people."""

from __future__ import annotations

from happened import Bought, Registered

from gameserver import Message, Refuse, Router, Session, u32
from gameserver.storage import UnitOfWork
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
async def buy(session: Session, msg: Buy, shop: Shop, inventory: Inventory, work: UnitOfWork) -> Things:
    try:
        price = await shop.buy(msg.name, msg.item)
    except CanNotBuy as error:
        raise Refuse("can-not-buy", str(error)) from None
    work.emit(Bought(msg.name, msg.item, price), key=msg.name)
    return await things(inventory, msg.name)


@router.on("have")
async def have(session: Session, msg: Have, inventory: Inventory) -> Things:
    return await things(inventory, msg.name)


@router.on_event(Registered)
async def open_inventory(event: Registered, inventory: Inventory) -> None:
    await inventory.open(event.name)


async def things(inventory: Inventory, name: str) -> Things:
    gold, items = await inventory.of(name)
    return Things(gold, items)
