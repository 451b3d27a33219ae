"""The outbox: events of transactions that have committed, on their way to Redis or, without it, to this process's subscribers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gameserver._shared import Delivery, Envelope, Known, Worker
from gameserver._sql.database import Database
from gameserver._sql.tables import HANDLED, OUTBOX
from gameserver._tasks import begin, ended
from gameserver.errors import Overloaded, Unavailable

log = logging.getLogger("gameserver")

BATCH = 500
IDLE = 1.0  # s between two looks for what others have left
PAUSE = 0.2  # s after an error
HANDLED_KEPT, PURGE_EVERY = 7 * 86_400.0, 3600.0  # s
LOCK = 7_205_759_403_792_794  # of PostgreSQL's advisory locks: one process empties the outbox at a time


class Relay:
    """Empties the outbox.

    Args:
        publish: to Redis; None: to the workers of this process.
        workers: by subscriber: who hears of which names.
    """

    def __init__(
        self,
        database: Database,
        known: Known,
        publish: Callable[[Sequence[Envelope]], Awaitable[None]] | None,
        workers: Mapping[Worker, Sequence[str]],
    ) -> None:
        self._database, self._known, self._publish, self._workers = database, known, publish, workers
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._in_flight: dict[int, int] = {}  # by number: subscribers that have not handled it
        self._over: list[int] = []
        self._lock: AsyncConnection | None = None
        self._relayed = 0
        self._next_purge = 0.0

    def start(self) -> None:
        """From now on."""
        self._task = begin("the outbox", self._run)

    async def stop(self) -> None:
        """What is left, the next run finds."""
        await ended([self._task])
        with contextlib.suppress(Unavailable, Overloaded):
            await self._remove()
        await self._give_up_lock()

    async def _give_up_lock(self) -> None:
        """It ends with its connection."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with contextlib.suppress(Exception):
                await lock.invalidate()
            with contextlib.suppress(Exception):
                await lock.close()

    def wake(self) -> None:
        """A transaction with events has committed."""
        self._wake.set()

    def stats(self) -> dict[str, int]:
        """How many went out, and how many are on their way to subscribers here."""
        return {"relayed": self._relayed, "in_flight": len(self._in_flight)}

    async def _run(self) -> None:
        while True:
            try:
                moved = await self._is_alone() and await self._move()
                await self._remove()
                if time.monotonic() >= self._next_purge:
                    await self._purge()
            except (Unavailable, Overloaded) as error:
                log.debug("outbox: %s", error)
                await self._give_up_lock()
                await asyncio.sleep(PAUSE)
                continue
            if not moved:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE):
                        await self._wake.wait()
            self._wake.clear()

    async def _is_alone(self) -> bool:
        """With PostgreSQL several processes may have one outbox: whoever has this lock empties it."""
        if self._database.engine.dialect.name != "postgresql":
            return True
        if self._lock is None:
            self._lock = await self._database.guard.call(self._take_lock)
        else:
            lock = self._lock
            await self._database.guard.call(lambda: lock.execute(text("SELECT 1")), attempts=1)
        return self._lock is not None

    async def _take_lock(self) -> AsyncConnection | None:
        connection = await self._database.engine.connect()
        try:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            taken = await connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK})
            if taken.scalar_one():
                return connection
        except BaseException:
            await connection.close()
            raise
        await connection.close()
        return None

    async def _move(self) -> bool:
        """The oldest ones; False: there are none."""
        for worker in self._workers:
            await worker.room()
        query = select(OUTBOX).order_by(OUTBOX.c.number).limit(BATCH + len(self._in_flight))

        async def read(connection: AsyncConnection) -> Sequence[tuple[int, Envelope]]:
            rows = await connection.execute(query)
            return [(row.number, Envelope(row.id, row.name, row.key, row.body)) for row in rows]

        found = [
            (n, e) for n, e in await self._database.transact(read) if n not in self._in_flight and n not in self._over
        ]
        if not found:
            return False
        if self._publish is not None:
            await self._publish([envelope for _, envelope in found])
            self._over += [number for number, _ in found]
        else:
            self._deliver(found)
        self._relayed += len(found)
        return True

    def _deliver(self, found: Sequence[tuple[int, Envelope]]) -> None:
        """To those here. Each hears of them in their order."""
        for number, envelope in found:
            self._in_flight[number] = 1 + sum(envelope.name in names for names in self._workers.values())
        for worker, names in self._workers.items():
            deliveries = []
            for number, envelope in found:
                if envelope.name not in names:
                    continue
                delivery = Delivery(envelope, None, functools.partial(self._done, number))
                try:
                    delivery.event = self._known.event(envelope.name, envelope.body)
                except ValueError as error:
                    worker.bury(delivery, error)
                    continue
                deliveries.append(delivery)
            worker.put(deliveries)
        for number, _ in found:
            self._done(number, True)

    def _done(self, number: int, is_handled: bool) -> None:
        self._in_flight[number] -= 1
        if not self._in_flight[number]:
            del self._in_flight[number]
            self._over.append(number)
            self._wake.set()

    async def _purge(self) -> None:
        """Events that were handled long ago do not come again."""
        statement = HANDLED.delete().where(HANDLED.c.at < time.time() - HANDLED_KEPT)

        async def run(connection: AsyncConnection) -> None:
            await connection.execute(statement)

        await self._database.transact(run)
        self._next_purge = time.monotonic() + PURGE_EVERY

    async def _remove(self) -> None:
        if not self._over:
            return
        over = self._over[:BATCH]
        statement = OUTBOX.delete().where(OUTBOX.c.number.in_(over))

        async def run(connection: AsyncConnection) -> None:
            await connection.execute(statement)

        await self._database.transact(run)
        del self._over[: len(over)]
