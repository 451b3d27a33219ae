"""Clients with a mind of their own: async functions of Python beside the core's clients, for what no declaration can say."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any

from gameserver.client import Client, ClientError
from gameserver.errors import GameServerError

__all__ = ["Bot", "Bots", "Mind"]

STOP_WITHIN = 10.0  # s
AGAIN_AFTER = 1.0  # s; one that has failed
MEASURED_MAX = 1_000_000  # latencies that are kept
BUSY = 0.9  # of a core


class Bot:
    """One of them, as its function gets it.

    >>> async def wander(bot: Bot) -> None:
    ...     await bot.ask("move", {"x": bot.random.random()})
    ...     await bot.pause(0.1)
    """

    def __init__(self, client: Client, number: int, random: Random, bots: Bots) -> None:
        self.client = client
        """For all that a client can do: `notify`, `on`, `world`, `join`."""
        self.number = number
        """From 0."""
        self.random = random
        """Seeded by the scenario."""
        self._bots = bots

    async def ask(self, message: Any, body: Any = None) -> Any:
        """A request whose time counts; gives its answer.

        Raises:
            ClientError: the server refused it, or the connection has ended; it is counted.
        """
        began = time.perf_counter()
        try:
            answer = await (self.client.request(message) if body is None else self.client.request(message, body))
        except ClientError as error:
            self._bots.errors[error.code] += 1
            raise
        self._bots.took(time.perf_counter() - began)
        return answer

    async def pause(self, seconds: float) -> None:
        """Thinks for so long."""
        await asyncio.sleep(seconds)


Mind = Callable[[Bot], Awaitable[None]]
"""What a bot does: called again when it has returned."""


class Bots:
    """All of a scenario's, in a thread with a loop of its own."""

    def __init__(
        self, minds: Mapping[Mind, int], url: str, ca: str | None, user: Callable[[int], Any], seed: int
    ) -> None:
        self.errors: Counter[str] = Counter()
        """By code, or by the name of an exception that a function raised."""
        self._minds, self._url, self._user, self._seed = minds, url, user, seed
        self._tls = ssl.create_default_context(cafile=ca) if ca is not None else None
        self._latencies: list[float] = []
        self._asked = 0
        self._traceback = ""
        self._began, self._cpu = time.monotonic(), 0.0
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="swarm-bots", daemon=True)
        self._thread.start()

    def took(self, seconds: float) -> None:
        """One more answer."""
        self._asked += 1
        if len(self._latencies) < MEASURED_MAX:
            self._latencies.append(seconds)

    def stop(self) -> dict[str, Any]:
        """Ends them, and says what they came to.

        Raises:
            GameServerError: one does not end.
        """
        passed = time.monotonic() - self._began
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(STOP_WITHIN)
        if self._thread.is_alive():
            raise GameServerError("a bot's function swallows its cancellation: let asyncio.CancelledError through")
        ordered = sorted(self._latencies)

        def quantile(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

        return {
            "count": sum(self._minds.values()),
            "answered": self._asked,
            "answered_per_second": self._asked / passed,
            "latency": {
                "count": len(ordered), "p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99),
                "p999": quantile(0.999), "max": quantile(1.0), "mean": sum(ordered) / max(1, len(ordered)),
            },
            "errors": dict(self.errors),
            "traceback": self._traceback,
            "cpu": self._cpu / passed,
            "is_busy": self._cpu / passed > BUSY,
        }  # fmt: skip

    def _run(self) -> None:
        began = time.thread_time()
        try:
            self._loop.run_until_complete(self._play())
        finally:
            self._cpu = time.thread_time() - began
            self._loop.close()

    async def _play(self) -> None:
        minds = [mind for mind, count in self._minds.items() for _ in range(count)]
        tasks = [asyncio.create_task(self._live(mind, number)) for number, mind in enumerate(minds)]
        await self._over.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _live(self, mind: Mind, number: int) -> None:
        random = Random(self._seed * 1_000_003 + number)
        while True:
            try:
                options: dict[str, Any] = {"user": self._user(number), "tls": self._tls, "world": True}
                async with await Client.connect(self._url, **options) as client:
                    bot = Bot(client, number, random, self)
                    while True:
                        await mind(bot)
                        await asyncio.sleep(0)  # one that does nothing holds up nobody
            except ClientError as error:
                self.errors[f"ended: {error.code}"] += 1
            except Exception as error:
                self.errors[type(error).__name__] += 1
                self._traceback = self._traceback or traceback.format_exc(limit=-4)
            await asyncio.sleep(AGAIN_AFTER)
