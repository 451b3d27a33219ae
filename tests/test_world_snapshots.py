"""What clients see of the world: over real sockets, decoded by the core's replica."""

from __future__ import annotations

import json
import logging
import struct
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from conftest import Serve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_client import connected
from world_client import Watcher

from gameserver import (
    OTHERS,
    OWNER,
    App,
    ConfigError,
    Entity,
    MaxLen,
    ProtocolError,
    SchemaError,
    Session,
    World,
    f32,
    sync,
    u8,
    u16,
    u64,
    vec2,
)
from gameserver._core import WorldReplica
from gameserver.testing import replay


class Mood(IntEnum):
    CALM = 1
    ANGRY = 2


class Hero(Entity):
    x: f32 = sync(0, quantize=0.01)
    y: f32 = sync(0, quantize=0.01)
    hp: u16 = 100
    mood: Mood = Mood.CALM
    name: Annotated[str, MaxLen(12)] = ""
    gold: u64 = sync(0, to=OWNER)
    hand: Annotated[list[u8], MaxLen(4)] = sync([], to=OTHERS)
    target: Hero | None = None


class Score(Entity, table="global"):
    points: u16 = 0


class Spark(Entity, position="at"):
    at: vec2 = sync((0, 0), quantize=0.5)


def game(**options: Any) -> App:
    app = App("heroes", tick_rate=200, world=World(cell=10, view=10), **options)
    world = app.world

    @app.on("spawn")
    def spawn(session: Session, body: bytes) -> int:
        columns = json.loads(body or b"{}")
        columns["mood"] = Mood(columns.get("mood", 1))
        return world.spawn(Hero, owner=session, **columns).id

    @app.on("set")
    def set_values(me: Hero, body: bytes) -> None:
        for name, value in json.loads(body).items():
            setattr(me, name, value)

    @app.on("die")
    def die(me: Hero) -> None:
        me.despawn()

    @app.on("watch")
    def watch(session: Session, body: bytes) -> bool:
        return world.watch(session, **json.loads(body))

    @app.on("own")
    def own(session: Session) -> bool:
        return world.follow(session)

    return app


def values(**columns: Any) -> bytes:
    return json.dumps(columns).encode()


def test_the_schema_tells_of_the_world(serve: Serve) -> None:
    with serve(game()) as server:
        watcher = Watcher(server.port)
        assert (watcher.world["cell"], watcher.world["tick_rate"]) == (10, 200)
        tables = {table["name"]: table for table in watcher.world["tables"]}
        assert tables["Hero"]["position"] == ["x", "y"]
        assert "position" not in tables["Score"]
        columns = {column["name"]: column for column in tables["Hero"]["columns"]}
        assert columns["x"] == {"name": "x", "type": "f32", "quantize": 0.01}
        assert columns["gold"] == {"name": "gold", "type": "u64", "to": "owner"}
        assert columns["mood"] == {"name": "mood", "type": "enum", "values": [1, 2], "names": ["CALM", "ANGRY"]}
        assert columns["target"] == {"name": "target", "type": "entity", "of": "Hero"}


def test_each_sees_what_is_near_its_own_entity(serve: Serve) -> None:
    with serve(game()) as server:
        ann, bob = Watcher(server.port), Watcher(server.port)
        a = ann.request("spawn", values(x=5, y=5, name="Ann"))
        b = bob.request("spawn", values(x=12.004, y=5, hp=7, mood=2))
        ann.until(lambda it: it.ids("Hero") == {a, b})
        bob.until(lambda it: it.ids("Hero") == {a, b})
        assert ann.value("Hero", b, "x") == pytest.approx(12.0)
        assert [ann.value("Hero", b, name) for name in ("hp", "mood", "name", "target")] == [7, 2, "", None]
        assert bob.value("Hero", a, "name") == "Ann"
        assert ("add", "Hero", b) in ann.changes
        bob.request("set", values(hp=8, name="Böb"))
        ann.until(lambda it: it.value("Hero", b, "name") == "Böb" and it.value("Hero", b, "hp") == 8)
        assert ann.changes[-1] == ("change", "Hero", b)
        # Two cells further it is out of sight, and back again.
        bob.request("set", values(x=45))
        ann.until(lambda it: it.ids("Hero") == {a})
        assert ann.changes[-1] == ("remove", "Hero", b)
        bob.until(lambda it: it.ids("Hero") == {b})
        bob.request("set", values(x=15))
        ann.until(lambda it: it.ids("Hero") == {a, b})
        bob.request("die")
        ann.until(lambda it: it.ids("Hero") == {a})


def test_who_leaves_takes_its_entities_along(serve: Serve) -> None:
    with serve(game()) as server:
        ann, bob = Watcher(server.port), Watcher(server.port)
        a, b = ann.request("spawn"), bob.request("spawn")
        ann.until(lambda it: it.ids("Hero") == {a, b})
        bob.client.close()
        ann.until(lambda it: it.ids("Hero") == {a})


