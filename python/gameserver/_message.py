"""`Message`: typed Python classes with protobuf on the wire."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, dataclass_transform

from gameserver import _core
from gameserver._delivery import RELIABLE, Delivery, class_delivery
from gameserver._fields import EnumShape, FieldShape, Mistake, enum_shape, fields_of
from gameserver._source import Source, annotations_of
from gameserver.errors import SchemaError

__all__ = ["Description", "Message", "MessageShape", "describe", "shape_of"]

HAVE_GC = 1 << 14  # of a type's __flags__: the garbage collector walks its instances


@dataclass(frozen=True, slots=True)
class MessageShape:
    """One class as the wire has it: plain values, for exporters too."""

    name: str
    """As `.proto` files spell it: ``"Move"``; of a class from a `.proto` file with its package, ``"arena.Move"``."""
    fields: tuple[FieldShape, ...]
    cls: type[Message]


PROTO_CLASSES: weakref.WeakSet[_MessageMeta] = weakref.WeakSet()
"""Those that come from `.proto` files."""
_unread: weakref.WeakSet[_MessageMeta] = weakref.WeakSet()


class _MessageMeta(_core.MessageType):
    """Takes the fields out of a class's body and leaves slots."""

    __shape__: MessageShape | None
    __source__: Source
    __delivery__: Delivery

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *, delivery: Delivery | None = None
    ) -> _MessageMeta:
        if not any(isinstance(base, _MessageMeta) for base in bases):
            root = super().__new__(mcs, name, bases, namespace)  # Message itself
            _core.message_install(root, {}, False, False)
            return root
        frame = sys._getframe(1)
        namespace.setdefault("__qualname__", name)  # both are there but in a call of type()
        namespace.setdefault("__module__", frame.f_globals.get("__name__", "builtins"))
        annotations = annotations_of(namespace)
        source = Source(namespace, annotations, frame)
        cls = make_class(mcs, name, bases, namespace, source)
        if delivery is not None:
            cls.__delivery__ = class_delivery(cls.__qualname__, delivery, cls.__match_args__)  # type: ignore[attr-defined]
        for other in _unread:
            if (other.__source__.module, other.__source__.scope) == (source.module, source.scope):
                other.__source__.locals[name] = cls
        try:
            _read(cls)
        except NameError:
            _unread.add(cls)  # later, when what it names is there
            source.locals[name] = cls
            collected = True
        else:
            collected = any(
                field.kind == "message" and field.of is not None and field.of.__flags__ & HAVE_GC
                for field in shape_of(cls).fields
            )
        _finish(cls, collected, lenient=False)
        if not collected:
            _core.message_prepare(cls)  # all that it names is known: a mistake shows here
        return cls


def make_class(
    meta: type[_MessageMeta], name: str, bases: tuple[type, ...], namespace: dict[str, Any], source: Source
) -> _MessageMeta:
    """A class with slots in place of the fields of `source`."""
    qualname = namespace["__qualname__"]
    parents = [base for base in bases if isinstance(base, _MessageMeta) and base is not Message]
    inherited: tuple[str, ...] = parents[0].__match_args__ if parents else ()  # type: ignore[attr-defined]
    for attribute in source.annotations:
        if attribute in inherited:
            raise source.mistake(qualname, attribute, f"{parents[0].__name__} has this field already")
    if "__slots__" in namespace:
        raise source.mistake(qualname, None, "a message's fields are its slots: leave __slots__ out")
    if "__del__" in namespace:
        raise source.mistake(qualname, None, "a message has no __del__: there may be a million of them a second")
    for attribute in source.defaults:
        del namespace[attribute]
    namespace["__slots__"] = tuple(source.annotations)
    namespace["__match_args__"] = (*inherited, *source.annotations)
    namespace["__shape__"] = None
    namespace["__source__"] = source
    return type.__new__(meta, name, bases, namespace)


def proto_class(name: str, qualname: str, module: str, fields: Sequence[str], collected: bool) -> type[Message]:
    """A class for a message of a `.proto` file; its shape is set by who makes it.

    Args:
        fields: their names.
        collected: whether the garbage collector has to walk its instances.
    """
    for field in fields:
        if field.startswith("__"):
            raise SchemaError(f"{qualname}.{field}: Python keeps names that begin with __ to itself")
    namespace = {"__module__": module, "__qualname__": qualname}
    source = Source(namespace, dict.fromkeys(fields), sys._getframe(1))
    cls = make_class(_MessageMeta, name, (Message,), namespace, source)
    PROTO_CLASSES.add(cls)
    _finish(cls, collected, lenient=True)
    return cls  # type: ignore[return-value]


def _finish(cls: _MessageMeta, collected: bool, lenient: bool) -> None:
    """Tells the core where the slots are, and what a constructor without a value puts there."""
    defaults: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if isinstance(base, _MessageMeta) and base.__dict__.get("__source__"):
            defaults |= base.__source__.defaults
    if not lenient:
        without = [name for name in cls.__match_args__ if name not in defaults]  # type: ignore[attr-defined]
        names: tuple[str, ...] = cls.__match_args__  # type: ignore[attr-defined]
        for name in without:
            before = names[: names.index(name)]
            if any(other in defaults for other in before):
                raise cls.__source__.mistake(
                    cls.__qualname__, name, "a field without a default stands before those that have one"
                )
    collected = collected or any(base.__flags__ & HAVE_GC for base in cls.__bases__ if base is not object)
    try:
        _core.message_install(cls, defaults, lenient, collected)
    except SchemaError as error:
        raise cls.__source__.mistake(cls.__qualname__, None, str(error)) from None


