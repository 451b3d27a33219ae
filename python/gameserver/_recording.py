"""asyncio in a run that is recorded, and in its replay: the same turns give the same steps of tasks, in the same order.

asyncio itself has no chance in it: what is ready runs first in, first out, timers by their time. So its clock is the turn's,
a replay's `select` returns where the recorded one did, and what other threads bring waits for that moment, too. What comes
from outside of the log, sockets of the game's own and processes, is refused in a replay and warned of in a recording.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextvars
import functools
import itertools
import logging
import random
import selectors
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from types import FrameType
from typing import Any

from gameserver._core import Core
from gameserver._loop import GameLoop
from gameserver._timer import call_name
from gameserver.errors import GameServerError

log = logging.getLogger("gameserver")

CALL, JOB, STOP = "C", "J", "Q"
"""Kinds of notes: a call from another thread, what became of a job of an executor, a call of ours has stopped the server."""

VERSION = 3
"""Of the file."""

_OUTSIDE = (
    *("add_reader", "add_writer", "connect_accepted_socket", "connect_read_pipe", "connect_write_pipe"),
    *("create_connection", "create_datagram_endpoint", "create_server", "create_unix_connection", "create_unix_server"),
    *("sendfile", "sock_accept", "sock_connect", "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into"),
    *("sock_sendall", "sock_sendfile", "sock_sendto", "start_tls", "subprocess_exec", "subprocess_shell"),
)


def started_with(chance: random.Random, options: dict[str, Any]) -> bytes:
    """What a replay has to begin with."""
    return repr({"version": VERSION, "random": chance.getstate(), "options": options}).encode()


def read_start(path: str) -> tuple[Any, dict[str, Any]]:
    """The state of `App.random` and the core's options of a recorded run.

    Raises:
        OSError: it can't be read, or is no recording, or one of another version.
    """
    data = Core.started_with(path)
    try:
        start = ast.literal_eval(data.decode())
        if start["version"] == VERSION:
            return start["random"], start["options"]
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError):
        pass
    raise OSError(f"{path}: no recording of App.run(record=...), or one of another version")


class OrderedTask(asyncio.Task[Any]):
    """A task whose hash is its number: sets of tasks, as `TaskGroup` has them, are walked in the same order again."""

    def __init__(self, coroutine: Any, *, loop: OrderedLoop, **options: Any) -> None:
        self._number = next(loop.numbers)
        super().__init__(coroutine, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number


class OrderedLoop(GameLoop):
    """A loop whose steps follow from the turns alone."""

    task_class = OrderedTask

    def __init__(self, selector: selectors.BaseSelector, core: Core) -> None:
        super().__init__(selector, core)
        self.time = core.now  # type: ignore[method-assign]
        self.wall = core.wall  # type: ignore[method-assign]
        self.numbers = itertools.count(1)
        self.set_task_factory(lambda loop, coroutine, **options: OrderedTask(coroutine, loop=self, **options))

    def is_here(self) -> bool:
        """Whether this is the loop's own thread, whose calls are in order."""
        return self._thread_id == threading.get_ident()  # type: ignore[attr-defined,no-any-return]

    def outside(self, name: str, caller: str) -> None:
        """Something is begun whose outcome no recording has."""
        raise NotImplementedError


def _outside_method(name: str) -> Callable[..., Any]:
    original = getattr(asyncio.SelectorEventLoop, name)

    @functools.wraps(original)
    def method(self: OrderedLoop, *arguments: Any, **options: Any) -> Any:
        self.outside(name, caller())
        return original(self, *arguments, **options)

    return method


for _name in _OUTSIDE:
    setattr(OrderedLoop, _name, _outside_method(_name))


