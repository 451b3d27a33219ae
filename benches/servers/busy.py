"""A 60 Hz tick beside 5,000 events and 500 saves a second, and a Redis that does not answer. `BUSY=0`: beside nothing.

What it does beside comes in small portions, as players would cause it.
"""

from __future__ import annotations

import os
import tempfile

from benches.servers.announce import announce

from gameserver import App, Entity, Event, Overloaded, f32, shared, u32

EVERY = 0.01  # s
EVENTS, SAVES, ENTITIES = 5_000, 500, 2_000
IS_BUSY = os.environ["BUSY"] == "1"

app = App("bench-busy", tick_rate=60, store_timeout=0.5, database_url=f"sqlite:///{tempfile.mkdtemp()}/game.db")


class Moved(Event):
    who: int


@shared
class Told(Event):
    who: int


@app.tick
def step(dt: float) -> None:
    pass


if IS_BUSY:
    app.storage()

    @app.persistent
    class Hero(Entity):
        x: f32 = 0.0
        y: f32 = 0.0
        gold: u32 = 0

    heroes: list[Hero] = []
    turn = 0

    @app.on_event(Moved)
    def hear(event: Moved) -> None:
        pass

    @app.on_event(Told)
    def hear_all(event: Told) -> None:
        pass

    @app.on_start
    async def load() -> None:
        for number in range(ENTITIES):
            heroes.append(await app.load(Hero, str(number)))

    @app.every(EVERY)
    def work() -> None:
        global turn
        for number in range(round(EVENTS * EVERY)):
            app.emit(Moved(number), key=number)
        try:
            app.emit(Told(turn), key=turn)
        except Overloaded:
            pass
        for number in range(round(SAVES * EVERY)):
            heroes[(turn * 5 + number) % ENTITIES].gold += 1
        turn += 1


announce(app)  # it listens for the harness once all are loaded

if __name__ == "__main__":
    app.run(port=0, log_level="error")
