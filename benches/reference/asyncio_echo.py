"""Reference: a bytes echo with the same framing in Python, on asyncio's streams of bytes (`--uvloop`: on uvloop)."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from benches.reference.framing import HANDLERS, Connection


class Echo(asyncio.Protocol):
    """One connection; one write per pass, as everybody here."""

    __slots__ = ("feed", "write")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.feed = Connection(HANDLERS).feed
        self.write = cast(asyncio.Transport, transport).write  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        packets = self.feed(data)
        if packets:
            self.write(packets[0] if len(packets) == 1 else b"".join(packets))


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=4096)
    print("PORT", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if "--uvloop" in sys.argv[1:]:
    import uvloop  # type: ignore[import-not-found, unused-ignore]  # optional

    uvloop.run(main())
else:
    asyncio.run(main())
