"""The database of an app: SQLite or PostgreSQL, by its URL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from alembic.util.exc import CommandError
from sqlalchemy import MetaData, event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from gameserver._settings import without_password
from gameserver._sql import migrate
from gameserver.errors import ConfigError, Overloaded
from gameserver.guard import Guard, is_unreachable

T = TypeVar("T")

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
CONNECTIONS_MAX = 16
# PostgreSQL has no connection, is out of something, shuts down or starts, fails at its own files.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
AWAY_STATES = ("08", "53", "57P", "58")
AWAY_NAMES = ("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR")
IDLE_MAX = 10.0  # s that a transaction of PostgreSQL may wait for its next statement


class Database:
    """Connections, each in one transaction at a time.

    Args:
        url: ``sqlite:///file`` or ``postgresql://user:password@host/name``.
        home: what a file's path is relative to.
        metadata: the game's tables.
        folder: of the game's revisions; None or no such folder: tables that are missing are made at start.
        timeout: of one statement, in s.
    """

    def __init__(self, url: str, home: Path, metadata: MetaData, folder: Path | None, timeout: float) -> None:
        self.shown = without_password(url)
        self.metadata = metadata
        self.folder = folder
        self.guard = Guard(
            "database", timeout=timeout, concurrency=CONNECTIONS_MAX, open_for=1.0, is_failure=is_unreachable_database
        )
        self._timeout = timeout
        self.engine = self._engine(_url(url, home), timeout)

    @property
    def migrations(self) -> Path | None:
        """The game's revisions, if it has any."""
        return self.folder if self.folder is not None and self.folder.is_dir() else None

    async def open(self) -> None:
        """Looks whether it is there and has all tables; makes those that no migration speaks of.

        Raises:
            ConfigError: it is not there, does not let us in, or lacks a migration.
        """
        with self.explained():
            async with self.engine.begin() as connection:
                lacking = await connection.run_sync(migrate.missing, self.migrations)
                own = [name for name in lacking if name.startswith("gs_")]
                if self.migrations is None:
                    await connection.run_sync(migrate.upgrade, self.metadata, None)
                    await connection.run_sync(self.metadata.create_all)
                elif lacking:
                    raise ConfigError(
                        f"database_url={self.shown}: it lacks {len(lacking)} migration{'s' * (len(lacking) > 1)} "
                        f"({', '.join(lacking)}){' of the server itself' if len(own) == len(lacking) else ''}; "
                        "run: gameserver db upgrade game.py"
                    )

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Says what is wrong with a database that can't be opened.

        Raises:
            ConfigError: it is not there, or does not let us in.
        """
        try:
            yield
        except _cannot_open() as error:
            raise ConfigError(_why(self.shown, error)) from error
        except CommandError as error:
            raise ConfigError(
                f"database_url={self.shown}: {error}: the database is newer than this server or game, or the folder of migrations "
                "lacks a file; run the newer one, or restore the file"
            ) from error

    async def upgrade(self) -> None:
        """All migrations that it lacks."""
        async with self.engine.begin() as connection:
            await connection.run_sync(migrate.upgrade, self.metadata, self.migrations)

    async def close(self) -> None:
        """Gives all connections back."""
        await self.engine.dispose()

    async def session(self) -> AsyncSession:
        """In a new transaction.

        Raises:
            Unavailable: the database is down.
            Overloaded: too many transactions are open.
        """
        try:
            made: AsyncSession = await self.guard.call(self._begin)
        except exc.TimeoutError as error:
            raise Overloaded(f"database: {CONNECTIONS_MAX} transactions are open already") from error
        return made

    async def transact(self, work: Callable[[AsyncConnection], Awaitable[T]], *, attempts: int = 3) -> T:
        """Does something in one transaction, which commits if it returns. It may run more than once.

        Raises:
            Unavailable: the database is down.
        """

        async def once() -> T:
            async with self.engine.begin() as connection:
                return await work(connection)

        return await self.guard.call(once, attempts=attempts)

    async def release(self, session: AsyncSession) -> None:
        """Ends a session; a connection that does not answer is given up."""
        try:
            async with asyncio.timeout(self._timeout):
                await session.close()
        except Exception as error:
            if not is_unreachable_database(error):
                raise
            with contextlib.suppress(Exception):
                await session.invalidate()

    async def _begin(self) -> AsyncSession:
        session = AsyncSession(self.engine, expire_on_commit=False)
        try:
            await session.connection()
        except BaseException:
            await self.release(session)
            raise
        return session

    def _engine(self, url: URL, timeout: float) -> AsyncEngine:
        options: dict[str, Any] = {"pool_size": CONNECTIONS_MAX, "max_overflow": 0, "pool_timeout": timeout * 0.8}
        if url.get_backend_name() == "sqlite":
            arguments: dict[str, Any] = {"timeout": timeout}
        else:
            options["pool_pre_ping"] = True
            # A process that was stopped in a transaction would keep others from its rows for as long as it stands.
            idle = f"{round(max(IDLE_MAX, 5 * timeout) * 1000)}ms"
            arguments = {
                "timeout": timeout,
                "command_timeout": timeout,
                "server_settings": {"idle_in_transaction_session_timeout": idle},
            }
        try:
            engine = create_async_engine(url, connect_args=arguments, **options)
        except ImportError as error:
            raise ConfigError(
                f"database_url={self.shown}: {error}; pip install 'gameserver[stores]' has the drivers"
            ) from error
        if url.get_backend_name() == "sqlite":
            _prepare_sqlite(engine)
        return engine


def is_unreachable_database(error: BaseException) -> bool:
    """Whether an error says that the database is not there, rather than that it did not like a statement."""
    if isinstance(error, exc.DBAPIError):
        own = error.orig
        # The driver's own error is the cause of what the dialect raises.
        return error.connection_invalidated or (own is not None and (_is_away(own) or _is_away(own.__cause__)))
    return is_unreachable(error) or _is_away(error)


def _is_away(error: BaseException | None) -> bool:
    """A driver's error: no statement is at fault, and the same one may be right later."""
    if (state := getattr(error, "sqlstate", None)) is not None:
        return str(state).startswith(AWAY_STATES)
    if (name := getattr(error, "sqlite_errorname", None)) is not None:
        return str(name).startswith(AWAY_NAMES)
    return type(error).__name__ == "InterfaceError" and type(error).__module__.startswith("asyncpg")


