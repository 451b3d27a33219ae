"""Bytes in and out, answered by an `async def` that finishes without waiting."""

from __future__ import annotations

from benches.servers.announce import announce

from gameserver import App, Session

app = App("bench-echo-async")
announce(app)


@app.on("echo")
async def echo(session: Session, body: bytes) -> bytes:
    return body


if __name__ == "__main__":
    app.run(port=0, log_level="warning")
