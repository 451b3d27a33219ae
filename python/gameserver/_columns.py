"""Annotations -> columns: what an entity class says, as plain values that the core and the exporters read."""

from __future__ import annotations

import enum
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, overload

from gameserver._fields import Mistake, spell
from gameserver._scalars import MaxLen, Scalar, Vector

__all__ = ["ALL", "NOBODY", "OTHERS", "OWNER", "Audience", "ColumnShape", "Kind", "columns_of", "sync"]

T = TypeVar("T")

Kind = Literal[
    "bool", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f32", "f64", "enum", "vector", "str", "bytes", "list",
    "entity",
]  # fmt: skip

RANGES: Mapping[str, tuple[int, int]] = {
    f"{sign}{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if sign == "i" else (0, 2**bits - 1)
    for bits in (8, 16, 32, 64)
    for sign in "iu"
}
FLOAT_MAX = {"f32": 3.4028234663852886e38, "f64": math.inf}
LENGTH_MAX = 65_535  # of a str, bytes or list: every row takes that much room
MAY_STAND = (
    "a column is a number (u16, i32, f32, ...), bool, an enum of integers, vec2 or vec3, an entity (Player | None), "
    "or Annotated[..., MaxLen(n)] of str, bytes or list[u8]"
)
HINTS = {
    int: "say how wide it is: u8, u16, i32, ...",
    float: "say how wide it is: f32 or f64",
    str: "say how much room it has: Annotated[str, MaxLen(16)]",
    bytes: "say how much room it has: Annotated[bytes, MaxLen(16)]",
    list: "say what is in it and how much room it has: Annotated[list[u8], MaxLen(5)]",
}


class Audience(StrEnum):
    """Who is told of a column.

    >>> from gameserver import OWNER
    >>> OWNER
    <Audience.OWNER: 'owner'>
    """

    ALL = "all"
    """Everybody who sees the entity."""
    OWNER = "owner"
    """Its owner alone: the bytes of others never hold it, not even as a default."""
    OTHERS = "others"
    """Everybody who sees it but its owner."""
    NOBODY = "nobody"
    """The server keeps it to itself."""


ALL = Audience.ALL
OWNER = Audience.OWNER
OTHERS = Audience.OTHERS
NOBODY = Audience.NOBODY


@dataclass(frozen=True, slots=True)
class Sync:
    """What `sync` says of a column."""

    default: Any
    quantize: float | None
    to: Audience
    rate: float | None
    interpolate: bool


class _Zero:
    """No default was given: the column's own zero."""


@overload
def sync(
    default: T,
    /,
    *,
    quantize: float | None = None,
    to: Audience = ...,
    rate: float | None = None,
    interpolate: bool = False,
) -> T: ...
@overload
def sync(
    *, quantize: float | None = None, to: Audience = ..., rate: float | None = None, interpolate: bool = False
) -> Any: ...
def sync(
    default: Any = _Zero,
    /,
    *,
    quantize: float | None = None,
    to: Audience = ALL,
    rate: float | None = None,
    interpolate: bool = False,
) -> Any:
    """Says how a column of an `Entity` is synchronized to clients.

    Args:
        default: what a new entity has; without one: 0, False, an empty text, None.
        quantize: clients get a float rounded to a multiple of this; steps that are smaller are no change. In the unit of
            the column; floats and vectors only.
        to: who is told: ``ALL``, ``OWNER``, ``OTHERS`` or ``NOBODY``.
        rate: at most so many times a second; None: at each tick.
        interpolate: a hint to clients that draw between two snapshots: values in between have a meaning.

    A column with a plain default, or none, is synchronized to ``ALL`` at each tick as it is. What is wrong here is found
    when the class is made.

    >>> from gameserver import OWNER, Entity, f32, sync, u16
    >>> class Player(Entity):
    ...     x: f32 = sync(0, quantize=0.01, interpolate=True)
    ...     y: f32 = sync(0, quantize=0.01, interpolate=True)
    ...     gold: u16 = sync(0, to=OWNER)
    """
    return Sync(default, quantize, to, rate, interpolate)


@dataclass(frozen=True, slots=True)
class ColumnShape:
    """One column as the world has it."""

    name: str
    kind: Kind
    default: Any
    """Python's value of a row that is given none; of an enum its number, of an entity always None."""
    is_required: bool
    """Whether a spawn has to give a value: the class gives none."""
    length: int = 1
    """Numbers of a vector; room of a text, bytes or list."""
    item: str = ""
    """The kind of the numbers of a vector or list."""
    of: type | None = None
    """The class of an enum or entity."""
    quantize: float | None = None
    to: Audience = ALL
    rate: float | None = None
    interpolate: bool = False


