"""Classes that protoc generated, in place of a `Message`: google's own library reads and writes them."""

from __future__ import annotations

import sys
from typing import Any, TypeGuard

from gameserver import _core
from gameserver.errors import ProtocolError

__all__ = ["decode", "encode", "from_json", "is_pb2", "schema_of", "to_json"]


def is_pb2(cls: object) -> TypeGuard[type[Any]]:
    """Whether it is a class that protoc has generated (a module ``..._pb2``). Imports nothing."""
    google = sys.modules.get("google.protobuf.message")
    return (
        google is not None and isinstance(cls, type) and issubclass(cls, google.Message) and cls is not google.Message
    )


def decode(cls: type[Any], body: bytes) -> Any:
    """A generated class's message, read by google's own code.

    Raises:
        ProtocolError: not this message.
    """
    try:
        return cls.FromString(body)
    except sys.modules["google.protobuf.message"].DecodeError as error:
        raise ProtocolError(f"{cls.DESCRIPTOR.full_name}: {error}") from None


def encode(message: Any) -> bytes:
    """The bytes of a generated class's message.

    Raises:
        ValueError: a required field is not there.
    """
    try:
        return bytes(message.SerializeToString(deterministic=True))
    except sys.modules["google.protobuf.message"].EncodeError as error:
        raise ValueError(f"{message.DESCRIPTOR.full_name}: {error}") from None


def from_json(cls: Any, data: bytes) -> Any:
    """A message of `cls` from JSON, by google's own rules; unknown names are skipped, as on the wire.

    Raises:
        google.protobuf.json_format.ParseError: it is no such message.
    """
    from google.protobuf import json_format

    return json_format.Parse(data, cls(), ignore_unknown_fields=True)


def to_json(message: Any) -> bytes:
    """A message as JSON with the names of the `.proto` file; ASCII only."""
    from google.protobuf import json_format

    text = json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None, ensure_ascii=True)
    return text.encode("ascii")


def schema_of(*classes: type[Any]) -> _core._Schema:
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
