"""Fifty entities that move in every tick, 20 times a second, in one place: all who are there see all of them."""

from __future__ import annotations

import numpy as np
from benches.servers.announce import announce

from gameserver import App, Entity, Session, World, f32, sync, u16

COUNT = 50


class Mover(Entity):
    x: f32 = sync(0, quantize=0.01)
    y: f32 = sync(0, quantize=0.01)
    hp: u16 = 100


class Eye(Entity):
    x: f32 = 50
    y: f32 = 50


app = App("bench-watched", tick_rate=20, world=World(cell=100, view=100))
random, eyes = np.random.default_rng(1), list[Eye]()
announce(app)


@app.on_start
def start() -> None:
    app.world.spawn_many(Mover, COUNT, x=random.uniform(0, 100, COUNT), y=random.uniform(0, 100, COUNT))
    eyes.append(app.world.spawn(Eye))


@app.on_join
def join(session: Session) -> None:
    app.world.follow(session, eyes[0])


@app.tick
def step(dt: float) -> None:
    movers = app.world.columns(Mover)
    movers.x = np.clip(movers.x + random.uniform(-1, 1, COUNT), 0, 99)
    movers.y = np.clip(movers.y + random.uniform(-1, 1, COUNT), 0, 99)


if __name__ == "__main__":
    app.run(port=0, log_level="warning")
