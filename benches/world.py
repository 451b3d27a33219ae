"""What the replicated world costs: its own work in a tick beside a bare program, attributes, snapshots, and the browser's decoder.

Each figure is a ratio to a reference in the same run, the median of alternating rounds; where there is none, it is the figure.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benches.harness import processes  # noqa: E402
from benches.harness.measures import PYTHON  # noqa: E402
from benches.harness.report import Figure, Section, asked, publish, stated  # noqa: E402

from gameserver import Entity, World, f32, sync  # noqa: E402

QUICK = "--quick" in sys.argv
ROUNDS = 3 if QUICK else 9
MUST_TICK = 2.0
LOADS = {"A": (100, 1_000, 1), "B": (200, 5_000, 10), "C": (500, 10_000, 10), "D": (1_000, 10_000, 1)}
"""Clients, entities, one in so many moves: as rust/world/benches/common/motion.rs has them."""
MUST_WHOLE = {"A": 1.35, "B": 1.2, "C": 1.1, "D": 1.1}
WHOLE_ROUNDS, TICKS = (1, 40) if QUICK else (5, 100)
SUSTAINED, TICK_NS, MUST_SUSTAINED = 3_000, 50_000_000, 0.8
COLYSEUS = ROOT / "benches/reference/colyseus"
COLYSEUS_TICKS = 20
MUST_COLYSEUS = {"B": 3.0} if QUICK else {"B": 3.0, "C": 3.0, "D": 15.0}
MUST_BYTES = {"A": 10_020, "B": 1_199, "C": 1_137, "D": 10_840}  # what Colyseus sends
MUST_ATTRIBUTE = 4.0
MUST_INTEREST = 30.0


class Dot(Entity):
    x: f32 = sync(0, quantize=0.01)
    y: f32 = sync(0, quantize=0.01)
    dx: f32 = 0.0
    dy: f32 = 0.0


class Plain:
    """An object with slots."""

    __slots__ = ("dx", "dy", "x", "y")

    def __init__(self) -> None:
        self.x = self.y = self.dx = self.dy = 0.0


def main() -> int:
    """Prints one table."""
    figures = [*whole(), *sustained(), *colyseus(), *loads(), attribute(), *snapshots(), memory(), *browser()]
    publish(Section("world", "The replicated world", figures, []))
    return 0


def loads() -> list[Figure]:
    """Of `cargo bench -p world`."""
    command = ["cargo", "bench", "-q", "-p", "world", "--bench", "loads"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows: list[Figure] = []
    for line in done.stdout.splitlines():
        name, *figures = line.split()
        if line.startswith(("D with", "interest")):
            measure, text = line.split(": ", 1)
            found = re.search(r"([\d.]+) times faster", text)
            if found:
                spelled = f"{MUST_INTEREST:g} times faster"
                figure = asked(
                    measure, [float(found[1])], MUST_INTEREST, more_is_better=True, spelled=spelled, detail=text
                )
            rows.append(figure if found else stated(measure, text))
            continue
        if name not in MUST_BYTES:
            continue
        ours, bare, ratio, bytes_ = (float(figure) for figure in figures[:4])
        measure = f"load {name}: diff, grid, encode, lists / a bare program"
        rows.append(asked(measure, [ratio], MUST_TICK, detail=f"{ours:.0f} / {bare:.0f} us a tick"))
        rows.append(asked(f"load {name}: a client and second", [bytes_], MUST_BYTES[name], unit=" B"))
    return rows


def whole() -> list[Figure]:
    """CPU of the server in a tick, sockets and a NumPy handler included, beside a bare program with one send per client."""
    rows: list[Figure] = []
    for name, (clients, entities, moving) in LOADS.items():
        ours = [PYTHON, "-m", "benches.servers.world", *map(str, (clients, entities, moving, TICKS))]
        bare = ["cargo", "bench", "-q", "-p", "world", "--bench", "bare_server", "--", name, str(TICKS)]
        pairs = [(served(ours, clients), served(bare, clients)) for _ in range(WHOLE_ROUNDS)]
        one, other = (median(side) / 1e6 for side in zip(*pairs, strict=True))
        measure, detail = f"load {name}: CPU of a tick, all in / a bare program", f"{one:.2f} / {other:.2f} ms a tick"
        rows.append(asked(measure, [one / other for one, other in pairs], MUST_WHOLE[name], detail=detail))
    return rows


def sustained() -> list[Figure]:
    """How many clients one core has time for, with the entities of load D: by what `SUSTAINED` of them take."""
    if QUICK:
        return []
    _, entities, moving = LOADS["D"]
    ours = [PYTHON, "-m", "benches.servers.world", *map(str, (SUSTAINED, entities, moving, TICKS))]
    bare = ["cargo", "bench", "-q", "-p", "world", "--bench", "bare_server", "--", "D", str(TICKS), str(SUSTAINED)]
    pairs = [(served(ours, SUSTAINED), served(bare, SUSTAINED)) for _ in range(3)]
    one, other = (SUSTAINED * TICK_NS / median(side) for side in zip(*pairs, strict=True))
    measure = f"clients of one core, {entities:,} entities all moving, by {SUSTAINED:,} of them / a bare program"
    ratios, detail = [other / one for one, other in pairs], f"{one:,.0f} / {other:,.0f}"
    return [asked(measure, ratios, MUST_SUSTAINED, more_is_better=True, detail=detail)]


def colyseus() -> list[Figure]:
    """CPU of a tick of Colyseus with a StateView for each client, beside ours."""
    if not shutil.which("npm"):
        return [stated("Colyseus", "not measured: no npm")]
    install = ["npm", "ci", "--legacy-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(install, cwd=COLYSEUS, check=True)
    rows: list[Figure] = []
    for name, must in MUST_COLYSEUS.items():
        clients, entities, moving = LOADS[name]
        load = list(map(str, (clients, entities, moving, COLYSEUS_TICKS)))
        theirs = served(["node", str(COLYSEUS / "server.mjs"), *load], clients, ["node", str(COLYSEUS / "clients.mjs")])
        ours = served([PYTHON, "-m", "benches.servers.world", *load], clients)
        measure, detail = (
            f"load {name}: CPU of a tick / Colyseus 0.18 with StateView",
            (f"{ours / 1e6:.2f} / {theirs / 1e6:.2f} ms a tick"),
        )
        spelled = f"{must:g} times less"
        rows.append(asked(measure, [theirs / ours], must, more_is_better=True, spelled=spelled, detail=detail))
    return rows


LOAD = [PYTHON, "benches/load/world.py"]


def served(command: list[str], clients: int, load: Sequence[str] = LOAD, more: Sequence[str] = ()) -> float:
    """CPU nanoseconds of a tick."""
    pinned = ["taskset", "-c", str(processes.SERVER_CORE), *command]
    with subprocess.Popen(pinned, cwd=ROOT, env=processes.environment(), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        port = server.stdout.readline().strip()
        pinned = ["taskset", "-c", str(processes.LOAD_CORE), *load, port, str(clients), *more]
        with subprocess.Popen(pinned, cwd=ROOT, stdout=subprocess.DEVNULL) as bots:
            told = json.loads(server.stdout.readline())
            server.terminate()
            server.wait()
            bots.terminate()
    return float(told["cpu_ns"])


def attribute() -> Figure:
    """`e.x += 1.0`, on an entity and on a plain object."""
    world = World()
    ratio, ours, theirs = beside(adding(world.spawn(Dot)), adding(Plain()))
    detail = f"{ours * 1e9:.0f} / {theirs * 1e9:.0f} ns"
    return asked("`e.x += 1.0` / on an object with slots", [ratio], MUST_ATTRIBUTE, detail=detail)


def adding(target: Any, count: int = 100_000) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter()
        for _ in range(count):
            target.x += 1.0
        return (time.perf_counter() - began) / count

    return run


def snapshots(count: int = 100_000) -> list[Figure]:
    """`world.snapshot()` beside NumPy's copies of the same arrays, and what follows from one."""
    world = World()
    world.spawn_many(Dot, count, x=np.arange(count))
    arrays = [np.zeros(count, "f4") for _ in range(4)] + [np.zeros(count, "u4"), np.zeros(count, "u8")]
    ratio, ours, theirs = beside(timed(world.snapshot), timed(lambda: [array.copy() for array in arrays]))
    snapshot = world.snapshot()
    data = timed(snapshot.to_bytes)
    name = f"`world.snapshot()` of {count:,} entities of 4 columns"
    return [
        stated(f"{name} / NumPy's copies of as many bytes", f"{ratio:.1f} ({ours * 1e3:.2f} / {theirs * 1e3:.2f} ms)"),
        stated("its bytes for a file, with the checksum", f"{median(data() for _ in range(5)) * 1e3:.1f} ms"),
    ]


