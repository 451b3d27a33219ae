"""What clients are told of the game's messages in the handshake: the document of docs/wire.md, section "The schema"."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from gameserver import _pb2
from gameserver._answer import is_own_message, route_of
from gameserver._fields import FieldShape, enum_shape
from gameserver._message import Message, describe
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

    def document(
        self, world: Mapping[str, Any] | None = None, rooms: Mapping[str, Any] | None = None
    ) -> tuple[str, str] | None:
        """The digest and the document as JSON; None if there is nothing to tell.

        Args:
            world: what clients are told of the replicated world, if it has tables.
            rooms: what they are told of the worlds of rooms, by the names of their classes.

        Raises:
            ConfigError: two messages have one name, or it is too long.
            SchemaError: a class can't be as it is written.
        """
        classes = list(
            dict.fromkeys([*(cls for about in self.routes.values() for cls in about.values()), *self.pushes.values()])
        )
        if not classes and world is None and not rooms:
            return None
        described = describe(*(cast("type[Message]", cls) for cls in classes if is_own_message(cls)))
        messages = {shape.name: [_entry(field) for field in shape.fields] for shape in described.messages}
        enums = {shape.name: dict(shape.values) for shape in described.enums}
        if generated := [cls for cls in classes if not is_own_message(cls)]:
            _add_generated(generated, messages, enums)
        document = {
            "messages": messages,
            "enums": enums,
            "routes": {route: {key: _name(cls) for key, cls in about.items()} for route, about in self.routes.items()},
            "pushes": {route: _name(cls) for route, cls in self.pushes.items()},
        }
        if world is not None:
            document["world"] = world
        if rooms:
            document["rooms"] = rooms
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        if len(text) > BYTES_MAX:
            raise ConfigError(
                f"the app's messages and entities take {len(text)} bytes to describe to clients: at most {BYTES_MAX}; "
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


def _entry(field: FieldShape) -> Entry:
    of = ""
    if field.kind == "message":
        of = describe(cast("type[Message]", field.of)).messages[0].name
    elif field.kind == "enum":
        of = enum_shape(cast("type", field.of)).name
    return _spell(field.number, field.name, field.kind, field.label, of, field.key, field.oneof, field.packed)


def _spell(
    number: int, name: str, kind: str, label: str, of: str, key: str | None, oneof: str | None, packed: bool
) -> Entry:
    entry: Entry = [number, name, f".{of}" if of else TYPES[kind]]
    if oneof is not None:
        return [*entry, "oneof", oneof]
    if label == "map" and key is not None:
        return [*entry, "map", TYPES[key]]
    if label == "repeated":
        return [*entry, "repeated" if packed or kind in ("string", "bytes", "message") else "unpacked"]
    if label == "optional" and kind != "message":
        return [*entry, "optional"]
    return entry


def _add_generated(classes: Sequence[Any], messages: dict[str, list[Entry]], enums: dict[str, dict[str, int]]) -> None:
    """Messages that protoc generated, with all that they name, and nothing else of their files."""
    known, known_enums = _pb2.schema_of(*classes)
    places = {name: place for place, (name, _) in enumerate(known)}
    waiting = [places[cls.DESCRIPTOR.full_name] for cls in classes]
    while waiting:
        full_name, fields = known[waiting.pop()]
        if full_name in messages:
            continue
        entries = messages[full_name] = []
        for name, number, kind, label, of, key, oneof, packed in fields:
            of_name = ""
            if of is not None and kind == "message":
                of_name = known[of][0]
                waiting.append(of)
            elif of is not None:
                of_name, values, _ = known_enums[of]
                enums[of_name] = dict(values)
            entries.append(_spell(number, name, kind, label, of_name, key, oneof, packed))
