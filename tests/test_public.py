"""The face: its names, their docstrings, their types."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import gameserver
from gameserver import (
    _core,
    auth,
    caching,
    client,
    errors,
    guard,
    locks,
    matchmaking,
    middleware,
    services,
    storage,
    swarm,
    testing,
    wire,
)

ROOT = Path(__file__).parents[1]
PUBLIC = [
    gameserver,
    testing,
    wire,
    errors,
    client,
    matchmaking,
    auth,
    middleware,
    services,
    swarm,
    guard,
    locks,
    storage,
    caching,
]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_all_names_what_is_public_and_is_sorted(module: ModuleType) -> None:
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and getattr(value, "__module__", module.__name__) in (module.__name__, "gameserver")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and (module is gameserver or _defines(module, name))
    }
    assert public <= set(module.__all__)
    assert list(module.__all__) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


def _defines(module: ModuleType, name: str) -> bool:
    tree = ast.parse(Path(str(module.__file__)).read_text())
    return any(getattr(node, "name", None) == name for node in tree.body)


def test_public_classes_say_that_they_are_gameservers() -> None:
    for name in gameserver.__all__:
        assert getattr(gameserver, name).__module__ == "gameserver"


def documented() -> list[tuple[str, Any]]:
    found: dict[str, Any] = {}
    for module in PUBLIC:
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isroutine(value):
                found[f"{module.__name__}.{name}"] = value
            if inspect.isclass(value):
                for part, member in vars(value).items():
                    if not part.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
                        found[f"{module.__name__}.{name}.{part}"] = member
    return sorted(found.items())


# Session is written in Rust; its docstrings stand in the stub, where editors read them.
def stub_of_session() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for node in ast.parse(Path(str(_core.__file__)).with_name("_core.pyi").read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == "Session":
            found["gameserver.Session"] = ast.get_docstring(node)
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                    found[f"gameserver.Session.{part.name}"] = ast.get_docstring(part)
    return found


STUB = stub_of_session()


@pytest.mark.parametrize(("name", "value"), documented(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_public_name_has_a_docstring(name: str, value: Any) -> None:
    text = STUB.get(name) or inspect.getdoc(value)
    assert text, f"{name} has no docstring"
    assert text.strip()[0].isupper() or text.strip()[0] in "`'\"", text


def test_the_stub_names_every_member_of_session() -> None:
    members = {f"gameserver.Session.{name}" for name in vars(_core.Session) if not name.startswith("_")}
    assert members == {name for name in STUB if name.count(".") == 2}


def test_errors_opens_with_its_tree() -> None:
    tree = (errors.__doc__ or "").partition("GameServerError\n")[2]
    drawn = [(len(indent), name) for indent, name in re.findall(r"^( *)[├└]── (\w+)", tree, re.M)]
    classes = {name: getattr(errors, name) for name in errors.__all__}
    assert sorted([*(name for _, name in drawn), "GameServerError"]) == sorted(classes)
    for number, (indent, name) in enumerate(drawn):
        above = [other for left, other in drawn[:number] if left < indent]
        assert classes[name].__bases__ == (classes[above[-1]] if above else errors.GameServerError,)


def test_every_error_that_rust_raises_exists() -> None:
    source = (ROOT / "rust" / "py" / "src" / "error.rs").read_text()
    names = re.findall(r'Exception::new\("(\w+)"\)', source)
    assert len(names) >= 4
    for name in names:
        assert issubclass(getattr(errors, name), errors.GameServerError)


def test_inside_nobody_imports_the_face() -> None:
    for file in (ROOT / "python" / "gameserver").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "gameserver" or all(a.name.startswith("_") for a in node.names), file
            elif isinstance(node, ast.Import):
                assert all(alias.name != "gameserver" for alias in node.names), file


def test_every_name_of_the_words_is_there() -> None:
    """The words of the game's language, as the design spells them."""
    words = {
        "App": "on on_join on_drop on_resume on_leave tick every after task on_start on_stop authenticate include user "
        "group push sessions clock random run stop stats call_soon_threadsafe",
        "Session": "push kick close id uid address transport connected_at online_time last_heard rtt bytes_in bytes_out "
        "messages_in messages_out",
        "Group": "add remove push",
        "User": "push kick session",
        "Timer": "cancel restart left",
        "Router": "on on_join on_drop on_resume on_leave tick every on_start on_stop prefix",
        "Refuse": "code text metadata",
    }
    made = {"App": gameserver.App("x"), "Router": gameserver.Router("x"), "Refuse": gameserver.Refuse("x")}
    for owner, names in words.items():
        known = {*dir(getattr(gameserver, owner)), *(vars(made[owner]) if owner in made else ())}
        assert not {*names.split()} - known, owner
    assert [left.value for left in gameserver.Left] == ["left", "kicked", "lost", "replaced", "disposed", "shutdown"]


def test_an_import_starts_no_thread_and_wants_no_browser() -> None:
    program = "import threading, sys, gameserver; print(threading.active_count(), 'playwright' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1 False\n"


@pytest.mark.parametrize("name", ["correct.py", "mistakes.py"])
def test_a_checker_sees_what_it_should(name: str) -> None:
    mypy = importlib.import_module("mypy.api")
    out, err, code = mypy.run(
        ["--config-file", str(ROOT / "pyproject.toml"), "--warn-unused-ignores", str(ROOT / "tests" / "typing" / name)]
    )
    assert (code, err) == (0, ""), out


def test_the_package_is_marked_as_typed() -> None:
    assert Path(str(gameserver.__file__)).with_name("py.typed").exists()
