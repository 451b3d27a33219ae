"""What clients are told of the game's messages in the handshake: the document of docs/wire.md, section "The schema"."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gameserver._answer import is_own_message, route_of
from gameserver._fields import EnumShape, FieldShape
from gameserver._message import MessageShape, describe
from gameserver._signature import Handler
from gameserver.errors import ConfigError

__all__ = ["BYTES_MAX", "Messages"]

BYTES_MAX = 1 << 18  # of the document: it stands in the answer to a handshake

# The document's names of protobuf's types.
TYPES: Mapping[str, str] = {
    "double": "f64",
    "float": "f32",
    "int64": "i64",
    "uint64": "u64",
    "int32": "i32",
    "uint32": "u32",
    "sint32": "s32",
    "sint64": "s64",
    "fixed32": "fixed32",
    "fixed64": "fixed64",
    "sfixed32": "sfixed32",
    "sfixed64": "sfixed64",
    "bool": "bool",
    "string": "str",
    "bytes": "bytes",
}
GENERATED_TYPES = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 6: "fixed64", 7: "fixed32", 8: "bool"}
GENERATED_TYPES |= {9: "string", 12: "bytes", 13: "uint32", 15: "sfixed32", 16: "sfixed64", 17: "sint32", 18: "sint64"}
Entry = list[Any]


class Messages:
    """All messages that an app knows: of its handlers, and those that it pushes."""

    def __init__(self, handlers: Sequence[Handler], pushed: Iterable[type]) -> None:
        self.routes: dict[str, dict[str, type]] = {}
        self.pushes: dict[str, type] = {}
        for handler in handlers:
            about = {"request": handler.message, "response": handler.answer.wire if handler.answer else None}
            if found := {key: cls for key, cls in about.items() if cls is not None}:
                self.routes[handler.route] = found
            for cls in (handler.message, *(handler.answer.classes if handler.answer else ())):
                if cls is not None:
                    self.add(cls)
        for cls in pushed:
            self.add(cls)

    def add(self, cls: type) -> None:
        """Takes a class among those that may be pushed.

        Raises:
            ConfigError: another one has its name.
        """
        other = self.pushes.setdefault(route_of(cls), cls)
        if other is not cls:
            raise ConfigError(
                f"{where(cls)}: {cls.__qualname__} has the name of another message ({where(other)}), and so its route: rename one"
            )

    def __contains__(self, cls: type) -> bool:
        return self.pushes.get(route_of(cls)) is cls

    def document(self) -> tuple[str, str] | None:
        """The digest and the document as JSON; None if there are no messages.

        Raises:
            ConfigError: two messages have one name, or it is too long.
            SchemaError: a class can't be as it is written.
        """
        classes = list(
            dict.fromkeys([*(cls for about in self.routes.values() for cls in about.values()), *self.pushes.values()])
        )
        if not classes:
            return None
        described = describe(*(cls for cls in classes if is_own_message(cls)))
        messages = {shape.name: _fields_of(shape) for shape in described.messages}
        enums = {shape.name: dict(shape.values) for shape in described.enums}
        for cls in classes:
            if not is_own_message(cls):
                _add_generated(cls.DESCRIPTOR, messages, enums)  # type: ignore[attr-defined]
        document = {
            "messages": messages,
            "enums": enums,
            "routes": {route: {key: _name(cls) for key, cls in about.items()} for route, about in self.routes.items()},
            "pushes": {route: _name(cls) for route, cls in self.pushes.items()},
        }
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        if len(text) > BYTES_MAX:
            raise ConfigError(
                f"the app's messages take {len(text)} bytes to describe to clients: at most {BYTES_MAX}; "
                "leave out of app.messages(...) what no client has to read"
            )
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return digest, json.dumps({"digest": digest, **document}, separators=(",", ":"))


def where(cls: Any) -> str:
    """File and line of a class, as well as it tells."""
    source = getattr(cls, "__source__", None)
    if source is None:
        return str(cls.__module__)
    file, line = source.place(cls.__qualname__)
    return f"{file}:{line}"


def _name(cls: Any) -> str:
    name: str = describe(cls).messages[0].name if is_own_message(cls) else cls.DESCRIPTOR.full_name
    return name


def _fields_of(shape: MessageShape) -> list[Entry]:
    return [_entry(field) for field in shape.fields]


def _entry(field: FieldShape) -> Entry:
    entry: Entry = [field.number, field.name, _type(field.kind, field.of)]
    if field.oneof is not None:
        return [*entry, "oneof", field.oneof]
    if field.label == "map":
        assert field.key is not None
        return [*entry, "map", TYPES[field.key]]
    if field.label == "repeated":
        is_packable = field.kind not in ("string", "bytes", "message")
        return [*entry, "repeated" if field.packed or not is_packable else "unpacked"]
    if field.label == "optional" and field.kind != "message":
        return [*entry, "optional"]
    return entry


def _type(kind: str, of: Any) -> str:
    if kind == "message":
        return f".{describe(of).messages[0].name}"
    if kind == "enum":
        return f".{_enum_name(of)}"
    return TYPES[kind]


def _enum_name(of: Any) -> str:
    from gameserver._fields import enum_shape

    shape: EnumShape = enum_shape(of)
    return shape.name


def _add_generated(descriptor: Any, messages: dict[str, list[Entry]], enums: dict[str, dict[str, int]]) -> None:
    """A message that protoc generated, with all that it names."""
    name = descriptor.full_name
    if name in messages:
        return  # the same one, or one of ours that is written after it
    entries = messages[name] = []
    for field in descriptor.fields:
        entry: Entry = [field.number, field.name]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = (field.message_type.fields_by_name[part] for part in ("key", "value"))
            entries.append(
                [*entry, _generated_type(value, messages, enums), "map", _generated_type(key, messages, enums)]
            )
            continue
        entry.append(_generated_type(field, messages, enums))
        oneof = field.containing_oneof
        if field.is_repeated:
            entry.append("repeated" if field.is_packed or field.type in (9, 11, 12) else "unpacked")
        elif oneof is not None and not (len(oneof.fields) == 1 and oneof.name == f"_{field.name}"):
            entry += ["oneof", oneof.name]
        elif field.has_presence and field.message_type is None:
            entry.append("optional")
        entries.append(entry)


def _generated_type(field: Any, messages: dict[str, list[Entry]], enums: dict[str, dict[str, int]]) -> str:
    if field.enum_type is not None:
        enums[field.enum_type.full_name] = {value.name: value.number for value in field.enum_type.values}
        return f".{field.enum_type.full_name}"
    if field.message_type is not None:
        if field.type == 10:
            raise ConfigError(
                f"{field.full_name}: a group of proto2, which clients can't be told of: make it a message"
            )
        _add_generated(field.message_type, messages, enums)
        return f".{field.message_type.full_name}"
    return TYPES[GENERATED_TYPES[field.type]]
