"""`gameserver schema stubs`: what type checkers make of the stubs, and that it is what load_protos() gives."""

from __future__ import annotations

import enum
import importlib.util
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from gameserver import Message, SchemaError, cli, load_protos
from gameserver._stubs import stub, stub_path

ARENA = """
syntax = "proto3";
package arena;
import "common.proto";
import "google/protobuf/timestamp.proto";
enum Kind { WALK = 0; RUN = 1; None = 2; }
message Move {
  message Step { float x = 1; Deep deep = 2; message Deep { Kind kind = 1; } enum Way { UP = 0; } Way way = 3; }
  repeated Step path = 1;
  Kind kind = 2;
  optional uint32 by = 3;
  map<string, Step.Deep> deeps = 4;
  oneof what { common.Point jump = 5; bool wait = 6; }
  google.protobuf.Timestamp at = 7;
  bytes list = 8;
  repeated int64 int = 9;
  string str = 10;
  common.Point Point = 11;
  uint32 class = 12;
  arena.Same same = 13;
  common.Same other = 14;
}
message Same { Move back = 1; }
"""
COMMON = """
syntax = "proto3";
package common;
message Point { sint32 x = 1; sint32 y = 2; }
message Same { fixed64 number = 1; }
"""
GAME = """
from typing import TYPE_CHECKING, assert_type

from gameserver import load_protos

if TYPE_CHECKING:
    import protos as messages
else:
    messages = load_protos("protos")

move = messages.Move(path=[messages.Move.Step(x=1.5)], kind=messages.Kind.RUN, jump=messages.Point(1, 2))
assert_type(move.by, int | None)
assert_type(move.path[0].x, float)
assert_type(move.kind, messages.Kind)
assert_type(move.Point, messages.Point | None)
assert_type(move.deeps["a"].kind, messages.Kind)
assert_type(move.jump, messages.Point | None)
assert_type(move.wait, bool | None)
assert_type(move.int, list[int])
assert_type(move.str, str)
assert_type(move.list, bytes)
assert_type(messages.Move.decode(move.encode()), messages.Move)
assert_type(move.at, messages.Timestamp | None)
assert move.at is None or move.at.seconds > 0
messages.Move(dz=1)  # E
messages.Move(kind="RUN")  # E
move.path[0].y  # E
messages.Same  # E: there are two
"""


@pytest.fixture
def protos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("protos")
    folder.mkdir()
    (folder / "arena.proto").write_text(ARENA)
    (folder / "common.proto").write_text(COMMON)
    return folder


def test_type_checkers_read_it(protos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["schema", "stubs", "protos"])
    assert (ended.value.code, *capsys.readouterr()) == (0, "protos/__init__.pyi\n", "")
    Path("game.py").write_text(GAME)
    wrong = {number for number, line in enumerate(GAME.splitlines(), 1) if "# E" in line}
    source = Path(__file__).parents[1] / "python"
    mypy = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", ".mypy", "game.py"],
        capture_output=True,
        text=True,
        env={"MYPYPATH": f"{source}:.", "PATH": ""},
        timeout=300,
    )
    lines = mypy.stdout.splitlines()
    assert {int(line.split(":")[1]) for line in lines if ": error:" in line} == wrong, mypy.stdout + mypy.stderr
    assert all(line.startswith("game.py:") for line in lines), mypy.stdout


def test_it_is_what_load_protos_gives(protos: Path) -> None:
    """The stub, run as a module: the same classes, with fields of the same names in the same order."""
    messages = load_protos(protos)
    path = protos / "as_module.py"
    path.write_text(
        stub(protos).replace("import builtins as _py", "from __future__ import annotations\nimport builtins as _py")
    )
    spec = importlib.util.spec_from_loader("as_module", SourceFileLoader("as_module", str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(path.read_text().replace(" = ...\n", "\n"), path, "exec", dont_inherit=True), module.__dict__)

    def told(cls: Any) -> Any:
        if issubclass(cls, enum.Enum):
            return {name: member.value for name, member in cls.__members__.items() if name != "None"}
        inner = {name: told(one) for name, one in vars(cls).items() if isinstance(one, type)}
        return [name for name in cls.__match_args__ if name != "class"], inner

    tops = {name for name in vars(module) if not name.startswith("_") and name != "annotations"}
    assert tops == {"Kind", "Move", "Point", "Timestamp"}
    for name in tops:
        assert told(getattr(module, name)) == told(getattr(messages, name)), name
    assert issubclass(module._arena_Same, Message)


def test_one_file(protos: Path) -> None:
    assert stub_path(protos / "common.proto") == protos / "common.pyi"
    assert "class Point(_gs.Message):\n    x: _gs.s32 = ...\n    y: _gs.s32 = ...\n" in stub(protos / "common.proto")


def test_a_file_that_is_no_protobuf(protos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (protos / "common.proto").write_text("floot")
    with pytest.raises(SystemExit) as ended:
        cli.main(["schema", "stubs", "protos"])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (1, "")
    assert "common.proto:1:" in err
    with pytest.raises(SchemaError, match="no such file"):
        stub(protos / ".." / "nothing")
