"""`gameserver schema write | check | ts | stubs`: a game's messages as files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gameserver import _schema, _stubs, _target, _typescript
from gameserver._schema import Comparison
from gameserver.errors import ConfigError

__all__ = ["make"]

Target = Annotated[str, typer.Argument(metavar="TARGET", help="game.py, game.py:app or package.module:app")]
File = Annotated[
    str | None,
    typer.Option("--file", metavar="FILE", help="The lock. Default: proto/NAME.proto beside the game", show_default=False),
]
Breaking = Annotated[
    bool, typer.Option("--breaking", help="Take Python's numbers and types even if clients break that know the lock.")
]
Out = Annotated[
    str | None, typer.Argument(metavar="[FILE]", help="Where to; to standard output if left out.", show_default=False)
]
Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="What load_protos() is given.")]


def make() -> typer.Typer:
    """The group of commands."""
    group = typer.Typer(
        help="The messages of a game: their .proto file, which locks their numbers, and declarations for other languages.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    for command in (write, check, ts, stubs):
        group.command(command.__name__)(command)
    return group


def write(target: Target, file: File = None, breaking: Breaking = False) -> None:
    """Brings the lock up to date: what is new gets a number, what is gone is reserved.

    The lock is a .proto file, for people, for clients in other languages, and for `gameserver schema check`. A change that breaks
    clients which know the lock is refused.
    """
    lock_file, found = _compared(target, file, breaking)
    lock = _near(lock_file)
    if found is None:
        return _say(f"{target} has no messages")
    if found.breaking and not breaking:
        _list(found)
        _say(f"{lock} is as it was; --breaking writes it all the same")
        raise typer.Exit(1)
    if found.news:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock_file.write_text(found.text, encoding="utf-8")
        for news in found.news:
            print(f"{lock}: {news}")
    if found.edits:
        for finding in found.edits:
            print(_shown(finding))
        _say(f"the code and {lock} disagree until these lines are changed")
        raise typer.Exit(1)
    return None


def check(target: Target, file: File = None) -> None:
    """Fails if the messages break clients that know the lock, or if the lock is not up to date; for CI."""
    lock_file, found = _compared(target, file, breaking=False)
    if found is None:
        return
    _list(found)
    for news in found.news:
        print(f"{_near(lock_file)}: {news}; run `gameserver schema write {target}`")
    if found.breaking or found.edits or found.news:
        raise typer.Exit(1)


def ts(target: Target, out: Out = None) -> None:
    """TypeScript declarations for the browser client: messages, enums, routes."""
    app = _target.load(target).app
    _write(out, _typescript.typescript(app._schema_document(), app.name))


def stubs(folder: Folder) -> None:
    """Writes a .pyi file beside each .proto file, for type checkers and editors."""
    for path, text in _stubs.stubs(Path(folder)):
        path.write_text(text, encoding="utf-8")
        print(_near(path))


def _compared(target: str, file: str | None, breaking: bool) -> tuple[Path, Comparison | None]:
    found = _target.load(target)
    path = Path(file) if file is not None else found.folder / "proto" / f"{_file_name(found.app.name)}.proto"
    lock = _schema.read_lock(path)
    classes = _schema.classes_in(found.folder)
    if not classes and not lock.text:
        return path, None
    return path, _schema.compare(classes, lock, _near(path), breaking=breaking)


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_").lower() or "game"


def _list(found: Comparison) -> None:
    for finding in (*found.breaking, *found.edits):
        print(_shown(finding))


def _write(out: str | None, text: str) -> None:
    if out is None:
        print(text, end="")
    else:
        Path(out).write_text(text, encoding="utf-8")
