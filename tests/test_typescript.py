"""`gameserver schema ts`: what it writes, read by the TypeScript compiler together with the browser client."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_peers import prepared

from gameserver import cli
from gameserver._typescript import typescript

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "typing" / "ts"


@pytest.fixture(scope="module")
def tsc() -> Path:
    """The compiler, from npm."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm or node is not installed: the TypeScript compiler comes from npm")
    install: list[str | Path] = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    prepared(install, FOLDER / "node_modules" / ".installed", FOLDER / "package-lock.json")
    return FOLDER / "node_modules" / ".bin" / "tsc"


def compiled(tsc: Path, folder: Path, declarations: str, *uses: str) -> str:
    """What the compiler says of a module and of those that use it, nothing if all is well."""
    (folder / "game.ts").write_text(declarations)
    files = ["game.ts", *uses]
    config = json.loads((FOLDER / "tsconfig.json").read_text()) | {"files": files}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    done = subprocess.run([tsc, "-p", folder, "--pretty", "false"], capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) == (not done.stdout), done.stderr
    return done.stdout


def example() -> dict[str, Any]:
    """The document of docs/wire.md, and some routes that it has not."""
    found = re.search(r"### The schema.*?```json\n(.*?)```", (ROOT / "docs" / "wire.md").read_text(), re.S)
    assert found
    document: dict[str, Any] = json.loads(found[1])
    document["routes"] |= {"Halt": {"request": "Point", "response": "Moved"}, "it's\n\U0001f600": {"response": "Move"}}
    return document


def test_a_game_that_uses_the_declarations(tsc: Path, tmp_path: Path) -> None:
    use = (FOLDER / "game.test.ts").read_text().replace("../../../", f"{ROOT}/")
    (tmp_path / "use.ts").write_text(use)
    assert compiled(tsc, tmp_path, typescript(example(), "plaza"), "use.ts") == ""


def test_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    game = f"""
class App:
    name = "plaza"
    def run(self): ...
    def _describe_handlers(self): ...
    def _schema_document(self):
        return {example()!r}
app = App()
"""
    Path("plaza_with_schema.py").write_text(game)

    def typed(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["schema", "ts", "plaza_with_schema.py", *words])
        out, err = capsys.readouterr()
        assert (ended.value.code, err) == (0, "")
        return out

    try:
        assert typed() == typescript(example(), "plaza")
        assert typed("game/plaza.ts") == ""
        assert Path("game/plaza.ts").read_text() == typescript(example(), "plaza")
    finally:
        sys.modules.pop("plaza_with_schema", None)


def test_every_type_and_label(tsc: Path, tmp_path: Path) -> None:
    types = [
        "f64",
        "f32",
        "i64",
        "u64",
        "i32",
        "u32",
        "s32",
        "s64",
        "fixed32",
        "fixed64",
        "sfixed32",
        "sfixed64",
        "bool",
        "str",
        "bytes",
        ".a.E",
        ".a.M",
    ]
    labels: list[list[str]] = [
        [],
        ["optional"],
        ["repeated"],
        ["unpacked"],
        ["map", "str"],
        ["map", "i64"],
        ["oneof", "x"],
    ]
    fields = [
        [number, f"f{number}", *combination]
        for number, combination in enumerate(([type_, *label] for type_ in types for label in labels), 1)
    ]
    document = {"messages": {"a.M": fields}, "enums": {"a.E": {"A": 0, "B": 1}}}
    text = typescript(document, "all")
    assert compiled(tsc, tmp_path, text) == ""
    got = dict(re.findall(r"^  (f\d+\??): (.*);$", text, re.M))
    line = {"f1": "number", "f2?": "number", "f3": "number[]", "f5": "Record<string, number>", "f7?": "number"}
    assert line.items() <= got.items()
    assert got["f15"] == "bigint"
    assert got["f99"] == "Uint8Array"
    assert [got[name] for name in ("f106", "f108", "f110", "f112?")] == [
        "E | number",
        "(E | number)[]",
        "Record<string, E | number>",
        "E | number",
    ]
    assert [got[name] for name in ("f113?", "f114?", "f115", "f117")] == ["M", "M", "M[]", "Record<string, M>"]


