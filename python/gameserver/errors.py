"""What can go wrong, as exceptions.

::

    Exception
     └── GameServerError
          ├── ConfigError      a mistake in the game's own code or settings; found at start
          ├── ProtocolError    bytes that break the wire's rules
          ├── SchemaError      a message or entity that does not fit its declaration
          ├── EntityGone       the entity that you speak of was despawned
          ├── SessionClosed    the session that you speak to is gone
          ├── LockLost         a lock was not renewed in time: somebody else may have it
          └── Refuse           raised by a handler: answers the request with this code and text
               ├── Conflict    somebody else has changed it meanwhile
               ├── Overloaded  there is too much to do; the same request may succeed later
               └── Unavailable what it needs is down; the same request may succeed later

Errors of the operating system stay ``OSError`` with their ``errno``.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "ConfigError",
    "Conflict",
    "EntityGone",
    "GameServerError",
    "LockLost",
    "Overloaded",
    "ProtocolError",
    "Refuse",
    "SchemaError",
    "SessionClosed",
    "Unavailable",
]


class GameServerError(Exception):
    """The base of all our exceptions.

    >>> issubclass(ConfigError, GameServerError)
    True
    """


class ConfigError(GameServerError):
    """A mistake in the game's own code or settings: says what, where, and what to do.

    >>> raise ConfigError("tick_rate=-1 (code): must be 0 or more, in Hz")
    Traceback (most recent call last):
    gameserver.errors.ConfigError: tick_rate=-1 (code): must be 0 or more, in Hz
    """


class ProtocolError(GameServerError):
    """Bytes that break the rules of the wire.

    >>> from gameserver.wire import decode_message
    >>> decode_message(bytes([8]))
    Traceback (most recent call last):
    gameserver.errors.ProtocolError: ...
    """


class SchemaError(GameServerError):
    """A message or entity that does not fit its declaration.

    >>> str(SchemaError("Move.dx: expected a number"))
    'Move.dx: expected a number'
    """


class EntityGone(GameServerError):
    """The entity was despawned; what has its place now is another one, and was not touched.

    >>> str(EntityGone("Player 12 is gone"))
    'Player 12 is gone'
    """


class SessionClosed(GameServerError):
    """The session is gone; nothing was sent.

    >>> str(SessionClosed("session 17 is closed"))
    'session 17 is closed'
    """


class LockLost(GameServerError):
    """A lock was not renewed in time, so somebody else may have it; what ran under it was cancelled.

    >>> str(LockLost("lock 'trade:7' is lost"))
    "lock 'trade:7' is lost"
    """


class Refuse(GameServerError):
    """Raised in a handler, answers the request with this code and text; in ``authenticate``, refuses the login.

    Args:
        code: short and stable, for programs: ``"room-full"``.
        text: for people.
        metadata: more, as strings.

    >>> Refuse("room-full", "the room is full").code
    'room-full'
    """

    def __init__(self, code: str, text: str = "", metadata: Mapping[str, str] | None = None) -> None:
        if not isinstance(code, str) or not isinstance(text, str):
            raise TypeError("Refuse(code, text): both are strings")
        super().__init__(code, text)
        self.code = code
        self.text = text
        self.metadata: dict[str, str] = dict(metadata or {})

    def __str__(self) -> str:
        return f"{self.code}: {self.text}" if self.text else self.code


class Overloaded(Refuse):
    """A bounded queue is full. Where nobody catches it, the request is answered with ``GS-503``: the same may succeed later.

    >>> Overloaded("1000 calls wait already").code
    'GS-503'
    """

    def __init__(self, text: str) -> None:
        super().__init__("GS-503", text)


class Conflict(Refuse):
    """Somebody else has changed what you meant to change. Where nobody catches it, the request is answered with ``GS-409``.

    >>> Conflict("ada's account was changed meanwhile").code
    'GS-409'
    """

    def __init__(self, text: str) -> None:
        super().__init__("GS-409", text)


class Unavailable(Refuse):
    """A store, or another service, is down. Where nobody catches it, the request is answered with ``GS-503``.

    >>> Unavailable("redis: does not answer").code
    'GS-503'
    """

    def __init__(self, text: str) -> None:
        super().__init__("GS-503", text)
