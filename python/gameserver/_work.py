"""Work off the loop: functions that block, in threads; functions that compute, in processes. Results come back to the loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from gameserver.errors import GameServerError, Overloaded

__all__ = ["Work"]


class _Pool(Protocol):
    """What both kinds have."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> concurrent.futures.Future[Any]: ...

    def stop(self) -> None: ...


class Work:
    """Workers of one kind, and what waits for them; at most so much.

    Args:
        make: starts the workers, when the first of them is needed.
        workers: how many there are.
        waiting_max: calls that may wait for one of them.
        hint: what to do about too many, for the error.
    """

    def __init__(self, make: Callable[[], _Pool], workers: int, waiting_max: int, hint: str) -> None:
        self._make = make
        self._pool: _Pool | None = None
        self._workers, self._waiting_max, self._hint = workers, waiting_max, hint
        self._open = 0
        self._done = self._failed = self._refused = 0

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns.

        Raises:
            Overloaded: too many wait already.
            GameServerError: the worker has died.
        """
        if self._open >= self._workers + self._waiting_max:
            self._refused += 1
            raise Overloaded(f"{self._waiting_max} calls wait already; {self._hint}")
        if self._pool is None:
            self._pool = self._make()
        try:
            future = self._pool.submit(function, *arguments)
        except BrokenProcessPool:
            self._pool = self._make()
            future = self._pool.submit(function, *arguments)
        # Whoever waits may be cancelled; the worker is busy until it returns all the same.
        self._open += 1
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda future: _soon(loop, self._ended, future))
        try:
            return await asyncio.wrap_future(future)
        except BrokenProcessPool as error:
            self._pool = None
            raise GameServerError(
                f"a process has died while it computed {getattr(function, '__qualname__', function)}; others are started: {error}"
            ) from error

    def stats(self) -> dict[str, int]:
        """Counts, and how many are running and waiting now."""
        return {
            "running": min(self._open, self._workers),
            "waiting": max(0, self._open - self._workers),
            "done": self._done,
            "failed": self._failed,
            "refused": self._refused,
        }

    def stop(self) -> None:
        """What waits is dropped; what runs is left behind."""
        if self._pool is not None:
            self._pool.stop()
            self._pool = None

    def _ended(self, future: concurrent.futures.Future[Any]) -> None:
        self._open -= 1
        if future.cancelled():
            return
        self._done += 1
        self._failed += future.exception() is not None


def _soon(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        pass  # the loop is closed: the server has stopped without it


class Threads:
    """Daemon threads: one that blocks for ever, in a call to a database that does not answer, keeps nobody from leaving.

    (`concurrent.futures.ThreadPoolExecutor` waits for its threads when the interpreter ends.)

    >>> threads = Threads(2)
    >>> threads.submit(sum, [1, 2]).result()
    3
    >>> threads.stop()
    """

    def __init__(self, count: int) -> None:
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._count = count
        for number in range(count):
            threading.Thread(target=self._work, name=f"gameserver-blocking-{number}", daemon=True).start()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> concurrent.futures.Future[Any]:
        """Calls it in one of them, in the context of who asks."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._waiting.put((future, contextvars.copy_context(), function, arguments))
        return future

    def stop(self) -> None:
        """They end when they have done what they are at; what waits is cancelled."""
        while True:
            try:
                work = self._waiting.get_nowait()
            except queue.Empty:
                break
            if work is not None:
                work[0].cancel()
        for _ in range(self._count):
            self._waiting.put(None)

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            future, context, function, arguments = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = context.run(function, *arguments)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del work, future, context, function, arguments


class Processes:
    """Processes that are spawned, never forked: a fork of a server with threads may hang.

    Functions and arguments are pickled, so they are found by their names; the game's file is imported again in each.
    """

    def __init__(self, count: int) -> None:
        self._pool = concurrent.futures.ProcessPoolExecutor(
            count, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_process
        )

    def submit(self, function: Callable[..., Any], *arguments: Any) -> concurrent.futures.Future[Any]:
        """Calls it in one of them."""
        return self._pool.submit(function, *arguments)

    def stop(self) -> None:
        """What waits is cancelled, what runs is ended."""
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


def _begin_process() -> None:
    """Ctrl-C is for the server, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def blocking(threads: int, waiting_max: int) -> Work:
    """For what waits for others: files, databases without asyncio."""
    return Work(
        lambda: Threads(threads), threads, waiting_max, "raise blocking_threads or blocking_waiting, or ask less"
    )


def cpu(processes: int, waiting_max: int) -> Work:
    """For what computes for long."""
    count = processes or len(os.sched_getaffinity(0))
    return Work(lambda: Processes(count), count, waiting_max, "raise cpu_processes or cpu_waiting, or ask less")
