"""The swarm itself: what it can send, how late it is, what a client of it costs, and whether wrk agrees. `python benches/swarm.py`.

Everything stands on the second core, servers on the first; rounds alternate, figures are medians.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benches.harness import processes
from benches.harness.processes import LOAD_CORE, OUT, ROOT, Server, running
from benches.harness.report import Figure, Section, asked, publish, stated

QUICK = "--quick" in sys.argv
ROUNDS, WRK_ROUNDS, WRK_SECONDS = (1, 1, 2) if QUICK else (5, 9, 3)
EPOLL = Server("epoll", (str(OUT / "epoll"),))
ECHO = Server("echo", (sys.executable, "-m", "benches.servers.echo"))
WATCHED = Server("watched", (sys.executable, "-m", "benches.servers.watched"))
CLIENTS_MANY, CLIENTS_FEW = 10_000, 100
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def main() -> int:
    """Prints the table."""
    processes.build()
    publish(
        Section("swarm", "The load tool", [*closed_loop(), lateness(), memory(), worlds(), bots(), *beside_wrk()], [])
    )
    return 0


def closed_loop() -> list[Figure]:
    """How fast it is, and what a declared scenario costs."""
    closed = rounds({"bare": bare, "echo": lambda: ours(EPOLL, "echo"), "mixed": lambda: ours(EPOLL, "mixed")})
    ratios = [a["rate"] / b["rate"] for a, b in zip(closed["echo"], closed["bare"], strict=True)]
    rates = [median(run["rate"] for run in closed[name]) for name in ("echo", "bare")]
    costs = {name: [run["cpu"] / run["messages"] for run in closed[name]] for name in ("echo", "mixed")}
    return [
        asked(
            "requests a second, closed loop, depth 16 / a bare generator in C",
            ratios,
            0.7,
            aim=0.9,
            more_is_better=True,
            detail=f"{rates[0]:,.0f} / {rates[1]:,.0f}",
        ),
        asked(
            "CPU a message: eight weighted actions / one",
            [a / b for a, b in zip(costs["mixed"], costs["echo"], strict=True)],
            1.3,
            aim=1.1,
            detail=f"{median(costs['mixed']) * 1e9:.0f} ns",
        ),
    ]


def lateness() -> Figure:
    """Its own, in an open loop."""
    late = rounds({"timer": timer, "open": lambda: ours(EPOLL, "open")["lateness"]})
    p99 = [median(run["p99"] for run in late[name]) * 1e6 for name in ("open", "timer")]
    return asked(
        "own lateness p99, 20,000 requests a second of 1,000 clients / a bare timerfd loop",
        [a["p99"] / b["p99"] for a, b in zip(late["open"], late["timer"], strict=True)],
        3.0,
        aim=1.5,
        detail=f"{p99[0]:.0f} / {p99[1]:.0f} us",
    )


def memory() -> Figure:
    """Of an idle client."""
    idle = rounds(
        {
            "many": lambda: ours(EPOLL, "idle", str(CLIENTS_MANY)),
            "few": lambda: ours(EPOLL, "idle", str(CLIENTS_FEW)),
        },
        min(ROUNDS, 3),
    )
    each = [
        (many["memory"] - few["memory"]) / (CLIENTS_MANY - CLIENTS_FEW)
        for many, few in zip(idle["many"], idle["few"], strict=True)
    ]
    return asked("memory of an idle client", each, 2000.0, aim=500.0, unit=" B")


def worlds() -> Figure:
    """Clients that decode what they see."""
    found = rounds({"world": lambda: ours(WATCHED, "world")}, min(ROUNDS, 3))["world"]
    run = found[0]
    detail = f"{run['entities']:.0f} in view, {run['decoded'] / run['seconds'] / 1000:.1f} snapshots a second each"
    each = [1000 * run["seconds"] / run["cpu"] for run in found]
    return asked(
        "clients that decode a world at 20 Hz, per core", each, 1000, aim=5000, more_is_better=True, detail=detail
    )


def bots() -> Figure:
    """Python functions that ask one thing after the other."""
    found = rounds({"bots": lambda: ours(ECHO, "bots")}, min(ROUNDS, 3))["bots"]
    return stated(
        "Python bots, messages a second of a core (a request and its answer are two)",
        f"{median(run['messages'] / run['cpu'] for run in found):,.0f}",
        "stated; aim 20,000",
    )


def beside_wrk() -> list[Figure]:
    """The same page, measured by both."""
    if not shutil.which("wrk"):
        return [stated("agreement with wrk", "not measured: wrk is not installed")]
    return [*of_pages(10), *([] if QUICK else of_pages(100))]


def of_pages(connections: int) -> list[Figure]:
    """With many connections in a closed loop it is chance who waits for whom, so only their rate says the same each time."""
    page = ["page", "/healthz", str(WRK_SECONDS), str(connections)]
    pages = rounds({"wrk": lambda: wrk(connections), "page": lambda: ours(ECHO, *page)}, WRK_ROUNDS)
    figures = []
    for name in ("rate", "p50", "p99"):
        mine, its = (median(run[name] for run in pages[who]) for who in ("page", "wrk"))
        text = f"{mine:,.0f} / {its:,.0f} a second" if name == "rate" else f"{mine * 1e6:.0f} / {its * 1e6:.0f} us"
        ratios = [a[name] / b[name] for a, b in zip(pages["page"], pages["wrk"], strict=True)]
        off = abs(median(ratios) - 1)
        detail = f"{median(ratios):.2f} times wrk's, {min(ratios):.2f} to {max(ratios):.2f}; {text}"
        measure = f"{name} of a page, {connections} connections: how far from what wrk says"
        if connections == 10 or name == "rate":
            figures.append(asked(measure, [100 * off], 10.0, spelled="within 10%", unit="%", detail=detail))
        else:
            figures.append(stated(measure, f"{100 * off:.0f}% ({detail})"))
    return figures


def rounds(measures: dict[str, Callable[[], dict[str, Any]]], count: int = ROUNDS) -> dict[str, list[dict[str, Any]]]:
    """Each of them in each round; every second round runs backwards."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in measures}
    for number in range(count):
        for name in list(measures)[:: -1 if number % 2 else 1]:
            found[name].append(measures[name]())
    return found


