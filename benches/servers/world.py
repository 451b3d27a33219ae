"""The world under a load: `world.py CLIENTS ENTITIES MOVING TICKS`. A NumPy tick handler moves, each client sees 3 x 3 cells.

Says its port and, after so many ticks, the CPU nanoseconds of one.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from gameserver import NOBODY, App, Entity, Session, World, f32, sync

RATE, SPEED, CELL, WARMUP = 20, 20.0, 100.0, 20
CLIENTS, ENTITIES, MOVING, TICKS = (int(argument) for argument in sys.argv[1:5])
SIDE = CELL * (ENTITIES * 9 / 50) ** 0.5


class Mover(Entity):
    x: f32 = sync(0, quantize=0.01)
    y: f32 = sync(0, quantize=0.01)
    dx: f32 = sync(0, to=NOBODY)
    dy: f32 = sync(0, to=NOBODY)


app = App("world", tick_rate=RATE, world=World(cell=CELL, view=CELL), log_level="error")
world = app.world
world.declare(Mover)
joined: list[Session] = []
state: dict[str, Any] = {"tick": 0, "cpu": 0}


@app.on_start
def begin() -> None:
    random = np.random.default_rng(7)
    x, y = random.uniform(0, SIDE, (2, ENTITIES))
    angle = random.uniform(0, 2 * np.pi, ENTITIES)
    world.spawn_many(Mover, ENTITIES, x=x, y=y, dx=np.cos(angle) * SPEED / RATE, dy=np.sin(angle) * SPEED / RATE)
    print(app.port, flush=True)


@app.on_join
def join(session: Session) -> None:
    [own] = world.at(Mover, [len(joined) * ENTITIES // CLIENTS])
    joined.append(session)
    world.follow(session, own, radius=CELL)


@app.tick
def step(dt: float) -> None:
    if len(joined) < CLIENTS:
        return
    movers, tick = world.columns(Mover), state["tick"]
    some = slice(tick % MOVING, None, MOVING)
    x, y, dx, dy = movers.x[some], movers.y[some], movers.dx[some], movers.dy[some]
    x += dx
    y += dy
    dx[(x < 0) | (x >= SIDE)] *= -1
    dy[(y < 0) | (y >= SIDE)] *= -1
    np.minimum(np.maximum(x, 0, out=x), SIDE - 0.01, out=x)
    np.minimum(np.maximum(y, 0, out=y), SIDE - 0.01, out=y)
    state["tick"] = tick + 1
    if tick == WARMUP:
        state["cpu"] = time.process_time_ns()
    elif tick == WARMUP + TICKS:
        print(json.dumps({"cpu_ns": (time.process_time_ns() - state["cpu"]) // TICKS, "ticks": TICKS}), flush=True)


app.run(port=0)
