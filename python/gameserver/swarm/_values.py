"""Values for the fields of messages: what a scenario asks for, and valid ones by chance for all others."""

from __future__ import annotations

import enum
import math
import string
import struct
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from gameserver._answer import is_own_message
from gameserver._fields import INTEGERS, Bounds, FieldShape
from gameserver._message import Message, shape_of

__all__ = ["Value", "between", "letters", "one_of", "random_message"]

Value = Callable[[Random], Any]
"""Gives a value by chance."""

LETTERS = string.ascii_letters + string.digits + " "
LENGTH, COUNT, DEPTH = 12, 3, 3  # of texts, of lists, of messages in messages: unless their bounds say less
NUMBER = 1000  # how far numbers without bounds go


def between(low: float, high: float) -> Value:
    """A number, evenly; a whole one if both ends are.

    >>> from random import Random
    >>> 1 <= between(1, 6)(Random(1)) <= 6
    True
    """
    if isinstance(low, int) and isinstance(high, int):
        return lambda random: random.randint(low, high)
    return lambda random: random.uniform(low, high)


def one_of(*values: Any) -> Value:
    """One of these.

    >>> from random import Random
    >>> one_of("red", "blue")(Random(1)) in ("red", "blue")
    True
    """
    return lambda random: random.choice(values)


def letters(length: int, most: int | None = None) -> Value:
    """A text of so many letters, digits and spaces; with `most`, of `length` to `most`.

    >>> from random import Random
    >>> len(letters(5)(Random(1)))
    5
    """
    return lambda random: _text(random, random.randint(length, length if most is None else most))


def random_message(cls: type, given: Mapping[str, Any], random: Random, depth: int = 0) -> Any:
    """A message whose fields are as `given` says, and by chance within their bounds where it says nothing.

    Args:
        cls: a class of messages; of one that protoc has generated, only what is given is set.
        given: by attribute: values, or functions that take a `random.Random`.
    """
    values = {name: value(random) if callable(value) else value for name, value in given.items()}
    if not is_own_message(cls):
        return cls(**values)
    for attribute, fields in _by_attribute(shape_of(cls).fields).items():
        if attribute not in values:
            field = random.choice(fields)
            value = _field(field, random, depth)
            if value is not None:
                values[attribute] = value
    return cls(**values)


def attributes(cls: type) -> Sequence[str] | None:
    """What may be given; None: that is not known."""
    return [*_by_attribute(shape_of(cls).fields)] if is_own_message(cls) else None


def _by_attribute(fields: Sequence[FieldShape]) -> dict[str, list[FieldShape]]:
    found: dict[str, list[FieldShape]] = {}
    for field in fields:
        found.setdefault(field.attribute, []).append(field)
    return found


def _field(field: FieldShape, random: Random, depth: int) -> Any:
    count = random.randint(0, min(COUNT, COUNT if field.count_max is None else field.count_max))
    if field.kind == "message" and depth >= DEPTH:
        return None if field.label in ("single", "optional") and field.nullable else _nothing(field)
    match field.label:
        case "repeated":
            return [_single(field.kind, field.of, field.bounds, random, depth) for _ in range(count)]
        case "map":
            assert field.key is not None
            keys = [_single(field.key, None, field.key_bounds, random, depth) for _ in range(count)]
            return {key: _single(field.kind, field.of, field.bounds, random, depth) for key in keys}
        case _:
            return _single(field.kind, field.of, field.bounds, random, depth)


def _nothing(field: FieldShape) -> Any:
    return {"repeated": [], "map": {}}.get(field.label)


def _single(kind: str, of: Any, bounds: Bounds, random: Random, depth: int) -> Any:
    if kind in INTEGERS:
        least, most = INTEGERS[kind]
        low, high = _range(bounds, max(least, -NUMBER), min(most, NUMBER))
        return random.randint(math.ceil(low), math.floor(high))
    match kind:
        case "float" | "double":
            value = random.uniform(*_range(bounds, -NUMBER, NUMBER))
            # As it will be read: rounded, it might be beyond a bound.
            return _clamped(struct.unpack("<f", struct.pack("<f", value))[0], bounds) if kind == "float" else value
        case "bool":
            return random.random() < 0.5
        case "string":
            return _text(random, random.randint(1, LENGTH), bounds.length_max)
        case "bytes":
            return random.randbytes(
                min(random.randint(1, LENGTH), LENGTH if bounds.length_max is None else bounds.length_max)
            )
        case "enum":
            assert issubclass(of, enum.Enum)
            return random.choice([*of])
        case _:
            assert issubclass(of, Message)
            return random_message(of, {}, random, depth + 1)


def _range(bounds: Bounds, low: float, high: float) -> tuple[float, float]:
    """The bounds; where one is open, as far from the other as there is room for."""
    if bounds.low is not None:
        low, high = bounds.low, max(high, bounds.low)
    if bounds.high is not None:
        low, high = (low if bounds.low is not None else min(low, bounds.high)), bounds.high
    return low, high


def _clamped(value: float, bounds: Bounds) -> float:
    if bounds.low is not None and value < bounds.low:
        return bounds.low
    return bounds.high if bounds.high is not None and value > bounds.high else value


def _text(random: Random, length: int, bytes_max: int | None = None) -> str:
    return "".join(random.choices(LETTERS, k=length if bytes_max is None else min(length, bytes_max)))
