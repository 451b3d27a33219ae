"""Units of work, on SQLite and on PostgreSQL: commit or nothing, versions, fences, migrations, and what bad settings get."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from stores import Postgres, ask, until
from wire_client import Client, connected

from gameserver import App, ConfigError, Conflict, Event, Overloaded, Refuse, Session, Unavailable, shared
from gameserver._sql import database
from gameserver._sql.tables import OUTBOX
from gameserver.middleware import use
from gameserver.storage import UnitOfWork, Versioned, transaction
from gameserver.testing import running


class Base(DeclarativeBase):
    pass


class Account(Versioned, Base):
    __tablename__ = "account"
    name: Mapped[str] = mapped_column(primary_key=True)
    gold: Mapped[int] = mapped_column(default=100)


@shared
class Paid(Event):
    name: str


def bank(database_url: str) -> App:
    app = App("bank", database_url=database_url)
    app.storage(Base.metadata)

    @app.on("open")
    @use(transaction)
    async def open_account(session: Session, body: bytes, work: UnitOfWork) -> None:
        work.sql.add(Account(name=body.decode()))

    @app.on("pay")
    @use(transaction)
    async def pay(session: Session, body: bytes, work: UnitOfWork) -> int:
        account = await work.sql.get_one(Account, body.decode())
        account.gold -= 10
        if account.gold < 0:
            await work.sql.flush()
            raise Refuse("poor", "not enough gold")
        return account.gold

    @app.on("look")
    async def look(session: Session, body: bytes, work: UnitOfWork) -> int | None:
        account = await work.sql.get(Account, body.decode())
        return account.gold if account is not None else None

    @app.on("forgets")
    async def forgets(session: Session, body: bytes, work: UnitOfWork) -> None:
        work.sql.add(Account(name=body.decode()))
        await work.sql.flush()

    return app


def said(client: Client, route: str, body: bytes = b"ada") -> Any:
    answer = client.request(route, body)
    found = json.loads(answer.body or b"null")
    return found["code"] if answer.error else found


def test_a_handlers_work_commits_or_leaves_nothing(database_url: str) -> None:
    with running(bank(database_url)) as server:
        client = connected(server.port)
        assert said(client, "look") is None
        assert said(client, "open") is None
        for left in range(90, -1, -10):
            assert said(client, "pay") == left
        assert said(client, "pay") == "poor"
        assert said(client, "look") == 0
        said(client, "forgets", b"bob")
        assert said(client, "look", b"bob") is None
    with running(bank(database_url)) as server:  # and is there in the next run
        assert said(connected(server.port), "look") == 0


def test_two_who_change_the_same_row(database_url: str) -> None:
    app = bank(database_url)
    with running(app) as server:
        said(connected(server.port), "open")

        async def both() -> None:
            async with app.transaction() as one:
                first = await one.sql.get_one(Account, "ada")
                await one.sql.commit()  # it has read it, and holds nothing
                async with app.transaction() as other:
                    second = await other.sql.get_one(Account, "ada")
                    second.gold += 1
                first.gold += 5
                one.sql.add(first)

        with pytest.raises(Conflict, match="changed it meanwhile"):
            ask(server, both)
        assert said(connected(server.port), "look") == 101


def test_a_block_that_raises_leaves_nothing(database_url: str) -> None:
    app = bank(database_url)
    with running(app) as server:

        async def fail() -> None:
            async with app.transaction() as work:
                work.sql.add(Account(name="eve"))
                await work.sql.flush()
                raise LookupError

        with pytest.raises(LookupError):
            ask(server, fail)
        assert said(connected(server.port), "look", b"eve") is None


def test_a_commit_under_an_older_lease_is_refused(database_url: str) -> None:
    app = bank(database_url)
    with running(app) as server:

        async def run() -> None:
            stopped = app.lock("guarded")
            async with stopped:
                old = stopped.fence
            async with app.lock("guarded") as lock, app.transaction() as work:
                work.guard(lock)
                work.sql.add(Account(name="new"))
            stopped.fence = old
            async with app.transaction() as work:
                work.guard(stopped)
                work.sql.add(Account(name="stale"))

        with pytest.raises(Conflict, match="somebody else has had it meanwhile; nothing was committed"):
            ask(server, run)
        client = connected(server.port)
        assert (said(client, "look", b"new"), said(client, "look", b"stale")) == (100, None)


def test_many_at_once_lose_nothing(database_url: str) -> None:
    app = bank(database_url)
    with running(app) as server:

        async def one(number: int) -> None:
            async with app.transaction() as work:
                work.sql.add(Account(name=f"player {number}", gold=number))

        async def many() -> int:
            await asyncio.gather(*(one(number) for number in range(200)))
            async with app.transaction() as work:
                return len((await work.sql.scalars(select(Account))).all())

        assert ask(server, many) == 200


def test_events_are_published_if_it_commits(database_url: str) -> None:
    app = bank(database_url)
    heard: list[str] = []

    @app.on_event(Paid)
    def hear(event: Paid) -> None:
        heard.append(event.name)

    with running(app) as server:

        async def run() -> None:
            with contextlib.suppress(LookupError):
                async with app.transaction() as work:
                    work.emit(Paid("nobody"), key=1)
                    raise LookupError
            async with app.transaction() as work:
                work.emit(Paid("taken back"), key="same")
                await work.rollback()
                for name in ("ada", "bob", "eve"):
                    work.emit(Paid(name), key="same")
            await until(lambda: len(heard) >= 3 and not server.app.stats()["stores"]["outbox"]["in_flight"])

        ask(server, run)
        assert heard == ["ada", "bob", "eve"]

        async def left() -> int:
            async with app.transaction() as work:
                return int((await work.sql.execute(select(func.count()).select_from(OUTBOX))).scalar_one())

        async def emptied() -> None:
            while await left():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        ask(server, emptied)


def test_an_event_that_is_not_shared_can_not_be_published(database_url: str) -> None:
    class Alone(Event):
        name: str

    app = bank(database_url)
    with running(app) as server:

        async def run() -> None:
            async with app.transaction() as work:
                work.emit(Alone("x"))

        with pytest.raises(ConfigError, match="Alone is not shared: write @shared above it"):
            ask(server, run)


def refused(app: App, **settings: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        app.run(port=0, **settings)
    return str(raised.value)


def test_bad_urls_are_refused_at_start(tmp_path: Path, one_postgres: Postgres) -> None:
    app = App("bank")
    app.storage(Base.metadata)
    assert "database_url='mysql://x/y' (code): expected a URL" in refused(app, database_url="mysql://x/y")
    assert "make it" in refused(app, database_url=f"sqlite:///{tmp_path}/none/game.db")
    port = one_postgres.port
    said = refused(app, database_url=f"postgresql://game@127.0.0.1:{port}/nowhere")
    assert 'database "nowhere" does not exist; create it, or check the name' in said
    assert "start it, or check host, port and path" in refused(app, database_url="postgresql://a@127.0.0.1:1/b")
    (tmp_path / "noise.db").write_bytes(b"this is no database" * 100)
    assert "file is not a database" in refused(app, database_url=f"sqlite:///{tmp_path}/noise.db")


def test_a_wrong_password_is_said_and_not_shown(tmp_path: Path) -> None:
    from stores import postgres_server

    with postgres_server() as server:
        url = server.database()
        server._run(
            "psql",
            "-h",
            "127.0.0.1",
            "-p",
            str(server.port),
            "-U",
            "game",
            "-d",
            "postgres",
            "-c",
            "ALTER USER game PASSWORD 'right'",
        )
        rules = server._folder / "data" / "pg_hba.conf"
        rules.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        server.kill()
        server.start()
        app = App("bank")
        app.storage(Base.metadata)
        said = refused(app, database_url=url.replace("game@", "game:secret@"))
        assert "it does not let us in" in said
        assert "check user and password" in said
        assert "secret" not in said
        with running(app, database_url=url.replace("game@", "game:right@")):
            pass


def test_without_storage_nothing_is_opened(tmp_path: Path) -> None:
    app = App("none", database_url=f"sqlite:///{tmp_path}/game.db")
    with running(app) as server:
        assert "database" not in server.stats()["stores"]

        async def run() -> None:
            async with app.transaction():
                pass

        with pytest.raises(Exception, match=r"the app has no storage: call app.storage"):
            ask(server, run)
    assert not (tmp_path / "game.db").exists()


GAME = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from gameserver import App

class Base(DeclarativeBase): ...

class Hero(Base):
    __tablename__ = "hero"
    name: Mapped[str] = mapped_column(primary_key=True)
    {more}

app = App("game")
app.storage(Base.metadata)

@app.on_start
def stop() -> None:
    app.after(0, app.stop)

if __name__ == "__main__":
    app.run(port=0)
"""


