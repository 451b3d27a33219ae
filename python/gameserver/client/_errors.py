"""What goes wrong for a client."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ClientError"]


class ClientError(Exception):
    """An error answer of the server, or one of the client's own.

    Codes of the client: `unreachable`, `timeout`, `disconnected` (the answer may have been lost with the connection),
    `outbox-full` (while the connection is lost, more was asked than is kept), `closed` (by `close()`), `kicked`,
    `refused`, `protocol` (the server broke the rules of the wire), `bad-body` (an answer that is not what it should
    be). Codes of the server begin with `GS-`, or are the game's own.

    Attributes:
        code: short and stable, for programs.
        msg: for people.
        metadata: more, by name.

    >>> str(ClientError("too-fast", "one line after the other"))
    'too-fast: one line after the other'
    """

    def __init__(self, code: str, msg: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{code}: {msg}" if msg else code)
        self.code = code
        self.msg = msg
        self.metadata = dict(metadata or {})
