"""The plaza: everybody who opens the page is a dot that walks, with a name and a chat line. Fifty bots keep it company.

Run it with `python examples/plaza.py` or `make demo`, then open http://127.0.0.1:7777/ in two windows.
"""

import math
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from gameserver import App, Left, MaxLen, Message, Range, Refuse, Session, f32, u16, u32

TICK_RATE, BOTS = 30, 50
WIDTH, HEIGHT, FOUNTAIN = 2000, 1300, (1000, 650, 120)  # nobody walks through the fountain: x, y, radius
RADIUS, SPEED = 14, 260.0  # of a dot, whose position is its centre, and a second; bots stroll
BOT_NAMES = ["Ada", "Alan", "Barbara", "Donald", "Edsger", "Frances", "Grace", "Hedy", "Joan", "Katherine", "Linus"]
BOT_LINES = ("hello!", "nice weather", "have you seen the fountain?", "just passing by", "hm?", "to the trees!")
NAME_MAX, CHAT_MAX, CHAT_PAUSE = 16, 140, 0.7  # characters, and seconds between two lines of one person


class About(Message):
    id: u32
    name: str
    hue: u16
    bot: bool
    x: f32
    y: f32


class Welcome(Message):
    you: u32
    width: f32
    height: f32
    fountain: list[f32]
    radius: f32
    speed: f32
    rate: u32
    dots: list[About]


class Joined(Message):
    who: About


class Gone(Message):
    id: u32
    why: str


class Move(Message):
    x: Annotated[f32, Range(-1, 1)]
    y: Annotated[f32, Range(-1, 1)]


class Say(Message):
    text: Annotated[str, MaxLen(4 * CHAT_MAX)]


class Said(Message):
    id: u32
    text: str


class Look(Message):
    name: Annotated[str, MaxLen(4 * NAME_MAX)] = ""
    hue: u32 | None = None


class At(Message):
    tick: u32
    ids: list[u32]  # of everybody, and where they are
    x: list[f32]
    y: list[f32]


class Dot:
    """Somebody on the plaza, person or bot."""

    def __init__(self, name: str, hue: int, bot: bool) -> None:
        self.id = next(ids)
        self.name, self.hue, self.bot = name, hue, bot
        angle, distance = app.random.uniform(0, math.tau), FOUNTAIN[2] * app.random.uniform(1.5, 5 if bot else 2.5)
        self.x, self.y = FOUNTAIN[0] + math.cos(angle) * distance, FOUNTAIN[1] + math.sin(angle) * distance
        self.dx = self.dy = self.mood_lasts = 0.0  # where it walks to, at most 1 long; a bot's mood, in seconds

    def about(self) -> About:
        return About(self.id, self.name, self.hue, self.bot, self.x, self.y)

    def walk(self, dt: float) -> None:
        """One step; the walls and the fountain are where the page draws them."""
        speed = SPEED * (0.35 if self.bot else 1.0)
        self.x = min(max(self.x + self.dx * speed * dt, RADIUS), WIDTH - RADIUS)
        self.y = min(max(self.y + self.dy * speed * dt, RADIUS), HEIGHT - RADIUS)
        off_x, off_y, keep = self.x - FOUNTAIN[0], self.y - FOUNTAIN[1], FOUNTAIN[2] + RADIUS
        distance = math.hypot(off_x, off_y)
        if 0 < distance < keep:
            self.x, self.y = FOUNTAIN[0] + off_x / distance * keep, FOUNTAIN[1] + off_y / distance * keep


class Player(Session):
    said_at = -CHAT_PAUSE
    dot: Dot


app = App("plaza", tick_rate=TICK_RATE, session=Player, static=Path(__file__).with_name("plaza"))
app.messages(Welcome, Joined, Gone, Said, At)
dots: dict[int, Dot] = {}
ids, ticks = count(1), count(1)


@app.on_start
def open_plaza() -> None:
    for number in range(BOTS):
        bot = Dot(BOT_NAMES[number % len(BOT_NAMES)], app.random.randrange(360), bot=True)
        dots[bot.id] = bot


@app.authenticate
def introduce(player: Player, user: dict[str, Any]) -> None:
    name, hue = clean(user.get("name"), NAME_MAX) or "guest", user.get("hue")
    player.dot = Dot(name, hue % 360 if type(hue) is int else app.random.randrange(360), bot=False)


@app.on_join
def join(player: Player) -> None:
    dots[player.dot.id] = player.dot
    app.push(Joined(player.dot.about()), skip=player)
    everybody = [dot.about() for dot in dots.values()]
    player.push(Welcome(player.dot.id, WIDTH, HEIGHT, [*FOUNTAIN], RADIUS, SPEED, TICK_RATE, everybody))


@app.on_leave
def leave(player: Player, why: Left) -> None:
    del dots[player.dot.id]
    app.push(Gone(player.dot.id, why))


@app.on
def move(player: Player, msg: Move) -> None:
    length = max(1.0, math.hypot(msg.x, msg.y))  # nobody is faster than walking straight
    player.dot.dx, player.dot.dy = msg.x / length, msg.y / length


@app.on
def say(player: Player, msg: Say) -> None:
    text = clean(msg.text, CHAT_MAX)
    if not text:
        raise Refuse("empty", "say something")
    if app.clock.now() - player.said_at < CHAT_PAUSE:
        raise Refuse("too-fast", "one line after the other, please")
    player.said_at = app.clock.now()
    app.push(Said(player.dot.id, text))


@app.on
def look(player: Player, msg: Look) -> About:
    """Another name, another colour: told to everybody, and to who asked."""
    player.dot.name = clean(msg.name, NAME_MAX) or player.dot.name
    player.dot.hue = player.dot.hue if msg.hue is None else msg.hue % 360
    about = player.dot.about()
    app.push(about)
    return about


@app.on("ping")
def ping() -> None:
    """The page measures how long the answer takes."""


@app.tick
def step(dt: float) -> None:
    """Everybody walks, and everybody is told."""
    for dot in dots.values():
        if dot.bot:
            wander(dot, dt)
        dot.walk(dt)
    app.push(At(next(ticks), [*dots], [dot.x for dot in dots.values()], [dot.y for dot in dots.values()]))


def wander(bot: Dot, dt: float) -> None:
    """Some seconds one way, then another or a rest, and now and then a word."""
    bot.mood_lasts -= dt
    if bot.mood_lasts > 0:
        return
    bot.mood_lasts = app.random.uniform(1.0, 4.0)
    angle, pace = app.random.uniform(0, math.tau), app.random.choice((0.0, 0.6, 1.0))
    bot.dx, bot.dy = math.cos(angle) * pace, math.sin(angle) * pace
    if app.random.random() < 0.04:
        app.push(Said(bot.id, app.random.choice(BOT_LINES)))


def clean(text: object, length_max: int) -> str:
    """A client's text as one line of bounded length, without control and direction marks."""
    given = (char if char.isprintable() else " " for char in (text[: 4 * length_max] if isinstance(text, str) else ""))
    return " ".join("".join(given).split())[:length_max].strip()


if __name__ == "__main__":
    app.run(port=7777)
