"""A game's messages against its lock: the `.proto` file that says which number a field has for good.

Python's classes are what runs; the lock is what clients were built with. `compare` says where the two part, and what to
do about it. Nothing here prints, or knows a command line.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from gameserver import _core
from gameserver._fields import NUMBER_MAX, PROTO_ENUMS, RESERVED, EnumShape, FieldShape, line_of
from gameserver._message import PROTO_CLASSES, Description, Message, MessageShape, describe
from gameserver.errors import SchemaError

__all__ = ["Comparison", "Finding", "Lock", "Locked", "Reserved", "classes_in", "compare", "read_lock"]


class Reserved(NamedTuple):
    """What a message or an enum had once: numbers, as pairs of first and last, and names."""

    numbers: tuple[tuple[int, int], ...] = ()
    names: tuple[str, ...] = ()

    def holds(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self.numbers)


@dataclass(frozen=True, slots=True)
class Locked:
    """A message or an enum of the lock."""

    numbers: Mapping[str, int]
    """By the name of a field or of an enum's value."""
    types: Mapping[str, str] = field(default_factory=dict)
    """As `.proto` has them, label included: ``"repeated .Point"``."""
    reserved: Reserved = field(default_factory=Reserved)


@dataclass(frozen=True, slots=True)
class Lock:
    """A `.proto` file, read."""

    text: str = ""
    messages: Mapping[str, Locked] = field(default_factory=dict)
    enums: Mapping[str, Locked] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that breaks clients, or that Python has otherwise than the lock."""

    file: str
    line: int
    path: str
    """The message, and the field if it is about one: ``"Move.dx"``."""
    reason: str
    help: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.path}: {self.reason}; {self.help}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A game's messages beside their lock."""

    text: str
    """What the lock should be."""
    breaking: tuple[Finding, ...]
    """What clients that know the lock would not survive."""
    edits: tuple[Finding, ...]
    """Numbers that Python has otherwise than `text`."""
    news: tuple[str, ...]
    """What `text` has and the lock has not, and the other way round: ``"Move.dx = 3 is new"``."""


def read_lock(path: Path) -> Lock:
    """The lock in this file; an empty one if there is none.

    Raises:
        SchemaError: it is no `.proto` file that stands alone; says line and column.
        OSError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Lock()
    try:
        return _parsed(path.name, text)
    except SchemaError as error:
        raise SchemaError(str(error).replace(path.name, str(path), 1)) from None


def _parsed(name: str, text: str) -> Lock:
    messages, enums = (
        {
            full: Locked(
                {field: number for field, number, _ in fields},
                {field: kind for field, _, kind in fields},
                Reserved(tuple(numbers), tuple(names)),
            )
            for full, fields, numbers, names in shapes
        }
        for shapes in _core.schema_lock(name, text)
    )
    return Lock(text, messages, enums)


def classes_in(folder: Path) -> list[type[Message]]:
    """All message classes that the imported modules of this folder define, in order; those from `.proto` files need no lock."""
    found: dict[type[Message], None] = {}
    for name in sorted(sys.modules):
        module = sys.modules[name]
        file = getattr(module, "__file__", None)
        if file is None or not _is_in(folder, Path(file).resolve()):
            continue
        _collect(vars(module), name, found)
    return list(found)


def _is_in(folder: Path, file: Path) -> bool:
    """Whether a file is the game's own: installed packages, whose environment is often in there, are not."""
    return file.is_relative_to(folder) and "site-packages" not in file.relative_to(folder).parts


def _collect(namespace: Mapping[str, object], module: str, found: dict[type[Message], None]) -> None:
    for value in list(namespace.values()):
        if isinstance(value, type) and value.__module__ == module and value not in found:
            if issubclass(value, Message) and value not in PROTO_CLASSES:
                found[value] = None
            _collect(vars(value), module, found)


