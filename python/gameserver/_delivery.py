"""What may happen to a push on its way to a client that takes what is sent more slowly than it comes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from gameserver.errors import ConfigError

__all__ = ["DROPPABLE", "LATEST", "RELIABLE", "Delivery"]

KEY_MAX = 65535  # sixteen bits of the core's key

_CLASSES = {"reliable": 0, "latest": 1, "droppable": 2}
_PRIORITIES = {"low": 0, "normal": 1, "high": 2}


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a push is delivered: one of `RELIABLE`, `LATEST`, `DROPPABLE`, or what their methods make of them.

    Order is kept within each of the three, at one priority; and what was pushed after a reliable push never overtakes it.

    >>> from gameserver import DROPPABLE, LATEST
    >>> LATEST.keyed(7).high
    Delivery(kind='latest', key=7, field=None, priority='high')
    """

    kind: Literal["reliable", "latest", "droppable"]
    key: int = 0
    """Of `LATEST`: pushes to one route that have different keys do not replace each other."""
    field: str | None = None
    """Of `LATEST`, on a class of messages: the field whose value is the key."""
    priority: Literal["low", "normal", "high"] = "normal"

    def keyed(self, key: int) -> Delivery:
        """Only a push with the same route and the same key is replaced; 0 to 65,535.

        Raises:
            ValueError: another kind of delivery, or a key that is none.
        """
        if not isinstance(key, int) or not 0 <= key <= KEY_MAX:
            raise ValueError(f"LATEST.keyed({key!r}): a key is a whole number from 0 to {KEY_MAX}")
        return replace(self._latest("keyed"), key=key, field=None)

    def by(self, field: str) -> Delivery:
        """For a class of messages: the key is the value of this field.

        Raises:
            ValueError: another kind of delivery.

        >>> from gameserver import LATEST, Message, f32, u16
        >>> class Moved(Message, delivery=LATEST.by("who")):
        ...     who: u16
        ...     x: f32
        """
        return replace(self._latest("by"), key=0, field=field)

    @property
    def low(self) -> Delivery:
        """The same, behind everything else that waits for the client; dropped before everything else."""
        return replace(self._replaceable("low"), priority="low")

    @property
    def high(self) -> Delivery:
        """The same, before what waits for the client and has not begun to leave; never before what is reliable."""
        return replace(self._replaceable("high"), priority="high")

    @property
    def _bits(self) -> int:
        """As the core reads it."""
        return self.key | _PRIORITIES[self.priority] << 16 | _CLASSES[self.kind] << 18

    def _latest(self, name: str) -> Delivery:
        if self.kind != "latest":
            raise ValueError(f"{self.kind.upper()}.{name}: a key is for what replaces others: LATEST.{name}")
        return self

    def _replaceable(self, name: str) -> Delivery:
        if self.kind == "reliable":
            raise ValueError(f"RELIABLE.{name}: what is reliable keeps its order; LATEST and DROPPABLE have priorities")
        return self


RELIABLE = Delivery("reliable")
"""All of them, in order; a client for whom more than `queue_bytes_max` wait is disconnected. The default."""
LATEST = Delivery("latest")
"""One that has not begun to leave is replaced by the next to the same route: what only the newest of is of use."""
DROPPABLE = Delivery("droppable")
"""When more than `queue_bytes_max` wait, the oldest of these go: what is nice to have."""


def class_delivery(qualname: str, delivery: Any, fields: tuple[str, ...]) -> Delivery:
    """Checks what stands in the head of a class of messages.

    Raises:
        ConfigError: it is no delivery, or by a field that the class does not have.
    """
    if not isinstance(delivery, Delivery):
        raise ConfigError(
            f"{qualname}: delivery={delivery!r}: write RELIABLE, LATEST, DROPPABLE, or what they make: LATEST.by('who')"
        )
    if delivery.field is not None and delivery.field not in fields:
        raise ConfigError(f"{qualname}: delivery=LATEST.by({delivery.field!r}): it has no such field")
    return delivery
