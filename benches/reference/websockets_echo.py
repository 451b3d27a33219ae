"""Reference: a WebSocket bytes echo on `websockets`, with the same packet framing in Python on top. One packet a frame."""

from __future__ import annotations

import asyncio

from benches.reference.framing import HANDLERS, Connection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed


async def echo(socket: ServerConnection) -> None:
    """One connection."""
    feed = Connection(HANDLERS).feed
    try:
        async for frame in socket:
            assert isinstance(frame, bytes)
            for packet in feed(frame):
                await socket.send(packet)
    except ConnectionClosed:
        pass


async def main() -> None:
    async with serve(echo, "127.0.0.1", 0, compression=None, backlog=4096) as server:
        print("PORT", next(iter(server.sockets)).getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