def columns_of(
    annotations: Mapping[str, Any], defaults: Mapping[str, Any], entity: type, base: Sequence[ColumnShape]
) -> tuple[ColumnShape, ...]:
    """The columns of a class, its base's first.

    Args:
        annotations: by attribute, evaluated.
        defaults: of the attributes that have one.
        entity: the class `Entity`, to know its subclasses by.
        base: what the class inherits.

    Raises:
        Mistake: a column cannot be as it is written.
    """
    return (*base, *(_column(name, annotations[name], defaults, entity) for name in annotations))


def _column(name: str, annotation: Any, defaults: Mapping[str, Any], entity: type) -> ColumnShape:
    if name.startswith("_") or not name.isascii():
        raise Mistake(name, "a column's name is of ASCII letters, digits and _, and begins with a letter")
    if hasattr(entity, name):
        raise Mistake(name, "every Entity has a member of this name: choose another")
    kind, length, item, of = _type(name, annotation, entity)
    said = defaults.get(name, _Zero)
    options = said if isinstance(said, Sync) else Sync(said, None, ALL, None, False)
    _check_options(name, options, kind)
    default = _zero(kind, length, of) if options.default is _Zero else options.default
    return ColumnShape(
        name=name,
        kind=kind,
        default=check_value(name, default, kind, length, item, of),
        is_required=name not in defaults,
        length=length,
        item=item,
        of=of,
        quantize=options.quantize,
        to=options.to,
        rate=options.rate,
        interpolate=options.interpolate,
    )


def _type(name: str, annotation: Any, entity: type) -> tuple[Kind, int, str, type | None]:
    """Kind, length, kind of the items, and class."""
    base = annotation
    marks: tuple[Any, ...] = ()
    if get_origin(annotation) is Annotated:
        base, *more = get_args(annotation)
        marks = tuple(more)
    for mark in marks:
        if isinstance(mark, type) and mark is MaxLen:
            raise Mistake(name, "MaxLen wants its value: MaxLen(16)")
        if not isinstance(mark, MaxLen | Scalar | Vector):
            raise Mistake(name, f"{spell(type(mark))} is for messages; of a column say its type, and MaxLen")
    room = next((mark for mark in marks if isinstance(mark, MaxLen)), None)
    if base in (str, bytes) or get_origin(base) is list:
        return _roomy(name, base, room)
    if room is not None:
        raise Mistake(name, "MaxLen is for str, bytes and list")
    if vector := next((mark for mark in marks if isinstance(mark, Vector)), None):
        return "vector", vector.length, vector.item, None
    if scalar := next((mark for mark in marks if isinstance(mark, Scalar)), None):
        return _number(scalar), 1, "", None
    if base is bool:
        return "bool", 1, "", None
    if isinstance(base, type) and issubclass(base, enum.Enum):
        _check_enum(name, base)
        return "enum", 1, "", base
    return "entity", 1, "", _referred(name, base, entity)


def _roomy(name: str, base: Any, room: MaxLen | None) -> tuple[Kind, int, str, type | None]:
    python = get_origin(base) or base
    if room is None:
        raise Mistake(name, f"{spell(base)} has no bound: {HINTS[python]}")
    if type(room.length) is not int or not 1 <= room.length <= LENGTH_MAX:
        raise Mistake(name, f"MaxLen({room.length!r}): 1 to {LENGTH_MAX}")
    if python is not list:
        return ("str" if base is str else "bytes"), room.length, "", None
    (inner,) = get_args(base)
    scalars = [mark for mark in get_args(inner)[1:] if isinstance(mark, Scalar)]
    if not scalars:
        raise Mistake(name, f"{spell(inner)} in a list: a column's list is of numbers: list[u8], list[f32]")
    return "list", room.length, _number(scalars[-1]), None


def _number(scalar: Scalar) -> Kind:
    if scalar.kind in ("float", "double"):
        return "f32" if scalar.kind == "float" else "f64"
    is_signed = "u" not in scalar.kind and scalar.kind not in ("fixed32", "fixed64")
    high = scalar.high
    bits = (high.bit_length() + is_signed) if high is not None else int(scalar.kind[-2:])
    return f"{'i' if is_signed else 'u'}{bits}"  # type: ignore[return-value]


