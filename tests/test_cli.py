"""The `gameserver` command, as typed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gameserver import _target, cli
from gameserver._settings import SPECS

# An App as the command line sees it, so that these tests need no port: `run` says what it got.
STAND_IN = """
    import os
    from gameserver._settings import resolve

    class App:
        def __init__(self, name, **settings):
            self.name, self._code_settings = name, settings

        def _describe_handlers(self):
            return []

        def run(self, *, _source, **settings):
            found = resolve(self._code_settings, command_line=settings, environ=os.environ, start=self._folder)
            print(self.name, _source, {name: found.sources[name] for name in settings}, found.settings.port, flush=True)
            self.found = found
"""


class Shell:
    """A folder with files, and the command typed in it."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capture = folder, capture
        self.write("stand_in.py", STAND_IN)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def type(self, *words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        out, err = self._capture.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    def ok(self, *words: str) -> str:
        code, out, err = self.type(*words)
        assert (code, err) == (0, "")
        return out

    def wrong(self, *words: str) -> str:
        """One line and exit code 2."""
        code, out, err = self.type(*words)
        assert (code, out) == (2, ""), (out, err)
        assert err.startswith("gameserver: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    for variable in [name for name in os.environ if name.startswith("GAMESERVER_")]:
        monkeypatch.delenv(variable)
    (tmp_path / ".git").mkdir()  # no settings from above this folder
    known = set(sys.modules)
    yield Shell(tmp_path, capsys)
    for name in set(sys.modules) - known:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


GAME = 'from stand_in import App\napp = App("arena", tick_rate=30)\n'


# --- what is run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["game.py", "game.py:app", "./game.py", "game", "game:app"])
def test_the_app_is_found_in_a_file_or_a_module(shell: Shell, target: str) -> None:
    shell.write("game.py", GAME)
    assert shell.ok("run", target) == "arena command line {} 7777\n"


def test_only_what_was_typed_is_passed_on_and_wins(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.write("game.py", GAME)
    monkeypatch.setenv("GAMESERVER_PORT", "1")
    got = shell.ok("run", "game.py", "--port", "9000", "--spin", "--heartbeat=10")
    assert (
        got == "arena command line {'port': 'command line', 'spin': 'command line', 'heartbeat': 'command line'} 9000\n"
    )
    assert shell.ok("run", "game.py").endswith("{} 1\n")


def test_a_file_elsewhere_imports_its_neighbours(shell: Shell) -> None:
    shell.write("games/stand_in.py", STAND_IN)
    shell.write("games/rules.py", "NAME = 'chess'")
    shell.write("games/my-game.py", "from stand_in import App\nimport rules\napp = App(rules.NAME)")
    assert shell.ok("run", "games/my-game.py").startswith("chess ")


def test_a_file_in_a_package_imports_relatively(shell: Shell) -> None:
    shell.write("pack/__init__.py", "")
    shell.write("pack/rules.py", "NAME = 'go'")
    shell.write("pack/game.py", "from stand_in import App\nfrom .rules import NAME\napp = App(NAME)")
    assert shell.ok("run", "pack.game:app").startswith("go ")
    assert shell.ok("run", "pack/game.py").startswith("go ")


def test_the_same_app_under_two_names_is_one(shell: Shell) -> None:
    shell.write("game.py", GAME + "application = app\n")
    shell.ok("run", "game.py")


def test_settings_are_looked_for_from_the_games_folder(shell: Shell) -> None:
    shell.write("games/stand_in.py", STAND_IN)
    shell.write("games/game.py", GAME)
    shell.write("games/gameserver.toml", "port = 8001")
    shell.write("gameserver.toml", "port = 8002")
    assert shell.ok("run", "games/game.py") == "arena command line {} 8001\n"


def test_every_setting_is_an_option_with_its_doc(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for command in ("run", "dev", "info"):
        text = shell.ok(command, "--help")
        for spec in SPECS.values():
            assert spec.option in text
        assert ("--lan" in text) == (command != "info")
    assert "gameserver run game.py" in shell.ok("run", "--help")


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_alone_it_shows_its_commands(shell: Shell, words: tuple[str, ...]) -> None:
    text = shell.ok(*words)
    assert all(command in text for command in ("run", "dev", "info", "version"))


def test_version_names_both(shell: Shell) -> None:
    assert re.fullmatch(r"gameserver \S.*, Python 3\.\d+\.\d+\S*, Linux \w+\n", shell.ok("version"))


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("rnu", "Did you mean 'run'?"),
        ("run", "Missing argument 'TARGET'"),
        ("run game.py --prot 1", "--port"),
        ("run game.py --port", "requires an argument"),
        ("run game.py --port x", "port='x' (command line --port): expected a whole number from 0 to 65535"),
        ("run game.py extra", "unexpected extra argument"),
        ("run gmae.py", "did you mean game.py?"),
        ("run nowhere/game.py", "no such file"),
        ("run .", "is a folder"),
        ("run empty", "is a folder"),
        ("run notes.txt", "must end with .py"),
        ("run my-game:app", "is no file and no module's name"),
        ("run ./notes.txt", "must end with .py"),
        ("run :app", "names no game"),
        ("run nothing_here:app", "no module named 'nothing_here'"),
        ("run nothing.here:app", "no module named 'nothing'"),
        ("run game.nothing:app", "no module named 'game.nothing'"),
        ("run game.py:ap", "game.py: has no 'ap'; Apps in it: app"),
        ("run game.py:App", "'App' is a type, no App"),
        ("run none.py", "none.py makes no App"),
        ("run two.py", "two.py makes 2 Apps: a, b; say which one: two.py:a"),
        ("run random.py", "rename the file"),
        ("run antigravity.py", "rename the file"),
        ("run pytest.py", "rename the file"),
        ("run mistake.py", "mistake.py:7: a second handler"),
        ("run game.py --lan --host 10.0.0.1", "leave one of them out"),
        ("run game.py --lan --port 0", "choose one with --port"),
        ("run game.py --tls-cert no.pem", "no such file"),
        ("info game.py --port -1", "port='-1'"),
        ("info gmae.py", "did you mean game.py?"),
        ("dev gmae.py", "did you mean game.py?"),
        ("dev game.py --on-late wiat", "on_late='wiat'"),
    ],
)
def test_what_is_typed_wrong_gets_one_line(shell: Shell, words: str, what: str) -> None:
    shell.write("game.py", GAME)
    shell.write("none.py", "x = 1")
    shell.write("two.py", 'from stand_in import App\na, b = App("a"), App("b")')
    shell.write("random.py", "")
    shell.write("antigravity.py", "")
    shell.write("pytest.py", "")
    shell.write("notes.txt", "")
    shell.write(
        "mistake.py", "from gameserver.errors import ConfigError\nraise ConfigError('mistake.py:7: a second handler')"
    )
    (shell.folder / "empty").mkdir()
    assert what in shell.wrong(*words.split())


def test_a_wrong_settings_file_or_variable_gets_one_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.write("game.py", GAME)
    shell.write("gameserver.toml", "prot = 1")
    assert "did you mean 'port'?" in shell.wrong("info", "game.py")
    shell.write("gameserver.toml", "port = 1")
    monkeypatch.setenv("GAMESERVER_PROT", "1")
    assert "did you mean 'GAMESERVER_PORT'?" in shell.wrong("info", "game.py")


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("def broken(:\n", "SyntaxError: invalid syntax"),
        ("import not_installed_here\n", "ModuleNotFoundError: No module named 'not_installed_here'"),
        ("def f():\n    return 1 / 0\n\nf()\n", "ZeroDivisionError: division by zero"),
    ],
)
@pytest.mark.parametrize("target", ["game.py", "game"])
def test_a_game_that_fails_to_import_shows_its_own_traceback(shell: Shell, text: str, last: str, target: str) -> None:
    shell.write("game.py", text)
    code, out, err = shell.type("run", target)
    assert (code, out) == (1, "")
    assert err.rstrip().endswith(last)
    assert str(shell.folder / "game.py") in err
    assert "_target.py" not in err
    assert "importlib" not in err
    shell.write("game.py", GAME)
    shell.ok("run", target)  # nothing is left of the failed one


