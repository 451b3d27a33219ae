"""Random message classes with values, and the same messages as google's protobuf has them."""

from __future__ import annotations

import enum
import itertools
import math
import struct
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from hypothesis import strategies as st

from gameserver import (
    Message,
    Range,
    f32,
    f64,
    fixed32,
    fixed64,
    i32,
    i64,
    s32,
    s64,
    sfixed32,
    sfixed64,
    u8,
    u32,
    u64,
)
from gameserver._fields import FieldShape
from gameserver._message import Description, describe

_numbers = itertools.count()
Proto = descriptor_pb2.FieldDescriptorProto


class Color(enum.Enum):
    """Of every random schema."""

    RED = 1
    NONE = 0
    BLUE = -2
    FAR = 2**31 - 1


class Level(enum.IntEnum):
    """The same, with members that are integers."""

    LOW = 0
    HIGH = 300


def floats(width: int) -> st.SearchStrategy[float]:
    return st.floats(width=32 if width == 32 else 64, allow_nan=False, allow_infinity=False)


TEXTS = st.one_of(st.text(max_size=12), st.text(max_size=200))
SCALARS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "f32": (f32, floats(32)),
    "f64": (f64, floats(64)),
    "any f32": (Annotated[f32, Range(finite=False)], st.floats(width=32)),
    "any f64": (Annotated[f64, Range(finite=False)], st.floats()),
    "i32": (i32, st.integers(-(2**31), 2**31 - 1)),
    "i64": (i64, st.integers(-(2**63), 2**63 - 1)),
    "u8": (u8, st.integers(0, 255)),
    "u32": (u32, st.integers(0, 2**32 - 1)),
    "u64": (u64, st.integers(0, 2**64 - 1)),
    "s32": (s32, st.integers(-(2**31), 2**31 - 1)),
    "s64": (s64, st.integers(-(2**63), 2**63 - 1)),
    "fixed32": (fixed32, st.integers(0, 2**32 - 1)),
    "fixed64": (fixed64, st.integers(0, 2**64 - 1)),
    "sfixed32": (sfixed32, st.integers(-(2**31), 2**31 - 1)),
    "sfixed64": (sfixed64, st.integers(-(2**63), 2**63 - 1)),
    "bool": (bool, st.booleans()),
    "str": (str, TEXTS),
    "bytes": (bytes, st.binary(max_size=40)),
    "Color": (Color, st.sampled_from(Color)),
    "Level": (Level, st.sampled_from(Level)),
}
KEYS = [name for name in SCALARS if name not in ("f32", "f64", "any f32", "any f64", "bytes", "Color", "Level")]


@dataclass(frozen=True)
class Case:
    """A class, what its instances are made of, and google's class."""

    cls: type[Message]
    values: st.SearchStrategy[Message]
    google: type[message.Message]


@st.composite
def cases(draw: st.DrawFn, exact: bool = False) -> Case:
    """A class with up to four others in it.

    Args:
        exact: without what reads otherwise than protobuf does: messages that are made when they are not there, and
            defaults.
    """
    known: list[tuple[type[Message], st.SearchStrategy[Message]]] = []
    for _ in range(draw(st.integers(1, 4))):
        known.append(_draw_class(draw, known, exact))
    cls, values = known[-1]
    return Case(cls, values, google_class(cls))


def _draw_class(
    draw: st.DrawFn, known: list[tuple[type[Message], st.SearchStrategy[Message]]], exact: bool
) -> tuple[type[Message], st.SearchStrategy[Message]]:
    annotations: dict[str, Any] = {}
    strategies: dict[str, st.SearchStrategy[Any]] = {}
    forms = ["single", "optional", "list", "dict", *(("message", "messages", "map", "oneof") if known else ())]
    for index in range(draw(st.integers(0, 6))):
        name = draw(st.sampled_from(["x", "longName", "snake_case_name", "a1_b2"])) + str(index)
        form = draw(st.sampled_from(forms))
        scalar, value = SCALARS[draw(st.sampled_from(sorted(SCALARS)))]
        inner, inner_value = draw(st.sampled_from(known)) if known else (Message, st.nothing())
        key, key_value = SCALARS[draw(st.sampled_from(KEYS))]
        if form == "single":
            annotations[name], strategies[name] = scalar, value
        elif form == "optional":
            annotations[name], strategies[name] = scalar | None, st.none() | value
        elif form == "list":
            annotations[name], strategies[name] = list[scalar], st.lists(value, max_size=5)  # type: ignore[valid-type]
        elif form == "dict":
            annotations[name] = dict[key, scalar]  # type: ignore[valid-type]
            strategies[name] = st.dictionaries(key_value, value, max_size=4)
        elif form == "message":
            optional = exact or draw(st.booleans())
            annotations[name] = inner | None if optional else inner
            strategies[name] = st.none() | inner_value if optional else inner_value
        elif form == "messages":
            annotations[name] = list[inner]  # type: ignore[valid-type]
            strategies[name] = st.lists(inner_value, max_size=3)
        elif form == "map":
            annotations[name] = dict[key, inner]  # type: ignore[valid-type]
            strategies[name] = st.dictionaries(key_value, inner_value, max_size=3)
        else:
            members = dict(draw(st.lists(st.sampled_from(known), min_size=2, max_size=3)))
            union: Any = None
            for cls in members:
                union = cls | union
            annotations[name] = union
            strategies[name] = st.none() | st.one_of(*members.values())
    cls = new_class(f"M{next(_numbers)}", annotations)
    return cls, st.builds(cls, **strategies)


