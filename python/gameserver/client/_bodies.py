"""What bodies of messages are: Message instances, what JSON can say, or bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gameserver import wire
from gameserver._message import Message
from gameserver.client._errors import ClientError

__all__ = ["Bodies", "Route", "name_of"]

Route = str | type[Message] | Message


class Bodies:
    """By what the server and this client agreed on.

    Args:
        serializer: of this connection.
        schema: what the server told of its messages; empty: nothing.
        classes: the client's message classes, by name.
    """

    def __init__(
        self, serializer: wire.Serializer, schema: Mapping[str, Any], classes: Mapping[str, type[Message]]
    ) -> None:
        self.serializer: wire.Serializer = serializer
        self._routes: Mapping[str, Any] = schema.get("routes") or {}
        self._pushes: Mapping[str, Any] = schema.get("pushes") or {}
        self._classes = classes

    def encode(self, route: str, body: Any) -> bytes:
        """A body to send.

        Raises:
            TypeError, ValueError: it is nothing that the route takes.
        """
        if isinstance(body, bytes | bytearray | memoryview):
            return bytes(body)
        if isinstance(body, Message):
            return body.encode() if self.serializer == "protobuf" else body.to_json().encode()
        text = json.dumps({} if body is None else body, allow_nan=False)
        cls = self._class(self._route(route).get("request"), route) if self.serializer == "protobuf" else None
        return cls.from_json(text).encode() if cls is not None else text.encode()

    def answer(self, route: str, body: bytes) -> Any:
        """What a request was answered with.

        Raises:
            ClientError: `bad-body`.
        """
        return self._decoded(self._route(route).get("response"), route, body)

    def push(self, route: str, body: bytes) -> Any:
        """What was pushed. Raises `bad-body`, as `answer`."""
        message = self._pushes.get(route) or self._pushes.get(route.rpartition("@")[0])
        return self._decoded(message, route, body)

    def error(self, body: bytes) -> ClientError:
        """An error answer."""
        try:
            error = wire.decode_error(body, self.serializer)
        except ValueError:
            return ClientError("GS-500", "an error that can't be read")
        return ClientError(error.code, error.msg, error.metadata)

    def _route(self, route: str) -> Any:
        # A room's route ends in `@` and the room's number.
        return self._routes.get(route) or self._routes.get(route.rpartition("@")[0]) or {}

    def _decoded(self, message: str | None, route: str, body: bytes) -> Any:
        try:
            if message is not None and self.serializer == "protobuf":
                cls = self._class(message, route)
                assert cls is not None
                return cls.decode(body)
            known = self._classes.get(message.rsplit(".", 1)[-1]) if message is not None else None
            return known.from_json(body) if known is not None else json.loads(body or b"null")
        except (ValueError, RecursionError) as error:
            raise ClientError("bad-body", f"{route} carries {error}") from None

    def _class(self, message: str | None, route: str) -> type[Message] | None:
        if message is None:
            return None
        found = self._classes.get(message.rsplit(".", 1)[-1])
        if found is None:
            raise ClientError(
                "bad-body", f"{route} carries a {message}: give its class, messages=[{message}], or serializer='json'"
            )
        return found


def name_of(route: Route) -> str:
    """A route's name; of a message, that of its class."""
    if isinstance(route, str):
        return route
    return (route if isinstance(route, type) else type(route)).__name__
