"""What a client has of a session that can go on over another connection: docs/wire.md, "Resume"."""

from __future__ import annotations

from collections import deque

from gameserver import wire

__all__ = ["Outbox", "Resumption"]

SEEN_MESSAGES, SEEN_BYTES = 32, 16 * 1024  # from the server, without a word between two heartbeats
ERROR_ROUTE = "$error"
RECONNECT_ROUTE = "$reconnect"


class Outbox:
    """Messages that were sent, or are to be, and that the server may not have seen; counted from the session's first.

    >>> outbox = Outbox(bytes_max=10)
    >>> outbox.keep(b"one")
    >>> outbox.keep(b"two")
    >>> outbox.handle_seen(1), list(outbox.messages)
    (True, [b'two'])
    """

    def __init__(self, bytes_max: int) -> None:
        self.messages: deque[bytes] = deque()
        self._gone = 0
        self._bytes = 0
        self._bytes_max = bytes_max

    def has_room(self, message: bytes) -> bool:
        """Whether nothing has to go for it."""
        return self._bytes + len(message) <= self._bytes_max

    def keep(self, message: bytes) -> None:
        """Beyond the bound the oldest go, and with them the chance to go on, unless the server has seen them."""
        self.messages.append(message)
        self._bytes += len(message)
        while self._bytes > self._bytes_max:
            self._let_go(1)

    def handle_seen(self, seen: int) -> bool:
        """So many of all. False if that can't be, or if not all of the others are kept."""
        if seen > self._gone + len(self.messages):
            return False
        self._let_go(max(0, seen - self._gone))
        return seen >= self._gone

    def _let_go(self, count: int) -> None:
        for _ in range(count):
            self._bytes -= len(self.messages.popleft())
        self._gone += count


class Resumption:
    """A token for the next connection, and counts of both directions."""

    def __init__(self, token: str, outbox_bytes_max: int) -> None:
        self.token = token
        self.outbox = Outbox(outbox_bytes_max)
        self._seen = self._told = self._bytes = 0

    def ask(self) -> dict[str, object]:
        """For the handshake."""
        return {"token": self.token, "seen": self._seen}

    def count(self, message: wire.Message) -> bool:
        """Whether the server should be told now."""
        is_push = message.kind is wire.MessageKind.PUSH
        route = str(message.route)
        if is_push and route.startswith("$") and route != ERROR_ROUTE:
            return False
        self._seen += 1
        self._bytes += len(message.body)
        return self._seen - self._told >= SEEN_MESSAGES or self._bytes >= SEEN_BYTES

    def tell(self) -> int | None:
        """What the server is to be told, unless it knows."""
        if self._seen == self._told:
            return None
        self._told, self._bytes = self._seen, 0
        return self._seen