def new_class(name: str, annotations: Mapping[str, Any], **defaults: Any) -> type[Message]:
    """A message class, as a class statement makes it."""

    def body(namespace: dict[str, Any]) -> None:
        namespace.update(defaults, __annotations__=dict(annotations), __module__=__name__)

    return types.new_class(name, (Message,), {}, body)


def google_class(cls: type[Message]) -> type[message.Message]:
    """The same message as google has it."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file_descriptor(describe(cls)))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{cls.__name__}"))


def file_descriptor(description: Description) -> descriptor_pb2.FileDescriptorProto:
    """A `.proto` file, compiled."""
    file = descriptor_pb2.FileDescriptorProto(name=f"t{next(_numbers)}.proto", package="t", syntax="proto3")
    for shape in description.enums:
        made = file.enum_type.add(name=shape.name)
        for name, number in shape.values:
            made.value.add(name=name, number=number)
    for message_shape in description.messages:
        proto = file.message_type.add(name=message_shape.name)
        oneofs: dict[str, int] = {}
        for field in message_shape.fields:
            if field.oneof and field.oneof not in oneofs:
                oneofs[field.oneof] = len(oneofs)
                proto.oneof_decl.add(name=field.oneof)
        for field in message_shape.fields:
            _add_field(proto, field, oneofs)
    return file


def _add_field(proto: descriptor_pb2.DescriptorProto, field: FieldShape, oneofs: dict[str, int]) -> None:
    made = proto.field.add(name=field.name, number=field.number, label=Proto.LABEL_OPTIONAL)
    value = made
    if field.label == "map":
        entry = _entry_name(field.name)
        nested = proto.nested_type.add(name=entry)
        nested.options.map_entry = True
        nested.field.add(name="key", number=1, label=Proto.LABEL_OPTIONAL, type=_type(field.key or ""))
        value = nested.field.add(name="value", number=2, label=Proto.LABEL_OPTIONAL)
        made.type, made.type_name, made.label = Proto.TYPE_MESSAGE, f".t.{proto.name}.{entry}", Proto.LABEL_REPEATED
    elif field.label == "repeated":
        made.label = Proto.LABEL_REPEATED
    elif field.oneof:
        made.oneof_index = oneofs[field.oneof]
    elif field.label == "optional" and field.kind != "message":
        made.proto3_optional = True
        made.oneof_index = len(proto.oneof_decl)
        proto.oneof_decl.add(name=f"_{field.name}")
    value.type = _type(field.kind)
    if field.of is not None:
        value.type_name = f".t.{field.of.__name__}"


def _entry_name(field: str) -> str:
    parts = field.split("_")
    return "".join(part[:1].upper() + part[1:] for part in parts) + "Entry"


def _type(kind: str) -> Any:
    return Proto.Type.Value(f"TYPE_{kind.upper()}")


def to_google(value: Message, google: type[message.Message]) -> message.Message:
    """The same values in google's message."""
    made = google()
    for field in describe(type(value)).messages[0].fields:
        held = getattr(value, field.attribute)
        if held is None or (field.shared and type(held) is not field.of):
            continue
        target = getattr(made, field.name)
        if field.label == "repeated":
            for item in held:
                if field.kind == "message":
                    added = target.add()
                    added.CopyFrom(to_google(item, type(added)))
                else:
                    target.append(_plain(item))
        elif field.label == "map":
            for key, item in held.items():
                if field.kind == "message":
                    target[key].CopyFrom(to_google(item, type(target[key])))
                else:
                    target[key] = _plain(item)
        elif field.kind == "message":
            target.SetInParent()
            target.CopyFrom(to_google(held, type(target)))
        else:
            setattr(made, field.name, _plain(held))
    return made


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def same(left: Any, right: Any) -> bool:
    """Equal, where NaN equals NaN and -0.0 is not 0.0."""
    if isinstance(left, Message) and type(left) is type(right):
        return all(same(getattr(left, name), getattr(right, name)) for name in type(left).__match_args__)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or struct.pack("d", left) == struct.pack("d", right)
    return type(left) is type(right) and bool(left == right)
