"""A 60 Hz tick that does nothing, beside an echo: how late does it start?"""

from __future__ import annotations

from benches.servers.announce import announce

from gameserver import App, Session

app = App("bench-tick", tick_rate=60)
announce(app)


@app.tick
def step(dt: float) -> None:
    pass


@app.on("echo")
def echo(session: Session, body: bytes) -> bytes:
    return body


if __name__ == "__main__":
    app.run(port=0, log_level="warning")