def test_what_is_an_owners_alone_is_in_nobody_elses_bytes(serve: Serve) -> None:
    secret = 0x5EC7_E75E_C7E7_5EC7
    marks = [struct.pack("<Q", secret), varint(secret << 1), varint((secret << 1) ^ -1 & (1 << 64) - 1)]
    with serve(game()) as server:
        ann, bob = Watcher(server.port), Watcher(server.port)
        a, b = ann.request("spawn", values(gold=secret)), bob.request("spawn", values(hand=[9, 9]))
        ann.until(lambda it: it.value("Hero", a, "gold") == secret)
        bob.until(lambda it: it.ids("Hero") == {a, b})
        ann.request("set", values(gold=secret - 1))
        ann.until(lambda it: it.value("Hero", a, "gold") == secret - 1)
        ann.request("set", values(gold=secret, hp=1))
        ann.until(lambda it: it.value("Hero", a, "gold") == secret)
        bob.until(lambda it: it.value("Hero", a, "hp") == 1)
        assert any(mark in ann.bytes for mark in marks)
        assert not any(mark in bob.bytes for mark in marks)
        assert bob.value("Hero", a, "gold") is None
        # And what is the others' is not the owner's.
        ann.until(lambda it: it.value("Hero", b, "hand") == [9, 9])
        bob.request("set", values(hand=[200, 201, 202], hp=3))
        ann.until(lambda it: it.value("Hero", b, "hand") == [200, 201, 202])
        bob.until(lambda it: it.value("Hero", b, "hp") == 3)
        assert bob.value("Hero", b, "hand") is None
        assert varint(400) + varint(402) + varint(404) in ann.bytes
        assert varint(400) + varint(402) + varint(404) not in bob.bytes
        assert bob.replica.owned() == [("Hero", b)]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def test_spectators_look_where_they_want(serve: Serve) -> None:
    app = game()
    far: list[int] = []

    @app.on_start
    def start() -> None:
        far.extend(app.world.spawn(Hero, x=100 * i, y=-100 * i).id for i in range(3))
        app.world.spawn(Score, points=5)
        app.world.spawn(Spark, at=(200, -200))

    with serve(app) as server:
        eve = Watcher(server.port)
        eve.until(lambda it: it.ids("Score"))  # global tables are everybody's
        assert not eve.ids("Hero")
        assert eve.request("watch", values(at=[105, -95], radius=10)) is True
        eve.until(lambda it: it.ids("Hero") == {far[1]})
        eve.request("watch", values(cells=[[0, 0], [20, -20]]))
        eve.until(lambda it: it.ids("Hero") == {far[0], far[2]} and it.ids("Spark"))
        eve.request("watch", values(everything=True))
        eve.until(lambda it: it.ids("Hero") == set(far))
        eve.request("watch", values())
        eve.until(lambda it: not it.ids("Hero") and not it.ids("Spark"))
        assert eve.ids("Score")
        for wrong in (values(at=[1, 2], everything=True), values(at=["x", 1]), values(at=[1, 2], radius=-1)):
            assert eve.client.request("watch", wrong).error
        # A client that shows no world has no view, and gets no snapshot.
        plain = connected(server.port)
        assert json.loads(plain.request("watch", values(everything=True)).body) is False
        assert not plain.pushes


def test_arrays_are_seen_as_attributes_are(serve: Serve) -> None:
    app = game()

    @app.on("many")
    def many(session: Session) -> None:
        app.world.spawn_many(Hero, 50, x=np.arange(50) / 10, hp=np.arange(50))

    @app.tick
    def step(dt: float) -> None:
        heroes = app.world.columns(Hero)
        heroes.hp = np.minimum(heroes.hp + 1, 1000)

    with serve(app) as server:
        ann = Watcher(server.port)
        a = ann.request("spawn")
        ann.request("many")
        ids = ann.until(lambda it: it.ids("Hero") if len(it.ids("Hero")) == 51 else None)
        for other in ids - {a}:
            ann.until(lambda it, other=other: it.value("Hero", other, "hp") == 1000 or it.snapshots > 20)
        ann.until(lambda it: all(it.value("Hero", other, "hp") == 1000 for other in ids))


