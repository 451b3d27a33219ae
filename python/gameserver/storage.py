"""Storage: a unit of work in SQLite or PostgreSQL, by SQLAlchemy. docs/storage.md.

A handler that names a `UnitOfWork` gets one, in a transaction of its own; with `transaction` around it, it commits before the
answer is sent, or not at all.

>>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
>>> from gameserver import App, Session
>>> from gameserver.middleware import use
>>> from gameserver.storage import UnitOfWork, Versioned, transaction
>>> class Base(DeclarativeBase): ...
>>> class Account(Versioned, Base):
...     __tablename__ = "account"
...     name: Mapped[str] = mapped_column(primary_key=True)
...     gold: Mapped[int] = mapped_column(default=100)
>>> app = App("doc", database_url="sqlite:///doc.db")
>>> app.storage(Base.metadata)
>>> @app.on("earn")
... @use(transaction)
... async def earn(session: Session, body: bytes, work: UnitOfWork) -> int:
...     account = await work.sql.get_one(Account, body.decode())
...     account.gold += 10
...     return account.gold
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, declared_attr, mapped_column
from sqlalchemy.orm.exc import StaleDataError

from gameserver._shared import AlreadyHandled, Envelope, handling
from gameserver._sql.database import Database, is_unreachable_database
from gameserver._sql.dialect import insert
from gameserver._sql.tables import FENCES, HANDLED, OUTBOX
from gameserver.errors import Conflict, GameServerError, Unavailable
from gameserver.middleware import Call

if TYPE_CHECKING:
    from gameserver._entity import Entity
    from gameserver._events import Event
    from gameserver.locks import Lock

__all__ = ["UnitOfWork", "Versioned", "transaction"]

Encode = Callable[["Event", object], Envelope]


class Versioned:
    """A base of mapped classes with a version: who writes over somebody else's change gets a `Conflict`.

    >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    >>> class Base(DeclarativeBase): ...
    >>> class Account(Versioned, Base):
    ...     __tablename__ = "account"
    ...     name: Mapped[str] = mapped_column(primary_key=True)
    >>> [column.name for column in Account.__table__.columns]
    ['name', 'version']
    """

    version: Mapped[int] = mapped_column(default=1, nullable=False, sort_order=999)

    @declared_attr.directive
    @classmethod
    def __mapper_args__(cls) -> dict[str, Any]:
        return {"version_id_col": cls.version}


class UnitOfWork:
    """One transaction, and what happens if and only if it commits. Made for a handler that names it, or by `App.transaction`.

    Attributes:
        sql: SQLAlchemy's session, in the transaction.
        has_committed: whether `commit` has succeeded.

    Raises:
        Unavailable: when a handler gets one: the database is down.
    """

    def __init__(
        self,
        database: Database,
        sql: AsyncSession,
        encode: Encode,
        published: Callable[[], None],
        writer: Callable[[Entity], Any],
    ) -> None:
        self.sql = sql
        self.has_committed = False
        self._database = database
        self._encode, self._published, self._writer = encode, published, writer
        self._events: list[Envelope] = []
        self._entities: list[Any] = []  # with `row()` and `saved()`
        self._fences: list[tuple[str, int]] = []

    def emit(self, event: Event, key: object = None) -> None:
        """As `App.emit`, but only if the transaction commits; then for certain, also if the process is killed after that.

        Raises:
            ConfigError: the event's class is not marked by `shared`.

        >>> work.emit(Bought("ada", "sword"), key="ada")  # doctest: +SKIP
        """
        self._events.append(self._encode(event, key))

    def save(self, *entities: Entity) -> None:
        """Commits persistent entities as they are now, with all the rest, or not at all.

        Raises:
            GameServerError: one did not come from `App.load`.
        """
        self._entities += [self._writer(entity) for entity in entities]

    def guard(self, lock: Lock) -> None:
        """Commits only if nobody who had the lock after us has: its fencing token is checked in the transaction.

        >>> async with app.lock("trade:7") as lock:  # doctest: +SKIP
        ...     work.guard(lock)
        """
        if not lock.fence:
            raise GameServerError(f"lock {lock.name!r}: it is not held")
        self._fences.append((lock.name, lock.fence))

    async def check_not_handled(self) -> None:
        """Raises:
        AlreadyHandled: this is for an event whose effects have been committed.
        """
        if (current := handling.get()) is not None:
            subscriber, event_id = current
            query = select(HANDLED.c.at).where(HANDLED.c.subscriber == subscriber, HANDLED.c.id == event_id)
            if (await self.sql.execute(query)).first() is not None:
                raise AlreadyHandled(f"{subscriber} has handled {event_id} before")

    async def commit(self) -> None:
        """Commits; afterwards there is a new transaction.

        Raises:
            Conflict: somebody else has changed a `Versioned` row, or has had a lock that this work is guarded by.
            Unavailable: the database is down. If it went away in this very moment, the transaction may have been committed.
        """
        sql = self.sql
        events, self._events = self._events, []
        entities, self._entities = self._entities, []
        fences, self._fences = self._fences, []
        try:
            for name, fence in fences:
                await self._check_fence(name, fence)
            await sql.flush()
            if (current := handling.get()) is not None:
                await self._mark_handled(*current)
            rows = [asdict(envelope) for envelope in events]
            if rows:
                await sql.execute(OUTBOX.insert(), rows)
            for entity in entities:
                await entity.write(sql)
            await sql.commit()
        except StaleDataError as error:
            await sql.rollback()
            raise Conflict(f"somebody else has changed it meanwhile: {error}") from error
        except BaseException as error:
            await self._rolled_back()
            if is_unreachable_database(error):
                raise Unavailable(f"database: {error}") from error
            raise
        self.has_committed = True
        for entity in entities:
            entity.saved()
        if rows:
            self._published()

    @contextlib.asynccontextmanager
    async def committed(self) -> AsyncIterator[None]:
        """Commits when the block ends, and rolls back if it raises.

        Raises:
            Unavailable: the database is down, be it said by a statement within the block.
        """
        try:
            yield
        except BaseException as error:
            await self.rollback()
            if is_unreachable_database(error):
                raise Unavailable(f"database: {error}") from error
            raise
        await self.commit()

    async def close(self) -> None:
        """What has not been committed is forgotten."""
        await self._database.release(self.sql)

    async def rollback(self) -> None:
        """Forgets all of it; afterwards there is a new transaction."""
        self._events, self._entities, self._fences = [], [], []
        await self._rolled_back()

    async def _rolled_back(self) -> None:
        try:
            await self.sql.rollback()
        except Exception as error:
            if not is_unreachable_database(error):
                raise

    async def _check_fence(self, name: str, fence: int) -> None:
        values = {"name": name, "fence": fence}
        newer = insert(self.sql, FENCES).values(values)
        newer = newer.on_conflict_do_update(
            index_elements=["name"], set_={"fence": fence}, where=FENCES.c.fence <= fence
        ).returning(FENCES.c.fence)
        if (await self.sql.execute(newer)).first() is None:
            raise Conflict(f"lock {name!r}: somebody else has had it meanwhile; nothing was committed")

    async def _mark_handled(self, subscriber: str, event_id: str) -> None:
        values = {"subscriber": subscriber, "id": event_id, "at": int(time.time())}
        mark = insert(self.sql, HANDLED).values(values).on_conflict_do_nothing().returning(HANDLED.c.id)
        if (await self.sql.execute(mark)).first() is None:
            raise AlreadyHandled(f"{subscriber} has handled {event_id} before")


async def transaction(call: Call, work: UnitOfWork) -> AsyncGenerator[None, Any]:
    """Middleware: commits the handler's `UnitOfWork` if it returns, before the answer is sent, and rolls it back if it raises.

    >>> from gameserver.middleware import use
    >>> around = use(transaction)
    """
    async with work.committed():
        yield
