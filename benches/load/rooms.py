"""Clients that join, and read what they are sent: `rooms.py PORT CLIENTS ROUTE BODY`.

Says the seconds until all have their answer, and how many of those are errors; ends with the server.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time

HELLO = b'{"sys":{"gs":{"serializer":"json"}},"user":{}}'
DATA, ERROR_BIT = 4, 0x20


def main(port: int, clients: int, route: bytes, body: bytes) -> None:
    """See the module."""
    sockets = []
    for _ in range(clients):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(bytes([1, 0, 0, len(HELLO)]) + HELLO)
        client.recv(65536)
        client.sendall(b"\2\0\0\0")
        client.setblocking(False)
        sockets.append(client)
    message = bytes([0, 1, len(route)]) + route + body
    packet = bytes([DATA]) + len(message).to_bytes(3, "big") + message
    poll = selectors.DefaultSelector()
    waiting, errors, start = {*sockets}, 0, time.perf_counter()
    for client in sockets:
        poll.register(client, selectors.EVENT_READ)
        client.send(packet)
    while poll.get_map():
        for key, _ in poll.select():
            client = key.fileobj  # type: ignore[assignment]
            try:
                data = client.recv(65536)
            except OSError:
                data = b""
            if not data:
                poll.unregister(client)
            elif client in waiting:
                for at in range(len(data) - 4):
                    if data[at] == DATA and data[at + 4] & 0x0E == 4:  # a response
                        waiting.discard(client)
                        errors += bool(data[at + 4] & ERROR_BIT)
                        break
                if not waiting:
                    print(f"{time.perf_counter() - start} {errors}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode(), sys.argv[4].encode())
