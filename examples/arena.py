"""The arena: eat what is smaller, flee from what is bigger. Five hundred bots are there already.

Run it with `python examples/arena.py` or `make demo`, open http://127.0.0.1:7777/ in two windows, and press F3.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np

from gameserver import NOBODY, App, Entity, MaxLen, Message, Range, Refuse, Session, World, f32, sync, u8, u16, u32

TICK_RATE, SIDE, BOTS, FOOD, SECTORS, LEADERS, NAME_MAX = 30, 6000, 500, 4500, 16, 8, 16
START, GREATEST, BIGGER = 18, 220, 1.12  # radius of a newcomer, the greatest; times one's own: who can eat one
SPEED, DASH_SPEED, DASH_LASTS, DASH_COSTS = 230, 2.2, 0.35, 0.05  # units a second; times; s; of the area
BOT_NAMES = ["Ada", "Alan", "Barbara", "Donald", "Edsger", "Frances", "Grace", "Hedy", "Joan", "Katherine", "Linus"]


class Blob(Entity):
    x: f32 = sync(0, quantize=0.1, interpolate=True)
    y: f32 = sync(0, quantize=0.1, interpolate=True)
    r: f32 = sync(START, quantize=0.1, interpolate=True)
    hue: u16 = 0
    name: Annotated[str, MaxLen(4 * NAME_MAX)] = ""
    dx: f32 = sync(0, to=NOBODY)  # where it wants to go, at most 1 long
    dy: f32 = sync(0, to=NOBODY)
    dash: f32 = sync(0, to=NOBODY)  # s that it lasts
    is_bot: bool = sync(False, to=NOBODY)


class Food(Entity):
    x: f32 = sync(0, quantize=1)
    y: f32 = sync(0, quantize=1)
    hue: u16 = 0


class Leader(Entity, table="global"):
    rank: u8
    name: Annotated[str, MaxLen(4 * NAME_MAX)] = ""
    score: u32 = 0


class Sector(Entity, table="global"):
    place: u16  # of the minimap's squares, row by row
    blobs: u8 = 0


class Play(Message):
    name: Annotated[str, MaxLen(4 * NAME_MAX)] = ""


class Steer(Message):
    x: Annotated[f32, Range(-1, 1)]
    y: Annotated[f32, Range(-1, 1)]


class Eaten(Message):
    by: str
    score: u32


world, random = World(cell=200, view=900), np.random.default_rng(7)
app = App("arena", tick_rate=TICK_RATE, world=world, resume_grace=20, static=Path(__file__).with_name("arena"))
app.messages(Eaten)


@app.on_start
def open_arena() -> None:
    world.spawn_many(Food, FOOD, **newcomers(FOOD))
    names = [BOT_NAMES[number % len(BOT_NAMES)] for number in range(BOTS)]
    world.spawn_many(Blob, BOTS, name=names, is_bot=True, r=START + random.gamma(1.2, 9.0, BOTS), **newcomers(BOTS))
    world.spawn_many(Leader, LEADERS, rank=np.arange(LEADERS))
    world.spawn_many(Sector, SECTORS**2, place=np.arange(SECTORS**2))


def newcomers(count: int) -> dict[str, Any]:
    x, y = random.uniform(0, SIDE, (2, count))
    return {"x": x, "y": y, "hue": random.integers(0, 360, count)}


@app.on_join
def join(session: Session) -> None:
    for blob in biggest(1):
        world.follow(session, blob)


@app.on
def play(session: Session, msg: Play) -> None:
    if world.owned(Blob, session) is not None:
        raise Refuse("playing", "one blob each")
    blobs, (xs, ys) = world.columns(Blob), random.uniform(0.1 * SIDE, 0.9 * SIDE, (2, 16, 1))
    safest = np.argmax((np.hypot(xs - blobs.x, ys - blobs.y) - blobs.r).min(axis=1))
    name = " ".join("".join(char if char.isprintable() else " " for char in msg.name).split())[:NAME_MAX] or "guest"
    world.spawn(Blob, owner=session, x=xs[safest, 0], y=ys[safest, 0], hue=int(random.integers(360)), name=name)
    world.follow(session)


@app.on
def steer(me: Blob, msg: Steer) -> None:
    length = max(1.0, (msg.x**2 + msg.y**2) ** 0.5)  # nobody is faster than straight on
    me.dx, me.dy = msg.x / length, msg.y / length


@app.on("dash")
def dash(me: Blob) -> None:
    if me.dash <= 0 and me.r > START:
        me.dash, me.r = DASH_LASTS, me.r * (1 - DASH_COSTS) ** 0.5


@app.tick
def step(dt: float) -> None:
    blobs = world.columns(Blob)
    way = SPEED * (START / blobs.r) ** 0.35 * np.where(blobs.dash > 0, DASH_SPEED, 1) * dt
    blobs.x = np.clip(blobs.x + blobs.dx * way, 0, SIDE)
    blobs.y = np.clip(blobs.y + blobs.dy * way, 0, SIDE)
    blobs.dash = np.maximum(blobs.dash - dt, 0)
    blobs.r = np.maximum(blobs.r * (1 - 0.0004 * blobs.r * dt), START)  # the great starve
    eat_food()
    eat_each_other()


def eat_food() -> None:
    blobs, food = world.columns(Blob), world.columns(Food)
    eaters, eaten = world.pairs(Blob, Food, GREATEST)
    reached = np.hypot(blobs.x[eaters] - food.x[eaten], blobs.y[eaters] - food.y[eaten]) < blobs.r[eaters]
    eaten, first = np.unique(eaten[reached], return_index=True)
    area = blobs.r.astype(float) ** 2
    np.add.at(area, eaters[reached][first], 16)
    blobs.r = np.minimum(np.sqrt(area), GREATEST)
    world.despawn_rows(Food, eaten)
    world.spawn_many(Food, len(eaten), **newcomers(len(eaten)))


def eat_each_other() -> None:
    blobs = world.columns(Blob)
    one, other, distance = near_each_other()
    eats = (blobs.r[one] > BIGGER * blobs.r[other]) & (distance < 0.9 * blobs.r[one])
    eaten, first = np.unique(other[eats], return_index=True)
    for eater, victim in zip(world.at(Blob, one[eats][first]), world.at(Blob, eaten), strict=True):
        eater.r = min((eater.r**2 + 0.6 * victim.r**2) ** 0.5, GREATEST)
        if victim.owner is not None:
            victim.owner.push(Eaten(eater.name, score(victim.r)))
            world.follow(victim.owner, eater)
    names = blobs.name[eaten][blobs.is_bot[eaten]]
    world.despawn_rows(Blob, eaten)
    world.spawn_many(Blob, len(names), name=names, is_bot=True, **newcomers(len(names)))


def near_each_other() -> tuple[Any, Any, Any]:
    """Rows of blobs in pairs, both ways around, and how far their middles are."""
    blobs, (one, other) = world.columns(Blob), world.pairs(Blob, Blob, 1.8 * GREATEST)
    distance = np.hypot(blobs.x[one] - blobs.x[other], blobs.y[one] - blobs.y[other])
    return np.concatenate([one, other]), np.concatenate([other, one]), np.concatenate([distance, distance])


@app.every(0.2)
def think() -> None:
    """Bots go for the nearest food, away from the nearest that is bigger, and now and then anywhere."""
    blobs, food = world.columns(Blob), world.columns(Food)
    head_for(*world.pairs(Blob, Food, 130), food, 1)
    one, other, distance = near_each_other()
    flees = (blobs.r[other] > BIGGER * blobs.r[one]) & (distance < 1.8 * blobs.r[other])
    head_for(one[flees], other[flees], blobs, -1)
    bored = np.flatnonzero(blobs.is_bot & (random.random(len(blobs)) < 0.02))
    angles = random.uniform(0, 2 * np.pi, len(bored))
    blobs.dx[bored], blobs.dy[bored] = np.cos(angles), np.sin(angles)


def head_for(who: Any, what: Any, there: Any, sign: int) -> None:
    """Each bot toward (1) or away from (-1) the nearest of what it is paired with."""
    blobs = world.columns(Blob)
    off_x, off_y = there.x[what] - blobs.x[who], there.y[what] - blobs.y[who]
    distance = np.hypot(off_x, off_y) + 1e-3
    order = np.argsort(distance)
    who, first = np.unique(who[order], return_index=True)
    who, nearest = who[blobs.is_bot[who]], order[first][blobs.is_bot[who]]
    blobs.dx[who], blobs.dy[who] = sign * off_x[nearest] / distance[nearest], sign * off_y[nearest] / distance[nearest]


@app.every(0.5)
def rank() -> None:
    blobs = world.columns(Blob)
    for leader, blob in zip(world.each(Leader), biggest(LEADERS), strict=False):
        leader.name, leader.score = blob.name, score(blob.r)
    counts, *_ = np.histogram2d(blobs.y, blobs.x, SECTORS, ((0, SIDE), (0, SIDE)))
    world.columns(Sector).blobs = np.minimum(counts.ravel(), 255)


def biggest(count: int) -> list[Blob]:
    rows = world.query(Blob)  # of those that are not about to go
    return world.at(Blob, rows[np.argsort(-world.columns(Blob).r[rows])[:count]])


def score(radius: float) -> int:
    return round(radius**2 / 10)


if __name__ == "__main__":
    app.run(port=7777)
