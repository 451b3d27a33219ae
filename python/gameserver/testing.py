"""Running an app inside a test: its own thread, port 0, joined at the end.

>>> from gameserver import App
>>> from gameserver.testing import running
>>> app = App("doc")
>>> with running(app) as server:
...     server.port > 0
True
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from gameserver._app import App
from gameserver._signature import Kind, make_handler

__all__ = ["Replayed", "RunningServer", "replay", "running"]

T = TypeVar("T")


class RunningServer:
    """A server that runs in a thread of this process; made by `running`."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.port = 0
        self.addresses: list[str] = []
        self.final_stats: dict[str, Any] = {}
        """What `App.stats` said when the last connection was gone; set when the `with` block has ended."""

    def call(self, function: Callable[..., T], *arguments: Any, timeout: float = 10.0) -> T:
        """Runs a function in the server's thread and returns what it returns.

        Raises:
            TimeoutError: no answer within `timeout` seconds.
        """
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(function(*arguments))
            except BaseException as error:
                answer.set_exception(error)

        self.app.call_soon_threadsafe(run)
        return answer.result(timeout)

    def stats(self) -> dict[str, Any]:
        """`App.stats`, asked in the server's thread."""
        return self.call(self.app.stats)


@contextlib.contextmanager
def running(app: App, *, timeout: float = 20.0, **settings: Any) -> Iterator[RunningServer]:
    """Runs `app` in a thread on a free port, until the block ends; an error of the server is raised here.

    Args:
        timeout: seconds that start and stop may take.
        settings: as in `App.run`; `port` is 0 unless given.
    """
    server = RunningServer(app)
    started: Future[None] = Future()

    def note_start() -> None:
        server.addresses = list(app.addresses)
        with contextlib.suppress(Exception):
            server.port = app.port
        app.call_soon_threadsafe(started.set_result, None)  # once accepting

    def serve() -> None:
        try:
            app.run(**{"port": 0, **settings})
        except BaseException as error:
            if started.done():
                failures.append(error)
            else:
                started.set_exception(error)

    failures: list[BaseException] = []
    hook = make_handler(Kind.START, note_start)
    app._handlers.append(hook)
    thread = threading.Thread(target=serve, name=f"gameserver {app.name}", daemon=True)
    thread.start()
    try:
        started.result(timeout)
        yield server
    finally:
        with contextlib.suppress(Exception):
            app.call_soon_threadsafe(app.stop)
        thread.join(timeout)
        app._handlers = [handler for handler in app._handlers if handler is not hook]
        server.final_stats = app._last_stats
        if thread.is_alive():
            raise RuntimeError(f"server {app.name!r} did not stop within {timeout} s")
        if failures:
            raise failures[0]


class Replayed(NamedTuple):
    """What `replay` found."""

    turns: int
    """Turns of the loop."""
    compared: int
    """Logs toward the sockets whose bytes were compared."""
    difference: str | None
    """Where the first difference is; None: the run is the same."""
    outside: tuple[str, ...]
    """Calls from other threads that the recorded run took, by turn and name. They are not made again, and may be why it differs."""


def replay(app: App, recording: str | os.PathLike[str]) -> Replayed:
    """Runs a recording of `App.run(record=...)` once more, without sockets, and compares what is sent byte by byte.

    The app is a fresh one, made by the same code. Its handlers run in the recorded order, and so do all tasks: `asyncio.sleep`,
    timeouts, task groups, events and the like go on where they did, at the recorded times. The same again are

    - time from `app.clock` and the loop's `time()`, chance from `app.random`;
    - what `asyncio.to_thread` and `run_in_executor` gave, if it was plain data (None, numbers, str, bytes; tuples, lists and
      dicts of them) or an exception of Python's own: it is in the recording, and the function is not called;
    - the order of sets of sessions and tasks; that of sets of str is the same with the same ``PYTHONHASHSEED``.

    What else comes from outside ends the replay with a `difference` that names the function: sockets and processes of the
    game's own, other results of executors. Files and `time.time()` are read anew, unnoticed.

    Raises:
        OSError: the recording can't be read, or is damaged.
    """
    turns, compared, difference, outside = app._replay(os.fspath(recording))
    return Replayed(turns, compared, difference, tuple(outside))