class RecordingLoop(OrderedLoop):
    """The loop of a run that is recorded."""

    def __init__(self, selector: selectors.BaseSelector, core: Core) -> None:
        self._arrivals: deque[asyncio.Handle] = deque()
        self._jobs: weakref.WeakKeyDictionary[asyncio.Future[Any], tuple[int, str]] = weakref.WeakKeyDictionary()
        self._job_count = 0
        self._is_submitting = False
        self._warned: set[tuple[str, str]] = set()
        super().__init__(selector, core)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's; a call from another thread runs behind what was ready when the turn ended."""
        if self.is_here() and not self._is_submitting:
            return self.call_soon(callback, *args, context=context)
        return self._arrive(callback, args, context)

    def call_from_signal(self, function: Callable[[], object]) -> None:
        self._arrive(function, (), None)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        self._is_submitting = True  # its result may be there at once: it arrives all the same
        try:
            future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        finally:
            self._is_submitting = False
        self._job_count += 1
        self._jobs[future] = self._job_count, f"{job_name(func)} in {caller()}"
        return future

    def outside(self, name: str, caller: str) -> None:
        if (name, caller) not in self._warned:
            self._warned.add((name, caller))
            log.warning(
                "%s uses %s: the recording does not have what comes from there, and its replay ends there", caller, name
            )

    def _arrive(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> asyncio.Handle:
        self._check_closed()  # type: ignore[attr-defined]
        handle = asyncio.Handle(callback, args, self, context)
        self._arrivals.append(handle)
        self._write_to_self()  # type: ignore[attr-defined]
        return handle

    def _process_events(self, event_list: Any) -> None:
        """A turn has ended: what came from other threads meanwhile comes in now, and is noted."""
        super()._process_events(event_list)  # type: ignore[misc]
        while self._arrivals:
            handle = self._arrivals.popleft()
            job = self._job_of(handle)
            if job is None:
                self.core.note(CALL, arrival_name(handle).encode())
                handle = asyncio.Handle(self._call, (handle,), self, None)
            else:
                self.core.note(JOB, repr(job).encode())
            self._ready.append(handle)  # type: ignore[attr-defined]

    def _read_from_self(self) -> None:
        """Takes the wakes; also those of calls that came in after the turn's end, which wait for the next one."""
        super()._read_from_self()  # type: ignore[misc]
        if self._arrivals:
            self._write_to_self()  # type: ignore[attr-defined]

    def _job_of(self, handle: asyncio.Handle) -> tuple[Any, ...] | None:
        """Whose result a call brings: it is asyncio's, from a thread of the executor, with both futures."""
        match handle._args:
            case (asyncio.Future() as future, Future() as result) if future in self._jobs:
                number, name = self._jobs.pop(future)
                job = outcome(result)
                if job[0] == "unknown" and not future.cancelled():
                    self.outside(f"a result of an executor that is no plain data ({job[1]})", name)
                return number, *job
        return None

    def _call(self, handle: asyncio.Handle) -> None:
        stopping = self.stopping
        was_stopping = stopping is not None and stopping.is_set()
        if not handle.cancelled():
            handle._run()
        if stopping is not None and stopping.is_set() and not was_stopping:
            self.core.note(STOP, b"")


class ReplayLoop(OrderedLoop):
    """The loop of a replay.

    Args:
        outside: takes what came from other threads in the recorded run, and is not known here.
    """

    is_replay = True

    def __init__(self, selector: selectors.BaseSelector, core: Core, *, outside: list[str]) -> None:
        self._calls = outside
        self._jobs: dict[int, tuple[asyncio.Future[Any], str]] = {}
        self._job_count = 0
        super().__init__(selector, core)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's, but from the loop's own thread only.

        Raises:
            RuntimeError: another thread calls, of which the recording says nothing.
        """
        if self._thread_id is not None and not self.is_here():  # type: ignore[attr-defined]
            raise RuntimeError("this is a replay: calls from other threads do not come in")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """A future of the recorded result; nothing runs."""
        future: asyncio.Future[Any] = self.create_future()
        self._job_count += 1
        self._jobs[self._job_count] = future, f"{job_name(func)} in {caller()}"
        return future

    def outside(self, name: str, caller: str) -> None:
        text = f"{caller} uses {name}, of which a recording has no outcome"
        self.core.differ(text)
        raise GameServerError(f"a replay ends here: {text}")

    def _process_events(self, event_list: Any) -> None:
        """A turn has ended: what came from other threads then, comes again."""
        super()._process_events(event_list)  # type: ignore[misc]
        while True:
            call: tuple[Callable[..., object], tuple[Any, ...]]
            if (name := self.core.next_note(CALL)) is not None:
                call = self._call, (name.decode(errors="replace"),)
            elif (job := self.core.next_note(JOB)) is not None:
                call = self._settle, ast.literal_eval(job.decode())
            else:
                return
            self._ready.append(asyncio.Handle(*call, self, None))  # type: ignore[attr-defined]

    def _call(self, name: str) -> None:
        if self.core.next_note(STOP) is not None and self.stopping is not None:
            self.stopping.set()
        self._calls.append(f"turn {self.core.replayed()[0]}: {name}")

    def _settle(self, number: int, kind: str, *what: Any) -> None:
        future, name = self._jobs.pop(number, (None, ""))
        if future is None:
            self.core.differ(f"the recorded run got the result of job {number} of an executor, the replay began none")
        elif future.cancelled():
            pass
        elif kind == "result":
            future.set_result(what[0])
        elif kind == "error":
            future.set_exception(getattr(builtins, what[0])(*what[1]))
        elif kind == "cancelled":
            future.cancel()
        else:
            self.core.differ(f"{name} waits for a result of an executor that is no plain data ({what[0]})")


def outcome(result: Future[Any]) -> tuple[Any, ...]:
    """What became of a job, as a recording can have it: plain data, an exception of Python's own, or only its description."""
    if result.cancelled():
        return ("cancelled",)
    error = result.exception()
    if error is None:
        value = result.result()
        return ("result", value) if is_plain(value) else ("unknown", type(value).__qualname__)
    name = type(error).__name__
    if getattr(builtins, name, None) is type(error) and is_plain(error.args):
        return "error", name, error.args
    return "unknown", type(error).__qualname__


def is_plain(value: Any) -> bool:
    """Whether a value is the same again when its `repr` is read."""
    kind = type(value)
    if value is None or kind in (bool, int, str, bytes):
        return True
    if kind is float:
        return bool(value - value == 0)  # neither infinite nor no number
    if kind in (tuple, list):
        return all(map(is_plain, value))
    if kind is dict:
        return all(is_plain(key) and is_plain(item) for key, item in value.items())
    return False


def arrival_name(handle: asyncio.Handle) -> str:
    """What another thread calls; `App`'s own wrapper has that in its first argument."""
    callback, args = handle._callback, handle._args  # type: ignore[attr-defined]
    if callback is None:
        return "a cancelled call"
    return str(args[0]) if getattr(callback, "__qualname__", "") == "App._run_call" else call_name(callback)


def job_name(function: Callable[..., Any]) -> str:
    """What an executor is to run; `asyncio.to_thread` wraps it."""
    if isinstance(function, functools.partial):
        function = function.args[0] if function.args and callable(function.args[0]) else function.func
    return call_name(function)


def caller() -> str:
    """Where the game stands: the innermost function that is neither asyncio's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in ("asyncio", "concurrent", "gameserver"):
            code = frame.f_code
            return f"{module}.{code.co_qualname} ({code.co_filename}:{frame.f_lineno})"
        frame = frame.f_back
    return "the server"
