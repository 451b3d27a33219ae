"""Dead letters of shared events, in the database: where there is no Redis, the outbox has brought them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gameserver._dead_letters import DEAD_MAX, DeadLetter
from gameserver._sql.database import Database
from gameserver._sql.dialect import insert
from gameserver._sql.tables import DEAD


class SqlLetters:
    """See `LetterBox`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, letter: DeadLetter) -> None:
        values = {"name": letter.name, "key": letter.key, "error": letter.error, "at": letter.at, "body": letter.body}
        its = DEAD.c.subscriber == letter.subscriber
        newest = select(DEAD.c.id).where(its).order_by(DEAD.c.at.desc()).limit(DEAD_MAX)

        async def run(connection: AsyncConnection) -> None:
            made = insert(connection, DEAD).values(subscriber=letter.subscriber, id=letter.id, **values)
            await connection.execute(made.on_conflict_do_update(index_elements=["subscriber", "id"], set_=values))
            await connection.execute(DEAD.delete().where(its, DEAD.c.id.not_in(newest.scalar_subquery())))

        await self._database.transact(run)

    async def list(self, subscribers: Sequence[str]) -> Sequence[DeadLetter]:
        query = select(DEAD).where(DEAD.c.subscriber.in_(subscribers)).order_by(DEAD.c.at)

        async def run(connection: AsyncConnection) -> Sequence[DeadLetter]:
            rows = await connection.execute(query)
            return [
                DeadLetter(row.id, row.subscriber, row.name, None, row.key, row.error, row.at, row.body) for row in rows
            ]

        return await self._database.transact(run)

    async def remove(self, letter: DeadLetter) -> bool:
        statement = DEAD.delete().where(and_(DEAD.c.subscriber == letter.subscriber, DEAD.c.id == letter.id))

        async def run(connection: AsyncConnection) -> bool:
            return (await connection.execute(statement)).rowcount > 0

        return await self._database.transact(run)
