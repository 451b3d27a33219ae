"""What services cost off the wire: events in this process, beside a bare asyncio.Queue for each subscriber."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benches.harness.report import Figure, Section, asked, publish  # noqa: E402

from gameserver import App, Event, queued  # noqa: E402

QUICK = "--quick" in sys.argv
COUNT, ROUNDS = (50_000, 3) if QUICK else (200_000, 7)


@queued(10_000_000)
class Happened(Event):
    number: int


def main() -> int:
    """Prints one table."""
    publish(Section("services", "Services", [*events()], []))
    return 0


def events() -> list[Figure]:
    """Emitted and handled, a second; two subscribers."""
    figures = []
    for keys, key in (("one key each", lambda number: number), ("one key for all", lambda number: 0)):
        for kind in ("def", "async def"):
            pairs = [(ours(kind, key), bare(kind)) for _ in range(ROUNDS)]
            rates = [median(side) for side in zip(*pairs, strict=True)]
            figures.append(
                asked(
                    f"events a second, {keys}, two subscribers by {kind} / an asyncio.Queue each",
                    [one / other for one, other in pairs],
                    1.0,
                    aim=3.0,
                    more_is_better=True,
                    detail=f"{rates[0]:,.0f} / {rates[1]:,.0f}",
                )
            )
    return figures


def ours(kind: str, key: Callable[[int], object]) -> float:
    """Events a second."""
    app, rate, handled = App("events", log_level="error"), 0.0, 0

    def take(event: Happened) -> None:
        nonlocal handled
        handled += 1

    async def take_async(event: Happened) -> None:
        nonlocal handled
        handled += 1

    for _ in range(2):
        app.on_event(Happened)(take if kind == "def" else take_async)
    some = [Happened(number) for number in range(COUNT)]

    @app.on_start
    async def measure() -> None:
        nonlocal rate
        began = time.perf_counter()
        for event in some:
            app.emit(event, key=key(event.number))
        while handled < 2 * COUNT:  # noqa: ASYNC110  # an event for each would be in the figure
            await asyncio.sleep(0)
        rate = COUNT / (time.perf_counter() - began)
        app.stop()

    app.run(port=0)
    return rate


def bare(kind: str) -> float:
    """The same by hand: no keys, no bounds, no retries."""
    handled = 0
    some = [Happened(number) for number in range(COUNT)]

    def take(event: Happened) -> None:
        nonlocal handled
        handled += 1

    async def take_async(event: Happened) -> None:
        nonlocal handled
        handled += 1

    async def consume(queue: asyncio.Queue[Happened]) -> None:
        while True:
            event = await queue.get()
            if kind == "def":
                take(event)
            else:
                await take_async(event)

    async def measure() -> float:
        queues: list[asyncio.Queue[Happened]] = [asyncio.Queue(), asyncio.Queue()]
        tasks = [asyncio.create_task(consume(queue)) for queue in queues]
        began = time.perf_counter()
        for event in some:
            for queue in queues:
                queue.put_nowait(event)
        while handled < 2 * COUNT:  # noqa: ASYNC110  # an event for each would be in the figure
            await asyncio.sleep(0)
        took = time.perf_counter() - began
        for task in tasks:
            task.cancel()
        return COUNT / took

    return asyncio.run(measure())


if __name__ == "__main__":
    sys.exit(main())
