"""The browser's decoder of snapshots against the core's: for any bytes both accept, and have the same, or both refuse."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from js_world import JsWorlds, js_worlds, plain
from wire_client import varint

from gameserver._core import WorldReplica

HERO = {
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
FLAG = {
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

numbers = st.integers(0, 3).map(varint)
long_numbers = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1), st.integers(2**53 - 2, 2**54)).map(varint)
small_numbers = st.integers(0, 40).map(varint)
VALUES: dict[str, st.SearchStrategy[bytes]] = {
    "x": long_numbers,
    "y": st.floats(width=32).map(lambda number: struct.pack("<f", number)),
    "hp": small_numbers,
    "long": long_numbers,
    "code": long_numbers,
    "name": st.text(max_size=3).map(str.encode).map(lambda name: varint(len(name)) + name),
    "gold": long_numbers,
    "hand": st.lists(small_numbers, max_size=4).map(lambda items: varint(len(items)) + b"".join(items)),
    "is_up": st.sampled_from([b"\0", b"\1", b"\2"]),
    "color": st.sampled_from([b"\1", b"\x08", b"\x08", b"\2"]),
    "bearer": st.one_of(st.just(b"\0"), st.tuples(small_numbers, small_numbers).map(b"".join)),
    "at": st.tuples(long_numbers, long_numbers).map(b"".join),
    "raw": st.binary(max_size=4).map(lambda raw: varint(len(raw)) + raw),
}
COLUMNS: Any = [
    [[column["name"] for column in table["columns"] if column.get("to") == to] for to in (None, "owner", "others")]
    for table in (HERO, FLAG)
]


@st.composite
def entities(draw: st.DrawFn, table: int) -> bytes:
    head = draw(numbers) + draw(st.integers(0, 1).map(varint))
    return head + b"".join(draw(VALUES[column]) for column in COLUMNS[table][0])


@st.composite
def rows(draw: st.DrawFn, columns: list[str]) -> bytes:
    out = []
    for gap in draw(st.lists(st.integers(0, 1), max_size=3)):
        mask = draw(st.integers(0, 2 ** len(columns) - 1))
        if len(columns) <= 5:
            head = varint(gap << len(columns) | mask)
        else:
            head = varint(gap) + mask.to_bytes((len(columns) + 7) // 8, "little")
        out.append(head + b"".join(draw(VALUES[column]) for bit, column in enumerate(columns) if mask >> bit & 1))
    return varint(len(out)) + b"".join(out)


def several(items: list[bytes]) -> bytes:
    return varint(len(items)) + b"".join(items)


@st.composite
def records(draw: st.DrawFn) -> bytes:
    table = draw(st.sampled_from([0, 0, 1]))
    block = table * 2 + draw(st.integers(0, 1))  # so that most blocks keep their table
    to_all, to_owner, to_others = COLUMNS[table]
    match draw(
        st.sampled_from(["whole", "whole", "changes", "moves", "moves", "forget", "own", "own changes", "others"])
    ):
        case "whole":
            return varint(block * 4 + 2) + varint(table) + several(draw(st.lists(entities(table), max_size=3)))
        case "changes":
            return varint(block * 4) + draw(rows(to_all))
        case "moves":
            leaves, enters = draw(st.lists(numbers, max_size=1)), draw(st.lists(entities(table), max_size=2))
            return varint(block * 4 + 1) + several(leaves) + several(enters) + draw(rows(to_all))
        case "forget":
            return varint(3) + varint(block)
        case "own":
            owned = st.tuples(numbers, st.integers(0, 1).map(varint), *(VALUES[column] for column in to_owner))
            return varint(4 + 3) + several([varint(table) + b"".join(one) for one in draw(st.lists(owned, max_size=2))])
        case "own changes":
            mask = draw(st.integers(0, 2 ** len(to_owner) - 1))
            values = b"".join(draw(VALUES[column]) for bit, column in enumerate(to_owner) if mask >> bit & 1)
            return varint(8 + 3) + varint(1) + varint(table) + draw(numbers) + varint(mask) + values
    return varint(12 + 3) + varint(block) + draw(rows(to_others))


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Snapshots that make some sense, and now and then a byte that makes none."""
    out, tick = [], 0
    for _ in range(draw(st.integers(1, 6))):
        tick += draw(st.sampled_from([1, 1, 1, 0, 2**31]))
        body = bytearray(varint(tick * 2 + draw(st.sampled_from([0, 0, 0, 1]))))
        for record in draw(st.lists(records(), max_size=5)):
            body += record
        if draw(st.integers(0, 5)) == 0:
            body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
        if draw(st.integers(0, 7)) == 0:
            del body[draw(st.integers(0, len(body))) :]
        out.append(bytes(body))
    return out


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


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(stream=streams())
def test_both_decoders_have_the_same_or_refuse(js: JsWorlds, stream: list[bytes]) -> None:
    replica = WorldReplica(json.dumps(SHAPE["tables"]))
    js.begin("any", SHAPE)
    for snapshot in stream:
        told = js.apply("any", snapshot)
        changes, refused = applied(replica, snapshot)
        assert ("error" in told) == bool(refused), (told, refused)
        if refused:
            return
        assert told["isNew"] == (changes is not None)
        assert plain(told["entities"]) == listed(known(replica))
