"""`Message`: classes, instances, the wire, JSON, `.proto` files, `_pb2` classes."""

from __future__ import annotations

import copy
import enum
import gc
import pickle
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from google.protobuf import descriptor_pb2, struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from schemas import new_class

from gameserver import (
    Field,
    MaxLen,
    Message,
    Range,
    f32,
    f64,
    i8,
    load_protos,
    u8,
    u16,
    u32,
    u64,
)
from gameserver._message import describe, shape_of
from gameserver._protos import is_pb2, pb2_decode, pb2_encode, pb2_schema
from gameserver.errors import ProtocolError, SchemaError


class Team(enum.Enum):
    NONE = 0
    RED = 1
    BLUE = 2


class Point(Message):
    x: f32
    y: f32 = 0.0


class Move(Message):
    VERSION: ClassVar[int] = 3

    seq: u32
    dx: Annotated[f32, Range(-1, 1)]
    name: Annotated[str, MaxLen(5)] = "?"
    tags: Annotated[list[str], MaxLen(3)] = []
    at: Point | None = None
    by_name: dict[str, Point] = {}
    team: Team = Team.NONE

    def speed(self) -> float:
        return self.dx * self.VERSION


class Jump(Message):
    height: f32


class Input(Message):
    action: Move | Jump
    other: Jump | Point | None = None


class Tree(Message):
    branches: list[Tree] = []
    parent: Tree | None = None


class Hero(Point):
    hp: u16 = 100


FULL = Move(7, 0.5, "abc", ["a", "b"], Point(1, 2), {"k": Point(3)}, Team.BLUE)


def test_instances_are_constructed_as_the_checker_says() -> None:
    assert Move(1, dx=0.5) == Move(seq=1, dx=0.5, name="?", tags=[], at=None, by_name={}, team=Team.NONE)
    wrong: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((1,), {}, r"Move\(\) needs 'dx'"),
        ((), {"name": "x"}, r"Move\(\) needs 'seq', 'dx'"),
        ((1, 2), {"dy": 1}, r"Move\(\) got an unexpected keyword argument 'dy'"),
        ((1, 2), {"dx": 1}, r"Move\(\) got multiple values for argument 'dx'"),
        (tuple(range(8)), {}, r"Move\(\) takes at most 7 positional arguments \(8 given\)"),
    ]
    for arguments, named, text in wrong:
        with pytest.raises(TypeError, match=text):
            Move(*arguments, **named)
    name = "".join(["d", "x"])  # not the interned one
    named = {name: 0.5}
    assert Move(1, **named).dx == 0.5


def test_lists_dicts_and_messages_of_defaults_are_each_instances_own() -> None:
    class Bag(Message):
        items: list[u32] = []
        by: dict[u32, u32] = {}
        at: Tree = Tree([Tree()])

    one, two = Bag(), Bag()
    one.items.append(1)
    one.by[1] = 1
    one.at.branches.append(Tree())
    assert two == Bag() == Bag.decode(b"")
    assert one != two


def test_instances_compare_show_copy_pickle_and_match() -> None:
    assert repr(FULL) == (
        "Move(seq=7, dx=0.5, name='abc', tags=['a', 'b'], at=Point(x=1, y=2), by_name={'k': Point(x=3, y=0.0)}, "
        "team=<Team.BLUE: 2>)"
    )
    assert Move(7, 0.5) != FULL
    assert Point(1, 2) != Hero(1, 2)
    assert Point(1, 2) != (1, 2)  # type: ignore[comparison-overlap]
    shallow, deep = copy.copy(FULL), copy.deepcopy(FULL)
    assert shallow == deep == FULL
    assert shallow.tags is FULL.tags
    assert deep.tags is not FULL.tags
    assert deep.at is not FULL.at
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(FULL, protocol)) == FULL
    assert FULL.__replace__(seq=8) == Move(8, 0.5, "abc", ["a", "b"], Point(1, 2), {"k": Point(3)}, Team.BLUE)
    with pytest.raises(TypeError, match="no field sq"):
        FULL.__replace__(sq=8)
    match FULL:
        case Move(7, dx, at=Point(x, y)):
            assert (dx, x, y) == (0.5, 1, 2)
        case _:
            pytest.fail("no match")
    with pytest.raises(TypeError, match="unhashable"):
        hash(FULL)
    with pytest.raises(AttributeError):
        FULL.sqe = 1  # type: ignore[attr-defined]
    assert FULL.speed() == 1.5


