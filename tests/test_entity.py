"""Entity classes: what their annotations become, and what is said of mistakes."""

from __future__ import annotations

import re
from enum import Enum, IntEnum, IntFlag
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest

import gameserver as gs
from gameserver import (
    ALL,
    NOBODY,
    OTHERS,
    OWNER,
    Entity,
    MaxLen,
    Message,
    Range,
    SchemaError,
    World,
    dvec3,
    f32,
    f64,
    sync,
    u8,
    u16,
    u64,
    vec2,
)
from gameserver._entity import table_of

ENTITY_TYPE: Any = type(Entity)  # classes made of what a program has computed


class Team(Enum):
    NONE = 0
    RED = -7
    BLUE = 300_000


class Level(IntEnum):
    LOW = 5
    HIGH = 6


class Everything(Entity):
    x: f32 = sync(1, quantize=0.01, interpolate=True)
    y: f32 = sync(quantize=0.5)
    hp: u16 = sync(100, rate=5)
    gold: u16 = sync(0, to=OWNER)
    aim: dvec3 = sync((1, 2, 3), to=OTHERS)
    secret: u64 = sync(2**64 - 1, to=NOBODY)
    at: vec2
    team: Team = Team.RED
    level: Level = sync()
    name: Annotated[str, MaxLen(5)] = "ünd"
    raw: Annotated[bytes, MaxLen(3)] = sync(b"\0a")
    hand: Annotated[list[u8], MaxLen(4)] = sync([1, 255])
    curve: Annotated[list[f64], MaxLen(2)]
    target: Everything | None = None
    friend: Later | None = None
    is_on: bool = True
    count: ClassVar[int] = 3


class Later(Entity, table="global"):
    back: Everything | None = None


def test_annotations_become_columns() -> None:
    table = table_of(Everything)
    assert (table.name, table.position, table.is_global, table.cls) == ("Everything", ("x", "y"), False, Everything)
    said = [(c.name, c.kind, c.item, c.length, c.default, c.is_required) for c in table.columns]
    assert said == [
        ("x", "f32", "", 1, 1.0, False),
        ("y", "f32", "", 1, 0.0, False),
        ("hp", "u16", "", 1, 100, False),
        ("gold", "u16", "", 1, 0, False),
        ("aim", "vector", "f64", 3, (1.0, 2.0, 3.0), False),
        ("secret", "u64", "", 1, 2**64 - 1, False),
        ("at", "vector", "f32", 2, (0.0, 0.0), True),
        ("team", "enum", "", 1, -7, False),
        ("level", "enum", "", 1, 5, False),
        ("name", "str", "", 5, "ünd", False),
        ("raw", "bytes", "", 3, b"\0a", False),
        ("hand", "list", "u8", 4, [1, 255], False),
        ("curve", "list", "f64", 2, [], True),
        ("target", "entity", "", 1, None, False),
        ("friend", "entity", "", 1, None, False),
        ("is_on", "bool", "", 1, True, False),
    ]
    columns = {c.name: c for c in table.columns}
    assert (columns["x"].quantize, columns["x"].interpolate, columns["y"].quantize) == (0.01, True, 0.5)
    assert [columns[name].to for name in ("hp", "gold", "aim", "secret")] == [ALL, OWNER, OTHERS, NOBODY]
    assert (columns["hp"].rate, columns["x"].rate) == (5, None)
    assert (columns["team"].of, columns["target"].of, columns["friend"].of) == (Team, Everything, Later)


