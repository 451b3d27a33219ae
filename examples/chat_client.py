"""Talks to `chat.py` over a plain socket: `python examples/chat_client.py [NAME] [PORT] [HOST]`. `/who`, `/join red`, Ctrl-D."""

import os
import select
import socket
import sys

from gameserver import wire
from gameserver.wire import MessageKind, PacketKind

name, port, host = [*sys.argv[1:], *("guest", "7777", "127.0.0.1")[len(sys.argv) - 1 :]]
server = socket.create_connection((host, int(port)))
server.sendall(
    wire.encode_packet(PacketKind.HANDSHAKE, wire.encode_client_handshake({"name": name}, serializer="protobuf"))
)
decoder, typed, requests = wire.PacketDecoder(), b"", 0
watched: list[int] = [server.fileno()]  # the keyboard (0) too, as soon as we may speak
while ready := select.select(watched, [], [])[0]:
    if 0 in ready:
        *lines, typed = (typed + (keys := os.read(0, 4096))).split(b"\n")
        for line in filter(None, lines):
            route, _, body = line[1:].partition(b" ") if line.startswith(b"/") else (b"say", b"", line)
            requests += 1
            message = wire.Message(MessageKind.REQUEST, route.decode() or "who", body, id=requests)
            server.sendall(wire.encode_packet(PacketKind.DATA, wire.encode_message(message)))
        if not keys:  # Ctrl-D: say no more, and read on until the server has closed
            watched.remove(0)
            server.shutdown(socket.SHUT_WR)
    if server.fileno() in ready:
        if not (data := server.recv(65536)):
            sys.exit()
        for kind, body in decoder.feed(data):
            if kind is PacketKind.HANDSHAKE:
                server.sendall(wire.encode_packet(PacketKind.HANDSHAKE_ACK))
                watched.append(0)
            elif kind is PacketKind.HEARTBEAT and 0 in watched:
                server.sendall(wire.encode_packet(PacketKind.HEARTBEAT))
            elif kind is PacketKind.KICK:
                sys.exit(f"the server says: {body.decode()}")
            elif kind is PacketKind.DATA:
                message = wire.decode_message(body)
                text = wire.decode_error(message.body, "protobuf").msg if message.error else message.body.decode()
                print(text, flush=True) if text else None
