"""Our swarm as a load: ``swarm.py PORT WHAT`` prints one line of JSON.

WHAT: echo, mixed, open, world, bots, idle COUNT, page PATH SECONDS CONNECTIONS.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from gameserver.swarm import Bot, Scenario, ask, hold, play, ramp

BODY = bytes(range(64))
SECONDS, WARMUP = 1.5, 0.5


async def ask_on(bot: Bot) -> None:
    """One request after the other."""
    await bot.ask("echo", BODY)


def main() -> None:
    """See the module."""
    port, what, *more = sys.argv[1:]
    if what == "bots":
        url = f"tcp://127.0.0.1:{port}"
        bots = play(Scenario([], [hold(4.0)], pace="nothing", url=url, bots={ask_on: 50}))["bots"]
        print(json.dumps({"messages": 2 * bots["answered_per_second"], "cpu": bots["cpu"]}))
        return
    url, actions, clients, pace, seconds = f"tcp://127.0.0.1:{port}", [ask("echo", body=BODY)], 100, "depth 16", SECONDS
    more_options: dict[str, Any] = {}
    match what:
        case "mixed":
            actions = [ask("echo", body=BODY, weight=weight) for weight in (8.0, 4.0, 2.0, 1.0, 1.0, 0.5, 0.25, 0.1)]
        case "open":
            clients, pace, seconds = 1000, "20/s", 4.0
        case "world":
            clients, pace, seconds, more_options = 1000, "nothing", 4.0, {"world": "decode"}
        case "idle":
            clients, pace = int(more[0]), "nothing"
        case "page":
            url, pace = f"http://127.0.0.1:{port}{more[0]}", "depth 1"
            seconds, clients = float(more[1]), int(more[2])
    before = resident()
    phases = [ramp(clients, WARMUP if clients < 1000 else 3.0), hold(seconds)]
    result = play(Scenario(actions, phases, pace=pace, url=url, **more_options))
    total = result["total"]
    assert total["opened"] == clients, total["ended"]
    counted = [stretch for stretch in result["series"] if stretch["phase"] == 1]
    found = {
        "answered": total["answered"],
        "rate": total["answered_per_second"],
        "cpu": sum(stretch["cpu"] for stretch in counted),
        "messages": sum(stretch["answered"] for stretch in counted),
        "p50": total["latency"]["p50"],
        "p99": total["latency"]["p99"],
        "lateness": total["lateness"],
        "decoded": total["decoded"],
        "entities": total["entities_each"],
        "seconds": sum(stretch["seconds"] for stretch in counted),
        "memory": max(stretch["memory"] for stretch in result["series"]) - before,
    }
    print(json.dumps(found))


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    main()
