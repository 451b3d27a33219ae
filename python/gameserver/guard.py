"""What stands between a game and a store, or any other service, that may be slow or down. docs/stores.md.

A `Guard` bounds how long a call takes, how many are under way, how often they are tried again, and stops asking for a while when
the other side is down. Retries are tenacity's, the circuit breaker is purgatory's; the retry budget is as in Envoy.

>>> from gameserver.guard import Guard
>>> import asyncio
>>> async def answer() -> int:
...     return 42
>>> asyncio.run(Guard("oracle").call(answer))
42
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from gameserver.errors import ConfigError, Overloaded, Unavailable

if TYPE_CHECKING:
    from purgatory.service._async.circuitbreaker import AsyncCircuitBreaker

__all__ = ["Guard", "is_unreachable"]

P = ParamSpec("P")
T = TypeVar("T")

NEEDS = "guards are made of purgatory and tenacity, which are not installed: pip install 'gameserver[stores]'"
BACKOFF_FIRST, BACKOFF_MAX = 0.02, 0.5  # s, with full jitter
BUDGET_MAX = 10.0  # retries that may be saved up

Failure = Callable[[BaseException], bool]


def is_unreachable(error: BaseException) -> bool:
    """Whether an error says that the other side is not there, rather than that it did not like what it was asked.

    >>> is_unreachable(ConnectionRefusedError()), is_unreachable(LookupError())
    (True, False)
    """
    return isinstance(error, OSError | TimeoutError)


@dataclass(slots=True)
class _Counts:
    done: int = 0
    failed: int = 0
    """Attempts that found nobody, or no answer in time."""
    retried: int = 0
    refused_open: int = 0
    refused_full: int = 0
    opened: int = 0


class Guard:
    """Calls of one dependency.

    Args:
        name: how `App.stats` and errors call it.
        timeout: of one attempt, in s.
        attempts: at most so many; more than one only for what may be done twice.
        concurrency: calls at a time; more wait.
        waiting: calls that may wait; more are refused.
        failures: attempts that fail one after the other until it is taken as down.
        open_for: seconds for which nobody asks it then; after them one call tries.
        budget: retries allowed for each call that succeeds: a service in trouble is not asked the more for it.
        is_failure: which errors say that it is down; others are passed on, and are none of the guard's business.

    Raises:
        ConfigError: a number is out of range, or the libraries are not installed.

    >>> Guard("shop", timeout=0.5).stats()["state"]
    'closed'
    """

    def __init__(
        self,
        name: str,
        *,
        timeout: float = 2.0,
        attempts: int = 3,
        concurrency: int = 64,
        waiting: int = 1000,
        failures: int = 5,
        open_for: float = 1.0,
        budget: float = 0.2,
        is_failure: Failure = is_unreachable,
    ) -> None:
        for what, value, least in (
            ("timeout", timeout, 1e-3),
            ("attempts", attempts, 1),
            ("concurrency", concurrency, 1),
            ("waiting", waiting, 0),
            ("failures", failures, 1),
            ("open_for", open_for, 1e-3),
            ("budget", budget, 0),
        ):
            if not value >= least:
                raise ConfigError(f"Guard({name!r}, {what}={value!r}): a number from {least:g} on")
        try:
            import purgatory
            import tenacity
            from purgatory.domain.model import OpenedState
        except ImportError as error:
            raise ConfigError(f"Guard({name!r}): {NEEDS}") from error
        self.name = name
        self._timeout, self._attempts, self._open_for = timeout, attempts, open_for
        self._concurrency, self._waiting_max = concurrency, waiting
        self._is_failure = is_failure
        self._slots: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None  # of the loop that runs
        self._under_way = 0
        self._is_probing = False
        self._budget, self._budget_share = BUDGET_MAX, budget
        self._counts = _Counts()
        self._breakers = purgatory.AsyncCircuitBreakerFactory(
            failures, open_for, [(BaseException, lambda error: not is_failure(error))]
        )
        self._breaker: AsyncCircuitBreaker | None = None
        self._opened_state: type[Exception] = OpenedState
        self._stop = tenacity.stop_after_attempt(attempts)
        self._wait = tenacity.wait_random_exponential(BACKOFF_FIRST, BACKOFF_MAX)

    @property
    def is_open(self) -> bool:
        """Whether it is taken as down, so that calls are refused without asking it."""
        return bool(self.stats()["state"] == "opened")

    def stats(self) -> dict[str, Any]:
        """`state` (``closed``, ``opened``, ``half-opened``), `under_way`, and counts: `done`, `failed` attempts, `retried`,
        `refused_open`, `refused_full`, and how often it `opened`."""
        context = self._breaker.context if self._breaker is not None else None
        state: str = context.state if context is not None else "closed"
        if context is not None and state == "opened" and time.time() > (context.opened_at or 0) + self._open_for:
            state = "half-opened"
        return {"state": state, "under_way": self._under_way, **asdict(self._counts)}

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Decorates an ``async def``: each call of it is guarded."""

        @functools.wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self.call(functools.partial(function, *args, **kwargs))

        return guarded

    async def call(self, function: Callable[[], Awaitable[T]], *, attempts: int | None = None) -> T:
        """What the function gives.

        Args:
            attempts: for this call; 1 for what must not be done twice.

        Raises:
            Unavailable: it is down, or has not answered in time.
            Overloaded: too many wait for it already.
        """
        if self._under_way >= self._concurrency + self._waiting_max:
            self._counts.refused_full += 1
            raise Overloaded(f"{self.name}: {self._waiting_max} calls wait already")
        if self._breaker is None:
            self._breaker = await self._breakers.get_breaker(self.name)
        self._under_way += 1
        try:
            async with self._free_slot():
                if (attempts or self._attempts) == 1:
                    return await self._attempt(function)
                return await self._retried(function, attempts)
        except self._opened_state as error:
            self._counts.refused_open += 1
            raise Unavailable(f"{self.name} is down; it is tried again within {self._open_for:g} s") from error
        except Exception as error:
            if not self._is_failure(error):
                raise
            raise Unavailable(f"{self.name}: {_reason(error, self._timeout)}") from error
        finally:
            self._under_way -= 1

    def _free_slot(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._slots is None or self._slots[0] is not loop:
            self._slots = loop, asyncio.Semaphore(self._concurrency)
        return self._slots[1]

    async def _retried(self, function: Callable[[], Awaitable[T]], attempts: int | None) -> T:
        import tenacity

        stop = self._stop if attempts is None else tenacity.stop_after_attempt(attempts)
        async for attempt in tenacity.AsyncRetrying(
            stop=stop,
            wait=self._wait,
            retry=tenacity.retry_if_exception(self._may_retry),
            before_sleep=self._spend,
            reraise=True,
        ):
            with attempt:
                return await self._attempt(function)
        raise AssertionError("it has returned or raised")

    async def _attempt(self, function: Callable[[], Awaitable[T]]) -> T:
        breaker = self._breaker
        assert breaker is not None
        is_probe = breaker.context.state != "closed"
        if is_probe:
            if self._is_probing:  # one finds out for all
                raise self._opened_state(self.name)
            self._is_probing = True
        try:
            async with breaker:
                async with asyncio.timeout(self._timeout):
                    result = await function()
        except BaseException as error:
            if self._is_failure(error):
                self._counts.failed += 1
                self._counts.opened += breaker.context.state == "opened"
            raise
        finally:
            if is_probe:
                self._is_probing = False
        self._counts.done += 1
        self._budget = min(BUDGET_MAX, self._budget + self._budget_share)
        return result

    def _may_retry(self, error: BaseException) -> bool:
        return self._is_failure(error) and not isinstance(error, self._opened_state) and self._budget >= 1

    def _spend(self, _: object) -> None:
        self._budget -= 1
        self._counts.retried += 1


def _reason(error: BaseException, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} s"
    return f"{type(error).__name__}: {error}"
