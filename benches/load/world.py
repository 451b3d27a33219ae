"""Clients that are sent the world, and do nothing with it: `world.py PORT CLIENTS`. Ends with the server, and says the bytes."""

from __future__ import annotations

import selectors
import socket
import sys

HELLO = b'{"sys":{"gs":{"serializer":"json","world":true}},"user":{}}'


def main(port: int, clients: int) -> int:
    """Bytes that came."""
    poll = selectors.DefaultSelector()
    for _ in range(clients):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(bytes([1, 0, 0, len(HELLO)]) + HELLO)
        client.recv(65536)
        client.sendall(b"\2\0\0\0")
        client.setblocking(False)
        poll.register(client, selectors.EVENT_READ)
    total, open_ = 0, clients
    while open_:
        for key, _ in poll.select():
            try:
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
            except OSError:
                data = b""
            total += len(data)
            if not data:
                poll.unregister(key.fileobj)
                open_ -= 1
    return total


if __name__ == "__main__":
    print(main(int(sys.argv[1]), int(sys.argv[2])))
