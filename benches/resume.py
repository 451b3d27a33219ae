"""All sessions are cut in the same instant and come back: are all there, is any input lost or run twice, how long does it take?

Each session has inputs in flight when it is cut, and comes back after a pause of random length, as clients do. Its time runs from
its first packet until the answer to all that it had in flight. Meanwhile somebody tries the tokens that were used up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

from benches.harness import processes  # noqa: E402
from benches.harness.measures import PYTHON  # noqa: E402
from benches.harness.report import Section, asked, publish  # noqa: E402

HANDSHAKE, ACK, HEARTBEAT, DATA = 1, 2, 3, 4
RESPONSE = 2
AT_ONCE = 200  # connections that begin together, so that the listener's backlog is not what is measured
TIMEOUT = 120.0


class Bot(asyncio.Protocol):
    """One session: a connection at a time; it keeps what was not answered, as one packet for each input."""

    def __init__(self, port: int, uid: str) -> None:
        self.port = port
        self.uid = uid
        self.token: str | None = None
        self.used: str | None = None
        self.session = ""
        self.seen = 0
        self.sent = 0
        self.answered = 0
        self.resumed = 0
        self.report: dict[str, Any] | None = None
        self._gone = 0
        self._kept: list[bytes] = []
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[None] | None = None

    async def connect(self) -> None:
        """Until all that was in flight is answered."""
        self._buffer = b""
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        await loop.create_connection(lambda: self, "127.0.0.1", self.port)
        await self._waiting

    async def settle(self) -> None:
        """Until all is answered."""
        if self.answered < self.sent:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting

    def input(self) -> None:
        """Sends the next one."""
        self._post(b"input", str(self.sent).encode())

    def ask(self) -> None:
        """Wants the server's report."""
        self._post(b"report", b"")

    def cut(self) -> None:
        """Like a network that is gone: a reset, and nothing of what was on its way."""
        assert self._transport is not None
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        resume = {} if self.token is None else {"token": self.token, "seen": self.seen}
        hello = {"sys": {"gs": {"serializer": "json", "resume": resume}}, "user": {"uid": self.uid}}
        transport.write(_packet(HANDSHAKE, json.dumps(hello).encode()))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        while len(buffer) >= 4 and len(buffer) >= (end := 4 + int.from_bytes(buffer[1:4], "big")):
            if buffer[0] == HANDSHAKE:
                self._greeted(json.loads(buffer[4:end]))
            elif buffer[0] == DATA:
                self._handle(buffer[4:end])
            buffer = buffer[end:]
        self._buffer = buffer

    def _greeted(self, answer: dict[str, Any]) -> None:
        gs = answer["sys"]["gs"]
        self.used, self.token = self.token, gs["resume"]["token"]
        seen = gs["resume"].get("seen")
        if seen is not None:
            assert gs["session"] == self.session
            del self._kept[: seen - self._gone]
            self._gone = seen
            self.resumed += 1
        self.session = gs["session"]
        assert self._transport is not None
        self._transport.write(_packet(ACK) + b"".join(self._kept))
        self._tell()

    def _handle(self, message: bytes) -> None:
        if message[0] >> 1 != RESPONSE:
            return
        self.seen += 1
        body = message[message.index(b"{") :] if b"{" in message else b""
        if body:
            self.report = json.loads(body)
        self.answered += 1
        self._tell()

    def _tell(self) -> None:
        if self.answered >= self.sent and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _post(self, route: bytes, body: bytes) -> None:
        self.sent += 1
        packet = _packet(DATA, b"\x00" + _varint(self.sent) + bytes([len(route)]) + route + body)
        self._kept.append(packet)
        assert self._transport is not None
        self._transport.write(packet)


def _packet(kind: int, body: bytes = b"") -> bytes:
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


async def measure(port: int, sessions: int, inputs: int, spread: float) -> dict[str, Any]:
    """What became of so many sessions, each cut with `inputs` in flight and back within `spread` seconds."""
    gate = asyncio.Semaphore(AT_ONCE)
    bots = [Bot(port, str(number)) for number in range(sessions)]

    async def join(bot: Bot) -> None:
        async with gate:
            await bot.connect()

    await asyncio.gather(*map(join, bots))
    for bot in bots:
        for _ in range(inputs):
            bot.input()
    await asyncio.sleep(0)  # some of it is on its way, some has arrived, some is answered
    for bot in bots:
        bot.cut()

    async def come_back(bot: Bot) -> float:
        await asyncio.sleep(random.uniform(0, spread))
        began = time.monotonic()
        await bot.connect()
        return time.monotonic() - began

    times = sorted(await asyncio.gather(*map(come_back, bots)))
    hijacked = 0
    for bot in bots[:: max(1, sessions // 500)]:
        thief = Bot(port, f"thief {bot.uid}")
        thief.token, thief.session = bot.used, bot.session
        await thief.connect()
        hijacked += thief.resumed
        thief.cut()
    for bot in bots:
        bot.input()
        await bot.settle()
    bots[0].ask()
    await bots[0].settle()
    report = bots[0].report
    assert report is not None
    for bot in bots:
        bot.cut()
    return {
        "sessions": sessions,
        "resumed": sum(bot.resumed for bot in bots),
        "inputs": report["inputs"],
        "inputs_expected": sessions * (inputs + 1),
        "lost": report["lost"],
        "twice": report["twice"],
        "hijacked": hijacked,
        "p50_ms": round(times[len(times) // 2] * 1e3, 1),
        "p99_ms": round(times[int(len(times) * 0.99)] * 1e3, 1),
        "max_ms": round(times[-1] * 1e3, 1),
    }


def main() -> int:
    """Prints the figures; 1 if a session, an input or a secret was lost."""
    parser = argparse.ArgumentParser(prog="benches/resume.py", description=__doc__)
    parser.add_argument("--sessions", type=int, default=5000)
    parser.add_argument("--inputs", type=int, default=5, help="in flight on each session when it is cut")
    parser.add_argument("--spread", type=float, default=2.0, help="seconds within which the clients come back")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, and keep none")
    parser.add_argument("--quick", action="store_true", help="1,000 sessions")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sessions = 1000
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    processes.OUT.mkdir(exist_ok=True)
    server = processes.Server("resume", (PYTHON, "-m", "benches.servers.resume"))
    with processes.running(server) as process:
        work = measure(process.port, arguments.sessions, arguments.inputs, arguments.spread)
        found = asyncio.run(asyncio.wait_for(work, TIMEOUT))
    if arguments.json:
        print(json.dumps(found))
        return 0
    missing = {"sessions not resumed": found["sessions"] - found["resumed"], "acknowledged inputs lost": found["lost"],
               "inputs run twice": found["twice"], "sessions hijacked": found["hijacked"],
               "inputs missing": found["inputs_expected"] - found["inputs"]}  # fmt: skip
    what = f"{found['sessions']:,} sessions cut in one instant"
    figures = [asked(f"{what}: {name}", [count], 0, spelled="0") for name, count in missing.items()]
    detail = f"p50 {found['p50_ms']} ms, most {found['max_ms']} ms"
    figures.append(
        asked(f"{what}: back and answered, p99 beyond the cut", [found["p99_ms"]], 250.0, unit=" ms", detail=detail)
    )
    publish(Section("resume", "Sessions that are cut", figures, []))
    return 1 if any(missing.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
