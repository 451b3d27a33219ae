"""Annotations -> fields: what a class says, as plain values that the core and the exporters read."""

from __future__ import annotations

import enum
import re
import sys
import types
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from gameserver._scalars import Field, MaxLen, Range, Scalar

__all__ = [
    "Bounds",
    "EnumShape",
    "FieldShape",
    "Label",
    "Mistake",
    "enum_shape",
    "fields_of",
    "line_of",
    "snake_case",
    "spell",
]

Label = Literal["single", "optional", "repeated", "map"]

NUMBER_MAX = 2**29 - 1
RESERVED = range(19_000, 20_000)  # protobuf's own
INTEGERS = {
    "int32": (-(2**31), 2**31 - 1),
    "sint32": (-(2**31), 2**31 - 1),
    "sfixed32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "sint64": (-(2**63), 2**63 - 1),
    "sfixed64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "fixed32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "fixed64": (0, 2**64 - 1),
}
KEYS = frozenset({*INTEGERS, "bool", "string"})
HINTS = {int: "say how wide it is: u32, i32, u64, ...", float: "say how wide it is: f32 or f64"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a value must keep to, beyond its type."""

    low: float | None = None
    high: float | None = None
    finite: bool = True
    length_max: int | None = None


@dataclass(frozen=True, slots=True)
class FieldShape:
    """One field as the wire has it. A field of several message types is one of these for each type."""

    name: str
    """As `.proto` files, JSON and errors spell it."""
    attribute: str
    """As Python spells it: the same, except in a field of several message types."""
    number: int
    kind: str
    """protobuf's name of a scalar type (of a map: of its values), or ``"enum"``, or ``"message"``."""
    label: Label = "single"
    of: type | None = None
    """The class of an enum or of a message."""
    key: str | None = None
    """The type of a map's keys."""
    oneof: str | None = None
    shared: bool = False
    """Whether the members of its oneof share one attribute."""
    nullable: bool = False
    """Whether the attribute may be None."""
    packed: bool = True
    bounds: Bounds = field(default_factory=Bounds)
    """Of the value, or of each item or map value."""
    key_bounds: Bounds = field(default_factory=Bounds)
    count_max: int | None = None
    """The most items of a list or entries of a map."""


@dataclass(frozen=True, slots=True)
class EnumShape:
    """One enum as the wire has it."""

    name: str
    values: tuple[tuple[str, int], ...]
    """As `.proto` files name them, 0 first: ``TEAM_RED`` for ``Team.RED``, since they share a scope there."""
    members: tuple[tuple[enum.Enum, int], ...]
    cls: type[enum.Enum]
    unknown: Literal["keep", "skip", "refuse"] = "refuse"
    """What a number without a name does: it is taken, is as if the field was not there, or the message is refused."""


PROTO_ENUMS: weakref.WeakKeyDictionary[type, EnumShape] = weakref.WeakKeyDictionary()
"""Those that come from `.proto` files."""


def enum_shape(of: type) -> EnumShape:
    """The shape of an enum's class."""
    assert issubclass(of, enum.Enum)
    if of in PROTO_ENUMS:
        return PROTO_ENUMS[of]
    prefix = snake_case(of.__name__).upper()
    named = sorted(of.__members__.items(), key=lambda item: item[1].value != 0)  # stable: only 0 moves
    return EnumShape(
        of.__name__,
        tuple((f"{prefix}_{name.upper()}", member.value) for name, member in named),
        tuple((member, member.value) for member in of),
        of,
    )


class Mistake(Exception):
    """A field that cannot be: `field` is its name, the text says why and what to do."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


@dataclass(slots=True)
class _Type:
    """A type, taken out of its annotation."""

    kinds: list[tuple[str, type | None, Bounds]]
    optional: bool = False
    label: Label = "single"
    key: tuple[str, Bounds] | None = None
    count_max: int | None = None
    numbers: tuple[int, ...] = ()


def fields_of(
    annotations: Mapping[str, Any], defaults: Mapping[str, Any], message: type, base: Sequence[FieldShape]
) -> tuple[FieldShape, ...]:
    """The fields of a class, its base's first.

    Args:
        annotations: by attribute, evaluated.
        defaults: of the attributes that have one.
        message: the class `Message`, to know its subclasses by.
        base: what the class inherits.

    Raises:
        Mistake: a field cannot be as it is written.
    """
    fields = list(base)
    number = max((field.number for field in fields), default=0)
    for attribute, annotation in annotations.items():
        _check_name(attribute, message)
        made = _type(attribute, annotation, message)
        if len(made.numbers) not in (0, len(made.kinds)):
            raise Mistake(attribute, f"{len(made.kinds)} types want as many numbers, Field has {len(made.numbers)}")
        several = len(made.kinds) > 1
        label: Label = "optional" if made.optional or several else made.label
        if attribute in defaults:
            label = _label_with_default(attribute, defaults[attribute], made, label)
        elif label == "single" and made.kinds[0][0] == "message":
            label = "optional"  # on the wire a message is there or not
        for index, (kind, of, bounds) in enumerate(made.kinds):
            number = made.numbers[index] if made.numbers else number + 1
            fields.append(
                FieldShape(
                    name=_member_name(attribute, of, [*annotations, *(f.name for f in fields)])
                    if several
                    else attribute,
                    attribute=attribute,
                    number=number,
                    kind=kind,
                    label=label,
                    of=of,
                    key=made.key and made.key[0],
                    oneof=attribute if several else None,
                    shared=several,
                    nullable=made.optional,
                    bounds=bounds,
                    key_bounds=made.key[1] if made.key else Bounds(),
                    count_max=made.count_max,
                )
            )
    _check_numbers(fields)
    return tuple(fields)


def snake_case(name: str) -> str:
    """``"MoveTo"`` as ``"move_to"``.

    >>> snake_case("HTTPMove2D")
    'http_move2_d'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _check_name(attribute: str, message: type) -> None:
    if attribute.startswith("_") or not attribute.isascii():
        raise Mistake(attribute, "a field's name is of ASCII letters, digits and _, and begins with a letter")
    if hasattr(message, attribute):
        raise Mistake(attribute, "this is the name of a method of Message: choose another")


def _check_numbers(fields: Iterable[FieldShape]) -> None:
    taken: dict[int, str] = {}
    for one in fields:
        if not 1 <= one.number <= NUMBER_MAX or one.number in RESERVED:
            raise Mistake(
                one.attribute,
                f"number {one.number}: 1 to {NUMBER_MAX} are valid, except 19000 to 19999 (protobuf's own)",
            )
        if one.number in taken:
            raise Mistake(one.attribute, f"number {one.number} is {taken[one.number]}'s already")
        taken[one.number] = one.name


def _member_name(attribute: str, of: type | None, taken: Sequence[str]) -> str:
    name = snake_case(of.__name__ if of else attribute)
    return f"{attribute}_{name}" if name in taken else name


def _label_with_default(attribute: str, default: Any, made: _Type, label: Label) -> Label:
    """A default that is not protobuf's zero has to be told from it on the wire: the field becomes ``optional``."""
    if made.label != "single":
        if type(default) is not (list if made.label == "repeated" else dict) or default:
            raise Mistake(attribute, "the default of a list or dict can only be an empty one")
        return label
    kind = made.kinds[0][0]
    if default is None:
        if not made.optional:
            raise Mistake(attribute, "the default is None, the type is not: add `| None`")
        return label
    if kind == "message" or isinstance(default, enum.Enum):
        return "optional" if kind == "message" or default.value else label
    return "optional" if default or str(default) == "-0.0" else label


def _type(attribute: str, annotation: Any, message: type) -> _Type:
    base, marks = annotation, ()
    if get_origin(annotation) is Annotated:
        base, *more = get_args(annotation)
        marks = tuple(more)
    origin, arguments = get_origin(base), get_args(base)
    if origin in (Union, types.UnionType):
        made = _union(attribute, arguments, message)
    elif origin is list:
        made = _item(attribute, arguments[0], message, "repeated")
    elif origin is dict:
        made = _item(attribute, arguments[1], message, "map")
        key = _type(attribute, arguments[0], message)
        kind, _, bounds = key.kinds[0]
        if key.optional or key.label != "single" or kind not in KEYS:
            raise Mistake(attribute, f"a map's keys are integers, bool or str, not {spell(arguments[0])}")
        made.key = kind, bounds
    else:
        made = _Type([_plain(attribute, base, marks, message)])
    return _marked(attribute, made, marks)


def _union(attribute: str, arguments: Sequence[Any], message: type) -> _Type:
    members = [_type(attribute, argument, message) for argument in arguments if argument is not type(None)]
    optional = len(members) < len(arguments)
    if any(member.label != "single" or member.optional for member in members):
        raise Mistake(attribute, "a list or dict cannot be None: it is empty")
    if len(members) == 1:
        members[0].optional = optional
        return members[0]
    if any(kind != "message" for member in members for kind, _, _ in member.kinds):
        raise Mistake(attribute, "of several types, each has to be a message")
    return _Type([kind for member in members for kind in member.kinds], optional)


def _item(attribute: str, annotation: Any, message: type, label: Label) -> _Type:
    item = _type(attribute, annotation, message)
    if item.label != "single" or item.optional or len(item.kinds) > 1:
        where = "list" if label == "repeated" else "dict"
        raise Mistake(
            attribute, f"{spell(annotation)} in a {where}: make it a field of a message, and a {where} of those"
        )
    item.label = label
    return item


def _plain(attribute: str, base: Any, marks: Sequence[Any], message: type) -> tuple[str, type | None, Bounds]:
    scalars = [mark for mark in marks if isinstance(mark, Scalar)]
    if scalars:
        return scalars[-1].kind, None, Bounds(scalars[-1].low, scalars[-1].high)
    for python, kind in ((bool, "bool"), (str, "string"), (bytes, "bytes")):
        if base is python:
            return kind, None, Bounds()
    if isinstance(base, type) and issubclass(base, enum.Enum):
        _check_enum(attribute, base)
        return "enum", base, Bounds()
    if isinstance(base, type) and issubclass(base, message) and base is not message:
        return "message", base, Bounds()
    hint = HINTS.get(
        base, "a field is a scalar (u32, f32, bool, str, bytes, ...), an enum, a message, a list or a dict"
    )
    raise Mistake(attribute, f"{spell(base)} is not a field's type: {hint}")


def _check_enum(attribute: str, of: type[enum.Enum]) -> None:
    low, high = INTEGERS["int32"]
    for member in of:
        if type(member.value) is not int or not low <= member.value <= high:
            raise Mistake(attribute, f"{of.__name__}.{member.name}: an enum's values are integers of 32 bits")
    if issubclass(of, enum.Flag):
        raise Mistake(attribute, f"{of.__name__}: a set of flags is no enum on the wire, use u32")
    if all(member.value != 0 for member in of):
        raise Mistake(
            attribute, f"{of.__name__} has no member of value 0, which is what a field without a value reads as"
        )


def _marked(attribute: str, made: _Type, marks: Sequence[Any]) -> _Type:
    """Puts `Range`, `MaxLen` and `Field` where they belong."""
    for mark in marks:
        kind, of, bounds = made.kinds[0]
        if isinstance(mark, Field):
            if not mark.numbers or any(type(number) is not int for number in mark.numbers):
                raise Mistake(attribute, "Field wants a number")
            made.numbers = mark.numbers
        elif isinstance(mark, MaxLen):
            if type(mark.length) is not int or mark.length < 0:
                raise Mistake(attribute, f"MaxLen({mark.length!r}): a number of items, 0 or more")
            if made.label != "single":
                made.count_max = mark.length
            elif kind in ("string", "bytes"):
                made.kinds[0] = kind, of, replace(bounds, length_max=mark.length)
            else:
                raise Mistake(attribute, "MaxLen is for str, bytes, list and dict")
        elif isinstance(mark, Range):
            if made.label != "single":
                raise Mistake(attribute, "Range is for numbers: put it on the item, list[Annotated[f32, Range(...)]]")
            made.kinds[0] = kind, of, _ranged(attribute, kind, bounds, mark)
        elif isinstance(mark, type) and mark in (Range, MaxLen, Field):
            raise Mistake(attribute, f"{mark.__name__} wants its values: {mark.__name__}(...)")
    return made


def _ranged(attribute: str, kind: str, bounds: Bounds, mark: Range) -> Bounds:
    for end in (mark.low, mark.high):
        if end is not None and (isinstance(end, bool) or not isinstance(end, int | float) or end != end):
            raise Mistake(attribute, f"Range({mark.low!r}, {mark.high!r}): both ends are numbers, or None")
    if mark.low is not None and mark.high is not None and mark.low > mark.high:
        raise Mistake(attribute, f"Range({mark.low!r}, {mark.high!r}) holds nothing")
    if kind in ("float", "double"):
        return replace(bounds, low=mark.low, high=mark.high, finite=mark.finite)
    if kind not in INTEGERS:
        raise Mistake(attribute, "Range is for numbers")
    least, most = INTEGERS[kind]
    for end in (mark.low, mark.high):
        if end is not None and (end != int(end) or not least <= end <= most):
            raise Mistake(
                attribute, f"Range({mark.low!r}, {mark.high!r}): {kind} holds whole numbers, {least} to {most}"
            )
    low, high = (None if end is None else int(end) for end in (mark.low, mark.high))
    return replace(
        bounds,
        low=max((end for end in (low, bounds.low) if end is not None), default=None),
        high=min((end for end in (high, bounds.high) if end is not None), default=None),
    )


def spell(annotation: Any) -> str:
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__ if annotation.__module__ in ("builtins", "__main__") else annotation.__qualname__
    return str(annotation)


def line_of(module: str, qualname: str, field: str | None, fallback: int) -> tuple[str, int]:
    """Where a field of a class is written: file and line, as well as the source tells. For errors alone."""
    import ast
    import inspect

    found = sys.modules.get(module)
    try:
        file = inspect.getsourcefile(found) if found else None
        text = "".join(inspect.getsourcelines(found)[0]) if found else ""
        tree = ast.parse(text)
    except (OSError, TypeError, SyntaxError):
        return (getattr(found, "__file__", None) or module), fallback
    name = qualname.rpartition(".")[2]
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == name and node.lineno <= fallback <= (node.end_lineno or 0):
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and part.target.id == field:
                    return file or module, part.lineno
    return file or module, fallback
