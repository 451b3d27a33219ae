"""A message in, another one out, by the core: the Move and the Moved of common/wire.h."""

from __future__ import annotations

from benches.servers.announce import announce

from gameserver import App, Message, Session, f32, u32


class Move(Message):
    seq: u32
    x: f32
    y: f32
    note: str


class Moved(Message):
    seq: u32
    x: f32
    y: f32


app = App("bench-typed")
announce(app)


@app.on("echo")
def move(session: Session, msg: Move) -> Moved:
    return Moved(msg.seq, msg.x, msg.y)


if __name__ == "__main__":
    app.run(port=0, log_level="warning", serializer="protobuf")
