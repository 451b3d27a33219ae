"""What is measured, against which reference, and what it must reach. Read this first."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec

from benches.harness.processes import OUT, Server

PYTHON = sys.executable


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (PYTHON, "-m", f"benches.{name}", *arguments)


UVLOOP = ("--uvloop",) if find_spec("uvloop") else ()  # picows runs on either
RUST_ECHO = {"GAMESERVER_BENCH_RUST_ECHO": "1"}  # the core answers the route `echo` without Python

# The core's own limits, which all other servers have, are off.
UNLIMITED = {
    "GAMESERVER_MESSAGE_RATE": "none",
    "GAMESERVER_CONNECT_RATE": "none",
    "GAMESERVER_ADDRESS_MESSAGE_RATE": "none",
}

SERVERS = {
    server.name: server
    for server in (
        Server("epoll", (str(OUT / "epoll"),)),
        Server("epoll-broadcast", (str(OUT / "epoll"), "--broadcast", "20")),
        Server("epoll-tick", (str(OUT / "epoll"), "--tick", "60")),
        Server("asyncio", _module("reference.asyncio_echo")),
        Server("uvloop", _module("reference.asyncio_echo", "--uvloop")),
        Server("picows", _module("reference.picows_echo", *UVLOOP)),
        Server("websockets", _module("reference.websockets_echo")),
        # Their routes have two parts; both use all cores that they find, here the server's alone.
        Server("nano", (str(OUT / "nano"),), load=("--route", "bench.echo", "--late-heartbeat")),
        Server("pitaya", (str(OUT / "pitaya"),), load=("--route", "bench.echo", "--late-heartbeat")),
        Server("picows-joined", _module("reference.picows_echo", *UVLOOP, "--joined")),
        Server("rust-echo", _module("servers.echo"), RUST_ECHO),
        Server("echo", _module("servers.echo")),
        Server("echo-spin", _module("servers.echo", "--spin")),
        Server("echo-async", _module("servers.echo_async")),
        Server("echo-suspends", _module("servers.echo_suspends")),
        Server("broadcast", _module("servers.broadcast")),
        Server("tick", _module("servers.tick")),
        Server("epoll-drop", (str(OUT / "epoll"), "--drop")),
        Server("typed", _module("servers.typed")),
        Server("typed-google", _module("servers.typed_google")),
        Server("batch", _module("servers.batch")),
        Server("services", _module("servers.services")),
        Server("services-message", _module("servers.services"), load=("--route", "message")),
        Server("echo-unlimited", _module("servers.echo"), UNLIMITED),
        Server("limited", _module("servers.limited")),
    )
}


MICRO_CALLS_MAX = {"1": 7.0, "16": 3.3, "64": 3.0}
"""By depth: what one message may cost without sockets, in empty calls of its handler, measured in the same rounds.