def command(folder: Path, database_url: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GAMESERVER_DATABASE_URL": database_url}
    return subprocess.run(
        [sys.executable, "-m", "gameserver", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_migrations_from_the_command_line(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "game.py").write_text(GAME.format(more="gold: Mapped[int]"))
    (tmp_path / "migrations").mkdir()
    run = ("run", "game.py", "--port", "0")
    done = command(tmp_path, database_url, *run)
    assert done.returncode == 2, done.stderr
    assert (
        "it lacks 2 migrations (gs_0001, gs_0002) of the server itself; run: gameserver db upgrade game.py"
        in done.stderr
    )
    assert "done: gs_0001, gs_0002" in command(tmp_path, database_url, "db", "upgrade", "game.py").stdout
    wrote = command(tmp_path, database_url, "db", "revision", "game.py", "-m", "heroes")
    assert wrote.returncode == 0, wrote.stderr
    assert "wrote" in wrote.stdout
    (made,) = (tmp_path / "migrations").glob("*.py")
    assert "create_table('hero'" in made.read_text()
    assert "gs_" not in made.read_text().split("def upgrade")[1]
    status = command(tmp_path, database_url, "db", "status", "game.py")
    assert (status.returncode, status.stdout.startswith("lacks ")) == (1, True)
    assert command(tmp_path, database_url, *run).returncode == 2
    assert "done: " in command(tmp_path, database_url, "db", "upgrade", "game.py").stdout
    assert "nothing to do" in command(tmp_path, database_url, "db", "upgrade", "game.py").stdout
    assert command(tmp_path, database_url, *run).returncode == 0
    (tmp_path / "game.py").write_text(GAME.format(more="gold: Mapped[int]\n    level: Mapped[int | None]"))
    assert command(tmp_path, database_url, "db", "revision", "game.py", "-m", "levels").returncode == 0
    assert len([*(tmp_path / "migrations").glob("*.py")]) == 2
    assert command(tmp_path, database_url, "db", "upgrade", "game.py").returncode == 0
    assert command(tmp_path, database_url, "db", "status", "game.py").stdout == "up to date\n"


def test_a_game_without_storage_has_no_migrations(tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text('from gameserver import App\napp = App("game")\n')
    done = command(tmp_path, "sqlite:///x.db", "db", "upgrade", "game.py")
    assert done.returncode == 2
    assert "app 'game' has no storage: call app.storage(Base.metadata)" in done.stderr


def test_a_database_of_a_newer_server(tmp_path: Path, database_url: str) -> None:
    app = bank(database_url)
    with running(app) as server:

        async def spoil() -> None:
            async with app.transaction() as work:
                await work.sql.execute(text("UPDATE gs_alembic_version SET version_num = 'gs_9999'"))

        ask(server, spoil)
    said = refused(bank(database_url))
    assert "gs_9999" in said
    assert "newer" in said


def test_a_transaction_that_stands_still_keeps_nobody_from_its_rows(
    one_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was stopped, perhaps: PostgreSQL ends it."""
    monkeypatch.setattr(database, "IDLE_MAX", 0.1)
    app = bank(one_postgres.database())
    with running(app, store_timeout=0.2) as server:

        async def write() -> bool:
            with contextlib.suppress(Unavailable):
                async with app.transaction() as work:
                    work.sql.add(Account(name="ada"))
                return True
            return False

        async def stand_still() -> None:
            async with app.transaction() as work:
                work.sql.add(Account(name="ada"))
                await work.sql.flush()
                assert not await write()  # somebody has the row
                while not await write():  # noqa: ASYNC110, PostgreSQL announces nothing
                    await asyncio.sleep(0.1)

        with pytest.raises(Unavailable):
            ask(server, stand_still)


def test_too_many_transactions_at_once_are_refused(database_url: str) -> None:
    app = bank(database_url)
    with running(app, store_timeout=0.5) as server:

        async def many() -> list[Any]:
            async def hold() -> None:
                async with app.transaction():
                    await asyncio.sleep(2)

            return await asyncio.gather(*(hold() for _ in range(20)), return_exceptions=True)

        found = ask(server, many)
        assert {type(one) for one in found} <= {type(None), Overloaded, Unavailable}
        if "postgresql" in database_url:
            assert [type(one) for one in found].count(Overloaded) >= 4
            assert server.stats()["stores"]["database"]["state"] == "closed"
