"""Persistent entities: saved as they change and when they leave, loaded on demand, and owned by who has loaded them last."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import random
import time
from typing import Annotated, Any

import pytest
from stores import ask
from wire_client import Client

from gameserver import (
    App,
    ConfigError,
    Conflict,
    Entity,
    GameServerError,
    MaxLen,
    SchemaError,
    Session,
    f32,
    f64,
    i8,
    u8,
    u16,
    u64,
    vec2,
    vec3,
)
from gameserver.testing import RunningServer, running


class Mood(enum.IntEnum):
    CALM = 1
    ANGRY = 2


def heroes(database_url: str, interval: float = 0.05) -> tuple[App, type[Any]]:
    app = App("heroes", tick_rate=100, database_url=database_url, save_interval=interval)
    app.storage()

    @app.persistent
    class Hero(Entity):
        x: f32 = 0.0
        y: f32 = 0.0
        gold: u16 = 0
        name: Annotated[str, MaxLen(16)] = ""

    @app.authenticate
    def who(user: dict[str, Any]) -> str | None:
        return user.get("name")

    @app.on_join
    async def join(session: Session) -> None:
        await app.load(Hero, session.uid or "guest", owner=session, name=session.uid or "")

    @app.on("earn")
    def earn(session: Session, body: bytes) -> int:
        hero = app.world.owned(Hero, session)
        assert hero is not None
        hero.gold += int(body)
        return hero.gold

    @app.on("leave")
    def leave(session: Session) -> None:
        session.close()

    return app, Hero


def joined(server: RunningServer, name: str) -> Client:
    client = Client(server.port)
    client.handshake(json.dumps({"sys": {}, "user": {"name": name}}).encode())
    return client


def earned(client: Client, gold: int) -> int:
    for _ in range(1000):
        if not (answer := client.request("earn", str(gold).encode())).error:
            break  # else it is being loaded
        time.sleep(0.005)
    found: int = json.loads(answer.body)
    return found


def stored(server: RunningServer, key: str) -> dict[str, Any] | None:
    from sqlalchemy import select

    from gameserver._sql.tables import ENTITIES

    async def read() -> dict[str, Any] | None:
        async with server.app.transaction() as work:
            data = (await work.sql.execute(select(ENTITIES.c.data).where(ENTITIES.c.key == key))).scalar_one_or_none()
            return json.loads(data) if data is not None else None

    return ask(server, read)


def until_stored(server: RunningServer, key: str, **columns: Any) -> None:
    deadline = time.monotonic() + 10
    while (found := stored(server, key)) is None or any(found.get(name) != value for name, value in columns.items()):
        assert time.monotonic() < deadline, found


def test_what_changes_is_saved_and_comes_back(database_url: str) -> None:
    app, _ = heroes(database_url)
    with running(app) as server:
        ada = joined(server, "ada")
        assert earned(ada, 7) == 7
        until_stored(server, "ada", gold=7, name="ada")
        assert earned(ada, 3) == 10
        until_stored(server, "ada", gold=10)
    app, _ = heroes(database_url)
    with running(app) as server:
        assert earned(joined(server, "ada"), 1) == 11


def test_who_leaves_is_saved_as_they_left(database_url: str) -> None:
    app, _ = heroes(database_url, interval=3600)
    with running(app) as server:
        ada = joined(server, "ada")
        earned(ada, 42)
        ada.close()
        until_stored(server, "ada", gold=42)
        assert earned(joined(server, "ada"), 1) == 43


def test_an_entity_that_is_despawned_is_saved_before(database_url: str) -> None:
    app, hero_class = heroes(database_url, interval=3600)
    with running(app) as server:

        async def run() -> None:
            heroes = [await app.load(hero_class, name, gold=gold) for gold, name in enumerate("abc", 1)]
            for hero in heroes:
                hero.gold *= 10
            heroes[0].despawn()
            app.world.despawn(heroes[1])
            rows = app.world.query(hero_class, gold=(30, 30))
            app.world.despawn_rows(hero_class, rows)
            again = await app.load(hero_class, "a")
            assert again.gold == 10
            again.gold = 11

        ask(server, run)
        for key, gold in (("b", 20), ("c", 30)):
            until_stored(server, key, gold=gold)
    app, hero_class = heroes(database_url)
    with running(app) as server:  # and what lives is saved when the server stops

        async def read() -> int:
            return int((await app.load(hero_class, "a")).gold)

        assert ask(server, read) == 11


def test_what_saves_has_committed(database_url: str) -> None:
    app, hero_class = heroes(database_url, interval=3600)
    with running(app) as server:

        async def run() -> None:
            hero = await app.load(hero_class, "durable")
            hero.gold = 5
            await app.save(hero)

        ask(server, run)
        assert (stored(server, "durable") or {})["gold"] == 5

        async def together() -> None:
            hero = await app.load(hero_class, "durable")
            with contextlib.suppress(LookupError):
                async with app.transaction() as work:
                    hero.gold = 6
                    work.save(hero)
                    raise LookupError
            async with app.transaction() as work:
                hero.gold = 7
                work.save(hero)

        ask(server, together)
        assert (stored(server, "durable") or {})["gold"] == 7


def test_one_that_lives_is_loaded_once(database_url: str) -> None:
    app, hero_class = heroes(database_url)
    with running(app) as server:

        async def run() -> None:
            found = await asyncio.gather(*(app.load(hero_class, "one") for _ in range(20)))
            assert len({hero.id for hero in found}) == 1
            assert app.world.count(hero_class) == 1

        ask(server, run)


def test_whom_another_process_has_loaded_is_saved_there_alone(database_url: str) -> None:
    first, first_class = heroes(database_url, interval=3600)
    second, second_class = heroes(database_url, interval=3600)
    with running(first) as one, running(second) as other:

        async def begin() -> Any:
            hero = await first.load(first_class, "shared")
            hero.gold = 5
            await first.save(hero)
            return hero

        hero = ask(one, begin)

        async def take_over() -> None:
            theirs = await second.load(second_class, "shared")
            assert theirs.gold == 5
            theirs.gold = 6
            await second.save(theirs)

        ask(other, take_over)

        async def too_late() -> None:
            hero.gold = 100
            await first.save(hero)

        with pytest.raises(Conflict, match="another process has loaded Hero 'shared'"):
            ask(one, too_late)
        with pytest.raises(GameServerError, match="is not kept"):
            ask(one, too_late)
        assert (stored(other, "shared") or {})["gold"] == 6


def test_deleted_ones_are_gone(database_url: str) -> None:
    app, hero_class = heroes(database_url)
    with running(app) as server:

        async def run() -> list[bool]:
            hero = await app.load(hero_class, "short", gold=9)
            await app.save(hero)
            return [await app.delete(hero_class, "short"), await app.delete(hero_class, "short")]

        assert ask(server, run) == [True, False]
        assert stored(server, "short") is None


def test_all_kinds_of_columns_come_back(database_url: str) -> None:
    def make() -> tuple[App, type[Any]]:
        app = App("kinds", database_url=database_url)
        app.storage()

        class Other(Entity):
            x: f32 = 0.0
            y: f32 = 0.0

        @app.persistent
        class Thing(Entity, table="global"):
            yes: bool = False
            small: i8 = 0
            big: u64 = 0
            exact: f64 = 0.0
            mood: Mood = Mood.CALM
            place: vec2 = (0, 0)
            way: vec3 = (0, 0, 0)
            name: Annotated[str, MaxLen(20)] = ""
            raw: Annotated[bytes, MaxLen(8)] = b""
            items: Annotated[list[u8], MaxLen(5)] = []
            friend: Other | None = None

        return app, Thing

    values = {
        "yes": True, "small": -5, "big": 2**64 - 1, "exact": 0.1, "mood": Mood.ANGRY, "place": (1.5, -2.5),
        "way": (1, 2, 3), "name": "Ærøskøbing ☃", "raw": b"\x01\xff\x00\x02", "items": [1, 2, 255],
    }  # fmt: skip
    app, cls = make()
    with running(app) as server:

        async def put() -> None:
            thing = await app.load(cls, "all", **values)
            await app.save(thing)

        ask(server, put)
    app, cls = make()
    with running(app) as server:

        async def get() -> dict[str, Any]:
            thing = await app.load(cls, "all")
            return {name: getattr(thing, name) for name in values}

        found = ask(server, get)
    plain = {name: [*value] if isinstance(value, tuple) else value for name, value in values.items()}
    assert {name: [*value] if name in ("place", "way", "items") else value for name, value in found.items()} == plain


def test_columns_that_came_and_went(database_url: str) -> None:
    def make(columns: dict[str, Any]) -> tuple[App, type[Any]]:
        app = App("columns", database_url=database_url)
        app.storage()
        namespace: dict[str, Any] = {
            "__qualname__": "make.<locals>.Hero",
            "__annotations__": columns,
            "x": 0.0,
            "y": 0.0,
            "old": 1,
            "new": 2,
        }
        namespace = {key: value for key, value in namespace.items() if key in columns or key.startswith("__")}
        meta: Any = type(Entity)
        return app, app.persistent(meta("Hero", (Entity,), namespace))

    base = {"x": f32, "y": f32}
    app, cls = make({**base, "old": u16})
    with running(app) as server:

        async def put() -> None:
            await app.save(await app.load(cls, "a", old=9, x=3.0))

        ask(server, put)
    app, cls = make({**base, "new": u16})
    with running(app) as server:

        async def get() -> tuple[float, int]:
            hero = await app.load(cls, "a")
            return hero.x, hero.new

        assert ask(server, get) == (3.0, 2)
    app, cls = make(base)
    with running(app) as server:

        async def spoil() -> None:
            from sqlalchemy import update

            from gameserver._sql.tables import ENTITIES

            async with app.transaction() as work:
                await work.sql.execute(update(ENTITIES).values(data=b'{"x": "no number"}'))
            await app.load(cls, "a")

        with pytest.raises(SchemaError, match="Hero 'a' was stored with columns of other types"):
            ask(server, spoil)


def test_only_what_changed_is_written(database_url: str) -> None:
    app, hero_class = heroes(database_url, interval=3600)
    with running(app) as server:

        async def run() -> list[int]:
            kept = [await app.load(hero_class, f"hero {number}") for number in range(300)]
            saver = app._stores.saver
            assert saver is not None
            counts = []
            for changed in (0, 0, 3, 0):
                for hero in random.sample(kept, changed):
                    hero.gold += 1
                saver._scan()
                counts.append(len(saver._pending))
                await saver._flush()
            return counts

        assert ask(server, run) == [300, 0, 3, 0]


def test_mistakes() -> None:
    app = App("mistakes")
    with pytest.raises(ConfigError, match="give a subclass of Entity"):
        app.persistent(int)  # type: ignore[type-var]

    @app.persistent
    class Hero(Entity):
        x: f32 = 0.0
        y: f32 = 0.0

    with pytest.raises(ConfigError, match="there is a persistent class named Hero already"):
        app.persistent(Hero)
    with pytest.raises(ConfigError, match=r"@app.persistent of Hero: where is it kept\? call app.storage\(\)"):
        app.run(port=0)


@pytest.mark.parametrize("key", ["", "x" * 201, "a\0b", "\ud800", 7])
def test_keys_that_can_not_be(tmp_path: Any, key: Any) -> None:
    app, hero_class = heroes(f"sqlite:///{tmp_path}/game.db")
    with running(app) as server:

        async def run() -> None:
            await app.load(hero_class, key)

        with pytest.raises(ValueError, match="a key is a text of 1 to 200 characters, without NUL"):
            ask(server, run)


def test_one_that_can_not_be_written_keeps_no_other_from_it(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from gameserver._sql.saved import _Kind

    packed = _Kind.packed

    def spoil(self: _Kind, record: Any) -> Any:
        return object() if record["gold"] == 13 else packed(self, record)

    monkeypatch.setattr(_Kind, "packed", spoil)
    app, hero_class = heroes(database_url)
    with running(app) as server:

        async def run() -> None:
            for number in range(10, 17):
                await app.load(hero_class, f"hero {number}", gold=number)

        ask(server, run)
        until_stored(server, "hero 16", gold=16)
        assert stored(server, "hero 13") == {}
        assert server.stats()["stores"]["saved"]["dropped"] == 1
