"""Where gold and things are kept."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column
from tables import Base

from gameserver.storage import UnitOfWork, Versioned


class Stock(Protocol):
    """What people have."""

    async def gold(self, name: str) -> int | None:
        """None: nobody of this name."""
        ...

    async def set_gold(self, name: str, gold: int) -> None: ...

    async def add(self, name: str, item: str) -> None: ...

    async def items(self, name: str) -> list[str]: ...


class Purse(Versioned, Base):
    """Two who pay from it at once: the second is told so, and has paid nothing."""

    __tablename__ = "purse"
    name: Mapped[str] = mapped_column(primary_key=True)
    gold: Mapped[int]


class Thing(Base):
    __tablename__ = "thing"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(index=True)
    item: Mapped[str]


class SqlStock:
    """In the database."""

    def __init__(self, work: UnitOfWork) -> None:
        self._sql = work.sql

    async def gold(self, name: str) -> int | None:
        purse = await self._sql.get(Purse, name)
        return purse.gold if purse else None

    async def set_gold(self, name: str, gold: int) -> None:
        purse = await self._sql.get(Purse, name)
        if purse:
            purse.gold = gold
        else:
            self._sql.add(Purse(name=name, gold=gold))

    async def add(self, name: str, item: str) -> None:
        self._sql.add(Thing(name=name, item=item))

    async def items(self, name: str) -> list[str]:
        found = await self._sql.scalars(select(Thing.item).where(Thing.name == name).order_by(Thing.number))
        return list(found)
