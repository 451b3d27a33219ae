"""`gameserver db upgrade | status | revision`: the migrations of a game's database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from gameserver import _settings, _target
from gameserver.errors import ConfigError

__all__ = ["make"]

T = TypeVar("T")
Target = Annotated[str, typer.Argument(metavar="TARGET", help="game.py, game.py:app or package.module:app")]
Url = Annotated[
    str | None,
    typer.Option("--database-url", metavar="URL", help="Another database than the settings'.", show_default=False),
]
Message = Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="What it does, in a few words.")]


def make() -> typer.Typer:
    """The group of commands."""
    group = typer.Typer(
        help="A game's database: its migrations, in the folder that app.storage(migrations=...) names.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    for command in (upgrade, status, revision):
        group.command(command.__name__)(command)
    return group


def upgrade(target: Target, database_url: Url = None) -> None:
    """Brings the database up to date: the server's own tables, and the game's migrations."""

    async def run(database: Any) -> list[str]:
        from gameserver._sql import migrate

        async with database.engine.connect() as connection:
            lacking: list[str] = await connection.run_sync(migrate.missing, database.migrations)
        await database.upgrade()
        return lacking

    done = _with_database(target, database_url, run)
    print(f"done: {', '.join(done)}" if done else "nothing to do: it is up to date")


def status(target: Target, database_url: Url = None) -> None:
    """Shows which migrations the database lacks; exit code 1 if there are any."""

    async def run(database: Any) -> list[str]:
        from gameserver._sql import migrate

        async with database.engine.connect() as connection:
            lacking: list[str] = await connection.run_sync(migrate.missing, database.migrations)
            return lacking

    lacking = _with_database(target, database_url, run)
    if lacking:
        print("\n".join(f"lacks {name}" for name in lacking))
        raise typer.Exit(1)
    print("up to date")


def revision(target: Target, message: Message, database_url: Url = None) -> None:
    """Writes a new migration: what differs between the game's tables and the database, which has to be up to date."""

    async def run(database: Any) -> str:
        from gameserver._sql import migrate

        async with database.engine.connect() as connection:
            lacking = await connection.run_sync(migrate.missing, database.folder)
            if lacking:
                raise ConfigError(f"the database lacks {', '.join(lacking)}; run gameserver db upgrade {target} before")
            made: str = await connection.run_sync(migrate.revision, database.metadata, database.folder, message)
            return made

    print(f"wrote {_with_database(target, database_url, run)}; read it, then run gameserver db upgrade {target}")


def _with_database(target: str, url: str | None, run: Callable[[Any], Awaitable[T]]) -> T:
    """Does something with the database of a game, and says what is wrong in one line."""
    found = _target.load(target)
    typed = {} if url is None else {"database_url": url}
    code = found.app._code_settings
    settings = _settings.resolve(code, command_line=typed, environ=os.environ, start=found.folder).settings
    app: Any = found.app

    async def all_of_it() -> T:
        database = app._stores.database_of(settings, Path(found.folder))
        try:
            with database.explained():
                return await run(database)
        finally:
            await database.close()

    return asyncio.run(all_of_it())
