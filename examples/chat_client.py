"""Talks to `chat.py` over a plain socket: `python examples/chat_client.py [NAME] [PORT] [HOST]`. `/who`, `/join red`, Ctrl-D."""

import io
import select
import socket
import sys

from gameserver import wire

name, port, host = [*sys.argv[1:], *("guest", "7777", "127.0.0.1")[len(sys.argv) - 1 :]]
server, keyboard = socket.create_connection((host, int(port))), io.FileIO(0)  # unbuffered: select sees what is there
hello = wire.encode_client_handshake({"name": name}, serializer="protobuf")
server.sendall(wire.encode_packet(wire.PacketKind.HANDSHAKE, hello) + wire.encode_packet(wire.PacketKind.HANDSHAKE_ACK))
decoder, number = wire.PacketDecoder(), 0
watched: list[socket.socket | io.FileIO] = [server, keyboard]
while ready := select.select(watched, [], [])[0]:
    if keyboard in ready and (line := keyboard.readline()):
        route, _, body = line[1:].strip().partition(b" ") if line.startswith(b"/") else (b"say", b"", line)
        message = wire.Message(wire.MessageKind.REQUEST, route.decode() or "who", body, id=(number := number + 1))
        server.sendall(wire.encode_packet(wire.PacketKind.DATA, wire.encode_message(message)))
    elif keyboard in ready:  # Ctrl-D: say no more, and read on until the server has closed
        watched.remove(keyboard)
        server.shutdown(socket.SHUT_WR)
    for kind, body in decoder.feed(server.recv(65536) or sys.exit()) if server in ready else ():
        if kind is wire.PacketKind.HEARTBEAT and keyboard in watched:
            server.sendall(wire.encode_packet(wire.PacketKind.HEARTBEAT))
        elif kind is wire.PacketKind.KICK:
            sys.exit(f"the server says: {body.decode()}")
        elif kind is wire.PacketKind.DATA and (answer := wire.decode_message(body)).body:
            print(wire.decode_error(answer.body, "protobuf").msg if answer.error else answer.body.decode(), flush=True)