Measured: 4.9, 2.1 and 1.9 (150, 64 and 59 ns beside 31), and up to 6.1, 2.5 and 2.2 while the machine was busy with
other things. The rest is margin. A pass of one message pays alone for what the messages of a longer one share.
"""


class Kind(Enum):
    """What a run yields beside the messages that the load generator counted."""

    LOAD = "load"
    MEMORY = "memory"
    TICK_IDLE = "tick, no load"
    TICK_LOAD = "tick under load"


@dataclass(frozen=True)
class Scenario:
    """One load, put on several servers in turn: in every round on each of them."""

    name: str
    servers: tuple[str, ...]
    load: tuple[str, ...] = ()
    kind: Kind = Kind.LOAD
    seconds: float = 1.0
    rounds: int = 7


def _echo(depth: int, *more: str) -> tuple[str, ...]:
    return ("echo", "--connections", "100", "--depth", str(depth), "--spin", *more)


PING_PONG = ("echo", "--connections", "1")
IDLE_CONNECTIONS = 10_000

SCENARIOS = (
    Scenario("echo, depth 1", ("epoll", "rust-echo", "echo", "echo-suspends"), _echo(1)),
    Scenario(
        "echo, depth 16",
        ("epoll", "rust-echo", "echo", "echo-async", "echo-suspends", "uvloop", "asyncio"),
        _echo(16),
    ),
    Scenario("echo, depth 64", ("epoll", "rust-echo", "echo"), _echo(64)),
    Scenario("messages, depth 1", ("epoll", "typed"), _echo(1, "--typed")),
    Scenario("messages, depth 16", ("epoll", "typed", "typed-google"), _echo(16, "--typed")),
    Scenario("messages, depth 64", ("epoll", "typed", "typed-google"), _echo(64, "--typed")),
    Scenario(
        "800,000 notifies a second",
        ("epoll-drop", "batch"),
        ("notify", "--connections", "100", "--depth", "16", "--rate", "800000", "--typed"),
    ),
    Scenario("limits, depth 16", ("echo-unlimited", "echo"), _echo(16)),
    Scenario("services, depth 16", ("echo", "services", "services-message"), _echo(16)),
    Scenario(
        "a flood over its rate",
        ("epoll-drop", "limited"),
        ("notify", "--connections", "1", "--depth", "64", "--rate", "800000", "--typed"),
    ),
    Scenario("peers, depth 1", ("echo", "nano", "pitaya"), _echo(1)),
    Scenario("peers, depth 16", ("echo", "nano", "pitaya"), _echo(16)),
    Scenario("WebSocket, depth 16", ("picows", "echo", "picows-joined", "websockets"), _echo(16, "--websocket")),
    Scenario(
        "broadcast to 100", ("epoll-broadcast", "broadcast"), ("receive", "--connections", "100", "--spin"), seconds=2
    ),
    Scenario(
        "broadcast to 1,000",
        ("epoll-broadcast", "broadcast"),
        ("receive", "--connections", "1000", "--spin"),
        seconds=2,
    ),
    Scenario("ping-pong", ("epoll", "echo", "echo-spin"), PING_PONG),
    Scenario("ping-pong, the client spins", ("epoll", "echo"), (*PING_PONG, "--spin")),
    Scenario("idle connections", ("epoll", "echo"), kind=Kind.MEMORY, rounds=3),
    Scenario("connect", ("epoll", "echo"), ("connect", "--connections", "64", "--spin")),
    Scenario("tick, idle", ("epoll-tick", "tick"), kind=Kind.TICK_IDLE, seconds=5, rounds=5),
    Scenario(
        "tick, 20,000 messages a second",
        ("epoll-tick", "tick"),
        ("echo", "--connections", "100", "--depth", "4", "--rate", "20000"),
        kind=Kind.TICK_LOAD,
        seconds=5,
        rounds=5,
    ),
)

MESSAGES = "typed messages"
"""The scenario of `servers/messages.py`, which has no sockets: its measures stand where servers do."""


class Value(Enum):
    """Which figure of a run a row compares, and which way round."""

    CPU = "reference's CPU a message / ours"
    RATE = "our rate / the reference's"
    P50 = "our p50 / the reference's"
    LATE_P50 = "our p50 lateness / the reference's"
    LATE_P99 = "our p99 lateness / the reference's"
    MEMORY = "our kB a connection"

    @property
    def more_is_better(self) -> bool:
        return self in (Value.CPU, Value.RATE)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    measure: str
    must: float | None
    aim: float | None
    scenario: str
    ours: str
    reference: str
    value: Value = Value.CPU


ROWS = (
    Row("echo answered in Rust, depth 1", 0.95, 1.00, "echo, depth 1", "rust-echo", "epoll"),
    Row("echo answered in Rust, depth 16", 0.95, 1.00, "echo, depth 16", "rust-echo", "epoll"),
    Row("echo answered in Rust, depth 64", 0.95, 1.00, "echo, depth 64", "rust-echo", "epoll"),
    Row("handler, bytes in and out, depth 1", 0.95, 1.00, "echo, depth 1", "echo", "epoll"),
    Row("handler, bytes in and out, depth 16", 0.85, 0.95, "echo, depth 16", "echo", "epoll"),
    Row("handler, bytes in and out, depth 64", 0.75, 0.85, "echo, depth 64", "echo", "epoll"),
    Row("the same over WebSocket, depth 16, against picows", 5, 8, "WebSocket, depth 16", "echo", "picows"),
    Row(
        "... against picows with its frames joined by hand", None, None, "WebSocket, depth 16", "echo", "picows-joined"
    ),
    Row("... against `websockets`", None, None, "WebSocket, depth 16", "echo", "websockets"),
    Row("bytes handler against nano (Go), depth 1", None, None, "peers, depth 1", "echo", "nano"),
    Row("... depth 16", None, None, "peers, depth 16", "echo", "nano"),
    Row("bytes handler against Pitaya (Go), compression off, depth 1", None, None, "peers, depth 1", "echo", "pitaya"),
    Row("... depth 16", None, None, "peers, depth 16", "echo", "pitaya"),
    Row("a message in, another out, depth 1", 0.88, None, "messages, depth 1", "typed", "epoll"),
    Row("a message in, another out, depth 16", 0.60, None, "messages, depth 16", "typed", "epoll"),
    Row("a message in, another out, depth 64", 0.40, None, "messages, depth 64", "typed", "epoll"),
    Row("... against google's protobuf, depth 16", 2.5, None, "messages, depth 16", "typed", "typed-google"),
    Row("... against google's protobuf, depth 64", 4, None, "messages, depth 64", "typed", "typed-google"),
    Row(
        "batch handler at 800,000 notifies a second, against C that parses and drops",
        0.90,
        None,
        "800,000 notifies a second",
        "batch",
        "epoll-drop",
    ),
    Row("all limits on, against off, depth 16", 0.95, 0.98, "limits, depth 16", "echo", "echo-unlimited"),
    Row(
        "a notify over its rate, against C that parses and drops",
        0.77,
        0.91,
        "a flood over its rate",
        "limited",
        "epoll-drop",
    ),
    Row("two services of the app in a handler, depth 16", 0.97, 0.99, "services, depth 16", "services", "echo"),
    Row("one service of the message, depth 16", 0.15, 0.4, "services, depth 16", "services-message", "echo"),
    Row("async def handler, depth 16", 0.20, 0.60, "echo, depth 16", "echo-async", "epoll"),
    Row("async def handler that suspends once, depth 16", 0.10, 0.20, "echo, depth 16", "echo-suspends", "epoll"),
    Row("async def handler that suspends once, depth 1", 0.6, 0.8, "echo, depth 1", "echo-suspends", "epoll"),
    Row("broadcast of 100 bytes at 20 Hz to 100", 0.95, 1.00, "broadcast to 100", "broadcast", "epoll-broadcast"),
    Row("broadcast of 100 bytes at 20 Hz to 1,000", 0.95, 1.00, "broadcast to 1,000", "broadcast", "epoll-broadcast"),
    Row("one connection, p50 of a round trip", 1.05, None, "ping-pong", "echo", "epoll", Value.P50),
    Row("... the server spins", None, 0.5, "ping-pong", "echo-spin", "epoll", Value.P50),
    Row("... the client spins", 1.05, None, "ping-pong, the client spins", "echo", "epoll", Value.P50),
    Row("user memory per idle connection, kB, of 10,000", 0.5, 0.25, "idle connections", "echo", "epoll", Value.MEMORY),
    Row("connect and handshake, connections a second", 0.6, 0.9, "connect", "echo", "epoll", Value.RATE),
    Row("... by CPU a connection", None, None, "connect", "echo", "epoll"),
    Row("lateness of a 60 Hz tick, idle, p50", 1.2, 1.05, "tick, idle", "tick", "epoll-tick", Value.LATE_P50),
    Row("lateness of a 60 Hz tick, idle, p99", 1.2, 1.05, "tick, idle", "tick", "epoll-tick", Value.LATE_P99),
    Row("... under 20,000 messages a second, p50", 1.5, 1.2, SCENARIOS[-1].name, "tick", "epoll-tick", Value.LATE_P50),
    Row("... under 20,000 messages a second, p99", 1.5, 1.2, SCENARIOS[-1].name, "tick", "epoll-tick", Value.LATE_P99),
    Row("bytes echo against asyncio, depth 16", 3, 4, "echo, depth 16", "echo", "asyncio"),
    Row("bytes echo against uvloop, depth 16", 3, 4, "echo, depth 16", "echo", "uvloop"),
    Row("a typed message in, another out, against upb", 4, 6, MESSAGES, "message", "message-upb"),
    Row("... decode alone, called from Python", None, None, MESSAGES, "decode", "decode-upb"),
    Row("... encode alone, called from Python", None, None, MESSAGES, "encode", "encode-upb"),
    Row("100 nested entities in, read, and out, against upb", 1.5, 3, MESSAGES, "entities", "entities-upb"),
)