def test_the_wire_gives_back_what_it_got() -> None:
    for message in (FULL, Input(Jump(2)), Input(FULL, Point(1)), Tree([Tree(), Tree([Tree()])], Tree()), Hero(1, 2, 3)):
        assert type(message).decode(message.encode()) == message
    assert Move.decode(bytearray(FULL.encode())) == FULL
    assert Point(1).encode().hex() == "0d0000803f"


def test_a_field_that_is_not_there_has_its_default() -> None:
    class Stats(Message):
        name: str
        at: Point
        team: Team
        data: bytes
        items: list[u32]
        by: dict[str, u32]
        maybe: u32 | None

    assert Stats.decode(b"") == Stats("", Point(0, 0), Team.NONE, b"", [], {}, None)
    assert Move.decode(b"") == Move(0, 0.0)
    assert Hero.decode(b"").hp == 100
    assert Hero(0, 0, 0).encode() != Hero(0, 0).encode() != b""
    assert Hero.decode(Hero(0, 0, 0).encode()).hp == 0
    assert shape_of(Hero).fields[2].label == "optional"  # so any client can tell 0 from "not there"


def test_defaults_come_last() -> None:
    with pytest.raises(SchemaError, match=r"test_message.py:\d+: .*Late.b: a field without a default"):

        class Late(Message):
            a: u32 = 1
            b: u32  # type: ignore[misc]


