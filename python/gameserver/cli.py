"""The `gameserver` command: run, dev, info, schema, db, swarm, version.

Every setting is an option of `run`, `dev` and `info`, made from the list in `Settings`. A mistake in what was typed
gets one line and exit code 2.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import platform
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from gameserver import _db_cli, _reload, _schema_cli, _settings, _swarm_cli, _target
from gameserver._schema_cli import near as _near
from gameserver._settings import SPECS, Kind, Spec
from gameserver.errors import ConfigError, SchemaError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Does what the command line says, and exits: 0, 1 if the game failed, 2 if what was typed is wrong.

    Args:
        arguments: without the program's name; None: those of this process.
    """
    sys.exit(_run_command(arguments))


def run(target: str, lan: bool, **given: Any) -> None:
    """Runs a game: `gameserver run game.py`, `game.py:app` or `package.module:app`."""
    found = _target.load(target)
    typed = _typed(given)
    if lan:
        typed |= _open_to_lan(found, typed)
    try:
        found.app.run(_source="command line", **typed)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise
        settings = _resolve(found, typed).settings
        at = settings.unix or f"{settings.host} port {settings.port}"
        raise _Failed(f"can't listen on {at}: {error.strerror or error}; {_LISTEN_HELP[error.errno]}") from None


def dev(target: str, lan: bool, **given: Any) -> None:
    """The same as `run`, and starts again when a .py or .toml file of the game changes."""
    file = _target.module_file(target.partition(":")[0])
    folder = file.parent if file is not None else Path.cwd()
    typed = _typed(given)
    _settings.check_typed(typed)
    options = [_spelled(SPECS[name], value) for name, value in typed.items()]
    command = [sys.executable, "-m", "gameserver", "run", target, *options, *(["--lan"] if lan else [])]
    _say(f"watching {folder}; Ctrl-C ends")
    raise typer.Exit(_reload.run(command, folder, _say))


def info(target: str, **given: Any) -> None:
    """Shows the handlers of a game, its settings, and where each setting comes from."""
    found = _target.load(target)
    resolved = _resolve(found, _typed(given))
    console = _console()
    console.print(f"{found.app.name} ({found.module}:{found.attribute})\n", highlight=False, markup=False)
    handlers = found.app._describe_handlers()
    if handlers:
        table = _table("handler", "route", "function", "where", "")
        for handler in handlers:
            where = f"{_near(Path(handler.file))}:{handler.line}"
            kind = "on" if handler.kind == "route" else str(handler.kind)
            table.add_row(kind, handler.route, handler.qualname, where, "async" if handler.is_async else "")
        console.print(table)
    else:
        console.print("no handlers yet: add one with @app.on(route)", markup=False)
    console.print()
    table = _table("setting", "value", "unit", "from")
    for name, spec in SPECS.items():
        source = resolved.sources[name]
        style = "dim" if source == "default" else None
        table.add_row(name, _settings.spell(getattr(resolved.settings, name)), spec.unit, source, style=style)
    console.print(table)
    if resolved.file is not None:
        console.print(f"\nsettings file: {_near(resolved.file)}", highlight=False, markup=False)


def version() -> None:
    """Shows the versions of gameserver and of Python."""
    try:
        own = metadata.version("gameserver")
    except metadata.PackageNotFoundError:
        own = "(not installed)"
    print(f"gameserver {own}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")


class _Failed(Exception):
    """Not the fault of what was typed, and needs no traceback: one line, exit code 1."""


_LISTEN_HELP = {
    errno.EADDRINUSE: "something listens there already: end it, or choose another with --port",
    errno.EACCES: "this needs rights that you do not have: choose a --port from 1024 up",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose another with --host",
}

# Each panel of --help begins with this setting and goes on to the next panel's.
_PANELS = {
    "host": "Network",
    "tick_rate": "Time",
    "auth_bytes_max": "Limits",
    "redis_url": "Stores",
    "log_level": "Other",
}