def timed(call: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return run


def memory(count: int = 100_000) -> Figure:
    """Resident, of everything that an entity takes."""
    before = resident()
    world = World()
    world.spawn_many(Dot, count)
    world.columns(Dot).x[:] = 1
    text = f"{(resident() - before) / count:.0f} B"
    return stated("memory per entity of 4 columns, resident", text, "stated; aim 64 B")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def browser() -> list[Figure]:
    """In node."""
    if not shutil.which("node"):
        return [stated("the browser's decoder", "not measured: no node")]
    done = subprocess.run(["node", ROOT / "benches/js/world.mjs"], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    text = f"{told['apply_us']:.1f} us ({told['bytes']} bytes)"
    return [
        stated("browser: a snapshot of 50 moved entities", text, "stated; aim 100 us"),
        stated("browser: that, and three frames of `world.sample()`", f"{told['drawn_us']:.1f} us"),
    ]


def beside(ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float, float]:
    """The median ratio of alternating rounds, and both medians."""
    rounds = []
    for number in range(ROUNDS):
        pair = [ours(), theirs()] if number % 2 == 0 else [theirs(), ours()][::-1]
        rounds.append(pair)
    return (
        median(one / other for one, other in rounds),
        median(one for one, _ in rounds),
        median(other for _, other in rounds),
    )


if __name__ == "__main__":
    sys.exit(main())