def test_a_bad_value_in_an_array_is_put_back_and_logged_once(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    app = game()

    @app.on("spoil")
    def spoil() -> None:
        heroes = app.world.columns(Hero)
        heroes.x[:] = np.nan
        heroes.mood[:] = 77
        heroes.hp += 1

    @app.on("look")
    def look(me: Hero) -> list[Any]:
        return [me.x, me.mood]

    with serve(app) as server, caplog.at_level(logging.ERROR):
        ann = Watcher(server.port)
        a = ann.request("spawn", values(x=3))
        ann.until(lambda it: it.ids("Hero") == {a})
        for round_ in range(1, 4):
            ann.request("spoil")
            ann.until(lambda it, hp=100 + round_: it.value("Hero", a, "hp") == hp)
        assert ann.value("Hero", a, "x") == pytest.approx(3)
        assert ann.value("Hero", a, "mood") == 1
        assert ann.request("look") == [3.0, 1]
        told = [record.getMessage() for record in caplog.records if "put back" in record.getMessage()]
        assert sorted(text.split(" of ")[0] for text in told) == ["Hero.mood", "Hero.x"]


def test_who_reads_nothing_falls_behind_and_catches_up(serve: Serve) -> None:
    app = game(queue_bytes_max=20_000)

    @app.tick
    def step(dt: float) -> None:
        if len(heroes := app.world.columns(Hero)):
            heroes.hp[:] = (heroes.hp + 1) % 60_000

    @app.on("many")
    def many() -> None:
        app.world.spawn_many(Hero, 3000, x=1.0)

    with serve(app) as server:
        ann, bob = Watcher(server.port), Watcher(server.port)
        a = ann.request("spawn")
        bob.request("spawn")
        ann.request("many")
        while len(ann.ids("Hero")) < 3002:
            ann.take()
        at = ann.replica.tick
        while ann.replica.tick < at + 200:  # bob reads nothing of some megabytes, and is not closed
            ann.take()
        ann.request("set", values(name="now"))
        bob.until(lambda it: it.value("Hero", a, "name") == "now")
        assert len(bob.ids("Hero")) == 3002
        assert server.stats()["closed"].get("slow", 0) == 0


def test_another_client_of_the_session_starts_anew(serve: Serve) -> None:
    """A session that goes on over another connection is told all it sees once more."""
    hello = b'{"sys":{"gs":{"serializer":"json","world":true,"schema":"","resume":%s}},"user":{}}'
    with serve(game(resume_grace=30)) as server:
        ann = Watcher(server.port, hello % b"{}")
        a = ann.request("spawn", values(gold=3, name="Ann"))
        ann.until(lambda it: it.value("Hero", a, "gold") == 3)
        token = ann.client.hello["sys"]["gs"]["resume"]["token"]
        ann.client.close()
        again = Watcher(server.port, hello % json.dumps({"token": token, "seen": 1}).encode())
        again.until(lambda it: it.value("Hero", a, "gold") == 3 and it.value("Hero", a, "name") == "Ann")
        assert again.replica.owned() == [("Hero", a)]


def test_a_class_that_clients_do_not_know_of_is_refused(serve: Serve) -> None:
    app = game()
    refused: list[str] = []

    @app.on("late")
    def late() -> None:
        class Late(Entity):
            points: u16 = 0

        try:
            app.world.spawn(Late)
        except ConfigError as error:
            refused.append(str(error))

    with serve(app) as server:
        connected(server.port).request("late")
    assert [("call world.declare(" in text) for text in refused] == [True]


def test_a_recorded_world_replays_to_the_same_bytes(serve: Serve, tmp_path: Path) -> None:
    recording = tmp_path / "world.gsr"
    with serve(game(), record=recording) as server:
        ann, bob = Watcher(server.port), Watcher(server.port)
        a, b = ann.request("spawn"), bob.request("spawn", values(x=3))
        ann.until(lambda it: it.ids("Hero") == {a, b})
        bob.request("set", values(hp=5))
        ann.until(lambda it: it.value("Hero", b, "hp") == 5)
        bob.client.close()
        ann.until(lambda it: it.ids("Hero") == {a})
    result = replay(game(), recording)
    assert result.difference is None
    assert result.compared >= 4


TABLES = json.dumps(
    [
        {
            "name": "Hero",
            "position": ["x", "y"],
            "columns": [
                {"name": "x", "type": "f32", "quantize": 0.01},
                {"name": "y", "type": "f32"},
                {"name": "name", "type": "str", "length": 9},
                {"name": "gold", "type": "u64", "to": "owner"},
                {"name": "hand", "type": "list", "of": "u8", "length": 3, "to": "others"},
            ],
        }
    ]
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(st.binary(max_size=60), st.lists(st.integers(0, 12), max_size=30).map(bytes)), max_size=4))
def test_any_bytes_are_a_snapshot_or_a_protocol_error(snapshots: list[bytes]) -> None:
    replica = WorldReplica(TABLES, entities_max=20)
    for snapshot in snapshots:
        try:
            replica.apply(snapshot)
        except ProtocolError:
            return
        assert len(replica.entities("Hero")) <= 20


def test_what_is_no_world_is_refused() -> None:
    for text in ("", "7", '[{"name":"A"}]'):
        with pytest.raises(SchemaError):
            WorldReplica(text)
    with pytest.raises(KeyError, match="no table"):
        WorldReplica(TABLES).entities("Villain")
    with pytest.raises(KeyError, match="has no column"):
        WorldReplica(TABLES).value("Hero", 1, "x1")
