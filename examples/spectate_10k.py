"""Ten thousand entities, and who sees which: a map of the grid's cells, their entities and their viewers.

Run it with `python examples/spectate_10k.py`, open http://127.0.0.1:7777/ in two windows, and click somewhere in one of them.
"""

from pathlib import Path
from typing import Annotated

import numpy as np

from gameserver import NOBODY, App, Entity, Message, Range, Session, World, f32, sync, u8, u16

TICK_RATE, SIDE, CELL, DOTS, SPEED = 20, 4000, 100, 10_000, 60
CELLS = SIDE // CELL


class Dot(Entity):
    x: f32 = sync(0, quantize=0.5, interpolate=True)
    y: f32 = sync(0, quantize=0.5, interpolate=True)
    hue: u8 = 0
    angle: f32 = sync(0, to=NOBODY)


class Cell(Entity, table="global"):
    """A cell of the grid, told to everybody."""

    place: u16  # row by row
    dots: u16 = 0
    viewers: u8 = 0


class Look(Message):
    """Where to look; a radius of 0: at everything."""

    x: Annotated[f32, Range(0, SIDE)] = 0
    y: Annotated[f32, Range(0, SIDE)] = 0
    radius: Annotated[f32, Range(0, 1000)] = 0


world, random = World(cell=CELL), np.random.default_rng(10)
app = App("spectate", tick_rate=TICK_RATE, world=world, static=Path(__file__).with_name("spectate_10k"))


@app.on_start
def open_map() -> None:
    x, y = random.normal(SIDE / 2, SIDE / 5, (2, DOTS)) % SIDE
    angle = random.uniform(0, 2 * np.pi, DOTS)
    world.spawn_many(Dot, DOTS, x=x, y=y, hue=random.integers(0, 256, DOTS), angle=angle)
    world.spawn_many(Cell, CELLS**2, place=np.arange(CELLS**2))


@app.on_join
def join(session: Session) -> None:
    world.watch(session, at=(SIDE / 2, SIDE / 2), radius=300)


@app.on
def look(session: Session, msg: Look) -> None:
    if msg.radius:
        world.watch(session, at=(msg.x, msg.y), radius=msg.radius)
    else:
        world.watch(session, everything=True)


@app.tick
def step(dt: float) -> None:
    dots = world.columns(Dot)
    dots.angle += random.normal(0, 0.15, DOTS).astype(np.float32)
    dots.x = np.clip(dots.x + np.cos(dots.angle) * SPEED * dt, 0, SIDE - 1)
    dots.y = np.clip(dots.y + np.sin(dots.angle) * SPEED * dt, 0, SIDE - 1)
    at_border = (dots.x <= 0) | (dots.y <= 0) | (dots.x >= SIDE - 1) | (dots.y >= SIDE - 1)
    dots.angle[at_border] += np.pi / 2


@app.every(0.25)
def count() -> None:
    """The map of who sees what."""
    cells = world.columns(Cell)
    dots, viewers = np.zeros(CELLS**2, np.uint16), np.zeros(CELLS**2, np.uint8)
    for cell, entities, watching in world.map(Dot):
        if cell is not None and 0 <= cell[0] < CELLS and 0 <= cell[1] < CELLS:
            place = cell[1] * CELLS + cell[0]
            dots[place], viewers[place] = entities, min(watching, 255)
    cells.dots, cells.viewers = dots, viewers


if __name__ == "__main__":
    app.run(port=7777)
