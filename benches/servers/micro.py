"""One message without sockets: from bytes in the receive buffer to bytes in the send buffer, in nanoseconds.

Beside it an empty call of the same handler, made from C (`map`) with two positional arguments. Prints one line of JSON.
"""

from __future__ import annotations

import json
import time
from collections import deque
from itertools import repeat

from gameserver import App, Session

ROUNDS = 9
MESSAGES = 200_000
BODY = bytes(range(64))

app = App("bench-micro")


@app.on("echo")
def echo(session: Session, body: bytes) -> bytes:
    return body


def empty_call() -> float:
    """Nanoseconds of one call of the handler."""
    session = Session()
    start = time.perf_counter_ns()
    deque(map(echo, repeat(session, MESSAGES), repeat(BODY)), maxlen=0)
    return (time.perf_counter_ns() - start) / MESSAGES


def measure() -> None:
    assert app._core is not None
    figures: dict[str, list[float]] = {"empty": [], "1": [], "16": [], "64": []}
    try:
        for _ in range(ROUNDS):
            figures["empty"].append(empty_call())
            for depth in (1, 16, 64):
                figures[str(depth)].append(app._core.micro("echo", BODY, depth, MESSAGES // depth))
        print(json.dumps(figures), flush=True)
    finally:
        app.stop()


@app.on_start
def started() -> None:
    app.after(0, measure)  # once start-up has been frozen out of the garbage collector's way


if __name__ == "__main__":
    app.run(port=0, log_level="warning")