def compare(classes: Sequence[type[Message]], lock: Lock, file: str, *, breaking: bool = False) -> Comparison:
    """What the lock of these classes should be, and what stands against it.

    A field that the lock knows keeps its number. A new one has Python's if that is free, else the next one. What is gone is
    reserved.

    Args:
        classes: of the game; what they name belongs to them.
        lock: as it is.
        file: the lock's path, for people.
        breaking: take Python's numbers, whatever breaks.

    Raises:
        SchemaError: these classes are no schema, or name a class from a `.proto` file.
    """
    description = describe(*classes)
    for shape in description.messages:
        for one in shape.fields:
            if one.of in PROTO_CLASSES or one.of in PROTO_ENUMS:
                reason = f"{getattr(one.of, '__name__', '')} is from a .proto file, which the lock cannot import"
                help = f"declare {shape.name} in the .proto file too, or its own class in Python"
                raise SchemaError(str(_finding(shape, one.name, reason, help)))
    settled = description if breaking else _settled(description, lock)
    reserved = {
        shape.name: _reserved(lock.messages.get(shape.name), {field.name: field.number for field in shape.fields})
        for shape in settled.messages
    } | {shape.name: _reserved(lock.enums.get(shape.name), dict(shape.values)) for shape in settled.enums}
    text = _core.schema_text(settled, reserved, HEADER)
    return Comparison(
        text,
        tuple(_breaking(description, settled, lock, file)),
        tuple(_edits(description, settled, lock, file)),
        tuple(_news(lock, _parsed(NAME, text))),
    )


def _settled(description: Description, lock: Lock) -> Description:
    messages = tuple(
        replace(shape, fields=_numbered(shape.fields, lock.messages[shape.name]))
        if shape.name in lock.messages
        else shape
        for shape in description.messages
    )
    return replace(description, messages=messages)


def _numbered(fields: Sequence[FieldShape], locked: Locked) -> tuple[FieldShape, ...]:
    taken = {*locked.numbers.values()}
    numbers = {one.name: locked.numbers[one.name] for one in fields if one.name in locked.numbers}
    for one in fields:
        if one.name not in numbers and one.number not in taken and not locked.reserved.holds(one.number):
            numbers[one.name] = one.number
            taken.add(one.number)
    last = max([0, *taken, *(last for _, last in locked.reserved.numbers if last < NUMBER_MAX)])
    for one in fields:
        if one.name not in numbers:
            last += 1
            if last in RESERVED:
                last = RESERVED.stop
            numbers[one.name] = last
    return tuple(replace(one, number=numbers[one.name]) for one in fields)


def _reserved(locked: Locked | None, numbers: Mapping[str, int]) -> Reserved:
    """What was reserved already, and what is gone now; never what is in use."""
    if locked is None:
        return Reserved()
    used = {*numbers.values()}
    gone = [(name, number) for name, number in locked.numbers.items() if name not in numbers]
    ranges = [*locked.reserved.numbers, *((number, number) for _, number in gone)]
    return Reserved(
        tuple(_without(_merged(ranges), sorted(used))),
        tuple(sorted({*locked.reserved.names, *(name for name, _ in gone)} - numbers.keys())),
    )