def test_a_taken_port_is_said_in_a_line(shell: Shell) -> None:
    shell.write(
        "game.py",
        """
        import errno
        from stand_in import App

        class Taken(App):
            def run(self, **settings):
                raise OSError(errno.EADDRINUSE, "Address already in use")

        app = Taken("x", port=80)
        """,
    )
    code, _, err = shell.type("run", "game.py")
    assert code == 1
    assert err == (
        "gameserver: can't listen on 127.0.0.1 port 80: Address already in use; "
        "something listens there already: end it, or choose another with --port\n"
    )


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_info_shows_handlers_and_where_each_setting_comes_from(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.write("gameserver.toml", "heartbeat = 10")
    monkeypatch.setenv("GAMESERVER_LOG_LEVEL", "debug")
    shell.write(
        "game.py",
        """
        from gameserver import App

        app = App("arena", tick_rate=30)

        @app.on("room.echo")
        async def echo(body: bytes) -> bytes:
            return body

        @app.tick
        def step(dt: float) -> None: ...
        """,
    )
    text = shell.ok("info", "game.py", "--port", "9000")
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    assert rows[0] == ["arena (game:app)"]
    assert ["on", "room.echo", "game.echo", "game.py:6", "async"] in rows
    assert ["tick", "game.step", "game.py:10"] in rows
    assert ["tick_rate", "30", "Hz", "code"] in rows
    assert ["port", "9000", "command line"] in rows
    assert ["log_level", "debug", "GAMESERVER_LOG_LEVEL"] in rows
    assert ["heartbeat", "10", "s", "gameserver.toml"] in rows
    assert ["host", "127.0.0.1", "default"] in rows
    assert rows[-1] == ["settings file: gameserver.toml"]


def test_lan_opens_every_interface_and_shows_the_way(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.write("game.py", GAME.replace("tick_rate=30", 'allowed_origins=["https://example.com"]'))
    monkeypatch.setattr(cli, "_lan_address", lambda: "192.168.1.5")
    text = shell.ok("run", "game.py", "--lan", "--port", "8000")
    assert "on your network: http://192.168.1.5:8000/\n" in text
    assert "█" in text  # the QR code
    settings = _target.load("game.py").app.found.settings  # type: ignore[attr-defined]
    assert settings.host == "0.0.0.0"
    assert set(settings.allowed_origins) >= {"http://192.168.1.5:8000", "https://example.com"}


def test_lan_without_a_network_says_so(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.write("game.py", GAME)
    monkeypatch.setattr(cli, "_lan_address", lambda: None)
    code, out, err = shell.type("run", "game.py", "--lan")
    assert code == 0
    assert "arena" in out
    assert "found no address" in err


def test_the_lan_address_is_one_of_this_machine() -> None:
    address = cli._lan_address()
    if address is not None:
        with socket.socket() as probe:
            probe.bind((address, 0))


# --- dev --------------------------------------------------------------------------------------------------------------

# A game that stays until it is ended, and says so.
LASTING = """
    import signal, threading
    from stand_in import App

    class Lasting(App):
        def run(self, **settings):
            ended = threading.Event()
            signal.signal(signal.SIGTERM, lambda *_: ended.set())
            print("version", VERSION, sorted(settings), flush=True)
            ended.wait()
            print("ended well", VERSION, flush=True)

    VERSION = 1
    app = Lasting("x")
"""


class Dev:
    """`gameserver dev` in a process of its own, and its lines as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def until(self, text: str) -> str:
        assert self.process.stdout is not None
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} was not said: {''.join(seen)}")


@pytest.fixture
def dev(shell: Shell) -> Iterator[Callable[..., Dev]]:
    with contextlib.ExitStack() as stack:

        def start(*words: str) -> Dev:
            command = [sys.executable, "-m", "gameserver", "dev", *words]
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    cwd=shell.folder,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    text=True,
                    start_new_session=True,
                )
            )

            def end() -> None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

            stack.callback(end)
            bound = threading.Timer(60, end)
            bound.start()
            stack.callback(bound.cancel)
            return Dev(process)

        yield start


def test_dev_starts_again_when_a_file_changes_and_survives_mistakes(shell: Shell, dev: Callable[..., Dev]) -> None:
    game = shell.write("game.py", LASTING)
    good = game.read_text()
    running = dev("game.py", "--port", "9000", "--spin")
    assert running.until("version 1").strip() == "version 1 ['_source', 'port', 'spin']"
    game.write_text(good.replace("VERSION = 1", "VERSION = 2"))
    assert "game.py changed" in running.until("changed")
    running.until("ended well 1")  # in good order, before the new one starts
    running.until("version 2")
    game.write_text("def broken(:\n")
    running.until("SyntaxError")
    running.until("it starts again when a file changes")
    shell.write("notes.txt", "no reason to start")
    game.write_text(good.replace("VERSION = 1", "VERSION = 3"))
    assert running.until("changed") == "gameserver: game.py changed: starting again\n"
    running.until("version 3")
    shell.write("gameserver.toml", "port = 1")
    assert "gameserver.toml changed" in running.until("changed")
    running.until("version 3")
    running.process.send_signal(signal.SIGINT)
    running.until("ended well 3")
    assert running.process.wait(30) == 0


def test_dev_ends_its_game_on_sigterm(shell: Shell, dev: Callable[..., Dev]) -> None:
    shell.write("game.py", LASTING)
    running = dev("game:app")
    running.until("version 1")
    running.process.send_signal(signal.SIGTERM)
    running.until("ended well 1")
    assert running.process.wait(30) == 0
