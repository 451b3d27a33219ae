"""JSON of classes that protoc generated, by google's own library, for clients that agreed on JSON."""

from __future__ import annotations

from typing import Any

__all__ = ["from_json", "to_json"]


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