def _check_enum(name: str, of: type[enum.Enum]) -> None:
    if issubclass(of, enum.Flag):
        raise Mistake(name, f"{of.__name__}: a set of flags is no enum here, use u32")
    for member in of:
        low, high = RANGES["i32"]
        if type(member.value) is not int or not low <= member.value <= high:
            raise Mistake(name, f"{of.__name__}.{member.name}: an enum's values are integers of 32 bits")
    if not len(of):
        raise Mistake(name, f"{of.__name__} has no members")


def _referred(name: str, base: Any, entity: type) -> type:
    members = get_args(base) if get_origin(base) in (Union, types.UnionType) else (base,)
    found = [member for member in members if member is not types.NoneType]
    if len(found) == 1 and isinstance(found[0], type) and issubclass(found[0], entity):
        if len(members) == 1:
            raise Mistake(name, f"an entity may be gone: write {spell(base)} | None")
        return found[0]
    hint = HINTS.get(base, MAY_STAND)
    raise Mistake(name, f"{spell(base)} is not a column's type: {hint}")


def _check_options(name: str, options: Sync, kind: Kind) -> None:
    step = options.quantize
    if step is not None:
        if kind not in ("f32", "f64", "vector"):
            raise Mistake(name, f"quantize={step!r}: it is for f32, f64 and vectors; {kind} is exact already")
        if not _is_number(step) or not 0 < step < math.inf:
            raise Mistake(name, f"quantize={step!r}: the step between two values, above 0, in the column's unit")
    if not isinstance(options.to, Audience):
        raise Mistake(name, f"to={options.to!r}: ALL, OWNER, OTHERS or NOBODY")
    if options.rate is not None and (not _is_number(options.rate) or not 0 < options.rate < math.inf):
        raise Mistake(name, f"rate={options.rate!r}: times a second, above 0; None: at each tick")
    if type(options.interpolate) is not bool:
        raise Mistake(name, f"interpolate={options.interpolate!r}: True or False")


def _zero(kind: Kind, length: int, of: type | None) -> Any:
    if kind == "enum":
        assert of is not None
        assert issubclass(of, enum.Enum)
        return next((member for member in of if member.value == 0), next(iter(of)))
    zeros: Mapping[str, Any] = {"str": "", "bytes": b"", "list": [], "bool": False, "entity": None}
    return zeros.get(kind, (0.0,) * length if kind == "vector" else 0)


def check_value(name: str, value: Any, kind: Kind, length: int, item: str, of: type | None) -> Any:
    """A default as the core takes it.

    Raises:
        Mistake: it is no value of the column.
    """
    wrong = Mistake(name, f"the default {value!r} is no {of.__name__ if of else kind}")
    match kind:
        case "bool":
            if type(value) is not bool:
                raise wrong
        case "enum":
            assert of is not None
            if not isinstance(value, of):
                raise wrong
            return value.value  # type: ignore[attr-defined]
        case "entity":
            if value is not None:
                raise Mistake(name, "the default of an entity is None: there is none before the world runs")
        case "str" | "bytes":
            if type(value) is not (str if kind == "str" else bytes):
                raise wrong
            size = len(value.encode() if isinstance(value, str) else value)
            if size > length:
                raise Mistake(name, f"the default has {size} bytes, MaxLen allows {length}")
            if isinstance(value, str) and "\0" in value:
                raise Mistake(name, "the default has a NUL, which a text here can't hold")
        case "list" | "vector":
            if not isinstance(value, list | tuple):
                raise wrong
            if kind == "vector" and len(value) != length:
                raise Mistake(name, f"the default has {len(value)} numbers, the vector {length}")
            if len(value) > length:
                raise Mistake(name, f"the default has {len(value)} numbers, MaxLen allows {length}")
            return type(value)(_checked_number(name, one, item) for one in value)
        case _:
            return _checked_number(name, value, kind)
    return value


def _checked_number(name: str, value: Any, kind: str) -> int | float:
    if kind in FLOAT_MAX:
        if not _is_number(value):
            raise Mistake(name, f"the default {value!r} is no {kind}")
        if not math.isfinite(value) or abs(value) > FLOAT_MAX[kind]:
            raise Mistake(name, f"the default {value!r} is not a finite {kind}")
        return float(value)
    low, high = RANGES[kind]
    if type(value) is not int:
        raise Mistake(name, f"the default {value!r} is no {kind}")
    if not low <= value <= high:
        raise Mistake(name, f"the default {value} is out of range: {kind} holds {low} to {high}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