def _read(cls: _MessageMeta) -> None:
    """Evaluates the annotations.

    Raises:
        NameError: they name what is not there yet.
        SchemaError: a field cannot be as it is written.
    """
    source = cls.__source__
    parents = [base for base in cls.__bases__ if isinstance(base, _MessageMeta) and base is not Message]
    base = shape_of(parents[0]).fields if parents else ()
    try:
        fields = fields_of(source.read(), source.defaults, Message, base)
    except NameError:
        raise
    except Mistake as mistake:
        raise source.mistake(cls.__qualname__, mistake.field, str(mistake)) from None
    except Exception as error:
        raise source.mistake(cls.__qualname__, None, f"its annotations cannot be read: {error}") from error
    cls.__shape__ = MessageShape(cls.__name__, fields, cls)  # type: ignore[arg-type]
    _unread.discard(cls)


def shape_of(cls: type) -> MessageShape:
    """The fields of a class, as the wire has them.

    Raises:
        SchemaError: a field cannot be as it is written, or names what does not exist.
    """
    assert isinstance(cls, _MessageMeta)
    if cls is Message:
        raise SchemaError("Message itself has no fields: subclass it")
    if cls.__dict__["__shape__"] is None:
        try:
            _read(cls)
        except NameError as error:
            text = f"{error}: what an annotation names has to be defined when the class is first used"
            raise cls.__source__.mistake(cls.__qualname__, None, text) from None
    shape = cls.__shape__
    assert shape is not None
    return shape


@dataclass(frozen=True, slots=True)
class Description:
    """Messages, each with all that it names: what a codec or a `.proto` file is made of."""

    messages: tuple[MessageShape, ...]
    enums: tuple[EnumShape, ...]


def describe(*classes: type[Message]) -> Description:
    """The shapes of these classes and of all that they name, these first; no two share a name.

    Raises:
        SchemaError: a field cannot be as it is written, two classes share a name, or a message always contains itself.
    """
    found: dict[type, MessageShape] = {}
    enums: dict[type, EnumShape] = {}
    waiting = [*classes]
    while waiting:
        cls = waiting.pop(0)
        if cls in found:
            continue
        found[cls] = shape_of(cls)
        for field in found[cls].fields:
            if field.kind == "message":
                assert field.of is not None
                waiting.append(field.of)
            elif field.kind == "enum" and field.of not in enums:
                assert field.of is not None
                enums[field.of] = enum_shape(field.of)
    names: dict[str, MessageShape | EnumShape] = {}
    shapes: list[MessageShape | EnumShape] = [*found.values(), *enums.values()]
    for shape in shapes:
        other = names.setdefault(shape.name, shape)
        if other is not shape:
            raise SchemaError(f"{shape.name} is the name of {_where(other)} and of {_where(shape)}: rename one")
    for message in found.values():
        _check_that_it_ends(message, found, ())
    return Description(tuple(found.values()), tuple(enums.values()))


def _where(shape: MessageShape | EnumShape) -> str:
    return f"{shape.cls.__module__}.{shape.cls.__qualname__}"


def _check_that_it_ends(shape: MessageShape, found: Mapping[type, MessageShape], path: tuple[type, ...]) -> None:
    for field in shape.fields:
        if field.kind != "message" or field.nullable or field.shared or field.label not in ("single", "optional"):
            continue
        assert field.of is not None
        if field.of in (*path, shape.cls):
            raise shape.cls.__source__.mistake(
                shape.cls.__qualname__, field.attribute, f"contains {field.of.__name__} without end: add `| None`"
            )
        _check_that_it_ends(found[field.of], found, (*path, shape.cls))


@dataclass_transform()
class Message(_core.MessageBase, metaclass=_MessageMeta):
    """The base of your messages: annotated fields, protobuf on the wire.

    ::

        class Move(Message):
            seq: u32
            dx: f32
            dy: f32 = 0.0
            tags: list[str] = []
            target: Point | None = None

    Fields are `bool`, `str`, `bytes`, the numbers (`u32`, `f32`, `s64`, ...), enums of integers, other messages,
    ``list[T]``, ``dict[K, V]`` and ``T | None``; ``A | B`` of messages is one of them. ``Annotated[f32, Range(-1, 1)]`` and
    ``MaxLen`` narrow values, ``Field(3)`` gives a number; else the numbers follow the order of the lines.

    A field that a body lacks has its default: the one that the class gives, else 0, ``""``, an empty list, a message of
    such. (A default that is not protobuf's own makes the field ``optional`` in the `.proto`.)

    ``class Moved(Message, delivery=LATEST.by("who"))`` says how it is pushed to clients that are slow: see `Delivery`.

    Instances compare by value, match by position, copy and pickle. They cannot be hashed. The garbage collector does not
    know them, except where a message can contain itself.

    Example:
        >>> from gameserver import Message, f32, u32
        >>> class Move(Message):
        ...     seq: u32
        ...     dx: f32
        ...     dy: f32 = 0.0
        >>> move = Move(7, dx=0.5)
        >>> move.encode().hex(" ")
        '08 07 15 00 00 00 3f'
        >>> Move.decode(move.encode())
        Move(seq=7, dx=0.5, dy=0.0)
    """

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()
    __shape__: ClassVar[MessageShape | None] = None
    __delivery__: ClassVar[Delivery] = RELIABLE
