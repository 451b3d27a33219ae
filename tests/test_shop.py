"""examples/shop as a user runs it; and its layers: who imports whom."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from processes import EXAMPLES, TIMEOUT, Server, serving
from wire_client import Client

SHOP = EXAMPLES / "shop"


def ask(client: Client, route: str, **body: Any) -> Any:
    answer = client.request(route, json.dumps(body).encode())
    found = json.loads(answer.body or b"null")
    return found["msg"] if answer.error else found


def ask_until(client: Client, route: str, name: str, wanted: Any) -> None:
    """What events bring about comes a little later."""
    deadline = time.monotonic() + TIMEOUT
    while (found := ask(client, route, name=name)) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def test_somebody_registers_buys_and_has_mail(database_url: str) -> None:
    with closing(Server("shop/game.py", database_url=database_url)) as server, Client(server.port) as client:
        client.handshake()
        assert ask(client, "goods.buy", name="ada", item="sword") == "register first"
        assert ask(client, "people.register", name="ada") is None
        assert ask(client, "people.register", name="ada") == "this name is taken"
        assert ask(client, "people.register", name="a b") == "a name has 1 to 20 letters and digits"
        ask_until(client, "goods.have", "ada", {"gold": 100, "items": []})
        assert ask(client, "goods.buy", name="ada", item="sword") == {"gold": 40, "items": ["sword"]}
        assert ask(client, "goods.buy", name="ada", item="shield") == "a shield is 45, and you have 40"
        assert ask(client, "goods.buy", name="ada", item="moon") == "there is no moon here"
        ask_until(client, "people.mail", "ada", {"texts": ["Welcome, ada!", "You have bought a sword for 60."]})
        assert ask(client, "people.register", name="bob") is None
        server.kill()  # by -9: what has been answered stays, and what follows from it happens
        with serving("shop/game.py", database_url=database_url) as heir, Client(heir.port) as other:
            other.handshake()
            assert ask(other, "goods.have", name="ada") == {"gold": 40, "items": ["sword"]}
            assert ask(other, "people.register", name="bob") == "this name is taken"
            ask_until(other, "people.mail", "bob", {"texts": ["Welcome, bob!"]})


class StockInMemory:
    """Rules need no database: what keeps things is a protocol."""

    def __init__(self, gold: dict[str, int]) -> None:
        self._gold, self._items = gold, defaultdict[str, list[str]](list)

    async def gold(self, name: str) -> int | None:
        return self._gold.get(name)

    async def set_gold(self, name: str, gold: int) -> None:
        self._gold[name] = gold

    async def add(self, name: str, item: str) -> None:
        self._items[name].append(item)

    async def items(self, name: str) -> list[str]:
        return self._items[name]


def test_rules_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SHOP))
    from goods.services import CanNotBuy, Inventory, Shop

    async def trade() -> None:
        stock = StockInMemory({"ada": 60})
        shop, inventory = Shop(stock), Inventory(stock)
        await inventory.open("ada")  # again: she keeps what she has
        assert await shop.buy("ada", "sword") == 60
        assert await inventory.of("ada") == (0, ["sword"])
        with pytest.raises(CanNotBuy, match="you have 0"):
            await shop.buy("ada", "bread")

    asyncio.run(trade())


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
