"""Reference: a WebSocket bytes echo on picows, with the same packet framing in Python on top.

One packet a frame, as the wire wants it. `--uvloop` runs it on uvloop. `--joined` sends all frames of a pass in one
write of hand-made bytes, which picows has no call for: the best that can be had from it.
"""

from __future__ import annotations

import asyncio
import sys

from benches.reference.framing import HANDLERS, Connection
from picows import (  # type: ignore[import-not-found, unused-ignore]  # optional
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

JOINED = "--joined" in sys.argv[1:]


class Echo(WSListener):  # type: ignore[misc, unused-ignore]
    """One connection."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.feed = Connection(HANDLERS).feed
        self.frames: list[bytes] = []

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.BINARY:
            transport.disconnect()
            return
        packets = self.feed(frame.get_payload_as_bytes())
        if not JOINED:
            for packet in packets:
                transport.send(WSMsgType.BINARY, packet)
            return
        frames = self.frames
        for packet in packets:
            n = len(packet)
            frames.append((bytes((0x82, n)) if n < 126 else bytes((0x82, 126, n >> 8, n & 255))) + packet)
        if frames and frame.last_in_buffer:
            transport.underlying_transport.write(b"".join(frames))
            frames.clear()


def listener(request: WSUpgradeRequest) -> WSListener:
    return Echo()


async def main() -> None:
    server = await ws_create_server(listener, "127.0.0.1", 0, backlog=4096)
    print("PORT", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if "--uvloop" in sys.argv[1:]:
    import uvloop  # type: ignore[import-not-found, unused-ignore]  # optional

    uvloop.run(main())
else:
    asyncio.run(main())