def _cannot_open() -> tuple[type[Exception], ...]:
    """asyncpg's own errors come bare while a connection is made."""
    common = (exc.DBAPIError, OSError, TimeoutError)
    try:
        from asyncpg import InterfaceError, PostgresError  # type: ignore[import-untyped]
    except ImportError:
        return common
    return (*common, PostgresError, InterfaceError)


def _url(url: str, home: Path) -> URL:
    parsed = make_url(url)
    if parsed.drivername in DRIVERS:
        parsed = parsed.set(drivername=DRIVERS[parsed.drivername])
    name = parsed.database
    if parsed.get_backend_name() == "sqlite" and name and name != ":memory:" and not name.startswith("file:"):
        path = home / name
        if not path.parent.is_dir():
            raise ConfigError(f"database_url={url}: there is no folder {path.parent}; make it")
        parsed = parsed.set(database=str(path))
    return parsed


def _why(shown: str, error: BaseException) -> str:
    text = str(getattr(error, "orig", None) or error).strip().splitlines()
    reason = text[0] if text else type(error).__name__
    reason = reason.split(">: ", 1)[-1]
    if "password" in reason or "authentication" in reason:
        return f"database_url={shown}: it does not let us in ({reason}); check user and password"
    if "does not exist" in reason:
        return f"database_url={shown}: {reason}; create it, or check the name"
    return f"database_url={shown}: it can't be opened ({reason}); start it, or check host, port and path"


def _prepare_sqlite(engine: AsyncEngine) -> None:
    """Readers beside one writer, commits that survive a loss of power, and writers that wait for each other at their begin."""

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin when we say so
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