@pytest.mark.parametrize("kind", ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"])
def test_whole_numbers_have_their_range(kind: str) -> None:
    scalar = getattr(gs, kind)
    bits = int(kind[1:])
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind[0] == "i" else (0, 2**bits - 1)
    for default in (low, high):
        made = ENTITY_TYPE("Made", (Entity,), {"__annotations__": {"value": scalar}, "value": default})
        assert table_of(made).columns[0].kind == kind
    for default in (low - 1, high + 1):
        with pytest.raises(SchemaError, match=f"out of range: {kind} holds {low} to {high}"):
            ENTITY_TYPE("Made", (Entity,), {"__annotations__": {"value": scalar}, "value": default})


def test_a_class_adds_to_its_base() -> None:
    class Base(Entity):
        x: f32 = 0.0
        y: f32 = 0.0

    class Boss(Base):
        rage: u8

    assert [column.name for column in table_of(Boss).columns] == ["x", "y", "rage"]
    assert table_of(Boss).position == ("x", "y")


def test_a_class_says_where_its_entities_are() -> None:
    class Tank(Entity, position=("px", "py")):
        px: f32 = 0.0
        py: f64 = 0.0

    class Bird(Entity, position="at"):
        at: gs.vec3 = (0, 0, 0)

    class Score(Entity, table="global"):
        x: f32 = 0.0
        y: f32 = 0.0

    class Clock(Entity):
        time: f32 = 0.0

    class Small(Tank):
        pass

    found = [table_of(cls).position for cls in (Tank, Bird, Score, Clock, Small)]
    assert found == [("px", "py"), ("at",), (), (), ("px", "py")]


class Chat(Message):
    text: str


class Flags(IntFlag):
    A = 1


def entity(annotation: Any, *default: Any, **options: Any) -> Any:
    body = {"__annotations__": {"value": annotation}, "__module__": __name__, "__qualname__": "Made"}
    return ENTITY_TYPE("Made", (Entity,), body | ({"value": default[0]} if default else {}), **options)


@pytest.mark.parametrize(
    ("annotation", "default", "text"),
    [
        (int, 0, "int is not a column's type: say how wide it is: u8"),
        (float, 0, "say how wide it is: f32 or f64"),
        (str, "", "say how much room it has: Annotated[str, MaxLen(16)]"),
        (list[u8], [], "has no bound"),
        (Annotated[list[str], MaxLen(3)], [], "a column's list is of numbers"),
        (dict[str, int], {}, "is not a column's type: a column is a number"),
        (Chat, None, "Chat is not a column's type"),
        (Flags, Flags.A, "a set of flags is no enum here"),
        (Everything, None, "an entity may be gone: write Everything | None"),
        (Everything | Later | None, None, "is not a column's type"),
        (Annotated[str, MaxLen(0)], "", "MaxLen(0): 1 to 65535"),
        (Annotated[str, MaxLen(4)], "ünde", "has 5 bytes, MaxLen allows 4"),
        (Annotated[str, MaxLen(4)], "a\0", "NUL"),
        (Annotated[str, MaxLen], "", "MaxLen wants its value"),
        (Annotated[f32, Range(0, 1)], 0, "Range is for messages"),
        (Annotated[f32, MaxLen(3)], 0, "MaxLen is for str, bytes and list"),
        (u8, 256, "out of range: u8 holds 0 to 255"),
        (u8, -1, "out of range"),
        (u8, True, "the default True is no u8"),
        (u8, 1.0, "the default 1.0 is no u8"),
        (f32, float("nan"), "not a finite f32"),
        (f32, 1e39, "not a finite f32"),
        (f32, "1", "the default '1' is no f32"),
        (vec2, (1, 2, 3), "has 3 numbers, the vector 2"),
        (vec2, (1, "a"), "is no f32"),
        (Team, 0, "the default 0 is no Team"),
        (bool, 1, "the default 1 is no bool"),
        (Annotated[list[u8], MaxLen(1)], [1, 2], "has 2 numbers, MaxLen allows 1"),
        (Annotated[list[u8], MaxLen(1)], [256], "out of range"),
        (u8, sync(0, quantize=0.1), "quantize=0.1: it is for f32, f64 and vectors"),
        (f32, sync(0, quantize=0), "the step between two values, above 0"),
        (f32, sync(0, to="owner"), "to='owner': ALL, OWNER, OTHERS or NOBODY"),  # type: ignore[call-overload]
        (f32, sync(0, rate=0), "rate=0: times a second, above 0"),
        (f32, sync(0, interpolate=1), "interpolate=1: True or False"),  # type: ignore[call-overload]
    ],
)
def test_a_mistake_in_a_column_says_what_and_what_may_stand(annotation: Any, default: Any, text: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(text)) as caught:
        entity(annotation, default)
    assert str(caught.value).startswith(f"{__file__}:")
    assert "Made.value: " in str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"spatial": True}, "spatial=: no such option of an entity class; there are table, position"),
        ({"table": "local"}, "table='local': 'spatial' or 'global'"),
        ({"table": "spatial"}, "a spatial table has columns x and y, or says position="),
        ({"position": ("value", "other")}, "there is no column other"),
        ({"position": ("value",)}, "a position is two numbers"),
        ({"position": 3}, "position=3: the names of two columns"),
        ({"position": "value", "table": "global"}, "a global table has no position"),
    ],
)
def test_a_mistake_in_a_class_option_says_so(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(text)):
        entity(f32, 0, **options)


def test_a_mistake_names_the_line_of_its_column() -> None:
    with pytest.raises(SchemaError) as caught:

        class Broken(Entity):
            fine: u8
            wrong: u8 = 300

    file, line, _ = str(caught.value).split(":", 2)
    source = Path(file).read_text().splitlines()
    assert "wrong: u8 = 300" in source[int(line) - 1]


def test_what_an_entity_class_may_not_have() -> None:
    bodies: list[tuple[dict[str, Any], str]] = [
        ({"__slots__": ()}, "leave __slots__ out"),
        ({"__init__": lambda self: None}, "leave __init__ out"),
        ({"__del__": lambda self: None}, "leave __del__ out"),
        ({"__annotations__": {"owner": u8}}, "every Entity has a member of this name"),
        ({"__annotations__": {"_x": u8}}, "begins with a letter"),
    ]
    for body, text in bodies:
        with pytest.raises(SchemaError, match=text):
            ENTITY_TYPE("Made", (Entity,), body)

    class Base(Entity):
        x: f32 = 0.0

    with pytest.raises(SchemaError, match="Base has this column already"):
        ENTITY_TYPE("Made", (Base,), {"__annotations__": {"x": f32}})
    with pytest.raises(SchemaError, match="subclass it"):
        table_of(Entity)


def test_what_a_column_names_must_be_there_when_the_class_is_used() -> None:
    class Lost(Entity):
        other: Nowhere | None = None  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(
        SchemaError, match=r"Lost: name 'Nowhere' is not defined: .* defined when the class is first used"
    ):
        World().spawn(Lost)


def test_an_entity_is_made_by_a_world_alone() -> None:
    with pytest.raises(TypeError, match=r"write world.spawn\(Everything, ...\)"):
        Everything(at=(0, 0), curve=[])
    with pytest.raises(TypeError, match="of no world"):
        Later().id  # noqa: B018
    assert repr(Later()) == "<Later of no world>"
