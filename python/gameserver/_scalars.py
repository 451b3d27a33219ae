"""Types of fields: what a class's annotations are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

__all__ = [
    "Field",
    "MaxLen",
    "Range",
    "Scalar",
    "Vector",
    "dvec2",
    "dvec3",
    "f32",
    "f64",
    "fixed32",
    "fixed64",
    "i8",
    "i16",
    "i32",
    "i64",
    "s32",
    "s64",
    "sfixed32",
    "sfixed64",
    "u8",
    "u16",
    "u32",
    "u64",
    "vec2",
    "vec3",
]


@dataclass(frozen=True, slots=True)
class Scalar:
    """What a number is on the wire: protobuf's name for it, and the range of values if that is narrower."""

    kind: str
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Vector:
    """How many numbers of which kind stand in one column of an entity."""

    item: Literal["f32", "f64"]
    length: int


@dataclass(frozen=True, slots=True)
class Range:
    """Both ends belong to it; None leaves one open. Floats must be finite unless ``finite=False``.

    A body that breaks it is answered with ``GS-400`` before any Python runs.

    >>> from typing import Annotated
    >>> from gameserver import Message, f32, u32
    >>> class Move(Message):
    ...     dx: Annotated[f32, Range(-1, 1)]
    ...     steps: Annotated[u32, Range(high=100)] = 1
    >>> Move(dx=2.0).encode()
    Traceback (most recent call last):
    ValueError: Move.dx: 2 is not in -1..1
    """

    low: float | None = None
    high: float | None = None
    finite: bool = True


@dataclass(frozen=True, slots=True)
class MaxLen:
    """The most that a ``str`` (in characters), ``bytes``, ``list`` or ``dict`` may hold.

    In a column of an `Entity` the room is taken from the start, and a ``str`` is counted in bytes of UTF-8.

    >>> from typing import Annotated
    >>> from gameserver import Message
    >>> class Say(Message):
    ...     text: Annotated[str, MaxLen(5)]
    >>> Say.decode(Say("hello").encode())
    Say(text='hello')
    """

    length: int


@dataclass(frozen=True, slots=True, init=False)
class Field:
    """A field's number, where it is not the next one. For a field of several message types, a number for each.

    >>> from typing import Annotated
    >>> from gameserver import Message, f32
    >>> class Move(Message):
    ...     dx: Annotated[f32, Field(3)]
    ...     dy: f32
    >>> Move(dx=0, dy=1).encode().hex()
    '250000803f'
    """

    numbers: tuple[int, ...]

    def __init__(self, *numbers: int) -> None:
        object.__setattr__(self, "numbers", numbers)


f32: TypeAlias = Annotated[float, Scalar("float")]
f64: TypeAlias = Annotated[float, Scalar("double")]
i32: TypeAlias = Annotated[int, Scalar("int32")]
i64: TypeAlias = Annotated[int, Scalar("int64")]
u32: TypeAlias = Annotated[int, Scalar("uint32")]
u64: TypeAlias = Annotated[int, Scalar("uint64")]
s32: TypeAlias = Annotated[int, Scalar("sint32")]
s64: TypeAlias = Annotated[int, Scalar("sint64")]
fixed32: TypeAlias = Annotated[int, Scalar("fixed32")]
fixed64: TypeAlias = Annotated[int, Scalar("fixed64")]
sfixed32: TypeAlias = Annotated[int, Scalar("sfixed32")]
sfixed64: TypeAlias = Annotated[int, Scalar("sfixed64")]
i8: TypeAlias = Annotated[int, Scalar("sint32", -(2**7), 2**7 - 1)]
i16: TypeAlias = Annotated[int, Scalar("sint32", -(2**15), 2**15 - 1)]
u8: TypeAlias = Annotated[int, Scalar("uint32", 0, 2**8 - 1)]
u16: TypeAlias = Annotated[int, Scalar("uint32", 0, 2**16 - 1)]
vec2: TypeAlias = Annotated[tuple[float, float], Vector("f32", 2)]
vec3: TypeAlias = Annotated[tuple[float, float, float], Vector("f32", 3)]
dvec2: TypeAlias = Annotated[tuple[float, float], Vector("f64", 2)]
dvec3: TypeAlias = Annotated[tuple[float, float, float], Vector("f64", 3)]
