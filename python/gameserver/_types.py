"""Small types that everything else may name."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol, TypeAlias

from gameserver._core import MessageBase

__all__ = ["Generated", "Left", "Pushable"]


class Generated(Protocol):
    """An instance of a class that protoc generated."""

    def SerializeToString(self) -> bytes: ...


Pushable: TypeAlias = MessageBase | Generated
"""A message: its class says the route."""


class Left(StrEnum):
    """Why a session (or a member of a room) is gone.

    >>> Left.KICKED
    <Left.KICKED: 'kicked'>
    """

    LEFT = "left"
    """It said goodbye, or closed its side in good order."""
    KICKED = "kicked"
    """The game kicked or closed it, or it broke the rules of the wire."""
    LOST = "lost"
    """Cut or silent, and not back within `resume_grace`."""
    REPLACED = "replaced"
    """The same uid logged in again."""
    DISPOSED = "disposed"
    """Of a member: the room ended."""
    SHUTDOWN = "shutdown"
    """The server stops."""