def ours(server: Server, *what: str) -> dict[str, Any]:
    """What `load/swarm.py` finds."""
    with running(server) as process:
        return said([sys.executable, "-m", "benches.load.swarm", str(process.port), *what])


def bare() -> dict[str, Any]:
    """The generator in C, without checks and statistics."""
    with running(EPOLL) as process:
        load = [
            str(OUT / "load"),
            "echo",
            "--depth",
            "16",
            "--bare",
            "--spin",
            "--port",
            str(process.port),
            "--pid",
            str(process.pid),
        ]
        run = said([*load, "--warmup", "0.5", "--seconds", "1.5"])
    return {"rate": run["messages"] / run["elapsed_ns"] * 1e9}


def timer() -> dict[str, Any]:
    """A loop that only waits."""
    run = said([str(OUT / "timer"), "20000", "4"])
    return {"p99": run["p99_ns"] / 1e9}


def wrk(connections: int) -> dict[str, Any]:
    """One thread."""
    with running(ECHO) as process:
        url = f"http://127.0.0.1:{process.port}/healthz"
        text = output(["wrk", "-t1", f"-c{connections}", f"-d{WRK_SECONDS}s", "--latency", url])
    shares = dict(re.findall(r"^\s+(50|99)%\s+(\S+)$", text, re.M))
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", text)
    assert rate is not None, text
    return {"rate": float(rate[1]), "p50": time_of(shares["50"]), "p99": time_of(shares["99"])}


def time_of(text: str) -> float:
    """``1.25ms`` in seconds."""
    match = re.fullmatch(r"([0-9.]+)([a-z]+)", text)
    assert match is not None, text
    return float(match[1]) * UNITS[match[2]]


def said(command: list[str]) -> dict[str, Any]:
    """The JSON that a program prints, on the load's core."""
    found: dict[str, Any] = json.loads(output(command).splitlines()[-1])
    return found


def output(command: list[str]) -> str:
    done = subprocess.run(
        ["taskset", "-c", str(LOAD_CORE), *command],
        cwd=ROOT,
        env=processes.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
