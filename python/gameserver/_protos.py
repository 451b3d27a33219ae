"""Message classes from `.proto` files, and generated `_pb2` classes in their place."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeGuard

from gameserver import _core
from gameserver._fields import PROTO_ENUMS, Bounds, EnumShape, FieldShape
from gameserver._message import Message, MessageShape, proto_class
from gameserver.errors import ProtocolError, SchemaError

__all__ = ["Protos", "is_pb2", "load_protos", "pb2_decode", "pb2_encode", "pb2_schema"]


class Protos(Mapping[str, type[Any]]):
    """Classes from `.proto` files. Made by `load_protos`.

    As attributes by their names, nested ones as attributes of those around them; as items by their full names:
    ``messages.Move``, ``messages["arena.Move"]``.
    """

    def __init__(self, classes: Mapping[str, type[Any]]) -> None:
        self._classes = dict(classes)
        self._short: dict[str, list[str]] = {}
        for full in classes:
            outer, _, name = full.rpartition(".")
            if outer not in classes:
                self._short.setdefault(name, []).append(full)

    def __getattr__(self, name: str) -> type[Any]:
        found = self._short.get(name, []) if not name.startswith("_") else []
        own = [full for full in found if not full.startswith("google.protobuf.")] or found
        if len(own) == 1:
            return self._classes[own[0]]
        if own:
            raise AttributeError(f"{name} is there in several packages: take messages[...] of {' or '.join(own)}")
        raise AttributeError(f"the .proto files declare no {name}; there are {', '.join(sorted(self._short))}")

    def __getitem__(self, name: str) -> type[Any]:
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self._short]

    def __repr__(self) -> str:
        return f"<Protos {', '.join(self._classes)}>"


def load_protos(path: str | PathLike[str], *, finite: bool = True) -> Protos:
    """Classes for the messages and enums of `.proto` files, compiled here and now: no protoc.

    They can do what a `Message` can. A field may be left out of the constructor: it is then what protobuf says, and None
    where a `.proto` knows whether it is there (``optional``, messages, members of a oneof).

    Args:
        path: one file, or a folder with all files in it and below; imports are looked for beside it.
        finite: refuse floats that are infinite or no number.

    Raises:
        SchemaError: a file is not protobuf (with file, line and column), or nothing is there.

    Example:
        >>> import pathlib, tempfile
        >>> from gameserver import load_protos
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "arena.proto").write_text('''
        ...     syntax = "proto3";
        ...     package arena;
        ...     message Move { float dx = 1; float dy = 2; }
        ... ''')
        >>> messages = load_protos(folder)
        >>> messages.Move(dx=0.5)
        Move(dx=0.5, dy=0.0)
    """
    place = Path(path)
    folder = place if place.is_dir() else place.parent
    files = sorted(place.rglob("*.proto")) if place.is_dir() else [place]
    if not files:
        raise SchemaError(f"{place}: no .proto file is there")
    for file in files:
        if not file.is_file():
            raise SchemaError(f"{file}: no such file")
    schema = _core.message_schema_of_files([str(file) for file in files], [str(folder)])
    module = sys._getframe(1).f_globals.get("__name__", "__main__")
    return Protos(_classes(schema, module, finite))


def _classes(schema: _core._Schema, module: str, finite: bool) -> dict[str, type[Any]]:
    messages, enums = schema
    names = {full for full, _ in messages}
    enum_classes = [_enum(full, values, unknown, names, module) for full, values, unknown in enums]
    reachable = _reachable(messages)
    classes = [
        proto_class(
            full.rpartition(".")[2],
            _qualname(full, names),
            module,
            [field[0] for field in fields],
            index in reachable[index],
        )
        for index, (full, fields) in enumerate(messages)
    ]
    for cls, (full, fields) in zip(classes, messages, strict=True):
        shapes = tuple(_field(field, classes, enum_classes, finite) for field in fields)
        cls.__shape__ = MessageShape(full, shapes, cls)
    found: dict[str, type[Any]] = dict(zip((full for full, _ in messages), classes, strict=True))
    found |= dict(zip((full for full, _, _ in enums), enum_classes, strict=True))
    for full, cls in found.items():
        outer, _, name = full.rpartition(".")
        if outer in found and not hasattr(found[outer], name):
            setattr(found[outer], name, cls)
    for cls in classes:
        _core.message_prepare(cls)
    return found


def _field(
    field: _core._SchemaField, classes: Sequence[type[Message]], enums: Sequence[type[enum.Enum]], finite: bool
) -> FieldShape:
    name, number, kind, label, of, key, oneof, packed = field
    return FieldShape(
        name=name,
        attribute=name,
        number=number,
        kind=kind,
        label=label,
        of=None if of is None else enums[of] if kind == "enum" else classes[of],
        key=key,
        oneof=oneof,
        nullable=label == "optional",
        packed=packed,
        bounds=Bounds(finite=finite),
    )


def _enum(
    full: str, values: list[tuple[str, int]], unknown: Any, messages: set[str], module: str
) -> type[enum.IntEnum]:
    name = full.rpartition(".")[2]
    make: Any = enum.IntEnum  # checkers know only enums that are written down
    try:
        cls: type[enum.IntEnum] = make(name, values, module=module, qualname=_qualname(full, messages))
    except (ValueError, TypeError) as error:
        raise SchemaError(f"enum {full}: {error}") from None
    PROTO_ENUMS[cls] = EnumShape(full, tuple(values), tuple((member, member.value) for member in cls), cls, unknown)
    return cls


def _qualname(full: str, messages: set[str]) -> str:
    """``"Outer.Inner"`` of ``"arena.Outer.Inner"``."""
    outer, _, name = full.rpartition(".")
    return f"{_qualname(outer, messages)}.{name}" if outer in messages else name


def _reachable(messages: Sequence[tuple[str, list[_core._SchemaField]]]) -> list[set[int]]:
    """Which messages can be within each: the garbage collector has to know those that can be within themselves."""
    direct = [
        {of for _, _, kind, _, of, *_ in fields if kind == "message" and of is not None} for _, fields in messages
    ]
    found = []
    for start in direct:
        seen: set[int] = set()
        waiting = [*start]
        while waiting:
            index = waiting.pop()
            if index not in seen:
                seen.add(index)
                waiting += direct[index]
        found.append(seen)
    return found


def is_pb2(cls: object) -> TypeGuard[type[Any]]:
    """Whether it is a class that protoc has generated (a module ``..._pb2``). Imports nothing."""
    google = sys.modules.get("google.protobuf.message")
    return (
        google is not None and isinstance(cls, type) and issubclass(cls, google.Message) and cls is not google.Message
    )


def pb2_decode(cls: type[Any], body: bytes) -> Any:
    """A generated class's message, read by google's own code.

    Raises:
        ProtocolError: not this message.
    """
    try:
        return cls.FromString(body)
    except sys.modules["google.protobuf.message"].DecodeError as error:
        raise ProtocolError(f"{cls.DESCRIPTOR.full_name}: {error}") from None


def pb2_encode(message: Any) -> bytes:
    """The bytes of a generated class's message.

    Raises:
        ValueError: a required field is not there.
    """
    try:
        return bytes(message.SerializeToString(deterministic=True))
    except sys.modules["google.protobuf.message"].EncodeError as error:
        raise ValueError(f"{message.DESCRIPTOR.full_name}: {error}") from None


def pb2_schema(*classes: type[Any]) -> _core._Schema:
    """What the files of generated classes declare: messages and enums as plain values.

    Raises:
        SchemaError: a descriptor holds what the wire here does not know.
    """
    files: dict[str, bytes] = {}

    def add(file: Any) -> None:
        if file.name not in files:
            for dependency in file.dependencies:
                add(dependency)
            files[file.name] = file.serialized_pb

    for cls in classes:
        add(cls.DESCRIPTOR.file)
    return _core.message_schema_of_set(b"".join(b"\x0a" + _varint(len(file)) + file for file in files.values()))


def _varint(number: int) -> bytes:
    parts = []
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])
