"""Bytes in and out, answered by an `async def` that waits for a turn of the loop, as one that asks a database."""

from __future__ import annotations

import asyncio

from benches.servers.announce import announce

from gameserver import App, Session

app = App("bench-echo-suspends")
announce(app)


@app.on("echo")
async def echo(session: Session, body: bytes) -> bytes:
    await asyncio.sleep(0)
    return body


if __name__ == "__main__":
    app.run(port=0, log_level="warning")
