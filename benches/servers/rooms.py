"""Members at 20 Hz, in rooms or in groups of the app: `rooms.py rooms|groups idle|busy ROOMS SIZE TICKS`.

When busy, each member pushes once a tick. Says its port and, after so many ticks, the CPU nanoseconds of one.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from gameserver import App, Group, Member, Room, Session

RATE, WARMUP = 20, 20
KIND, LOAD = sys.argv[1:3]
ROOMS, SIZE, TICKS = (int(argument) for argument in sys.argv[3:6])

app = App("rooms", tick_rate=RATE, log_level="error")
groups: list[Group] = []
state: dict[str, Any] = {"members": 0, "tick": 0, "cpu": 0}


@app.on_start
def begin() -> None:
    print(app.port, flush=True)


@app.room("room", max_members=SIZE, tick_rate=RATE)
class Place(Room[Member]):
    def on_join(self, seat: Member) -> None:
        state["members"] += 1

    def on_tick(self, dt: float) -> None:
        if LOAD == "busy" and state["members"] == ROOMS * SIZE:
            for _ in self.members:
                self.push("m", b"twelve bytes")


@app.on("join")
def join(session: Session) -> bool:
    if state["members"] % SIZE == 0:
        groups.append(app.group(f"group {len(groups)}"))
    groups[-1].add(session)
    state["members"] += 1
    return True


@app.tick
def tick(dt: float) -> None:
    if KIND == "groups" and LOAD == "busy" and state["members"] == ROOMS * SIZE:
        for group in groups:
            for _ in range(SIZE):
                group.push("m", b"twelve bytes")
    if state["members"] < ROOMS * SIZE:
        return
    state["tick"] += 1
    if state["tick"] == WARMUP:
        state["cpu"] = time.process_time_ns()
    elif state["tick"] == WARMUP + TICKS:
        print(json.dumps({"cpu_ns": (time.process_time_ns() - state["cpu"]) / TICKS}), flush=True)


if __name__ == "__main__":
    app.run(port=0)
