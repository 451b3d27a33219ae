"""What rooms cost: beside groups of the app that do the same, empty ones, joining, and a ranked queue."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benches.harness import processes  # noqa: E402
from benches.harness.measures import PYTHON  # noqa: E402
from benches.harness.report import Figure, Section, asked, publish, stated  # noqa: E402
from benches.world import resident, served  # noqa: E402

from gameserver import App, Member, Room  # noqa: E402
from gameserver.matchmaking import RankedQueue  # noqa: E402

ROUNDS, TICKS = (1, 40) if "--quick" in sys.argv else (3, 100)
ROOMS, SIZE = 300, 10
SERVER, LOAD = "benches/servers/rooms.py", "benches/load/rooms.py"
MUST_GROUPS = 1.5
MUST_EMPTY_BYTES = 8_000
JOINERS = 5_000
TICKETS = 10_000


def main() -> int:
    """Prints one table."""
    figures = [beside_groups("idle"), beside_groups("busy"), *empty(), *joining(), ranked()]
    publish(Section("rooms", "Rooms and matchmaking", figures, []))
    return 0


def beside_groups(load: str) -> Figure:
    """Rooms of ten, and groups of ten that do the same in the app's tick."""

    def cost(kind: str) -> float:
        ask = ("join", "{}") if kind == "groups" else ("$join_or_create", '{"name":"room"}')
        clients = [PYTHON, LOAD]
        command = [PYTHON, SERVER, kind, load, str(ROOMS), str(SIZE), str(TICKS)]
        return served(command, ROOMS * SIZE, clients, ask)

    pairs = [(cost("rooms"), cost("groups")) for _ in range(ROUNDS)]
    ours, theirs = (median(column) / 1e6 for column in zip(*pairs, strict=True))
    name = "nothing changes" if load == "idle" else "each member pushes once a tick"
    measure, detail = (
        f"{ROOMS} rooms of {SIZE} at 20 Hz, {name} / groups of the app, CPU",
        (f"{ours:.2f} and {theirs:.2f} ms a tick"),
    )
    return asked(measure, [one / other for one, other in pairs], MUST_GROUPS, unit=" times", detail=detail)


def empty(count: int = 5_000, ticking_count: int = 1_000) -> list[Figure]:
    """Rooms that nobody is in: memory, CPU of their ticks, and making and ending one."""
    app = App("empty", log_level="error", tick_rate=0)
    figures: list[Figure] = []

    @app.room("still", dispose_after=None)
    class Still(Room[Member]): ...

    @app.room("ticking", dispose_after=None, tick_rate=20)
    class Ticking(Room[Member]):
        def on_tick(self, dt: float) -> None: ...

    @app.on_start
    async def measure() -> None:
        for _ in range(20):
            (await app.create_room(Still)).dispose()
        before, start = resident(), time.process_time()
        rooms = [await app.create_room(Still) for _ in range(count)]
        made, size = time.process_time() - start, (resident() - before) / count
        start = time.process_time()
        for room in rooms:
            room.dispose()
        ended = time.process_time() - start
        figures.append(asked("memory of an empty room", [size], MUST_EMPTY_BYTES, aim=4_000, unit=" B"))
        made, ended = made / count * 1e6, ended / count * 1e6
        figures.append(stated("making a room, ending it", f"{made:.1f} and {ended:.1f} us"))
        for _ in range(ticking_count):
            await app.create_room(Ticking)
        await asyncio.sleep(0.5)
        start = time.process_time()
        await asyncio.sleep(3)
        share = (time.process_time() - start) / 3
        tick = share / (ticking_count * 20) * 1e6
        figures.append(stated(f"{ticking_count} empty rooms at 20 Hz", f"{tick:.2f} us a tick, {share:.1%} of a core"))
        app.stop()

    app.run(port=0)
    return figures


def joining() -> list[Figure]:
    """All at once: `join_or_create`, and a plain request."""

    def seconds(ask: tuple[str, str]) -> tuple[float, int]:
        command = [
            "taskset",
            "-c",
            str(processes.SERVER_CORE),
            PYTHON,
            SERVER,
            "rooms",
            "idle",
            "100000",
            str(SIZE),
            "0",
        ]
        with subprocess.Popen(
            command, cwd=ROOT, env=processes.environment(), stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout
            port = server.stdout.readline().strip()
            command = ["taskset", "-c", str(processes.LOAD_CORE), PYTHON, LOAD, port, str(JOINERS), *ask]
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as bots:
                assert bots.stdout
                took, errors = bots.stdout.readline().split()
                server.terminate()
        return float(took), int(errors)

    rounds = [(seconds(("$join_or_create", '{"name":"room"}')), seconds(("join", "{}"))) for _ in range(ROUNDS)]
    all_in, plain = (median(took for took, _ in column) for column in zip(*rounds, strict=True))
    errors = sum(ours[1] for ours, _ in rounds)
    measure = f"`join_or_create` by {JOINERS} at once"
    detail = f"all in after {all_in:.2f} s: {all_in / plain:.1f} times plain requests ({plain:.2f} s)"
    return [asked(measure, [errors], 0, spelled="0 errors", unit=" errors", detail=detail)]


def ranked() -> Figure:
    """Rounds with so many who wait and find nobody, and the rate at which it holds when people come all the time."""
    chance = random.Random(1)
    queue = RankedQueue(teams=2, team_size=5, window=25, widen=5, window_max=400)
    now, ids = 0.0, iter(range(10**9))

    def come(count: int) -> None:
        for _ in range(count):
            queue.add(next(ids), chance.gauss(1500, 300), size=chance.choice((1, 1, 1, 2, 3)), now=now)

    come(TICKETS)
    full = time.process_time()
    queue.round(now)
    full = time.process_time() - full
    spent = 0.0
    for _ in range(20):
        come(1_000)
        now += 1
        start = time.process_time()
        queue.round(now)
        spent += time.process_time() - start
    lonely = RankedQueue(window=0.001, widen=0)
    for number in range(TICKETS):
        lonely.add(number, float(number), now=0)
    start = time.process_time()
    assert not lonely.round(0)
    lonely_round = time.process_time() - start
    figure = (
        f"{full * 1e3:.0f} ms of {TICKETS} who mostly match, {lonely_round * 1e3:.0f} ms if nobody does; "
        f"{spent / 20 * 1e3:.0f} ms a round of 1,000 newcomers a second"
    )
    return stated(f"ranked queue, {TICKETS} tickets, CPU of a round", figure)


if __name__ == "__main__":
    sys.exit(main())
