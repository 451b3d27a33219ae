"""A game with a little of everything, for the soak: a world, rooms, handlers that wait, pushes to all."""

from __future__ import annotations

import asyncio

from gameserver import App, Entity, Member, Message, Room, Session, World, f32, on, sync, u32


class Ship(Entity):
    x: f32 = sync(0, quantize=0.1)
    y: f32 = sync(0, quantize=0.1)


class Move(Message):
    x: f32
    y: f32


class Say(Message):
    text: str


class Add(Message):
    a: u32
    b: u32


class Sum(Message):
    sum: u32


app = App("soak", tick_rate=20, world=World(cell=100, view=100), resume_grace=10.0)
app.messages(Say)


@app.on_join
def join(session: Session) -> None:
    app.world.spawn(Ship, owner=session, x=session.id % 300, y=session.id // 300 % 300)
    app.world.follow(session)


@app.on
def move(me: Ship, msg: Move) -> None:
    me.x, me.y = msg.x % 300, msg.y % 300


@app.on
def say(session: Session, msg: Say) -> None:
    app.push(msg)


@app.on
async def add(session: Session, msg: Add) -> Sum:
    await asyncio.sleep(0.01)
    return Sum((msg.a + msg.b) % (1 << 32))


@app.room("table", max_members=4, tick_rate=10)
class Table(Room[Member]):
    played = 0

    @on
    def say(self, seat: Member, msg: Say) -> None:
        self.push(msg)

    def on_tick(self, dt: float) -> None:
        self.played += 1


if __name__ == "__main__":
    app.run(port=0)
