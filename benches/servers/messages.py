"""Typed messages without sockets, beside google's protobuf (upb) in the same handler: nanoseconds a message.

Ours as the server has it: the core reads the body into the message, calls the handler, and writes what it
returns. upb as a handler has it that gets and returns bytes: parses, reads, builds, serializes, in the fastest way
that we found. Prints one line of JSON.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from itertools import repeat
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from gameserver import Message, _core, f32, u32

ROUNDS = 9
MESSAGES = 100_000
ENTITIES = 100


class Move(Message):
    seq: u32
    dx: f32
    dy: f32
    name: str
    jump: bool
    hp: u32


class Moved(Message):
    seq: u32
    x: f32
    y: f32


class Entity(Message):
    id: u32
    x: f32
    y: f32
    name: str


class World(Message):
    tick: u32
    entities: list[Entity]


def google() -> dict[str, Any]:
    """The same classes by upb."""
    file = descriptor_pb2.FileDescriptorProto(name="bench.proto", package="bench", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    types = {"u32": field.TYPE_UINT32, "f32": field.TYPE_FLOAT, "str": field.TYPE_STRING, "bool": field.TYPE_BOOL}
    for cls in (Move, Moved, Entity, World):
        made = file.message_type.add(name=cls.__name__)
        for number, (name, annotation) in enumerate(cls.__annotations__.items(), 1):
            if annotation == "list[Entity]":
                made.field.add(
                    name=name,
                    number=number,
                    type=field.TYPE_MESSAGE,
                    label=field.LABEL_REPEATED,
                    type_name=".bench.Entity",
                )
            else:
                made.field.add(name=name, number=number, type=types[annotation], label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [message.name for message in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"bench.{name}")) for name in names}


GOOGLE = google()
GOOGLE_MOVE, GOOGLE_MOVED, GOOGLE_WORLD = GOOGLE["Move"], GOOGLE["Moved"], GOOGLE["World"]
BODY = Move(1_234_567, 0.25, -0.5, "alice", True, 77).encode()
WORLD = World(99, [Entity(i, i * 1.5, i * 2.5, f"player{i}") for i in range(ENTITIES)])
WORLD_BODY = WORLD.encode()


def moved(move: Move) -> Moved:
    return Moved(seq=move.seq, x=move.dx, y=move.dy)


def moved_upb(body: bytes) -> bytes:
    move = GOOGLE_MOVE()
    move.ParseFromString(body)
    answer = GOOGLE_MOVED()
    answer.seq = move.seq
    answer.x = move.dx
    answer.y = move.dy
    return answer.SerializeToString()  # type: ignore[no-any-return]


def read(world: Any) -> Any:
    for entity in world.entities:
        entity.id  # noqa: B018
        entity.x  # noqa: B018
        entity.y  # noqa: B018
        entity.name  # noqa: B018
    world.tick  # noqa: B018
    return world


def read_upb(body: bytes) -> bytes:
    return read(GOOGLE_WORLD.FromString(body)).SerializeToString()  # type: ignore[no-any-return]


def each(function: Callable[[Any], object], argument: object, count: int = MESSAGES) -> float:
    """Nanoseconds of one call, made from C."""
    start = time.perf_counter_ns()
    deque(map(function, repeat(argument, count)), maxlen=0)
    return (time.perf_counter_ns() - start) / count


MOVE, MOVE_UPB = Move.decode(BODY), GOOGLE_MOVE.FromString(BODY)
MEASURES: dict[str, Callable[[], float]] = {
    "message": lambda: _core.message_micro(moved, Move, BODY, MESSAGES),
    "message-upb": lambda: _core.message_micro(moved_upb, None, BODY, MESSAGES),
    "entities": lambda: _core.message_micro(read, World, WORLD_BODY, MESSAGES // ENTITIES),
    "entities-upb": lambda: _core.message_micro(read_upb, None, WORLD_BODY, MESSAGES // ENTITIES),
    "decode": lambda: each(Move.decode, BODY),
    "decode-upb": lambda: each(GOOGLE_MOVE.FromString, BODY),
    "encode": lambda: each(Move.encode, MOVE),
    "encode-upb": lambda: each(GOOGLE_MOVE.SerializeToString, MOVE_UPB),
}

if __name__ == "__main__":
    assert moved(Move.decode(BODY)).encode() == moved_upb(BODY)
    assert read(World.decode(WORLD_BODY)).encode() == read_upb(WORLD_BODY)
    figures: dict[str, list[float]] = {name: [] for name in MEASURES}
    for _ in range(ROUNDS):
        for name, measure in MEASURES.items():
            figures[name].append(measure())
    print(json.dumps(figures))