def _merged(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    current: tuple[int, int] | None = None
    for first, last in sorted(ranges):
        if current is not None and first <= current[1] + 1:
            current = current[0], max(current[1], last)
            continue
        if current is not None:
            yield current
        current = first, last
    if current is not None:
        yield current


def _without(ranges: Iterable[tuple[int, int]], used: Sequence[int]) -> Iterator[tuple[int, int]]:
    for first, last in ranges:
        for number in used:
            if first <= number <= last:
                if first < number:
                    yield first, number - 1
                first = number + 1
        if first <= last:
            yield first, last


def _breaking(description: Description, settled: Description, lock: Lock, file: str) -> Iterator[Finding]:
    shapes: dict[str, MessageShape | EnumShape] = {shape.name: shape for shape in description.messages}
    shapes |= {shape.name: shape for shape in description.enums}
    for message in settled.messages:
        locked = lock.messages.get(message.name)
        for one in message.fields if locked else ():
            if locked and one.name not in locked.numbers and one.name in locked.reserved.names:
                yield _finding(
                    message,
                    one.name,
                    f"{file} had a field of this name once",
                    f"choose another name, or take this one out of {message.name}'s `reserved` if no client ever knew it",
                )
    for name, part, reason, help in _core.schema_changes(NAME, lock.text, settled) if lock.text else ():
        if name in shapes:
            yield _finding(shapes[name], part, reason, help)
        else:
            yield Finding(file, _line_in(lock.text, name), name, reason, help)


def _line_in(text: str, name: str) -> int:
    """Where the lock has a message or an enum that Python has not."""
    heads = (f"message {name.rpartition('.')[2]} ", f"enum {name.rpartition('.')[2]} ")
    return next((number for number, line in enumerate(text.splitlines(), 1) if line.strip().startswith(heads)), 1)


def _finding(shape: MessageShape | EnumShape, part: str | None, reason: str, help: str) -> Finding:
    file, line = _place(shape, part)
    return Finding(file, line, f"{shape.name}.{part}" if part else shape.name, reason, help)


def _place(shape: MessageShape | EnumShape, part: str | None) -> tuple[str, int]:
    """Where this is written, as well as the source tells."""
    if isinstance(shape, EnumShape):
        try:
            return inspect.getsourcefile(shape.cls) or "?", inspect.getsourcelines(shape.cls)[1]
        except (OSError, TypeError):
            return getattr(sys.modules.get(shape.cls.__module__), "__file__", None) or shape.cls.__module__, 1
    attribute = next((one.attribute for one in shape.fields if one.name == part), None)
    cls = _owner(shape.cls, attribute)
    source = cls.__source__  # type: ignore[attr-defined]
    return line_of(cls.__module__, cls.__qualname__, attribute, source.line)


def _owner(cls: type, attribute: str | None) -> type:
    """The class whose body has this field: `cls` or a base."""
    for base in cls.__mro__:
        source = base.__dict__.get("__source__")
        if source is not None and attribute in source.annotations:
            return base
    return cls


def _edits(description: Description, settled: Description, lock: Lock, file: str) -> Iterator[Finding]:
    """The fewest `Field(...)` that give Python the settled numbers: a field without one follows the line before it."""
    for before, after in zip(description.messages, settled.messages, strict=True):
        if before.fields == after.fields:
            continue
        names = {number: name for name, number in lock.messages[before.name].numbers.items()}
        was = will_be = 0
        groups = zip(_by_attribute(before.fields), _by_attribute(after.fields), strict=True)
        for old, new in groups:
            numbers = tuple(one.number for one in new)
            in_order = tuple(one.number for one in old) == tuple(range(was + 1, was + 1 + len(old)))
            inherited = _owner(before.cls, old[0].attribute) is not before.cls
            without_edit = range(will_be + 1, will_be + 1 + len(old)) if in_order else (one.number for one in old)
            if numbers != tuple(without_edit) and not (inherited and old == new):
                yield _finding(before, old[0].name, _why(old, new, names, file), f"write {_field(numbers)}")
            was, will_be = old[-1].number, numbers[-1]
            if inherited:
                was, will_be = (max(number, kept) for number, kept in ((old[-1].number, was), (numbers[-1], will_be)))


def _by_attribute(fields: Iterable[FieldShape]) -> list[tuple[FieldShape, ...]]:
    return [tuple(group) for _, group in groupby(fields, key=lambda one: one.attribute)]


def _why(old: Sequence[FieldShape], new: Sequence[FieldShape], names: Mapping[int, str], file: str) -> str:
    for one, settled in zip(old, new, strict=True):
        if one.number == settled.number:
            continue
        if settled.number in names:
            return f"has number {one.number} in Python and {settled.number} in {file}"
        holder = names.get(one.number)
        return f"number {one.number} {f'is that of {holder}' if holder else 'was taken once'} in {file}"
    return f"would follow the line above, and has number {new[0].number}"


def _field(numbers: Sequence[int]) -> str:
    return f"Annotated[..., Field({', '.join(map(str, numbers))})]"


def _news(old: Lock, new: Lock) -> Iterator[str]:
    for before, after in ((old.messages, new.messages), (old.enums, new.enums)):
        for name in [*after, *(name for name in before if name not in after)]:
            if name not in before:
                yield f"{name} is new"
            elif name not in after:
                yield f"{name} is gone"
            else:
                yield from _news_of(name, before[name], after[name])


def _news_of(name: str, old: Locked, new: Locked) -> Iterator[str]:
    for part, number in new.numbers.items():
        if part not in old.numbers:
            yield f"{name}.{part} = {number} is new"
        elif (old.numbers[part], old.types.get(part)) != (number, new.types.get(part)):
            was, now = (f"{lock.types.get(part, '')} {lock.numbers[part]}".strip() for lock in (old, new))
            yield f"{name}.{part} was {was} and is {now}"
    for part, number in old.numbers.items():
        if part not in new.numbers:
            yield f"{name}.{part} = {number} is gone, and reserved"
    if old.reserved != new.reserved and old.numbers.keys() == new.numbers.keys():
        yield f"{name} has other numbers or names reserved"


NAME = "lock.proto"  # for the compiler, which has seen the text before
HEADER = """\
Written by `gameserver schema write`, which keeps no comments. Clients know these numbers: keep this file with the code.
"""
