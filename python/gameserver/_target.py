"""From what was typed (`game.py`, `game.py:app`, `package.module:app`) to the App that it names."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeGuard

from gameserver._banner import HandlerInfo
from gameserver.errors import ConfigError, GameServerError

__all__ = ["ModuleFailed", "Runnable", "Target", "load", "module_file"]


class Runnable(Protocol):
    """What the command line needs of an App."""

    name: str
    _code_settings: Mapping[str, Any]
    _folder: Path | None
    """The game's folder, where `run` looks for settings; None: that of the program's main file."""

    def run(self, *, _source: str, **settings: Any) -> None:
        """Runs the server."""

    def _describe_handlers(self) -> Sequence[HandlerInfo]: ...

    def _schema_document(self) -> Mapping[str, Any]:
        """What a client that asks for the schema gets (docs/wire.md); empty if there are no messages."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """An App that was found, and where."""

    app: Runnable
    module: str
    attribute: str
    folder: Path
    """The game's folder: settings are looked for from here."""


class ModuleFailed(GameServerError):
    """The game's own module raised while it was imported; the text is its traceback, without our frames."""


def load(text: str) -> Target:
    """Imports the module that `text` names and finds the App in it.

    Raises:
        ConfigError: there is no such file, module or App; says what there is.
        ModuleFailed: the module raised.
    """
    place, _, attribute = text.partition(":")
    if not place:
        raise ConfigError(f"{text!r} names no game: give a file (game.py) or a module (package.module:app)")
    file = module_file(place)
    module = _import_file(file) if file is not None else _import_module(place)
    app, attribute = _named(module, place, attribute) if attribute else _only(module, place)
    app._folder = _folder(module)
    return Target(app, module.__name__, attribute, app._folder)


def module_file(place: str) -> Path | None:
    """The file that `place` means, or None if it means a module's dotted name.

    Raises:
        ConfigError: it means a file, and there is none.
    """
    path = Path(place)
    if path.suffix != ".py" and os.sep not in place and not (path.suffix and path.is_file()):
        if path.is_dir() and not (path / "__init__.py").exists():
            raise ConfigError(f"{place} is a folder: give the game's file in it{_nearest(path / 'game.py')}")
        return None
    if path.is_dir():
        raise ConfigError(f"{place} is a folder: give the game's file in it{_nearest(path / 'game.py')}")
    if not path.is_file():
        raise ConfigError(f"no such file: {place} (in {Path.cwd()}){_nearest(path)}")
    if path.suffix != ".py":
        raise ConfigError(f"{place} is no Python file: its name must end with .py")
    return path.resolve()


def _nearest(path: Path) -> str:
    folder = path.parent
    names = sorted(entry.name for entry in folder.glob("*.py")) if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1) or (names if len(names) == 1 else [])
    return f"; did you mean {folder / near[0]}?" if near else ""


def _import_file(path: Path) -> ModuleType:
    """Under its dotted name if it stands in a package, so that its relative imports work."""
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").exists():
        parts.insert(0, root.name)
        root = root.parent
    if parts[-1] == "__init__":
        parts.pop()
    name = ".".join(parts)
    _put_on_path(root)
    known = sys.modules.get(name)
    if known is not None and not _is_file(known, path):
        raise ConfigError(f"{path.name}: another module is called {name!r} already ({_origin(known)}); rename the file")
    if known is None and parts[0] in sys.stdlib_module_names:
        raise ConfigError(f"{path.name}: Python has a module called {parts[0]!r} of its own; rename the file")
    if known is not None:
        return known
    if len(parts) > 1:
        return _guarded(name)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        _explain(error)
        raise
    return module


def _import_module(name: str) -> ModuleType:
    _put_on_path(Path.cwd())
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{name!r} is no file and no module's name: give game.py or package.module:app")
    try:
        return _guarded(name)
    except ModuleNotFoundError as error:
        hint = f"; did you mean {name}.py?" if Path(f"{name}.py").is_file() else f" (looked in {Path.cwd()} too)"
        raise ConfigError(f"no module named {error.name!r}{hint}") from None


def _guarded(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(missing + "."):
            raise
        _explain(error)
        raise
    except BaseException as error:
        _explain(error)
        raise


def _explain(error: BaseException) -> None:
    """Raises `ModuleFailed` with the game's own part of the traceback; returns for what is none of our business."""
    if not isinstance(error, Exception) or isinstance(error, ConfigError):
        return
    step = error.__traceback__
    while step is not None and _is_ours(step.tb_frame.f_code.co_filename):
        step = step.tb_next
    text = "".join(traceback.format_exception(type(error), error, step)).rstrip()
    raise ModuleFailed(text) from None


def _is_ours(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<frozen importlib") or filename == importlib.__file__


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _is_file(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == path


def _origin(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or "built in")


def _folder(module: ModuleType) -> Path:
    file = getattr(module, "__file__", None)
    return Path(file).resolve().parent if file else Path.cwd()


def _is_app(value: object) -> TypeGuard[Runnable]:
    # By what it can do: this module must not need the core to say what is wrong with a file's name.
    return not isinstance(value, type) and hasattr(value, "_describe_handlers") and hasattr(value, "run")


def _apps(module: ModuleType) -> dict[str, Runnable]:
    """The first name of each distinct App."""
    found: dict[int, tuple[str, Runnable]] = {}
    for name, value in vars(module).items():
        if _is_app(value):
            found.setdefault(id(value), (name, value))
    return dict(found.values())


def _only(module: ModuleType, place: str) -> tuple[Runnable, str]:
    apps = _apps(module)
    if not apps:
        raise ConfigError(f'{place} makes no App: write app = App("name") at its top level, or give another file')
    if len(apps) > 1:
        first = next(iter(apps))
        raise ConfigError(f"{place} makes {len(apps)} Apps: {', '.join(apps)}; say which one: {place}:{first}")
    ((name, app),) = apps.items()
    return app, name


def _named(module: ModuleType, place: str, attribute: str) -> tuple[Runnable, str]:
    value: object = module
    for part in attribute.split("."):
        value = getattr(value, part, None)
        if value is None:
            break
    if _is_app(value):
        return value, attribute
    apps = ", ".join(_apps(module)) or "none"
    what = f"has no {attribute!r}" if value is None else f"{attribute!r} is a {type(value).__name__}, no App"
    raise ConfigError(f"{place}: {what}; Apps in it: {apps}")
