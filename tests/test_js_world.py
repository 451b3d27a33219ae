"""The browser's decoder of snapshots against the core's: for any bytes both accept, and have the same, or both refuse.

And what it draws, against the Python client.
"""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from js_world import JsWorlds, js_worlds, plain
from wire_client import varint

from gameserver import ProtocolError
from gameserver._core import WorldReplica
from gameserver.client import RemoteWorld

HERO: dict[str, Any] = {
    "name": "Hero",
    "position": ["x", "y"],
    "columns": [
        {"name": "x", "type": "f32", "quantize": 0.01},
        {"name": "y", "type": "f32"},
        {"name": "hp", "type": "u8"},
        {"name": "long", "type": "i64"},
        {"name": "code", "type": "u64"},
        {"name": "name", "type": "str", "length": 9},
        {"name": "gold", "type": "u64", "to": "owner"},
        {"name": "hand", "type": "list", "of": "i16", "length": 3, "to": "others"},
    ],
}
FLAG: dict[str, Any] = {
    "name": "Flag",
    "columns": [
        {"name": "is_up", "type": "bool"},
        {"name": "color", "type": "enum", "values": [-1, 4]},
        {"name": "bearer", "type": "entity", "of": "Hero"},
        {"name": "at", "type": "vector", "of": "f64", "length": 2, "quantize": 0.5},
        {"name": "raw", "type": "bytes", "length": 3},
    ],
}
SHAPE = {"cell": 10, "tick_rate": 20, "tables": [HERO, FLAG]}

long_numbers = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1), st.integers(2**53 - 2, 2**54)).map(varint)
small_numbers = st.integers(0, 20).map(lambda number: varint(number * 2))  # that are not negative
VALUES: dict[str, st.SearchStrategy[bytes]] = {
    "x": long_numbers,
    "y": st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda number: struct.pack("<f", number)),
    "hp": small_numbers,
    "long": long_numbers,
    "code": long_numbers,
    "name": st.text(max_size=2).map(str.encode).map(lambda name: varint(len(name)) + name),
    "gold": long_numbers,
    "hand": st.lists(small_numbers, max_size=3).map(lambda items: varint(len(items)) + b"".join(items)),
    "is_up": st.sampled_from([b"\0", b"\1"]),
    "color": st.sampled_from([b"\1", b"\x08"]),
    "bearer": st.one_of(st.just(b"\0"), st.tuples(small_numbers, small_numbers).map(b"".join)),
    "at": st.tuples(long_numbers, long_numbers).map(b"".join),
    "raw": st.binary(max_size=3).map(lambda raw: varint(len(raw)) + raw),
}
COLUMNS: Any = [
    [[column["name"] for column in table["columns"] if column.get("to") == to] for to in (None, "owner", "others")]
    for table in (HERO, FLAG)
]
BLOCKS = (0, 0, 1)
"""The table of each block: two cells of heroes, and all flags."""


