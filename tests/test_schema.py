"""`gameserver schema write` and `check`: a game's messages against their lock, as typed."""

from __future__ import annotations

import contextlib
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import EXAMPLES

from gameserver import cli
from gameserver._fields import FieldShape
from gameserver._lock import Locked, Reserved, _merged, _numbered, _without

HEAD = """
from __future__ import annotations
from enum import IntEnum
from typing import Annotated
from gameserver import App, Field, Message, Range, f32, f64, u32, u64, s32
app = App("My Arena!")
"""
POINT = "class Point(Message):\n    x: f32\n    y: f32\n"


class Game:
    """A game in a folder, whose messages change."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capture = folder, capture
        self.file = folder / "proto" / "my_arena.proto"

    def __call__(self, *words: str, code: str | None = None) -> tuple[int, list[str], str]:
        """Exit code, lines and what went to stderr of `gameserver schema` with these words."""
        if code is not None:
            (self.folder / "game.py").write_text(HEAD + textwrap.dedent(code))
        for name in [name for name in sys.modules if name.split(".")[0] in ("game", "rules")]:
            del sys.modules[name]
        with pytest.raises(SystemExit) as ended:
            cli.main(["schema", *words])
        out, err = self._capture.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out.splitlines(), err

    def write(self, code: str, *options: str) -> tuple[int, list[str], str]:
        return self("write", "game.py", *options, code=code)

    def check(self, code: str) -> list[str]:
        """Its lines; exit code 1 if there are any."""
        status, lines, err = self("check", "game.py", code=code)
        assert (status, err) == (1 if lines else 0, ""), (status, lines, err)
        return lines

    def locked(self, code: str) -> None:
        """Begins anew with this as the lock."""
        self.file.unlink(missing_ok=True)
        status, _, err = self.write(code)
        assert (status, err) == (0, "")
        assert self.check(code) == []


@pytest.fixture
def game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Game]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two texts of one second and one length
    yield Game(tmp_path, capsys)
    for name in ("game", "rules"):
        sys.modules.pop(name, None)


# --- write ------------------------------------------------------------------------------------------------------------


def test_the_first_lock(game: Game) -> None:
    code = """
    class Team(IntEnum):
        NONE = 0
        RED = 1
    class Point(Message):
        x: f32
        y: f32
    class Move(Message):
        path: list[Point]
        to: Point | None = None
        fast: f32 = 1.0
        team: Team = Team.NONE
        scores: dict[str, u64] = {}
        what: Point | Stop | None = None
    class Stop(Message):
        pass
    """
    status, lines, err = game.write(code)
    assert (status, lines, err) == (
        0,
        [f"proto/my_arena.proto: {name} is new" for name in ("Point", "Move", "Stop", "Team")],
        "",
    )
    text = game.file.read_text()
    assert text.startswith("// Written by `gameserver schema write`")
    assert text[text.index("syntax") :] == textwrap.dedent(
        """\
        syntax = "proto3";

        enum Team {
          TEAM_NONE = 0;
          TEAM_RED = 1;
        }

        message Point {
          float x = 1;
          float y = 2;
        }

        message Move {
          repeated Point path = 1;
          Point to = 2;
          optional float fast = 3;
          Team team = 4;
          map<string, uint64> scores = 5;
          oneof what {
            Point point = 6;
            Stop stop = 7;
          }
        }

        message Stop {
        }
        """
    )
    assert game.check(code) == []
    assert game.write(code) == (0, [], "")
    assert game.file.read_text() == text


def test_new_fields_and_messages_are_appended(game: Game) -> None:
    game.locked(POINT)
    more = POINT + "    z: f32 = 0.0\nclass Stop(Message):\n    pass\n"
    assert game.check(more) == [
        f"proto/my_arena.proto: {news}; run `gameserver schema write game.py`"
        for news in ("Point.z = 3 is new", "Stop is new")
    ]
    assert game.write(more) == (
        0,
        ["proto/my_arena.proto: Point.z = 3 is new", "proto/my_arena.proto: Stop is new"],
        "",
    )
    assert game.check(more) == []


def test_what_is_gone_is_reserved_and_stays_so(game: Game) -> None:
    game.locked("class M(Message):\n    a: f32\n    b: f32\n    c: f32\n    d: f32\n")
    last_two_gone = "class M(Message):\n    a: f32\n    b: f32\n"
    status, lines, _ = game.write(last_two_gone)
    assert (status, lines) == (
        0,
        ["proto/my_arena.proto: M.c = 3 is gone, and reserved", "proto/my_arena.proto: M.d = 4 is gone, and reserved"],
    )
    assert 'reserved 3 to 4;\n  reserved "c", "d";' in game.file.read_text()
    assert game.check(last_two_gone) == []

    # By its place the next one has a number that was taken once.
    e = last_two_gone + "    e: f32\n"
    assert game.check(e)[0] == (
        "game.py:10: M.e: number 3 was taken once in proto/my_arena.proto; write Annotated[..., Field(5)]"
    )
    status, lines, err = game.write(e)
    assert (status, lines[0]) == (1, "proto/my_arena.proto: M.e = 5 is new")
    assert err == "gameserver: the code and proto/my_arena.proto disagree until these lines are changed\n"
    assert game.check(last_two_gone + "    e: Annotated[f32, Field(5)]\n") == []

    # And a name is not used again.
    (line,) = game.check(last_two_gone + "    e: Annotated[f32, Field(5)]\n    c: f32\n")
    assert line.startswith(
        "game.py:11: M.c: proto/my_arena.proto had a field of this name once; choose another name, or"
    )


def test_the_lock_wins_over_the_order(game: Game) -> None:
    game.locked("class Move(Message):\n    dx: f32\n    dy: f32\n")
    status, lines, err = game.write("class Move(Message):\n    seq: u32\n    dx: f32\n    dy: f32\n")
    assert status == 1
    assert lines == [
        "proto/my_arena.proto: Move.seq = 3 is new",
        "game.py:8: Move.seq: number 1 is that of dx in proto/my_arena.proto; write Annotated[..., Field(3)]",
        "game.py:9: Move.dx: has number 2 in Python and 1 in proto/my_arena.proto; write Annotated[..., Field(1)]",
    ]
    assert "disagree" in err
    # What it said is all that is to be done: dy follows dx.
    done = """
    class Move(Message):
        seq: Annotated[u32, Field(3)]
        dx: Annotated[f32, Field(1)]
        dy: f32
    """
    assert game.check(done) == []


def test_a_field_that_would_follow_another_edit_is_named_too(game: Game) -> None:
    game.locked("class M(Message):\n    a: f32\n    b: f32\n    c: f32\n")
    new_in_place_of_b = "class M(Message):\n    a: f32\n    x: u32\n    c: f32\n"
    assert [line.split(": ", 1)[1] for line in game.check(new_in_place_of_b) if "Field" in line] == [
        "M.x: number 2 is that of b in proto/my_arena.proto; write Annotated[..., Field(4)]",
        "M.c: would follow the line above, and has number 3; write Annotated[..., Field(3)]",
    ]


def test_a_union_has_a_number_for_each_type(game: Game) -> None:
    classes = "class A(Message):\n    pass\nclass B(Message):\n    pass\nclass M(Message):\n"
    game.locked(classes + "    what: A | B\n    x: f32\n")
    lines = game.check(classes + "    x: f32\n    what: A | B\n")
    assert [line.split("; ")[1] for line in lines] == [
        "write Annotated[..., Field(3)]",
        "write Annotated[..., Field(1, 2)]",
    ]
    assert game.check(classes + "    x: Annotated[f32, Field(3)]\n    what: Annotated[A | B, Field(1, 2)]\n") == []


def test_fields_of_a_base_are_named_where_they_are_written(game: Game) -> None:
    code = "class Base(Message):\n    a: f32 = 0.0\n{}class Move(Base):\n    b: f32 = 0.0\n"
    game.locked(code.format(""))
    more = code.format("    c: f32 = 0.0\n")
    lines = game.check(more)
    assert "game.py:9: Move.c: number 2 is that of b in proto/my_arena.proto; write Annotated[..., Field(3)]" in lines
    assert game.check(
        code.format("    c: Annotated[f32, Field(3)] = 0.0\n").replace("b: f32", "b: Annotated[f32, Field(2)]")
    )[0].endswith("Base.c = 3 is new; run `gameserver schema write game.py`")


def test_breaking_writes_what_python_says(game: Game) -> None:
    game.locked("class Move(Message):\n    dx: f32\n    dy: f32\n")
    other = "class Move(Message):\n    dy: f64\n    dx: f32\n"
    before = game.file.read_text()
    status, lines, err = game.write(other)
    assert (status, err) == (1, "gameserver: proto/my_arena.proto is as it was; --breaking writes it all the same\n")
    assert lines == [
        "game.py:8: Move.dy: was float and is double; keep it, and add a field of another name and number",
    ]
    assert game.file.read_text() == before
    assert game.write(other, "--breaking")[0] == 0
    assert "double dy = 1;\n  float dx = 2;" in game.file.read_text()
    assert game.check(other) == []


# --- check ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "line"),
    [
        ("class M(Message):\n    a: f64\n    b: E\n", "game.py:11: M.a: was float and is double; keep it, and add "),
        ("class M(Message):\n    a: list[f32]\n    b: E\n", "game.py:11: M.a: was float and is repeated float; "),
        ("class M(Message):\n    a: f32 = 1.0\n    b: E = E.Z\n", "game.py:11: M.a: was float and is optional float; "),
        ("class M(Message):\n    a: f32\n    b: s32\n", "game.py:12: M.b: was E and is sint32; "),
        ("class N(Message):\n    b: E\n", "proto/my_arena.proto:10: M: the message is gone; keep it "),
    ],
)
def test_a_breaking_change_is_one_line_with_place_and_reason(game: Game, new: str, line: str) -> None:
    enum = "class E(IntEnum):\n    Z = 0\n    A = 1\n"
    game.locked(enum + "class M(Message):\n    a: f32\n    b: E\n")
    lines = game.check(enum + new)
    assert [got[: len(line)] for got in lines] == [line]


def test_values_of_an_enum(game: Game) -> None:
    code = "class E(IntEnum):\n    Z = 0\n{}class M(Message):\n    e: E\n"
    game.locked(code.format("    A = 1\n"))
    assert game.check(code.format("    A = 2\n"))[0] == "game.py:7: E.E_A: was 1 and is 2; give it 1 again"
    assert game.check(code.format(""))[0].startswith(
        "game.py:7: E.E_A: 1 is gone, and a message that holds it is refused; "
    )
    assert game.write(code.format(""), "--breaking")[0] == 0
    assert 'enum E {\n  reserved 1;\n  reserved "E_A";\n  E_Z = 0;\n}' in game.file.read_text()
    assert game.check(code.format("")) == []


def test_messages_of_all_modules_of_the_game(game: Game) -> None:
    (game.folder / "rules.py").write_text("from gameserver import *\nclass Rule(Message):\n    text: str\n")
    assert game.write("import rules\nclass Move(Message):\n    class Inner(Message):\n        x: u32\n    x: u32\n")[
        1
    ] == [f"proto/my_arena.proto: {name} is new" for name in ("Move", "Inner", "Rule")]


def test_a_game_without_messages_has_no_lock(game: Game) -> None:
    assert game.check("") == []
    assert game.write("") == (0, [], "")
    assert not game.file.parent.exists()
    game.locked(POINT)
    assert game.check("") == [
        "proto/my_arena.proto:5: Point: the message is gone; keep it as long as a client may send it or wait for it"
    ]


def test_messages_of_proto_files_need_no_lock(game: Game) -> None:
    game.file.parent.mkdir()
    (game.folder / "proto" / "own.proto").write_text('syntax = "proto3"; message Move { float dx = 1; }')
    loaded = "from gameserver import load_protos\nMove = load_protos('proto/own.proto').Move\n"
    assert game.check(loaded) == []
    assert game.write(loaded + POINT)[1] == ["proto/my_arena.proto: Point is new"]
    status, lines, err = game("check", "game.py", code=loaded + "class Path(Message):\n    steps: list[Move]\n")
    assert (status, lines) == (1, [])
    assert re.search(
        r"game.py:10: Path.steps: Move is from a .proto file, which the lock cannot import; declare Path in ", err
    )


def test_another_file(game: Game) -> None:
    other = str(game.folder / "other.proto")
    assert game("write", "game.py", "--file", other, code=POINT)[0] == 0
    assert game("check", "game.py", "--file", other)[:2] == (0, [])
    assert game("check", "game.py")[0] == 1


def test_what_is_wrong_is_one_line(game: Game) -> None:
    game.file.parent.mkdir()
    game.file.write_text('syntax = "proto3";\nmessage Move {\n  floot dx 1;\n}\n')
    status, lines, err = game("check", "game.py", code=POINT)
    assert (status, lines) == (1, [])
    assert re.match(r"gameserver: proto/my_arena.proto:3:\d+: .+\n$", err), err
    game.file.unlink()
    game.file.mkdir()
    status, _, err = game("write", "game.py", code=POINT)
    assert (status, err) == (1, "gameserver: proto/my_arena.proto: Is a directory\n")
    status, _, err = game("check", "nothing.py")
    assert (status, err.count("\n")) == (2, 1)
    status, _, err = game("check", "game.py", code="class A(Message):\n    x: int\n")
    assert status == 1
    assert "SchemaError" in err
    assert "game.py:8: A.x: int is not a field's type" in err


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py") if "App(" in path.read_text()))
def test_examples_keep_to_their_locks(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = set(sys.modules)
    with pytest.raises(SystemExit) as ended, contextlib.chdir(EXAMPLES.parent):
        cli.main(["schema", "check", f"examples/{example}"])
    for name in set(sys.modules) - known:
        if str(EXAMPLES) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
    assert (ended.value.code, *capsys.readouterr()) == (0, "", "")


# --- numbers ----------------------------------------------------------------------------------------------------------

RANGES = st.lists(st.tuples(st.integers(-9, 30), st.integers(0, 9)).map(lambda pair: (pair[0], sum(pair))))


@given(RANGES, st.sets(st.integers(-9, 40)))
def test_what_is_reserved_is_what_was_but_for_what_is_in_use(ranges: list[tuple[int, int]], used: set[int]) -> None:
    def numbers(ranges: list[tuple[int, int]]) -> list[int]:
        return [number for first, last in ranges for number in range(first, last + 1)]

    left = list(_without(_merged(ranges), sorted(used)))
    assert numbers(left) == sorted({*numbers(ranges)} - used)


@given(st.data())
def test_numbers_that_are_settled(data: st.DataObject) -> None:
    names = st.lists(st.sampled_from("abcdefgh"), unique=True)
    numbers = st.one_of(st.integers(1, 9), st.sampled_from([18_998, 18_999, 20_000]))
    locked_names = data.draw(names)
    locked = dict(zip(locked_names, data.draw(st.lists(numbers, min_size=8, max_size=8, unique=True)), strict=False))
    reserved = [one for one in data.draw(st.lists(numbers)) if one not in locked.values()]
    ours = data.draw(st.lists(numbers, min_size=8, max_size=8, unique=True))
    fields = [FieldShape(name, name, number, "float") for name, number in zip(data.draw(names), ours, strict=False)]

    settled = _numbered(fields, Locked(locked, {}, Reserved(tuple((one, one) for one in reserved))))

    assert [one.name for one in settled] == [one.name for one in fields]
    assert len({one.number for one in settled}) == len(settled)
    for before, after in zip(fields, settled, strict=True):
        assert after.number not in range(19_000, 20_000)
        if before.name in locked:
            assert after.number == locked[before.name]
        else:
            assert after.number not in {*locked.values(), *reserved}
