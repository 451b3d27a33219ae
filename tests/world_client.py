"""A client that shows the replicated world, over a real socket."""

from __future__ import annotations

import json
from typing import Any

from wire_client import Client

from gameserver._core import WorldReplica

HELLO = b'{"sys":{"gs":{"serializer":"json","world":true,"schema":""}},"user":{}}'


class Watcher:
    """Applies the snapshots that it gets, and keeps their bytes."""

    def __init__(self, address: str | int, hello: bytes = HELLO) -> None:
        self.client = Client(address)
        self.answer = self.client.handshake(hello)
        self.world: dict[str, Any] = self.answer["sys"]["gs"]["schema"]["world"]
        self.replica = WorldReplica(json.dumps(self.world["tables"]))
        self.changes: list[tuple[str, str, int]] = []
        self.bytes = b""
        self.snapshots = 0

    def take(self) -> list[tuple[str, str, int]]:
        """Waits for the next snapshot; what it did."""
        body = self.client.push("$w").body
        self.bytes += body
        self.snapshots += 1
        changes = self.replica.apply(body)
        assert changes is not None, "snapshots come in order"
        self.changes += changes
        return list(changes)

    def until(self, what: Any) -> Any:
        """Takes snapshots until `what` of this is true: it, in the end."""
        while not (found := what(self)):
            self.take()
        return found

    def ids(self, table: str) -> set[int]:
        """Who is in view."""
        return set(self.replica.entities(table))

    def value(self, table: str, entity_id: int, column: str) -> Any:
        """A value, or None."""
        return self.replica.value(table, entity_id, column)

    def request(self, route: str, body: bytes = b"") -> Any:
        """What a request is answered with."""
        return json.loads(self.client.request(route, body).body)
