"""The browser client's protobuf against google's, over schemas, values and broken bytes that hypothesis makes up.

Both directions: the client reads what google writes, google reads what the client writes, and of bytes that were tampered with
both read the same, or refuse. Differences that are meant:

* the client refuses more than 32 messages within one another, as our server does; google more than 100;
* the client refuses a body that would become more than 2^22 values;
* the client refuses a field number 0; google too, but not in a message without fields.

* the client reads a map's entry that has unknown fields without them, as google's C++ and Java do; google's Python leaves out the
  whole entry.

Only the last is reached here; `js/schema.test.mjs` shows the others.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PEER = Path(__file__).parent / "js" / "schema_peer.mjs"
Proto = descriptor_pb2.FieldDescriptorProto

# Type names of the document: see docs/wire.md.
TYPES: dict[str, int] = {
    "f64": Proto.TYPE_DOUBLE,
    "f32": Proto.TYPE_FLOAT,
    "i64": Proto.TYPE_INT64,
    "u64": Proto.TYPE_UINT64,
    "i32": Proto.TYPE_INT32,
    "u32": Proto.TYPE_UINT32,
    "s32": Proto.TYPE_SINT32,
    "s64": Proto.TYPE_SINT64,
    "fixed32": Proto.TYPE_FIXED32,
    "fixed64": Proto.TYPE_FIXED64,
    "sfixed32": Proto.TYPE_SFIXED32,
    "sfixed64": Proto.TYPE_SFIXED64,
    "bool": Proto.TYPE_BOOL,
    "str": Proto.TYPE_STRING,
    "bytes": Proto.TYPE_BYTES,
}
KEY_TYPES = [name for name in TYPES if name not in ("f64", "f32", "bytes")]
ENUM = {"NONE": 0, "SOME": 1, "ALIAS": 1, "MINUS": -1, "MANY": 2147483647}
NAMES = ["constructor", "toString", "valueOf", "hasOwnProperty", "x", "name", "f0", "f1", "f2", "f3", "f4", "f5"]
NUMBERS = st.one_of(st.integers(1, 20), st.sampled_from([2047, 2048, 18999, 20000, 536870911]))
LABELS = [(), ("optional",), ("repeated",), ("unpacked",), ("map",), ("oneof", "one"), ("oneof", "two")]
Document = dict[str, Any]


class Peer:
    """The client in node, asked line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(
        self, document: Document, message: str, decode: list[bytes], encode: list[Any]
    ) -> tuple[list[Any], list[Any]]:
        assert self.process.stdin
        assert self.process.stdout
        question = {"document": document, "message": message, "decode": [one.hex() for one in decode], "encode": encode}
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the client threw what it should not: see node's stderr"
        answer = json.loads(line)
        return answer["decoded"], answer["encoded"]


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    node = shutil.which("node")
    assert node, "no node: tests/needs.sh installs it"
    with subprocess.Popen([node, str(PEER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Peer(process)
        assert process.stdin
        process.stdin.close()
        assert process.wait(10) == 0


@st.composite
def fields(draw: st.DrawFn, messages: list[str]) -> list[list[Any]]:
    """Entries of one message, in an order of their own."""
    kinds = [*TYPES, ".Kind", *(f".{name}" for name in messages)]
    numbers = draw(st.lists(NUMBERS, unique=True, min_size=1, max_size=6))
    names = draw(st.permutations(NAMES))
    entries: list[list[Any]] = []
    for number, name in zip(numbers, names, strict=False):
        kind = draw(st.sampled_from(kinds))
        label = draw(st.sampled_from(LABELS))
        if label == ("map",):
            label = ("map", draw(st.sampled_from(KEY_TYPES)))
        entries.append([number, name, kind, *label])
    return entries


@st.composite
def documents(draw: st.DrawFn) -> Document:
    names = ["A", "B", "C"][: draw(st.integers(1, 3))]
    return {"digest": "-", "messages": {name: draw(fields(names)) for name in names}, "enums": {"Kind": ENUM}}


def google_of(document: Document) -> type[Message]:
    """The class `A` of the same schema."""
    file = descriptor_pb2.FileDescriptorProto(name="file.proto", syntax="proto3")
    kind = file.enum_type.add(name="Kind")
    kind.options.allow_alias = True
    for name, number in document["enums"]["Kind"].items():
        kind.value.add(name=name, number=number)
    for name, entries in document["messages"].items():
        message = file.message_type.add(name=name)
        oneofs = list(dict.fromkeys(entry[4] for entry in entries if entry[3:4] == ["oneof"]))
        for oneof in oneofs:
            message.oneof_decl.add(name=oneof)
        for number, field_name, type_name, *label in entries:
            field = message.field.add(name=field_name, number=number, json_name=f"j{number}")
            if label[:1] == ["map"]:
                # The name that protoc gives: google insists on it.
                entry = message.nested_type.add(name=field_name[0].upper() + field_name[1:] + "Entry")
                entry.options.map_entry = True
                set_type(entry.field.add(name="key", number=1, label=Proto.LABEL_OPTIONAL), label[1])
                set_type(entry.field.add(name="value", number=2, label=Proto.LABEL_OPTIONAL), type_name)
                field.label, field.type, field.type_name = (
                    Proto.LABEL_REPEATED,
                    Proto.TYPE_MESSAGE,
                    f".{name}.{entry.name}",
                )
                continue
            set_type(field, type_name)
            field.label = Proto.LABEL_REPEATED if label[:1] in (["repeated"], ["unpacked"]) else Proto.LABEL_OPTIONAL
            if label == ["unpacked"] and (type_name == ".Kind" or TYPES.get(type_name, 9) not in (9, 12)):
                field.options.packed = False
            if label[:1] == ["oneof"]:
                field.oneof_index = oneofs.index(label[1])
            if label == ["optional"]:
                field.proto3_optional = True
                field.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{field_name}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("A"))


def set_type(field: descriptor_pb2.FieldDescriptorProto, name: str) -> None:
    if name in TYPES:
        field.type = TYPES[name]  # type: ignore[assignment]
    else:
        field.type, field.type_name = Proto.TYPE_ENUM if name == ".Kind" else Proto.TYPE_MESSAGE, name


def ints(low: int, high: int) -> st.SearchStrategy[int]:
    return st.one_of(
        st.integers(-2, 300).filter(lambda n: low <= n <= high), st.integers(low, high), st.sampled_from([low, high])
    )


SCALARS: dict[int, st.SearchStrategy[Any]] = {
    # JavaScript has one NaN: its sign and payload are not kept.
    Proto.TYPE_DOUBLE: st.floats().map(lambda value: value if value == value else math.nan),
    Proto.TYPE_FLOAT: st.floats(width=32).map(lambda value: value if value == value else math.nan),
    Proto.TYPE_BOOL: st.booleans(),
    Proto.TYPE_STRING: st.one_of(st.text(max_size=5), st.sampled_from(["__proto__", "constructor", "﻿x", "é" * 64])),
    Proto.TYPE_BYTES: st.binary(max_size=5),
    Proto.TYPE_ENUM: st.one_of(st.sampled_from([0, 1, -1, 2]), ints(-(2**31), 2**31 - 1)),
    **dict.fromkeys([Proto.TYPE_INT32, Proto.TYPE_SINT32, Proto.TYPE_SFIXED32], ints(-(2**31), 2**31 - 1)),
    **dict.fromkeys([Proto.TYPE_INT64, Proto.TYPE_SINT64, Proto.TYPE_SFIXED64], ints(-(2**63), 2**63 - 1)),
    **dict.fromkeys([Proto.TYPE_UINT32, Proto.TYPE_FIXED32], ints(0, 2**32 - 1)),
    **dict.fromkeys([Proto.TYPE_UINT64, Proto.TYPE_FIXED64], ints(0, 2**64 - 1)),
}


def fill(draw: st.DrawFn, message: Message, deep: int) -> None:
    field: Any
    for field in message.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        target = getattr(message, field.name)
        count = draw(st.integers(1, 3))
        if is_map(field):
            key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
            for _ in range(count):
                chosen = draw(SCALARS[key.type])
                if value.message_type is None:
                    target[chosen] = draw(SCALARS[value.type])
                else:
                    fill_or_touch(draw, target[chosen], deep)
        elif field.is_repeated:
            for _ in range(count):
                if field.message_type is None:
                    target.append(draw(SCALARS[field.type]))
                else:
                    fill_or_touch(draw, target.add(), deep)
        elif field.message_type is None:
            setattr(message, field.name, draw(SCALARS[field.type]))
        else:
            target.SetInParent()
            fill_or_touch(draw, target, deep)


def fill_or_touch(draw: st.DrawFn, message: Message, deep: int) -> None:
    if deep > 0:
        fill(draw, message, deep - 1)


def is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def described(message: Message) -> dict[str, Any]:
    """As `schema_peer.mjs` has it."""
    found: dict[str, Any] = {}
    field: Any
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if is_map(field):
            inner = field.message_type.fields_by_name["value"]
            found[field.name] = {key_text(key): scalar_text(inner, value[key]) for key in value}
        elif field.is_repeated:
            found[field.name] = [scalar_text(field, one) for one in value]
        elif not field.has_presence or message.HasField(field.name):
            found[field.name] = scalar_text(field, value)
    return found


def key_text(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def scalar_text(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return described(value)
    if field.enum_type is not None and value in field.enum_type.values_by_number:
        return "s:" + next(one.name for one in field.enum_type.values if one.number == value)
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return f"s:{value}"
    if isinstance(value, bytes):
        return f"b:{value.hex()}"
    if field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64):
        return f"n:{value}"
    return "f:nan" if value != value else f"f:{struct.pack('>d', value).hex()}"


def has_maps(document: Document) -> bool:
    return any(entry[3:4] == ["map"] for entries in document["messages"].values() for entry in entries)


def canonical(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Document, Message, Message]:
    """A schema and two messages of its `A`."""
    document = draw(documents())
    google = google_of(document)
    messages = google(), google()
    for message in messages:
        fill(draw, message, 3)
    return document, *messages


FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@FUZZ
@given(case=cases())
def test_both_directions(peer: Peer, case: tuple[Document, Message, Message]) -> None:
    document, message, _ = case
    data, value = canonical(message), described(message)
    [decoded], [encoded] = peer.ask(document, "A", [data], [value])
    assert decoded == {"ok": value}
    assert "ok" in encoded, encoded
    ours = bytes.fromhex(encoded["ok"])
    assert described(type(message).FromString(ours)) == value
    if not has_maps(document):  # whose order is the game's
        assert ours == data


@st.composite
def tampered(draw: st.DrawFn, data: bytes, other: bytes) -> bytes:
    """Cut, doubled, merged with another message, put together anew, or with other bytes."""
    at, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    junk = draw(st.one_of(st.binary(max_size=12), st.just(data[at:end]), st.just(other), st.sampled_from(SPECIAL)))
    head, tail = data[:at], data[end:]
    return draw(st.sampled_from([head + junk + tail, head + junk + data[at:], data + junk, data[:end], junk + data]))


SPECIAL = [
    b"\x80" * 9 + b"\x01",
    b"\xff" * 9 + b"\x7f",
    b"\x80" * 10 + b"\x01",
    b"\x88\x80\x80\x80\x00\x01",
    b"\x88\x80\x80\x80\x80\x00\x01",
    b"\xfa\xff\xff\xff\x0f\x00",
    b"\xfa\xff\xff\xff\x1f\x00",
    b"\x00\x01",
    b"\x0b\x0c",
    b"\x0b\x14",
    b"\x0b\x08\x01\x13\x14\x0c",
    b"\x0c",
    b"\x0e",
    b"\x0f",
    b"\x0a\x02\xc3\x28",
    b"\x0a\x03\xed\xa0\x80",
    b"\x0a\xff\xff\xff\xff\x07",
    b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x0a\x81\x00\x41",
]


@FUZZ
@given(case=cases(), data=st.data())
def test_what_google_refuses_is_refused_and_the_rest_is_read_alike(
    peer: Peer, case: tuple[Document, Message, Message], data: st.DataObject
) -> None:
    document, message, other = case
    whole, more = canonical(message), canonical(other)
    broken = [whole + more, *(data.draw(tampered(whole, more)) for _ in range(8))]
    decoded, _ = peer.ask(document, "A", broken, [])
    for given_bytes, ours in zip(broken, decoded, strict=True):
        try:
            google = type(message).FromString(given_bytes)
        except DecodeError:
            assert "error" in ours, given_bytes.hex(" ")
            continue
        if not has_odd_entries(google):
            assert ours == {"ok": described(google)}, given_bytes.hex(" ")


def has_odd_entries(message: Message) -> bool:
    """An entry of a map with unknown fields: google's Python takes all of it as an unknown field."""
    maps = {field.number for field in message.DESCRIPTOR.fields if is_map(field)}
    unknown: Any = UnknownFieldSet(message)  # a sequence, which its stub does not say
    if any(one.field_number in maps and one.wire_type == 2 for one in unknown):
        return True
    return any(has_odd_entries(inner) for inner in messages_in(message))


def messages_in(message: Message) -> Iterator[Message]:
    for field, value in message.ListFields():
        if is_map(field):
            yield from (one for one in value.values() if isinstance(one, Message))
        elif field.message_type is not None:
            yield from value if field.is_repeated else [value]
