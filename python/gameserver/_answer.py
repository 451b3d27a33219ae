"""Which classes are messages, and what a handler's return annotation says of its answer."""

from __future__ import annotations

import functools
import types
import typing
from dataclasses import dataclass
from typing import Any

from gameserver._message import Message
from gameserver._protos import is_pb2
from gameserver.errors import ConfigError

__all__ = ["Answer", "is_message", "is_own_message", "of", "route_of"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler answers."""

    classes: tuple[type, ...]
    """What it may return."""
    wire: type
    """The message that travels: of several classes one with a oneof of them."""

    @property
    def is_wrapped(self) -> bool:
        """Whether the wire's message is made around what was returned."""
        return len(self.classes) > 1


def is_own_message(annotation: object) -> bool:
    """Whether it is a subclass of `Message`."""
    return isinstance(annotation, type) and issubclass(annotation, Message) and annotation is not Message


def is_message(annotation: object) -> bool:
    """The same, or a class that protoc generated."""
    return is_own_message(annotation) or is_pb2(annotation)


def route_of(message: Any) -> str:
    """The route of a message that is given none: the name of its class."""
    name: str = message.__name__ if is_own_message(message) else message.DESCRIPTOR.name
    return name


def of(annotation: Any, where: str) -> Answer | None:
    """What a return annotation says; None: bytes, JSON, or nothing at all.

    Raises:
        ConfigError: a union of a message and of what is none.
    """
    if is_message(annotation):
        return Answer((annotation,), annotation)
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return None
    members = tuple(member for member in typing.get_args(annotation) if member is not types.NoneType)
    found = [is_message(member) for member in members]
    if not any(found):
        return None
    if len(members) == 1:
        return Answer(members, members[0])
    if not all(is_own_message(member) for member in members):
        raise ConfigError(f"{where}: returns {annotation}: an answer of several types is of Message classes alone")
    return Answer(members, _one_of(members))


@functools.cache
def _one_of(members: tuple[type, ...]) -> type:
    """The message that says which of several it is: ``MovedOrRefused``, with a field for each."""
    name = "Or".join(member.__name__ for member in members)
    body = {
        "__module__": members[0].__module__,
        "__qualname__": name,
        "__annotations__": {"answer": typing.Union[members]},  # noqa: UP007 - of a tuple
    }
    return types.new_class(name, (Message,), exec_body=lambda namespace: namespace.update(body))
