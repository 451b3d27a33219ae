"""Each example as a user runs it: a process, its banner, and real clients that talk to it."""

from __future__ import annotations

import json
import socket
import urllib.request
from http.client import HTTPResponse
from typing import Any

import pytest
from processes import EXAMPLES, running_script, serving
from wire_client import KICK, Client, connected, notify
from world_client import Watcher

LINES_MAX = {"plaza.py": 199, "chat_client.py": 30}


def pushed(client: Client, route: str) -> Any:
    return json.loads(client.push(route).body)


def introduced(port: int, **user: object) -> Client:
    client = Client(port)
    client.handshake(json.dumps({"sys": {"type": "test", "version": "1"}, "user": user}).encode())
    return client


def until(client: Client, line: str) -> list[str]:
    """Lines of the chat up to this one."""
    lines: list[str] = []
    while not lines or lines[-1] != line:
        lines.append(client.push("line").body.decode())
    return lines


def get(port: int, path: str) -> tuple[str, str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
        assert isinstance(response, HTTPResponse)
        return response.headers["content-type"], response.read().decode()


def test_every_example_is_short_and_run_here() -> None:
    scripts = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert scripts.keys() == {
        "arena.py",
        "cards.py",
        "chat.py",
        "chat_client.py",
        "echo.py",
        "plaza.py",
        "spectate_10k.py",
    }
    for name, lines in scripts.items():
        assert lines <= LINES_MAX.get(name, 199), name


def test_echo() -> None:
    with serving("echo.py") as server, connected(server.port) as client:
        for body in (b"hello", b"", bytes(range(256)), b"x" * 60_000):
            answer = client.request("echo", body)
            assert (answer.error, answer.body) == (False, body or b"null")
        assert client.request("ecco").error


def test_chat_between_two_people_at_their_keyboards() -> None:
    with serving("chat.py") as server:
        with running_script("chat_client.py", "Ann", str(server.port)) as ann:
            ann.wait_for(r"^\* hello Ann; here are: Ann$")
            with running_script("chat_client.py", "Bob", str(server.port), "localhost") as bob:
                bob.wait_for(r"^\* hello Bob; here are: Ann, Bob$")
                ann.wait_for(r"^\* Bob came in$")
                ann.type("good morning, Bob, ça va? 👋")
                bob.wait_for(r"^Ann: good morning, Bob, ça va\? 👋$")
                ann.wait_for(r"^Ann: good")
                bob.type("/join red")
                bob.wait_for(r"^\* Bob is in group red, with 0 others$")
                ann.type("/tell red let me in")
                ann.wait_for(r"^you are not in group red: /join red$")
                ann.type("/join red")
                bob.wait_for(r"^\* Ann is in group red, with 1 others$")
                ann.type("/tell red psst")
                bob.wait_for(r"^\[red\] Ann: psst$")
                bob.type("/name Ann")
                bob.wait_for(r"^somebody is called Ann already$")
                bob.type("/name Robert")
                ann.wait_for(r"^\* Bob is now Robert$")
                bob.type("/dance")
                bob.wait_for("dance")
                bob.type("/who")
                bob.wait_for(r"^\* here are: Ann, Robert$")
                bob.type("bye, all of you")
                bob.end_of_input()
                assert bob.ended() == 0
                assert "Robert: bye, all of you" in bob.said  # what was said before Ctrl-D is still answered
                ann.wait_for(r"^Robert: bye, all of you$")
                ann.wait_for(r"^\* Robert left$")


def test_chat_clients_read_a_file_and_are_told_when_the_server_ends() -> None:
    with running_script("chat_client.py", "Ann", "1") as nobody:
        assert nobody.ended() == 1
        assert "refused" in nobody.said[-1].lower()
    with serving("chat.py") as server:
        with running_script("chat_client.py", "Ann", str(server.port)) as ann:
            ann.type("typed before the handshake")
            ann.wait_for(r"^Ann: typed before the handshake$")
            server.terminate()
            assert ann.ended() == 1
            assert "shutdown" in ann.said[-1]


def test_chat_groups_hear_their_own_and_names_are_cleaned() -> None:
    with serving("chat.py") as server:
        ann, bob, eve = (introduced(server.port, name=name) for name in ("Ann", "\x1b[31mBob\n", 7))
        eve.request("who")
        assert until(ann, "* 7 came in") == ["* hello Ann; here are: Ann", "* 31mBob came in", "* 7 came in"]
        for client in (ann, bob):
            assert not client.request("join", b"red").error
        ann.request("tell", b"red only us")
        until(bob, "[red] Ann: only us")
        ann.request("part", b"red")
        bob.request("tell", b"red only me")
        ann.request("say", b"two\nlines \x1b[2J" + b"x" * 1000)
        said = ("Ann: two lines  [2J" + "x" * 1000)[: 300 + len("Ann: ")]
        assert not [line for line in until(ann, said) if "only me" in line]
        for wrong in (("say", b" \n"), ("name", b"!!!"), ("name", b"7"), ("tell", b"red"), ("part", b"blue")):
            assert ann.request(*wrong).error, wrong
        for number in range(8):
            assert not ann.request("join", b"g%d" % number).error
        assert ann.request("join", b"g9").error
        twin = introduced(server.port, name="Ann")
        until(twin, "* hello Ann2; here are: Ann, 31mBob, 7, Ann2")
        eve.socket.shutdown(socket.SHUT_WR)  # not `close`: with unread bytes that is a reset, and she would be lost
        until(bob, "* 7 left")


def test_plaza_serves_its_page_and_the_sdk() -> None:
    with serving("plaza.py") as server:
        kind, page = get(server.port, "/")
        assert kind.startswith("text/html")
        assert "from '/gameserver.js'" in page
        kind, sdk = get(server.port, "/gameserver.js")
        assert kind.startswith("text/javascript")
        assert "export async function connect" in sdk


def test_plaza_bots_move_and_people_walk_talk_and_leave() -> None:
    with serving("plaza.py") as server:
        ann = introduced(server.port, name="Ann", hue=120)
        welcome = pushed(ann, "Welcome")
        dots = {dot["id"]: dot for dot in welcome["dots"]}
        assert sum(dot["bot"] for dot in dots.values()) == 50
        me = dots[welcome["you"]]
        assert (me["name"], me["hue"], me["bot"]) == ("Ann", 120, False)
        bob = introduced(server.port, name="Bob")
        his = pushed(ann, "Joined")["who"]["id"]

        def positions(client: Client) -> tuple[int, dict[int, tuple[float, float]]]:
            at = pushed(client, "At")
            return at["tick"], dict(zip(at["ids"], zip(at["x"], at["y"], strict=True), strict=True))

        first, before = positions(ann)
        assert not ann.request("Move", b'{"x":-1,"y":0.5}').error
        after, tick = before, first
        while after[me["id"]][0] > before[me["id"]][0] - 60 or all(
            after[bot] == before[bot] for bot, dot in dots.items() if dot["bot"]
        ):
            following, now = positions(ann)
            assert following == tick + 1
            step = after[me["id"]][0] - now[me["id"]][0]
            assert step <= 260 / 30 + 0.2, "faster than one walks"
            tick, after = following, now
            assert tick < first + 300, "ten seconds, and somebody still stands where they stood"
        assert len(after) == 52

        assert not ann.request("Say", '{"text":" good\\n morning \\u202e👋"}'.encode()).error
        assert {"id": me["id"], "text": "good morning 👋"} in (pushed(bob, "Said") for _ in range(50))
        assert ann.request("Say", b'{"text":"again"}').error  # too fast
        assert json.loads(bob.request("Look", b'{"name":"Robert","hue":725}').body)["hue"] == 5
        assert pushed(ann, "About")["name"] == "Robert"
        bob.socket.shutdown(socket.SHUT_WR)
        assert pushed(ann, "Gone") == {"id": his, "why": "left"}


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("Move", b'{"x":"left"}'),
        ("Move", b'{"x":-30}'),
        ("Move", b'{"x":1e999}'),
        ("Move", b"[1,2]"),
        ("Say", b'{"text":"   "}'),
        ("Say", b'{"text":7}'),
        ("Say", b"\xff"),
        ("Look", b"7"),
        ("dance", b"{}"),
    ],
)
def test_plaza_refuses_what_makes_no_sense(route: str, body: bytes) -> None:
    with serving("plaza.py") as server:
        ann = introduced(server.port, name=["no", "name"], hue="red")
        welcome = pushed(ann, "Welcome")
        assert [dot["name"] for dot in welcome["dots"] if dot["id"] == welcome["you"]] == ["guest"]
        assert ann.request(route, body).error
        assert not ann.request("Look", b'{"unknown":{}}').error


def test_plaza_says_goodbye() -> None:
    with serving("plaza.py") as server:
        ann = introduced(server.port)
        pushed(ann, "Welcome")
        server.terminate()
        assert (KICK, b'{"reason":"shutdown"}') in ann.until_closed()


def test_ten_thousand_dots_and_who_sees_them() -> None:
    with serving("spectate_10k.py") as server:
        watcher = Watcher(server.port)
        watcher.until(lambda it: 100 < len(it.ids("Dot")) < 5000)
        watcher.client.send(notify("Look", b'{"x": 100, "y": 100, "radius": 50}'))
        watcher.until(lambda it: it.ids("Dot") and all(it.value("Dot", dot, "x") < 400 for dot in it.ids("Dot")))
        cells = watcher.until(
            lambda it: [
                cell
                for cell in it.ids("Cell")
                if it.value("Cell", cell, "viewers") == 1 and len(it.ids("Cell")) == 1600
            ]
        )
        watcher.until(lambda it: len([cell for cell in it.ids("Cell") if it.value("Cell", cell, "viewers")]) == 9)
        assert cells
        watcher.client.send(notify("Look", b"{}"))
        watcher.until(lambda it: len(it.ids("Dot")) == 10_000)
        watcher.client.close()