def _run_command(arguments: Sequence[str] | None) -> int:
    try:
        code = _make()(
            list(arguments) if arguments is not None else None, prog_name="gameserver", standalone_mode=False
        )
        return code if isinstance(code, int) else 0
    except ConfigError as error:
        return _complain(str(error), 2)
    except _target.ModuleFailed as error:
        print(error, file=sys.stderr)
        return 1
    except (_Failed, SchemaError) as error:
        return _complain(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        # typer's own errors, of this and of older versions, have no common name but this method.
        explain = getattr(error, "format_message", None)
        if explain is None:
            raise
        return _complain(f"{explain().rstrip('.')}; see gameserver --help", 2)


def _make() -> typer.Typer:
    cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

    @cli.callback(invoke_without_command=True)
    def gameserver(context: typer.Context) -> None:
        """Real-time multiplayer game servers in Python, on a Rust core."""
        if context.invoked_subcommand is None:
            print(context.get_help())

    cli.command("run")(_with_settings(run, lan=True))
    cli.command("dev")(_with_settings(dev, lan=True))
    cli.command("info")(_with_settings(info, lan=False))
    cli.add_typer(_schema_cli.make(), name="schema")
    cli.add_typer(_db_cli.make(), name="db")
    cli.command("swarm")(_swarm_cli.swarm)
    cli.command("version")(version)
    return cli


def _with_settings(function: Callable[..., None], *, lan: bool) -> Callable[..., None]:
    """`function(target, lan, **given)` with every setting as a parameter, as typer wants to see it."""
    target_help = "game.py, game.py:app or package.module:app"
    parameters = [
        _parameter("target", str, typer.Argument(..., metavar="TARGET", help=target_help, show_default=False))
    ]
    if lan:
        lan_help = "Listen on all interfaces and show the address for phones, as text and QR code."
        parameters.append(_parameter("lan", bool, typer.Option(False, "--lan", help=lan_help)))
    panel = ""
    for spec in SPECS.values():
        panel = _PANELS.get(spec.name, panel)
        parameters.append(_option(spec, panel))

    def command(**values: Any) -> None:
        function(**values)

    command.__doc__ = function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _option(spec: Spec, panel: str) -> inspect.Parameter:
    default = _settings.spell(spec.default)
    shown: dict[str, Any] = {
        "help": spec.doc,
        "rich_help_panel": panel,
        "show_default": default if default != "-" else False,
    }
    if spec.kind is Kind.FLAG:
        return _parameter(spec.name, bool | None, typer.Option(None, f"{spec.option}/--no-{spec.option[2:]}", **shown))
    # As text: settings say better than typer what may stand there, and say it for every place alike.
    metavar = "|".join(spec.choices) or {"s": "SECONDS", "Hz": "HZ"}.get(spec.unit, spec.kind.value.upper())
    return _parameter(spec.name, str | None, typer.Option(None, spec.option, metavar=metavar, **shown))


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _typed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Only what stood on the command line."""
    return {name: value for name, value in given.items() if value is not None}


def _spelled(spec: Spec, value: Any) -> str:
    if isinstance(value, bool):
        return spec.option if value else f"--no-{spec.option[2:]}"
    return f"{spec.option}={value}"


def _resolve(found: _target.Target, typed: Mapping[str, Any]) -> _settings.Resolved:
    code = found.app._code_settings
    return _settings.resolve(code, command_line=typed, environ=os.environ, start=found.folder)


def _open_to_lan(found: _target.Target, typed: Mapping[str, Any]) -> dict[str, Any]:
    """What `--lan` adds to the command line; shows where to go.

    Raises:
        ConfigError: another option says the opposite.
    """
    for other in ("host", "unix"):
        if other in typed:
            raise ConfigError(f"--lan listens on all interfaces, --{other} says something else; leave one of them out")
    settings = _resolve(found, typed).settings
    if settings.port == 0:
        raise ConfigError("--lan shows the port before it is known with port=0; choose one with --port")
    scheme = "https" if settings.tls_cert else "http"
    address = _lan_address()
    hosts = [name for name in (address, "localhost", "127.0.0.1") if name is not None]
    origins = (*settings.allowed_origins, *(f"{scheme}://{name}:{settings.port}" for name in hosts))
    if address is None:
        _say("found no address of this machine in a network; is it connected to one?")
    else:
        _show_url(f"{scheme}://{address}:{settings.port}/")
    return {"host": "0.0.0.0", "allowed_origins": ",".join(origins)}


def _lan_address() -> str | None:
    """The address that this machine has toward others. Connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation: any route will do
            address = str(probe.getsockname()[0])
        except OSError:
            return None
    return None if address.startswith(("0.", "127.")) else address


def _show_url(url: str) -> None:
    import segno  # only here: it takes a while to import, and only --lan needs it

    with contextlib.suppress(UnicodeEncodeError):  # a terminal without block characters: the text has to do
        segno.make(url, micro=False).terminal(sys.stdout, border=2, compact=True)
    print(f"on your network: {url}", flush=True)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _console() -> Console:
    # Into a pipe or a file lines are not cut at 80 columns.
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)


def _say(text: str) -> None:
    print(f"gameserver: {text}", file=sys.stderr, flush=True)


def _complain(text: str, code: int) -> int:
    _say(text)
    return code