def test_names_that_typescript_or_the_file_itself_has_taken(tsc: Path, tmp_path: Path) -> None:
    names = ["string", "Record", "Promise", "class", "Given", "Routes", "Uint8Array", "GameClient", "a.b", "a_b", "Map"]
    fields = [[number, "of", "." + name, "repeated"] for number, name in enumerate(names[:1], 1)]
    fields += [[9, "constructor", "bytes"], [10, "class", "str", "map", "str"]]
    document = {"messages": dict.fromkeys(names, fields), "pushes": {name: name for name in names}}
    assert compiled(tsc, tmp_path, typescript(document, "odd */ \n names")) == ""


def test_the_package_that_all_share_is_left_out() -> None:
    document: dict[str, Any] = {"messages": {"a.b.M": [], "a.b.M.N": [], "a.b.O": []}}
    assert re.findall(r"^export interface (\w+) \{\n\}", typescript(document, "x"), re.M)[:3] == ["M", "M_N", "O"]
    document["messages"]["c.M"] = []
    assert "export interface a_b_M_N {" in typescript(document, "x")


def test_the_plaza(tsc: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gameserver", "schema", "ts", "examples/plaza.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "use.ts").write_text(
        "import type { GameClient } from './game.js';\n"
        "export const look = async (client: GameClient) => (await client.request('Look', { name: 'Ada' })).hue.toFixed();\n"
        "export const at = (client: GameClient) => client.on('At', ({ x, tick }) => x[0]! + tick);\n"
    )
    assert compiled(tsc, tmp_path, done.stdout, "use.ts") == ""


def test_the_arena(tsc: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gameserver", "schema", "ts", "examples/arena.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    use = """
import type { GameClient, Tables } from './game.js';
export const radius = (client: GameClient) => client.world?.mine('Blob')?.r.toFixed();
export const names = (client: GameClient) => client.world?.onAdd('Blob', ({ id, name }) => [id + 1n, name.length]);
export const drawn = (client: GameClient) => client.world?.sample().Food.map(({ x, y }) => x + y);
export const steer = (client: GameClient) => client.input('Steer', { x: 1, y: 0 });
"""
    (tmp_path / "use.ts").write_text(use)
    assert compiled(tsc, tmp_path, done.stdout, "use.ts") == ""
    for wrong, what in (
        ("export const a = (client: GameClient) => client.world?.mine('Blop');", "Blop"),
        ("export const a = (blob: Tables['Blob']) => blob.dash;", "dash"),
        ("export const a = (blob: Tables['Blob']) => { blob.x = 5; };", "read-only"),
    ):
        (tmp_path / "wrong.ts").write_text("import type { GameClient, Tables } from './game.js';\n" + wrong)
        assert what in compiled(tsc, tmp_path, done.stdout, "wrong.ts")


def test_all_kinds_of_columns(tsc: Path, tmp_path: Path) -> None:
    columns = [
        {"name": "a", "type": "enum", "values": [1, 2], "names": ["CALM", "ANGRY"]},
        {"name": "b", "type": "vector", "of": "f32", "length": 2},
        {"name": "c", "type": "list", "of": "u64", "length": 3},
        {"name": "d", "type": "entity", "of": "T"},
        {"name": "e", "type": "bytes", "length": 3, "to": "owner"},
        {"name": "f", "type": "bool"},
    ]
    text = typescript({"world": {"tables": [{"name": "T", "columns": columns}]}}, "x")
    assert re.findall(r"^    readonly (\w+): (.*);$", text, re.M) == [
        ("id", "bigint"),
        ("a", "'CALM' | 'ANGRY'"),
        ("b", "readonly [number, number]"),
        ("c", "readonly bigint[]"),
        ("d", "bigint | null"),
        ("e", "Uint8Array | null"),
        ("f", "boolean"),
    ]
    assert compiled(tsc, tmp_path, text) == ""
