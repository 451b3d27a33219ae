"""What a server says when it starts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gameserver._banner import banner, byte_size
from gameserver._settings import Settings


@dataclass
class Info:
    kind: str
    route: str = ""
    qualname: str = "game.f"
    file: str = "game.py"
    line: int = 1
    is_async: bool = False


def test_it_names_app_handlers_tick_limits_and_urls() -> None:
    handlers = [Info("route", f"r{number}") for number in range(8)] + [Info("join"), Info("every"), Info("every")]
    settings = Settings(tick_rate=30, max_connections=500, spin=True, io_threads=2, tls_cert="c", tls_key="k")
    assert banner("arena", handlers, settings, ["http://127.0.0.1:7777/"], 4096) == "\n".join(
        [
            "arena is up",
            "  listens   http://127.0.0.1:7777/",
            "  handlers  8 routes: r0, r1, r2, r3, r4, r5 and 2 more; join, every (2)",
            "  people    anybody: there is no @app.authenticate",
            "  tick      30 Hz, every 33.33 ms; when late: catch up 5, then skip ticks",
            "  limits    body 64 KiB (4 KiB before login), queue 1 MiB, 1000/s messages a client, "
            "500 connections, 4096 descriptors",
            "  clients   heartbeat 15 s, json, TLS, 2 I/O threads, spinning",
        ]
    )


def test_it_says_who_may_come_and_which_rooms_there_are() -> None:
    text = banner("arena", [Info("authenticate")], Settings(), [], 1024, ["cards", "duel"])
    assert "  people    who @app.authenticate lets in\n" in text
    assert "  rooms     cards, duel\n" in text


def test_an_app_with_nothing_in_it_is_told_what_to_do() -> None:
    text = banner("arena", [], Settings(), [], 1024)
    assert "none yet: add one with @app.on(route)" in text
    assert "none (tick_rate=0)" in text
    assert "nowhere" in text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1000, "1000 B"), (4096, "4 KiB"), (1 << 20, "1 MiB"), (3 << 30, "3 GiB")]
)
def test_sizes_are_exact(count: int, text: str) -> None:
    assert byte_size(count) == text
