"""Rules about goods."""

from __future__ import annotations

from goods.repositories import Stock

PRICES = {"sword": 60, "shield": 45, "bread": 3}
GOLD_AT_FIRST = 100


class CanNotBuy(Exception):
    """What somebody wanted can't be; says why."""


class Inventory:
    """What people have."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock

    async def open(self, name: str) -> None:
        """For somebody new; done twice it is as done once."""
        if await self._stock.gold(name) is None:
            await self._stock.set_gold(name, GOLD_AT_FIRST)

    async def of(self, name: str) -> tuple[int, list[str]]:
        return await self._stock.gold(name) or 0, await self._stock.items(name)


class Shop:
    """Gold for goods."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock

    async def buy(self, name: str, item: str) -> int:
        """The price. Raises `CanNotBuy`."""
        price, gold = PRICES.get(item), await self._stock.gold(name)
        if price is None:
            raise CanNotBuy(f"there is no {item} here")
        if gold is None:
            raise CanNotBuy("register first")
        if gold < price:
            raise CanNotBuy(f"a {item} is {price}, and you have {gold}")
        await self._stock.set_gold(name, gold - price)
        await self._stock.add(name, item)
        return price
