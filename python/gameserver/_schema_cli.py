"""`gameserver schema write | check | ts | stubs`: a game's messages as files."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from gameserver import _lock, _stubs, _target, _typescript
from gameserver._lock import Comparison, Finding

__all__ = ["make", "near"]

Target = Annotated[str, typer.Argument(metavar="TARGET", help="game.py, game.py:app or package.module:app")]
File = Annotated[
    str | None,
    typer.Option(
        "--file", metavar="FILE", help="The lock. Default: proto/NAME.proto beside the game", show_default=False
    ),
]
Breaking = Annotated[
    bool, typer.Option("--breaking", help="Take Python's numbers and types even if clients break that know the lock.")
]
Out = Annotated[
    str | None, typer.Argument(metavar="[FILE]", help="Where to; to standard output if left out.", show_default=False)
]
Protos = Annotated[str, typer.Argument(metavar="PROTOS", help="The folder or file that load_protos() is given")]


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

    The lock is a .proto file: for clients in other languages, and for `gameserver schema check`. A change that breaks clients which
    know the lock is refused.
    """
    path, found = _compared(target, file, breaking)
    if found.breaking and not breaking:
        _list(found.breaking)
        _say(f"{near(path)} is as it was; --breaking writes it all the same")
        raise typer.Exit(1)
    if found.news:
        _save(path, found.text)
        for news in found.news:
            print(f"{near(path)}: {news}")
    if found.edits:
        _list(found.edits)
        _say(f"the code and {near(path)} disagree until these lines are changed")
        raise typer.Exit(1)


def check(target: Target, file: File = None) -> None:
    """Fails if the messages break clients that know the lock, or if the lock is not up to date."""
    path, found = _compared(target, file, breaking=False)
    _list([*found.breaking, *found.edits])
    if not found.breaking:
        for news in found.news:
            print(f"{near(path)}: {news}; run `gameserver schema write {target}`")
    if found.breaking or found.edits or found.news:
        raise typer.Exit(1)


def ts(target: Target, out: Out = None) -> None:
    """TypeScript declarations for the browser client: messages, enums, routes."""
    app = _target.load(target).app
    text = _typescript.typescript(app._schema_document(), app.name)
    if out is None:
        print(text, end="")
    else:
        _save(Path(out), text)


def stubs(protos: Protos) -> None:
    """Writes the stub file of a folder of .proto files, or of one file, for type checkers and editors."""
    place = Path(protos)
    path = _stubs.stub_path(place)
    _save(path, _stubs.stub(place))
    print(near(path))


def near(path: Path) -> str:
    """As seen from here, if that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


def _compared(target: str, file: str | None, breaking: bool) -> tuple[Path, Comparison]:
    found = _target.load(target)
    path = Path(file) if file is not None else found.folder / "proto" / f"{_file_name(found.app.name)}.proto"
    try:
        lock = _lock.read_lock(Path(near(path)))
    except (OSError, UnicodeError) as error:
        _fail(path, error)
    return path, _lock.compare(_lock.classes_in(found.folder), lock, near(path), breaking=breaking)


def _save(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        _fail(path, error)


def _fail(path: Path, error: Exception) -> NoReturn:
    _say(f"{near(path)}: {getattr(error, 'strerror', None) or error}")
    raise typer.Exit(1) from None


def _file_name(name: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_") or "game"


def _list(findings: Sequence[Finding]) -> None:
    for finding in findings:
        print(replace(finding, file=near(Path(finding.file))))


def _say(text: str) -> None:
    print(f"gameserver: {text}", file=sys.stderr)
