"""Classes that protoc generated: taken wherever a `Message` is. google's library is used only if the game imported it."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["from_json", "is_pb2", "to_json"]


def is_pb2(cls: object) -> bool:
    """Whether it is a class of a message that protoc, or protobuf's message factory, made.

    >>> is_pb2(int)
    False
    """
    module = sys.modules.get("google.protobuf.message")
    return (
        module is not None
        and isinstance(cls, type)
        and issubclass(cls, module.Message)
        and getattr(cls, "DESCRIPTOR", None) is not None
    )


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
