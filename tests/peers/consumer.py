"""A process that handles shared events, and may be killed at any time: ``consumer.py REDIS_URL DATABASE_URL [BUG]``.

Each event is a row of `effect`, in a `UnitOfWork`. A bug is planted by its name, so that it is seen whether the checker finds it:
``acknowledge_early``, ``effects_twice``, ``no_takeover``, ``keys_mixed``. With ``deadly`` it dies of each event number -1.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from history import Base, Effect, Step

from gameserver import App
from gameserver._redis import streams
from gameserver._shared import Delivery, Worker
from gameserver.storage import UnitOfWork

streams.LEASE, streams.BALANCE = 1.0, 0.2


def plant(bug: str) -> None:
    """Breaks one mechanism."""
    if bug == "acknowledge_early":
        put = Worker.put

        def put_early(self: Worker, deliveries: list[Delivery]) -> None:
            for delivery in deliveries:
                delivery.done(True)
                delivery.done = lambda _: None
            put(self, deliveries)

        Worker.put = put_early  # type: ignore[assignment, method-assign]
    elif bug == "effects_twice":

        async def nothing(self: UnitOfWork, *_: Any) -> None:
            pass

        UnitOfWork._mark_handled = nothing  # type: ignore[assignment, method-assign]
        UnitOfWork.check_not_handled = nothing  # type: ignore[method-assign]
    elif bug == "no_takeover":

        async def take(self: streams.Reader, number: int) -> None:
            self._own[number] = streams._Partition(streams.stream_of(self._name, number))

        streams.Reader._take_over = take  # type: ignore[method-assign]
    elif bug == "keys_mixed":
        put = Worker.put

        def put_mixed(self: Worker, deliveries: list[Delivery]) -> None:
            for delivery in deliveries:
                delivery.key = None
            put(self, deliveries)

        Worker.put = put_mixed  # type: ignore[assignment, method-assign]
    elif bug and bug != "deadly":
        raise SystemExit(f"there is no bug {bug}")


app = App("consumer", redis_url=sys.argv[1], database_url=sys.argv[2], log_level="critical", drain_timeout=1)
app.storage(Base.metadata)


@app.on_event(Step, retries=1000)
async def do(event: Step, work: UnitOfWork) -> None:
    work.sql.add(Effect(who=event.who, number=event.number))
    if event.number == -1 and sys.argv[3:] == ["deadly"]:
        os.kill(os.getpid(), signal.SIGKILL)  # as an extension that crashes, or a handler that takes all memory
    if random.random() < 0.02:
        await asyncio.sleep(random.random() * 0.01)
    if random.random() < 0.01:
        raise OSError("not this time")


@app.on_start
def started() -> None:
    print("up", flush=True)


plant(sys.argv[3] if len(sys.argv) > 3 else "")
app.run(port=0)
