"""Where accounts and letters are kept."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column
from tables import Base

from gameserver.storage import UnitOfWork


class People(Protocol):
    """Names of those who have an account."""

    async def add(self, name: str) -> bool:
        """False: there is one of this name."""
        ...


class Letters(Protocol):
    """Of each, newest last."""

    async def add(self, name: str, text: str) -> None: ...

    async def newest(self, name: str, count: int) -> list[str]: ...


class Account(Base):
    __tablename__ = "account"
    name: Mapped[str] = mapped_column(primary_key=True)


class Letter(Base):
    __tablename__ = "letter"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(index=True)
    text: Mapped[str]


class SqlPeople:
    """In the database."""

    def __init__(self, work: UnitOfWork) -> None:
        self._sql = work.sql

    async def add(self, name: str) -> bool:
        if await self._sql.get(Account, name):
            return False
        self._sql.add(Account(name=name))
        try:
            await self._sql.flush()
        except IntegrityError:  # somebody took it in this very moment
            return False
        return True


class SqlLetters:
    """In the database."""

    def __init__(self, work: UnitOfWork) -> None:
        self._sql = work.sql

    async def add(self, name: str, text: str) -> None:
        self._sql.add(Letter(name=name, text=text))

    async def newest(self, name: str, count: int) -> list[str]:
        query = select(Letter.text).where(Letter.name == name).order_by(Letter.number.desc()).limit(count)
        return [*await self._sql.scalars(query)][::-1]
