"""100 bytes to everybody, 20 times a second."""

from __future__ import annotations

from benches.servers.announce import announce

from gameserver import App

app = App("bench-broadcast", tick_rate=20)
announce(app)
BODY = b"x" * 100


@app.tick
def step(dt: float) -> None:
    app.push("push", BODY)


if __name__ == "__main__":
    app.run(port=0, log_level="warning")
