"""Snapshots of the world: immutable, for any thread, and for files."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from conftest import Serve
from hypothesis import given
from hypothesis import strategies as st
from world_client import Watcher

from gameserver import NOBODY, App, Entity, MaxLen, SchemaError, Session, World, WorldSnapshot, f32, sync, u8, u16, vec2


class Mood(IntEnum):
    CALM = 1
    ANGRY = 2


class Hero(Entity):
    x: f32 = sync(0, quantize=0.01)
    y: f32 = sync(0, quantize=0.01)
    hp: u16 = 100
    mood: Mood = Mood.CALM
    name: Annotated[str, MaxLen(12)] = ""
    target: Hero | None = None
    at: vec2 = (0, 0)
    items: Annotated[list[u8], MaxLen(3)] = []
    secret: u8 = sync(0, to=NOBODY)


class Score(Entity, table="global"):
    points: u16 = 0


def heroes() -> World:
    world = World(cell=10)
    ann = world.spawn(Hero, x=1, hp=7, mood=Mood.ANGRY, name="Änn", at=(1, 2), items=[4, 5], secret=9)
    bob = world.spawn(Hero, x=2, target=ann)
    gone = world.spawn(Hero)
    ann.target = bob
    gone.despawn()
    world.spawn(Score, points=3)
    return world


def test_it_is_what_was_and_nothing_changes_it() -> None:
    world = heroes()
    ann, bob = world.at(Hero, [0, 1])
    snapshot = world.snapshot()
    ann.hp = 1
    bob.despawn()
    rows = snapshot.to_numpy(Hero)
    assert rows["id"].tolist() == [ann.id, bob.id]
    assert (rows["hp"].tolist(), rows["name"].tolist(), rows["secret"].tolist()) == (
        [7, 100],
        ["Änn".encode(), b""],
        [9, 0],
    )
    assert (rows["target"].tolist(), rows["mood"].tolist()) == ([bob.id, ann.id], [2, 1])
    assert (rows["at"][0].tolist(), rows["items"]["count"].tolist(), rows["items"]["items"][0, :2].tolist()) == (
        [1, 2],
        [2, 0],
        [4, 5],
    )
    with pytest.raises(ValueError, match="read-only"):
        rows["hp"] = 5
    assert (snapshot.count(Score), snapshot.tick) == (1, 0)

    class Other(Entity):
        x: u8

    with pytest.raises(KeyError, match=r"the snapshot has no .*Other"):
        snapshot.count(Other)


def test_saved_loaded_and_restored_it_is_the_same(tmp_path: Path) -> None:
    world = heroes()
    snapshot = world.snapshot()
    path = tmp_path / "world.gsw"
    path.write_bytes(b"an older one")
    snapshot.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["world.gsw"]
    loaded = WorldSnapshot.load(path, [Score, Hero])
    assert np.array_equal(loaded.to_numpy(Hero), snapshot.to_numpy(Hero))
    other = World(cell=5)
    other.declare(Hero, Score)
    other.load(path)
    ann, bob = other.at(Hero, [0, 1])
    assert (ann.name, ann.hp, ann.mood, ann.at, ann.items, ann.target, bob.target) == (
        "Änn",
        7,
        Mood.ANGRY,
        (1, 2),
        [4, 5],
        bob,
        ann,
    )
    assert (ann.owner, [score.points for score in other.each(Score)]) == (None, [3])
    # An id never comes to mean another entity, not over a restart either.
    assert other.spawn(Hero).id not in snapshot.to_numpy(Hero)["id"]
    with pytest.raises(SchemaError, match="entities were spawned already"):
        other.restore(snapshot)


def test_a_file_of_other_classes_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "world.gsw"
    heroes().snapshot().save(path)
    with pytest.raises(SchemaError, match="table Score: this world has no such class"):
        WorldSnapshot.load(path, [Hero])
    with pytest.raises(SchemaError, match="table Hero: this world has no such class; declare it"):
        World().load(path)

    def another() -> type[Entity]:
        class Hero(Entity):
            x: f32
            y: f32

        return Hero

    with pytest.raises(SchemaError, match="its columns are not those that were saved"):
        WorldSnapshot.load(path, [another(), Score])
    with pytest.raises(FileNotFoundError):
        World().load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        heroes().snapshot().save(tmp_path / "nowhere" / "world.gsw")


@given(at=st.integers(0), to=st.integers(0, 255), cut=st.booleans())
def test_damaged_bytes_are_refused(at: int, to: int, cut: bool) -> None:
    data = bytearray(heroes().snapshot().to_bytes())
    at %= len(data)
    if cut:
        del data[at:]
    elif data[at] == to:
        return
    else:
        data[at] = to
    with pytest.raises(ValueError, match="a saved world"):
        WorldSnapshot.from_bytes(bytes(data), [Hero, Score])


def game(*, start: Callable[[World], Any] = lambda _: None) -> App:
    app = App("saved", tick_rate=200, world=World(cell=10, view=10))
    app.world.declare(Hero, Score)
    taken: list[WorldSnapshot] = []

    @app.on_start
    def begin() -> None:
        start(app.world)

    @app.on_join
    def join(session: Session) -> None:
        app.world.spawn(Hero, owner=session, name="of a client")

    @app.tick
    def step(dt: float) -> None:
        heroes = app.world.columns(Hero)
        heroes.hp += 1
        heroes.secret[:] = heroes.hp % 256
        taken[:] = [app.world.snapshot()]

    app.taken = taken  # type: ignore[attr-defined]
    return app


def test_other_threads_read_it_while_ticks_go_on(serve: Serve, tmp_path: Path) -> None:
    app = game(start=lambda world: world.spawn_many(Hero, 1000))
    with serve(app) as server:
        watcher = Watcher(server.port)
        watcher.take()
        seen: list[int] = []
        while len(seen) < 20:
            snapshot = app.taken[0]  # type: ignore[attr-defined]
            if seen and snapshot.tick == seen[-1]:
                continue
            seen.append(snapshot.tick)
            rows = snapshot.to_numpy(Hero)
            assert np.array_equal(rows["hp"] % 256, rows["secret"])
            snapshot.save(tmp_path / "world.gsw")
        assert seen == sorted(set(seen))
        with pytest.raises(RuntimeError, match="thread"):
            app.world.snapshot()
        watcher.client.close()


def test_a_restart_goes_on_with_what_was_saved(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "world.gsw"
    app = game(start=lambda world: world.spawn(Hero, name="stays"))
    with serve(app) as server:
        watcher = Watcher(server.port)
        watcher.until(lambda it: len(it.ids("Hero")) == 2 or it.ids("Hero"))
        server.call(lambda: app.world.snapshot().save(path))
        watcher.client.close()
    before = WorldSnapshot.load(path, [Hero, Score])
    names = dict(zip(before.to_numpy(Hero)["name"].tolist(), before.to_numpy(Hero)["id"].tolist(), strict=True))
    assert names.keys() == {b"stays", b"of a client"}
    with serve(game(start=lambda world: world.load(path))) as server:
        watcher = Watcher(server.port)
        watcher.until(lambda it: len(it.ids("Hero")) == 3)
        assert watcher.value("Hero", names[b"stays"], "name") == "stays"
        assert watcher.replica.tick > before.tick
        watcher.client.close()


def test_only_its_own_thread_takes_one() -> None:
    world = heroes()
    snapshot = world.snapshot()
    rows: list[Any] = []
    thread = threading.Thread(target=lambda: rows.append(snapshot.to_numpy(Hero)))
    thread.start()
    thread.join()
    assert len(rows[0]) == 2
