"""examples/shop as a user runs it; and its layers: who imports whom."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from processes import EXAMPLES, serving
from wire_client import Client

SHOP = EXAMPLES / "shop"


def ask(client: Client, route: str, **body: Any) -> Any:
    answer = client.request(route, json.dumps(body).encode())
    found = json.loads(answer.body or b"null")
    return found["msg"] if answer.error else found


def test_somebody_registers_buys_and_has_mail() -> None:
    with serving("shop/game.py") as server, Client(server.port) as client:
        client.handshake()
        assert ask(client, "goods.buy", name="ada", item="sword") == "register first"
        assert ask(client, "people.register", name="ada") is None
        assert ask(client, "people.register", name="ada") == "this name is taken"
        assert ask(client, "people.register", name="a b") == "a name has 1 to 20 letters and digits"
        assert ask(client, "goods.buy", name="ada", item="sword") == {"gold": 40, "items": ["sword"]}
        assert ask(client, "goods.buy", name="ada", item="shield") == "a shield is 45, and you have 40"
        assert ask(client, "goods.buy", name="ada", item="moon") == "there is no moon here"
        assert ask(client, "goods.have", name="ada") == {"gold": 40, "items": ["sword"]}
        assert ask(client, "people.mail", name="ada") == {"texts": ["Welcome, ada!", "You have bought a sword for 60."]}


def linted(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": "."}, capture_output=True, text=True, timeout=60)


def test_its_layers_and_modules_are_what_they_say(tmp_path: Path) -> None:
    done = linted(SHOP)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kept, 0 broken" in done.stdout
    for number, (file, line, broken) in enumerate(
        [
            (
                "people/repositories.py",
                "import people.handlers",
                "people: handlers, services, repositories, from the top",
            ),
            ("goods/services.py", "import people.services", "the modules know each other only by events"),
        ]
    ):
        copy = shutil.copytree(SHOP, tmp_path / str(number), ignore=shutil.ignore_patterns("__pycache__"))
        (copy / file).write_text(f"{(copy / file).read_text()}\n{line}\n")
        done = linted(copy)
        assert done.returncode == 1, done.stdout
        assert f"{broken} BROKEN" in done.stdout