def test_bodies_of_strangers_are_refused_with_the_field() -> None:
    deep = Tree()
    for _ in range(40):
        deep = Tree(parent=deep)
    body = b""
    for _ in range(40):
        body = b"\x12" + bytes([len(body)]) + body
    cases: list[tuple[type[Message], bytes, type[Exception], str]] = [
        (Move, b"\x15\x00\x00\xc0\x7f", SchemaError, "Move.dx: NaN is not a finite number"),
        (Move, b"\x15\x00\x00\x00\x40", SchemaError, "Move.dx: 2 is not in -1 to 1"),
        (Move, b"\x1a\x06abcdef", SchemaError, "Move.name: more than 5 characters"),
        (Move, b"\x22\x00" * 4, SchemaError, "Move.tags: more than 3"),
        (Move, b"\x3a\x05\x15\x00\x00", ProtocolError, "Move"),
        (Move, b"\x38\x09", SchemaError, "Move.team: 9 is no value of enum Team"),
        (Move, b"\x1a\x01\xff", ProtocolError, "UTF-8"),
        (Move, b"\x08", ProtocolError, "Move.seq"),
        (Input, b"", SchemaError, "Input.action: one of its messages is needed"),
        (Tree, body, ProtocolError, "more than 32 deep"),
    ]
    for cls, data, error, text in cases:
        with pytest.raises(error, match=text):
            cls.decode(data)
    with pytest.raises(ValueError, match="more than 32 deep"):
        deep.encode()
    with pytest.raises(TypeError):
        Move.decode("text")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "error", "text"),
    [
        (Move("a", 1), TypeError, r"Move.seq: expected an integer, not 'a' \(str\)"),  # type: ignore[arg-type]
        (Move(1.5, 1), TypeError, "Move.seq: expected an integer, not 1.5"),  # type: ignore[arg-type]
        (Move(-1, 1), ValueError, "Move.seq: -1 .* does not fit 32 bits, unsigned"),
        (Move(2**32, 1), ValueError, "Move.seq: 4294967296 .* does not fit"),
        (Move(2**70, 1), ValueError, "Move.seq: .* does not fit 64 bits"),
        (Move(1, None), TypeError, "Move.dx: expected a number, not None"),  # type: ignore[arg-type]
        (Move(1, "1"), TypeError, "Move.dx: expected a number, not '1'"),  # type: ignore[arg-type]
        (Move(1, 1.5), ValueError, "Move.dx: 1.5 is not in -1 to 1"),
        (Move(1, float("nan")), ValueError, "Move.dx: NaN is not a finite number"),
        (Point(1e300), ValueError, "Point.x: 1e\\+300 .* does not fit a float of 32 bits"),
        (Point(10**400), ValueError, "Point.x: 1000.* does not fit a float"),
        (Move(1, 1, "abcdef"), ValueError, "Move.name: more than 5 characters"),
        (Move(1, 1, b"abc"), TypeError, "Move.name: expected a str"),  # type: ignore[arg-type]
        (Move(1, 1, "\ud800"), ValueError, "Move.name: .* not valid Unicode"),
        (Move(1, 1, tags="abc"), TypeError, "Move.tags: expected a list, not 'abc'"),  # type: ignore[arg-type]
        (Move(1, 1, tags=[1]), TypeError, r"Move.tags: expected a str, not 1 \(int\)"),  # type: ignore[list-item]
        (Move(1, 1, tags=["a"] * 4), ValueError, "Move.tags.*: more than 3"),
        (Move(1, 1, at=Jump(1)), TypeError, "Move.at: expected Point, not Jump"),  # type: ignore[arg-type]
        (Move(1, 1, by_name=[]), TypeError, "Move.by_name: expected a dict"),  # type: ignore[arg-type]
        (Move(1, 1, by_name={1: Point(1)}), TypeError, "Move.by_name: expected a str"),  # type: ignore[dict-item]
        (Move(1, 1, team="RED"), TypeError, "Move.team: expected Team, not 'RED'"),  # type: ignore[arg-type]
        (Move(1, 1, team=7), ValueError, "Move.team: 7 .* does not fit Team"),  # type: ignore[arg-type]
        (Input(Point(1)), TypeError, r"Input.action: expected Move or Jump, not Point"),  # type: ignore[arg-type]
        (Input(None), TypeError, "Input.action: expected Move or Jump, not None"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_value_raises_when_it_is_encoded(message: Message, error: type[Exception], text: str) -> None:
    for act in (message.encode, message.to_dict):
        with pytest.raises(error, match=text):
            act()


def test_values_of_other_numeric_types_are_taken() -> None:
    class Index:
        def __index__(self) -> int:
            return 5

    class Mix(Message):
        number: u32
        real: f64
        flag: bool

    mixed = Mix(Index(), Index(), 1)  # type: ignore[arg-type]
    assert Mix.decode(mixed.encode()) == Mix(5, 5.0, True)
    with pytest.raises(TypeError, match="Mix.flag: expected a bool, not 2"):
        Mix(1, 1, 2).encode()  # type: ignore[arg-type]


def test_game_code_may_change_a_message_while_it_is_encoded() -> None:
    class Wicked:
        def __init__(self, act: Any) -> None:
            self.act = act

        def __index__(self) -> int:
            self.act()
            return 1

    class Numbers(Message):
        items: list[u32]
        by: dict[u32, u32] = {}
        point: Point | None = None

    message = Numbers([])
    message.items = [Wicked(lambda: message.items.clear()), 2, 3]  # type: ignore[list-item]
    assert Numbers.decode(message.encode()).items == [1]
    message.items = [Wicked(lambda: setattr(message, "items", None)), 2]  # type: ignore[list-item]
    assert Numbers.decode(message.encode()).items == [1, 2]
    message = Numbers([], {1: Wicked(lambda: message.by.clear())})  # type: ignore[dict-item]
    with pytest.raises(RuntimeError, match="changed while"):
        message.encode()

    class Raises:
        def __index__(self) -> int:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Numbers([Raises()]).encode()  # type: ignore[list-item]


def test_the_collector_does_not_know_messages_that_cannot_contain_themselves() -> None:
    def known(cls: type) -> bool:
        return bool(cls.__flags__ & 1 << 14)

    assert [known(cls) for cls in (Point, Move, Jump, Input, Hero, Tree)] == [False] * 5 + [True]
    body = FULL.encode()
    gc.collect()
    before = len(gc.get_objects())
    kept = [Move.decode(body) for _ in range(50)]
    # Lists and dicts of the messages are known, as any; the messages are not.
    assert len(gc.get_objects()) - before < 3 * 50
    assert not any(gc.is_tracked(message) for message in kept)


def test_a_message_within_itself_is_collected() -> None:
    class Loop(Message):
        next: Loop | None = None
        witness: Loop | None = None

    class Witness:
        pass

    witness = Witness()
    gone = weakref.ref(witness)
    loop = Loop(Loop())
    assert loop.next is not None
    loop.next.next = loop
    loop.witness = witness  # type: ignore[assignment]
    assert "Loop(...)" in repr(Loop(loop))
    del loop, witness
    gc.collect()
    assert gone() is None


def test_deep_chains_are_freed_without_the_stack() -> None:
    top: Tree | None = None
    for _ in range(200_000):
        top = Tree(parent=top)
    del top
    wrong: Any = None
    for _ in range(200_000):
        wrong = Point(wrong)
    del wrong


def test_classes_are_collected_and_take_their_instances_memory_with_them() -> None:
    def make() -> weakref.ref[type]:
        cls = new_class("Gone", {"x": f32, "team": Team, "at": Point | None}, at=Point(1))
        cls.decode(cls(x=1, team=Team.RED).encode())
        return weakref.ref(cls)

    gone = make()
    gc.collect()
    assert gone() is None


def test_a_class_may_have_a_constructor_of_its_own() -> None:
    class Doubled(Message):
        a: u32
        b: u32 = 3

        def __init__(self, half: int) -> None:
            super().__init__(a=2 * half)

    assert Doubled(4).a == 8
    assert Doubled.decode(Doubled(4).encode()) == Doubled(4)
    assert pickle.loads(pickle.dumps(Move(1, 1))) == Move(1, 1)
    assert copy.copy(Doubled(4)) == Doubled(4)


def test_numbers_are_given_or_follow() -> None:
    class Numbered(Message):
        a: Annotated[u32, Field(5)]
        b: u32
        action: Annotated[Move | Jump, Field(1, 9)]
        c: u32

    assert [(field.name, field.number) for field in shape_of(Numbered).fields] == [
        ("a", 5),
        ("b", 6),
        ("move", 1),
        ("jump", 9),
        ("c", 10),
    ]
    assert [field.number for field in shape_of(Hero).fields] == [1, 2, 3]


@pytest.mark.parametrize(
    ("annotations", "defaults", "text"),
    [
        ({"a": Annotated[u32, Field(2)], "b": Annotated[u32, Field(2)]}, {}, "b: number 2 is a's already"),
        ({"a": Annotated[u32, Field(0)]}, {}, "a: number 0: 1 to 536870911"),
        ({"a": Annotated[u32, Field(19_000)]}, {}, "a: number 19000"),
        ({"a": Annotated[Move | Jump, Field(1)]}, {}, "a: 2 types want as many numbers"),
        ({"a": int}, {}, "a: int is not a field's type: say how wide it is: u32"),
        ({"a": float}, {}, "a: float is not a field's type: say how wide it is: f32"),
        ({"a": object}, {}, "a: object is not a field's type"),
        ({"a": list}, {}, "a: list is not a field's type"),
        ({"a": list[list[u32]]}, {}, "make it a field of a message"),
        ({"a": list[u32] | None}, {}, "a list or dict cannot be None"),
        ({"a": dict[f32, u32]}, {}, "a map's keys are integers, bool or str"),
        ({"a": u32 | str}, {}, "of several types, each has to be a message"),
        ({"a": Annotated[u32, MaxLen(3)]}, {}, "MaxLen is for str, bytes, list and dict"),
        ({"a": Annotated[str, Range(0, 1)]}, {}, "Range is for numbers"),
        ({"a": Annotated[u32, Range(-1, 1)]}, {}, "uint32 holds whole numbers, 0 to 4294967295"),
        ({"a": Annotated[u32, Range(2, 1)]}, {}, "holds nothing"),
        ({"a": Annotated[u32, Range]}, {}, "Range wants its values"),
        ({"a": enum.Enum("Late", {"ONE": 1})}, {}, "Late has no member of value 0"),
        ({"a": enum.Enum("Texts", {"ONE": "one"})}, {}, "an enum's values are integers"),
        ({"a": enum.IntFlag("Flags", {"ONE": 1})}, {}, "a set of flags is no enum"),
        ({"encode": u32}, {}, "encode: this is the name of a method"),
        ({"_a": u32}, {}, "_a: a field's name"),
        ({"a": u32}, {"a": "text"}, "default of Wrong.a: expected an integer, not 'text'"),
        ({"a": u8}, {"a": 256}, "default of Wrong.a: 256 is not in 0 to 255"),
        ({"a": u32}, {"a": None}, "a: the default is None, the type is not"),
        ({"a": list[u32]}, {"a": [1]}, "the default of a list or dict can only be an empty one"),
        ({"a": "list["}, {}, "its annotations cannot be read"),
    ],
)
def test_a_mistake_is_found_where_the_class_is(annotations: Any, defaults: Any, text: str) -> None:
    with pytest.raises(SchemaError, match=text) as caught:
        new_class("Wrong", annotations, **defaults)
    assert "schemas.py:" in str(caught.value) or "default of" in str(caught.value)


def test_a_mistake_names_file_and_line(tmp_path: Path) -> None:
    game = tmp_path / "game.py"
    game.write_text("from gameserver import Message, u32\n\n\nclass Move(Message):\n    a: u32\n    b: int\n")
    done = subprocess.run([sys.executable, str(game)], capture_output=True, text=True, check=False)
    assert f"SchemaError: {game}:6: Move.b: int is not a field's type" in done.stderr


def test_what_an_annotation_names_may_come_later() -> None:
    class First(Message):
        second: Second | None = None

    with pytest.raises(SchemaError, match=r"test_message.py:\d+: .*First: name 'Second' is not defined"):
        First.decode(b"")

    class Second(Message):
        first: list[First] = []

    nested = First(Second([First()]))
    assert First.decode(nested.encode()) == nested

    class Endless(Message):
        inner: Endless

    with pytest.raises(SchemaError, match=r"Endless.inner: contains .* without end: add `\| None`"):
        Endless.decode(b"")


def test_no_two_messages_share_a_name() -> None:
    one, two = new_class("Same", {"a": u32}), new_class("Same", {"b": u32})
    with pytest.raises(SchemaError, match="Same is the name of"):
        new_class("Both", {"one": one, "two": two})


def test_mixins_bring_no_dict() -> None:
    class Mixin:
        pass

    with pytest.raises(SchemaError, match="__slots__"):

        class Mixed(Message, Mixin):
            a: u32

    class Slim:
        __slots__ = ()

        def twice(self) -> int:
            return 2 * self.a  # type: ignore[attr-defined, no-any-return]

    class Fine(Message, Slim):
        a: u32

    assert Fine.decode(Fine(4).encode()).twice() == 8


def test_message_itself_is_no_message() -> None:
    for act in (lambda: Message.decode(b""), lambda: Message().encode(), lambda: Message.from_json("{}")):
        with pytest.raises(SchemaError, match="subclass it"):
            act()


def test_numbers_narrower_than_protobufs() -> None:
    class Narrow(Message):
        a: i8
        b: u8

    assert Narrow.decode(Narrow(-128, 255).encode()) == Narrow(-128, 255)
    with pytest.raises(ValueError, match="Narrow.a: 128 is not in -128 to 127"):
        Narrow(128, 0).encode()
    with pytest.raises(SchemaError, match="Narrow.b: 300 is not in 0 to 255"):
        Narrow.decode(bytes.fromhex("10ac02"))


def test_json_has_the_declared_names_and_takes_both() -> None:
    assert FULL.to_dict() == {
        "seq": 7,
        "dx": 0.5,
        "name": "abc",
        "tags": ["a", "b"],
        "at": {"x": 1.0, "y": 2.0},
        "by_name": {"k": {"x": 3.0, "y": 0.0}},
        "team": "TEAM_BLUE",
    }
    assert Move.from_json(FULL.to_json()) == FULL
    assert Move.from_json('{"byName": {"k": {"x": 3}}, "team": 2, "unknown": [1]}').by_name == {"k": Point(3)}
    assert Input(Jump(1)).to_dict() == {"jump": {"height": 1.0}}
    assert Input.from_json('{"jump": {"height": 1}, "other_jump": {"height": 2}}') == Input(Jump(1), Jump(2))


@pytest.mark.parametrize(
    ("cls", "text", "error", "what"),
    [
        (Move, "[1]", SchemaError, "Move: expected an object"),
        (Move, "{", ProtocolError, "Move: not JSON"),
        (Move, '{"dx": 2}', SchemaError, "Move.dx: 2 is not in -1 to 1"),
        (Move, '{"dx": "NaN"}', SchemaError, "Move.dx: NaN is not a finite number"),
        (Move, '{"seq": -1}', SchemaError, "Move.seq: -1 .* does not fit 32 bits"),
        (Move, '{"seq": 1.5}', SchemaError, "Move.seq: expected an integer, not 1.5"),
        (Move, '{"seq": true}', SchemaError, "Move.seq: expected an integer, not True"),
        (Move, '{"tags": ["a", 1]}', SchemaError, r"Move.tags\[1\]: expected a text, not 1"),
        (Move, '{"by_name": {"k": {"x": "a"}}}', SchemaError, r"Move.by_name\[k\].x: expected a number, not 'a'"),
        (Move, '{"team": "TEAM_GREEN"}', SchemaError, "Move.team: expected a value of Team"),
        (Move, '{"by_name": {}, "byName": {}, "at": {}, "name": "abcdef"}', SchemaError, "Move.name: more than 5"),
        (Input, '{"jump": {}, "move": {}}', SchemaError, "Input.move: comes twice, or is another member"),
        (Input, "{}", SchemaError, "Input.action: one of its messages is needed"),
        (Tree, '{"parent":' * 40 + "{}" + "}" * 40, SchemaError, "more than 32 objects"),
        (Tree, '{"parent":' * 5000 + "{}" + "}" * 5000, (SchemaError, ProtocolError), "Tree"),
        (Move, b"\xff", ProtocolError, "not JSON"),
    ],
)
def test_json_of_strangers_is_refused_with_the_field(
    cls: type[Message], text: str, error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        cls.from_json(text)


PROTO = """
syntax = "proto3";
package arena;
import "google/protobuf/timestamp.proto";
enum Team { RED = 0; BLUE = 1; }
message Move {
  message Item { string name = 1; Move within = 2; }
  float dx = 1;
  optional uint32 seq = 3;
  Team team = 4;
  repeated Item items = 5;
  oneof what { Item one = 6; string text = 7; }
  google.protobuf.Timestamp at = 8;
  int32 encode = 9;
}
"""


def test_proto_files_give_classes_with_the_same_abilities(tmp_path: Path) -> None:
    (tmp_path / "arena.proto").write_text(PROTO)
    messages = load_protos(tmp_path)
    move_class, item = messages.Move, messages.Move.Item
    assert messages["arena.Move"] is move_class
    assert messages.Timestamp is messages["google.protobuf.Timestamp"]
    move = move_class(dx=0.5, items=[item("a")], text="hi", at=messages.Timestamp(5))
    assert move_class.decode(Message.encode(move)) == move
    assert move_class() == move_class.decode(b"")
    assert (move.seq, move.one, move.team) == (None, None, messages.Team.RED)
    assert move_class.decode(b"\x20\x63").team == 99  # enums of proto3 are open
    assert move_class.from_json(move.to_json()) == move
    assert move_class.decode(Message.encode(move) + b"\x32\x00").text is None  # the last one of a oneof counts
    with pytest.raises(ValueError, match="Move.one: text is set too"):
        Message.encode(move_class(one=item(), text="x"))
    with pytest.raises(AttributeError, match="declare no Mvoe; there are Move"):
        _ = messages.Mvoe
    with pytest.raises(SchemaError, match="not a finite number"):
        move_class.decode(b"\x0d\x00\x00\xc0\x7f")
    assert load_protos(tmp_path / "arena.proto", finite=False).Move.decode(b"\x0d\x00\x00\x80\x7f").dx == float("inf")


def test_mistakes_in_proto_files_have_file_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="no .proto file"):
        load_protos(tmp_path)
    with pytest.raises(SchemaError, match="no such file"):
        load_protos(tmp_path / "x.proto")
    (tmp_path / "bad.proto").write_text('syntax = "proto3";\nmessage X { Foo a = 1; }\n')
    with pytest.raises(SchemaError, match="bad.proto:2:13: name 'Foo' is not defined"):
        load_protos(tmp_path)
    (tmp_path / "bad.proto").write_text('syntax = "proto3";\nmessage X { int32 __a = 1; }\n')
    with pytest.raises(SchemaError, match="X.__a"):
        load_protos(tmp_path)


def test_generated_classes_are_known_and_read_by_google() -> None:
    assert is_pb2(Timestamp)
    assert not any(map(is_pb2, (Move, int, None, Timestamp())))
    stamp = Timestamp(seconds=5)
    assert pb2_decode(Timestamp, pb2_encode(stamp)) == stamp
    with pytest.raises(ProtocolError, match="google.protobuf.Timestamp"):
        pb2_decode(Timestamp, b"\x08")
    messages, _ = pb2_schema(Timestamp, struct_pb2.Struct, descriptor_pb2.FileDescriptorProto)
    fields = dict(messages)
    assert [field[:4] for field in fields["google.protobuf.Timestamp"]] == [
        ("seconds", 1, "int64", "single"),
        ("nanos", 2, "int32", "single"),
    ]
    program = "import sys, gameserver; from gameserver._protos import is_pb2; is_pb2(int); print('google.protobuf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_description_is_of_plain_values() -> None:
    description = describe(Input)
    assert [shape.name for shape in description.messages] == ["Input", "Move", "Jump", "Point"]
    (team,) = description.enums
    assert team.values == (("TEAM_NONE", 0), ("TEAM_RED", 1), ("TEAM_BLUE", 2))
    assert [(field.name, field.attribute, field.oneof) for field in description.messages[0].fields] == [
        ("move", "action", "action"),
        ("jump", "action", "action"),
        ("other_jump", "other", "other"),
        ("point", "other", "other"),
    ]


def test_a_message_of_another_type_of_number_keeps_its_width() -> None:
    class Wide(Message):
        a: u64

    assert Wide.decode(Wide(2**64 - 1).encode()).a == 2**64 - 1
    with pytest.raises(ValueError, match="does not fit 64 bits"):
        Wide(2**64).encode()
