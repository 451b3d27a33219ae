"""The browser client's world, in a node process that is asked line by line."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PEER = Path(__file__).parent / "js" / "world_peer.mjs"


class JsWorlds:
    """Worlds of the browser client, by a key of the test's choice."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self, key: str, shape: Any, *, goes_on: bool = False) -> None:
        """A connection is there."""
        self._ask({"key": key, "begin": shape, "goesOn": goes_on})

    def apply(self, key: str, snapshot: bytes, at: float = 0.0) -> dict[str, Any]:
        """What a snapshot that came at this ms made of it: `told`, `entities` and `mine`, or an `error`."""
        return self._ask({"key": key, "apply": snapshot.hex(), "at": at})

    def sample(self, key: str, now: float) -> dict[str, Any]:
        """What is to be drawn at this ms: `drawn`, `timing`, `bytes` and `serverTick`."""
        return self._ask({"key": key, "sample": now})

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the client threw what it should not: see node's stderr"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def js_worlds() -> Iterator[JsWorlds]:
    """A node process until the end of the block."""
    node = shutil.which("node")
    assert node, "no node: tests/needs.sh installs it"
    with subprocess.Popen([node, str(PEER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield JsWorlds(process)
        assert process.stdin
        process.stdin.close()
        assert process.wait(10) == 0


def plain(value: Any) -> Any:
    """What it says, as Python has it."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if not isinstance(value, str):
        return value
    kind, text = value[0], value[2:]
    match kind:
        case "n":
            return int(text)
        case "b":
            return bytes.fromhex(text)
        case "f":
            return struct.unpack(">d", bytes.fromhex(text))[0]
    return text
