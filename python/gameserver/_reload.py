"""`gameserver dev`: the game in a process of its own, started again when one of its files changes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import watchfiles

__all__ = ["run"]

SUFFIXES = (".py", ".toml")  # what decides how the server runs; pages are served as they are
STOP_TIMEOUT = 10.0  # s for the game to end by itself: above the default `drain_timeout`
POLL_MS = 200  # how soon the end of the game's process is seen

# Folders that are not the game's, beside those that watchfiles knows.
FOREIGN = ("venv", "env", "site-packages", "target", "dist", "build")


def run(command: Sequence[str], folder: Path, say: Callable[[str], None]) -> int:
    """Runs `command`, again after each change in `folder`, until Ctrl-C or SIGTERM.

    A game that ends by itself, because of a syntax error for instance, is started again at the next change.

    Args:
        command: the game's process.
        folder: watched with all below it.
        say: takes a line for the person at the terminal.

    Returns:
        The exit code for us: 0.
    """
    stop = threading.Event()
    with _signals(stop) as seen:
        game = _Game(command, say)
        try:
            for changes in watchfiles.watch(
                folder,
                watch_filter=_Filter(),
                stop_event=stop,
                rust_timeout=POLL_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
            ):
                if changes:
                    say(f"{_names(changes, folder)} changed: starting again")
                    game.stop()
                    game = _Game(command, say)
                else:
                    game.look()
        finally:
            # At a terminal Ctrl-C has reached the game too, and a second signal would cut its farewell short.
            game.stop(told=signal.SIGINT in seen and _at_terminal())
    return 0


class _Game:
    """The game's process."""

    def __init__(self, command: Sequence[str], say: Callable[[str], None]) -> None:
        self._process = subprocess.Popen(command)
        self._say = say
        self._ended = False

    def look(self) -> None:
        """Says so, once, if it has ended by itself."""
        code = self._process.poll()
        if code is not None and not self._ended:
            self._ended = True
            how = "ended" if code == 0 else f"ended with code {code}" if code > 0 else f"was ended by signal {-code}"
            self._say(f"the game {how}; it starts again when a file changes")

    def stop(self, *, told: bool = False) -> None:
        """Ends it: in good order, or by force after `STOP_TIMEOUT`."""
        if self._process.poll() is None and not told:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT)
            return
        except subprocess.TimeoutExpired:
            pass
        if told:  # perhaps by a signal that reached us alone
            self.stop()
            return
        self._say(f"the game did not end within {STOP_TIMEOUT:g} s: killed")
        self._process.kill()
        self._process.wait()


class _Filter(watchfiles.DefaultFilter):
    def __init__(self) -> None:
        super().__init__(ignore_dirs=(*watchfiles.DefaultFilter.ignore_dirs, *FOREIGN))

    def __call__(self, change: watchfiles.Change, path: str) -> bool:
        return path.endswith(SUFFIXES) and super().__call__(change, path)


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[list[int]]:
    """Signals that end us, as an event; the second one ends us at once."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if seen:
            sys.exit(128 + number)
        seen.append(number)
        stop.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _at_terminal() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False


def _names(changes: set[watchfiles.main.FileChange], folder: Path) -> str:
    names = sorted({os.path.relpath(path, folder) for _, path in changes})
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
