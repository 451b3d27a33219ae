"""Writers that are killed in the middle: what they were told is durable must be there, whole.

A parent imports everything once and forks a writer for each round, which opens the database itself, so that hundreds of rounds take
seconds. Used by `test_killed.py`, shortly, and by `benches/chaos.py`, 200 rounds on each database.
"""

from __future__ import annotations

import asyncio
import os
import random
import select as system_select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from gameserver import Event, shared
from gameserver._shared import Known
from gameserver._sql.database import Database
from gameserver._sql.tables import OUTBOX
from gameserver.storage import UnitOfWork

WRITERS = 4  # at a time, in one process


@shared
class Written(Event):
    row: int


class Base(DeclarativeBase):
    pass


class Left(Base):
    __tablename__ = "left_side"
    number: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]


class Right(Base):
    __tablename__ = "right_side"
    number: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]


class Found(NamedTuple):
    """What is wrong after a kill."""

    acknowledged: int
    lost: int
    """Acknowledged, and not there."""
    halves: int
    """One side without the other, or another value."""
    events: int
    """Rows whose event is not in the outbox, or events without their rows."""


def killed_round(url: str, first: int, after: float, kill: Callable[[int], None]) -> Found:
    """Starts a writer of rows from `first` on, kills it `after` seconds after its first commit, and looks.

    Args:
        kill: gets the writer's process id; kills it, or what it writes to.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            asyncio.run(_write(url, first, writer))
        finally:
            os._exit(1)
    os.close(writer)
    said = b""
    end: float | None = None
    while end is None or time.monotonic() < end:
        wait = 20.0 if end is None else max(0.0, end - time.monotonic())
        ready, _, _ = system_select.select([reader], [], [], wait)
        if not ready:
            break
        data = os.read(reader, 65536)
        if not data:
            break
        said += data
        end = end if end is not None else time.monotonic() + after
    kill(child)
    os.waitpid(child, 0)
    while data := os.read(reader, 65536):
        said += data
    os.close(reader)
    acknowledged = {int(line) for line in said.split(b"\n")[:-1]}
    return asyncio.run(_look(url, acknowledged))


def kill_process(pid: int) -> None:
    """As `kill -9`."""
    os.kill(pid, signal.SIGKILL)


async def _write(url: str, first: int, pipe: int) -> None:
    database = Database(url, Path(), Base.metadata, None, 2.0)
    known = Known(())
    numbers = iter(range(first, first + 1_000_000))

    async def writer() -> None:
        for number in numbers:
            value = random.randrange(1 << 30)
            work = UnitOfWork(database, await database.session(), known.envelope, lambda: None, lambda entity: entity)
            work.sql.add(Left(number=number, value=value))
            await work.sql.flush()
            work.sql.add(Right(number=number, value=value))
            work.emit(Written(number), key=number)
            await work.commit()
            await work.close()
            os.write(pipe, b"%d\n" % number)

    await asyncio.gather(*(writer() for _ in range(WRITERS)))


async def _look(url: str, acknowledged: set[int]) -> Found:
    database = Database(url, Path(), Base.metadata, None, 5.0)
    try:
        sql = await database.session()
        left = dict((await sql.execute(select(Left.number, Left.value))).all())
        right = dict((await sql.execute(select(Right.number, Right.value))).all())
        bodies = (await sql.execute(select(OUTBOX.c.key))).scalars()
        events = {int(key) for key in bodies}
        await sql.close()
    finally:
        await database.close()
    halves = sum(left.get(number) != right.get(number) for number in {*left, *right})
    return Found(len(acknowledged), len(acknowledged - {*left}), halves, len({*left} ^ events))


async def prepare(url: str) -> None:
    """Makes the tables."""
    database = Database(url, Path(), Base.metadata, None, 5.0)
    await database.open()
    await database.close()
