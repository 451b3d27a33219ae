"""Guards: timeouts, retries with a budget, the breaker, the bulkhead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from stores import until

from gameserver import ConfigError, Overloaded, Unavailable
from gameserver.guard import Guard


class Other:
    """The other side."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: BaseException | None = None
        self.fails = 0  # so many calls, then it is well again

    async def __call__(self) -> int:
        self.calls += 1
        await asyncio.sleep(0)  # others may ask meanwhile
        if self.fails:
            self.fails -= 1
            raise ConnectionRefusedError("nobody")
        if self.error is not None:
            raise self.error
        return self.calls


def run(body: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await body()

    return asyncio.run(main())


def test_what_fails_once_is_tried_again() -> None:
    other, guard = Other(), Guard("other", attempts=3)
    other.fails = 2
    assert run(lambda: guard.call(other)) == 3
    assert guard.stats() == {
        "state": "closed", "under_way": 0, "done": 1, "failed": 2, "retried": 2, "refused_open": 0, "refused_full": 0,
        "opened": 0,
    }  # fmt: skip


def test_what_must_not_be_done_twice_is_not() -> None:
    other, guard = Other(), Guard("other", attempts=3)
    other.fails = 1
    with pytest.raises(Unavailable, match="other: ConnectionRefusedError: nobody"):
        run(lambda: guard.call(other, attempts=1))
    assert other.calls == 1


def test_errors_that_are_answers_are_passed_on() -> None:
    other, guard = Other(), Guard("other", failures=2)
    other.error = LookupError("no such row")

    async def body() -> None:
        for _ in range(5):
            with pytest.raises(LookupError):
                await guard.call(other)

    run(body)
    assert other.calls == 5
    assert guard.stats()["state"] == "closed"


def test_who_is_down_is_left_alone_and_one_finds_out() -> None:
    other, guard = Other(), Guard("other", attempts=1, failures=3, open_for=0.2)

    async def body() -> None:
        other.error = OSError("gone")
        for _ in range(10):
            with pytest.raises(Unavailable):
                await guard.call(other)
        assert other.calls == 3
        assert guard.is_open
        await until(lambda: not guard.is_open)
        many = await asyncio.gather(*(guard.call(other) for _ in range(50)), return_exceptions=True)
        assert other.calls == 4  # a single one
        assert all(isinstance(one, Unavailable) for one in many)
        other.error = None
        await until(lambda: not guard.is_open)
        assert await guard.call(other) == 5
        assert not guard.is_open
        assert len(await asyncio.gather(*(guard.call(other) for _ in range(5)))) == 5

    run(body)
    assert guard.stats()["opened"] == 2


def test_no_answer_in_time() -> None:
    guard = Guard("other", attempts=1, timeout=0.05)

    async def never() -> None:
        await asyncio.Event().wait()

    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"other: no answer within 0.05 s"):
        run(lambda: guard.call(never))
    assert time.monotonic() - began < 5


def test_retries_end_with_the_budget() -> None:
    other, guard = Other(), Guard("other", attempts=3, failures=1000, budget=0.2)
    other.error = OSError("gone")

    async def body() -> None:
        for _ in range(100):
            with pytest.raises(Unavailable):
                await guard.call(other)

    run(body)
    assert other.calls == 100 + 10  # ten had been saved up
    assert guard.stats()["retried"] == 10


def test_so_many_at_a_time_and_so_many_who_wait() -> None:
    guard, most, now = Guard("other", concurrency=3, waiting=4), [0], [0]

    async def work() -> None:
        now[0] += 1
        most[0] = max(most[0], now[0])
        await asyncio.sleep(0.01)
        now[0] -= 1

    async def body() -> list[Any]:
        return await asyncio.gather(*(guard.call(work) for _ in range(10)), return_exceptions=True)

    found = run(body)
    assert most == [3]
    assert [type(one) for one in found] == [type(None)] * 7 + [Overloaded] * 3
    assert guard.stats()["refused_full"] == 3


def test_who_is_cancelled_is_no_failure() -> None:
    guard = Guard("other", failures=1)

    async def body() -> None:
        async def never() -> None:
            await asyncio.Event().wait()

        task = asyncio.create_task(guard.call(never))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(body)
    stats = guard.stats()
    assert (stats["state"], stats["failed"], stats["under_way"]) == ("closed", 0, 0)


def test_as_a_decorator() -> None:
    guard = Guard("shop")

    @guard
    async def price(item: str, *, discount: int = 0) -> int:
        return len(item) - discount

    assert run(lambda: price("sword", discount=2)) == 3
    assert price.__name__ == "price"


@pytest.mark.parametrize(
    "option", [{"timeout": 0}, {"attempts": 0}, {"concurrency": 0}, {"failures": 0}, {"open_for": 0}, {"budget": -1}]
)
def test_mistakes(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(option))}="):
        Guard("x", **option)