class Stream:
    """Snapshots that make sense, and now and then a byte that makes none.

    It keeps the members of blocks as a server does: (index, generation).
    """

    def __init__(self, data: st.DataObject, jump: int = 2**31) -> None:
        self.data = data
        self.jump = jump
        self.tick = 0
        self.members: dict[int, list[tuple[int, int]]] = {}
        self.own: list[tuple[int, int]] = []

    def one_of(self, *items: Any) -> Any:
        return self.data.draw(st.sampled_from(items))

    def values(self, columns: list[str]) -> bytes:
        return b"".join(self.data.draw(VALUES[column]) for column in columns)

    def row(self, gap: int, columns: list[str]) -> bytes:
        mask = self.data.draw(st.integers(0, 2 ** len(columns) - 1))
        if len(columns) <= 5:
            head = varint(gap << len(columns) | mask)
        else:
            head = varint(gap) + mask.to_bytes((len(columns) + 7) // 8, "little")
        return head + self.values([column for bit, column in enumerate(columns) if mask >> bit & 1])

    def rows(self, count: int, columns: list[str]) -> bytes:
        places = [place for place in range(count) if self.one_of(True, False)]
        gaps = [place - before - 1 for before, place in zip([-1, *places], places, strict=False)]
        return several([self.row(gap, columns) for gap in gaps])

    def enters(self, block: int) -> list[bytes]:
        """Entities that are new here: perhaps they were, or still are, in the other block."""
        table = BLOCKS[block]
        out = []
        for index in range(4):
            if self.one_of(True, False) and index not in [member for member, _ in self.members[block]]:
                generation = self.one_of(0, 0, 1)
                out.append(varint(index) + varint(generation) + self.values(COLUMNS[table][0]))
                self.members[block].append((index, generation))
                for other, members in self.members.items():
                    if other != block and BLOCKS[other] == table and self.one_of(True, True, False):
                        members[:] = [member for member in members if member[0] != index]
        return out

    def record(self) -> bytes:
        block = self.one_of(0, 0, 1, 2)
        table = BLOCKS[block]
        to_all, to_owner, to_others = COLUMNS[table]
        kind = self.one_of("whole", "changes", "changes", "moves", "moves", "forget", "own", "own changes", "others")
        if kind in ("changes", "moves", "others") and block not in self.members:
            kind = "whole"
        match kind:
            case "whole":
                self.members[block] = []
                return varint(block * 4 + 2) + varint(table) + several(self.enters(block))
            case "changes":
                return varint(block * 4) + self.rows(len(self.members[block]), to_all)
            case "moves":
                members, leaves = self.members[block], []
                while members and self.one_of(True, False):
                    place = self.data.draw(st.integers(0, len(members) - 1))
                    leaves.append(varint(place))
                    members[place] = members[-1]
                    members.pop()
                enters = several(self.enters(block))
                return varint(block * 4 + 1) + several(leaves) + enters + self.rows(len(members), to_all)
            case "forget":
                self.members.pop(block, None)
                return varint(3) + varint(block)
            case "own":
                self.own = [(table, index) for index in range(3) if self.one_of(True, False)]
                owned = [varint(table) + varint(index) + varint(self.one_of(0, 0, 1)) for table, index in self.own]
                return varint(4 + 3) + several([one + self.values(to_owner) for one in owned])
            case "own changes":
                rows = [(varint(table) + varint(index), COLUMNS[table][1]) for table, index in self.own]
                return varint(8 + 3) + several([head + self.row(0, columns) for head, columns in rows])
        return varint(12 + 3) + varint(block) + self.rows(len(self.members[block]), to_others)

    def snapshot(self) -> bytes:
        self.tick += self.one_of(1, 1, 1, 1, 1, 1, 0, self.jump)
        is_anew = self.tick > 2**31 or self.one_of(False, False, False, True)
        self.tick %= 2**32
        if is_anew:
            self.members, self.own = {}, []
        body = bytearray(varint(self.tick * 2 + is_anew))
        for _ in range(self.data.draw(st.integers(0, 5))):
            body += self.record()
        if self.data.draw(st.integers(0, 20)) == 0:
            body[self.data.draw(st.integers(0, len(body) - 1))] = self.data.draw(st.integers(0, 255))
        if self.data.draw(st.integers(0, 20)) == 0:
            del body[self.data.draw(st.integers(0, len(body))) :]
        return bytes(body)


def several(items: list[bytes]) -> bytes:
    return varint(len(items)) + b"".join(items)


@pytest.fixture(scope="module")
def js() -> Iterator[JsWorlds]:
    with js_worlds() as worlds:
        yield worlds


def known(replica: WorldReplica) -> dict[str, dict[str, dict[str, Any]]]:
    """What the core has, as the browser shows it: what a client owns is with its entity."""
    own = set(replica.owned())
    return {
        table["name"]: {
            str(id): {
                "id": id,
                **{
                    column["name"]: replica.value(table["name"], id, column["name"])
                    if column.get("to") != "owner" or (table["name"], id) in own
                    else None
                    for column in table["columns"]
                },
            }
            for id in replica.entities(table["name"])
        }
        for table in (HERO, FLAG)
    }


def listed(value: Any) -> Any:
    """Without tuples."""
    if isinstance(value, dict):
        return {name: listed(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def applied(replica: WorldReplica, snapshot: bytes) -> tuple[Any, str]:
    """What it changed, or why it was refused."""
    try:
        return replica.apply(snapshot), ""
    except ProtocolError as error:
        return None, str(error)


@settings(max_examples=300, deadline=None, suppress_health_check=[*HealthCheck])
@given(data=st.data(), count=st.integers(1, 8))
def test_both_decoders_have_the_same_or_refuse(js: JsWorlds, data: st.DataObject, count: int) -> None:
    replica = WorldReplica(json.dumps(SHAPE["tables"]))
    js.begin("any", SHAPE)
    stream = Stream(data)
    for _ in range(count):
        snapshot = stream.snapshot()
        told = js.apply("any", snapshot)
        changes, refused = applied(replica, snapshot)
        assert ("error" in told) == bool(refused), (told, refused)
        if refused:
            return
        assert told["isNew"] == (changes is not None)
        assert plain(told["entities"]) == listed(known(replica))


DRAWN = {"Hero": {"x": 1, "y": 1, "hp": 1, "hand": 1}, "Flag": {"at": 3}}
"""What lies between two snapshots, and how many ticks between two values; but for lists, which do not."""


def drawn_shape() -> dict[str, Any]:
    tables = []
    for table in (HERO, FLAG):
        every = DRAWN[table["name"]]
        columns = [
            {**column, "interpolate": True, "every": every[column["name"]]} if column["name"] in every else column
            for column in table["columns"]
        ]
        tables.append({**table, "columns": columns})
    return {**SHAPE, "tables": tables}


def close(one: Any, other: Any) -> bool:
    """Equal but for how floats are rounded: one counts in ms, the other in s."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float) or isinstance(other, float):
        return one is not None and other is not None and math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6)
    return bool(one == other)


@settings(max_examples=200, deadline=None, suppress_health_check=[*HealthCheck])
@given(data=st.data(), count=st.integers(1, 30))
def test_both_clients_draw_the_same(js: JsWorlds, data: st.DataObject, count: int) -> None:
    shape = drawn_shape()
    world = RemoteWorld()
    world._begin(shape, False)
    js.begin("drawn", shape)
    stream, now, noise = Stream(data, jump=7), 5000.0, random.Random(1)
    for _ in range(count):
        assert close(*pictures(js, world, now))
        snapshot = stream.snapshot()
        # Not on a border between two ticks: there one may round to the one side, and the other to the other.
        now += data.draw(st.sampled_from([0, 1, 10, 40, 50, 60, 90, 200, 3000])) + noise.random() / 100
        try:
            world._apply(now / 1e3, snapshot)
        except ProtocolError:
            return
        assert "error" not in js.apply("drawn", snapshot, now)
        now += data.draw(st.sampled_from([0, 0, 5, 16, 70])) + noise.random() / 100
    assert close(*pictures(js, world, now))


def by_id(drawn: dict[str, list[dict[str, Any]]]) -> dict[str, dict[int, Any]]:
    """What lies between two snapshots. Of the rest, that of those that have left differs, if the snapshot with which they did said
    anything of them before."""
    return {
        table: {one["id"]: {name: one[name] for name in DRAWN[table] if name != "hand"} for one in entities}
        for table, entities in drawn.items()
    }


def pictures(js: JsWorlds, world: RemoteWorld, now: float) -> tuple[Any, Any]:
    """What one client draws, and the other."""
    theirs = js.sample("drawn", now)
    ours = {table: [listed(vars(one)) for one in drawn] for table, drawn in world.sample(now / 1e3).items()}
    timing = world.timing
    return {
        "drawn": by_id(plain(theirs["drawn"])),
        "timing": plain(theirs["timing"]),
        "bytes": theirs["bytes"],
        "tick": plain(theirs["serverTick"]),
    }, {
        "drawn": by_id(ours),
        "timing": {
            "delay": timing.delay * 1e3,
            "jitter": timing.jitter * 1e3,
            "buffer": timing.buffer * 1e3,
            "late": timing.late,
        },
        "bytes": {table: count for table, count in world.bytes.items() if count},
        "tick": world.server_tick(now / 1e3),
    }
