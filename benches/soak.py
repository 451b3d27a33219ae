"""A game that is played for long: `python benches/soak.py [MINUTES]`, 30 by default. Exit code 1: something leaks, or fails.

Clients come and go, are cut off, one by one and all at once, go on with their sessions, take seats in rooms, and play; Python bots
beside them; two swarms, one for the app and one for its rooms, one after the other. What must hold: no traceback, no error, no
request lost, no session that could not go on, no block of the pool left when all have gone, and memory that grows by less than
`SLOPE_MAX` after the first fifth.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benches.servers.soak import Add, Move, Say  # noqa: E402

from gameserver.swarm import Bot, Scenario, ask, churn, drops, hold, letters, play, ramp, storm, tell  # noqa: E402

CLIENTS, ROUND = 300, 40.0  # and s
SLOPE_MAX = 1e6  # bytes a minute
SLOPE_FROM = 5.0  # minutes; shorter runs say nothing of it


def main(minutes: float = 30.0) -> int:
    """Prints what it came to; 0 if all holds."""
    rounds = max(1, round(minutes * 60 / ROUND))
    share = minutes * 60 / rounds / ROUND
    phases = [ramp(CLIENTS, max(0.5, 3 * share), counts=True)]
    for _ in range(rounds):
        phases += [
            hold(10 * share), churn(CLIENTS / 15, 10 * share), drops(CLIENTS / 15, 10 * share), storm(10 * share)
        ]  # fmt: skip
    phases += [ramp(0, 0.5), hold(3.5, pace="nothing")]
    actions = [ask(Add, weight=4), ask(Move, weight=10), tell(Say, weight=0.05, text=letters(1, 30))]
    target: dict[str, Any] = {"target": "benches/servers/soak.py", "resume": True}
    game = play(Scenario(actions, phases, pace="4/s", world="decode", bots={wander: 5}, **target), folder=ROOT)
    seats = [ask(Say, text=letters(1, 30))]
    rooms = play(Scenario(seats, phases, pace="1/s", room="table", **target), folder=ROOT)
    failed = [*complaints("the app", game, minutes), *complaints("rooms", rooms, minutes)]
    for name, result in (("the app", game), ("rooms", rooms)):
        server, total = result["server"], result["total"]
        print(
            f"{name}: {total['answered']:,} answers, {total['opened']:,} connections, {total['resumed']:,} of them by "
            f"sessions that went on, {total['snapshots']:,} snapshots; "
            f"memory {server['memory_before'] / 1e6:.0f} MB before, {server['memory_max'] / 1e6:.0f} at most, "
            f"{slope(server) / 1e3:+.0f} kB a minute; "
            f"longest garbage collection {server['gc_max'] * 1e3:.1f} ms; tick p99 {server['tick_lateness_p99'] * 1e3:.2f} ms late"
        )
    for text in failed:
        print(f"FAILED: {text}")
    return 1 if failed else 0


async def wander(bot: Bot) -> None:
    """What a bot of Python does."""
    await bot.ask(Add(a=bot.random.randrange(1000), b=1))
    await bot.pause(1.0)


def complaints(name: str, result: dict[str, Any], minutes: float) -> list[str]:
    """What does not hold."""
    server, total, found = result["server"], result["total"], []
    for what in ("tracebacks", "errors", "blocks"):
        if server[what]:
            found.append(f"{name}: {server[what]} {what}")
    if total["errors"] or total["timed_out"] or total["lost"] or total["ended"]:
        found.append(
            f"{name}: {total['errors']} {total['timed_out']} timed out, {total['lost']} lost, {total['ended']}"
        )
    if total["renewed"] or (minutes >= SLOPE_FROM and not total["resumed"]):
        found.append(f"{name}: {total['renewed']} sessions could not go on, {total['resumed']} did")
    if (bots := result["bots"]) is not None and (bots["errors"] or bots["traceback"]):
        found.append(f"{name}: bots: {bots['errors']} {bots['traceback']}")
    if not total["answered"] or (minutes >= SLOPE_FROM and slope(server) > SLOPE_MAX):
        found.append(f"{name}: {total['answered']} answers; memory grows by {slope(server) / 1e3:.0f} kB a minute")
    return found


def slope(server: dict[str, Any]) -> float:
    """Bytes a minute, by least squares, after the first fifth and while clients are there."""
    series = [point for point in server["series"] if point["sessions"] > CLIENTS / 2]
    series = series[len(series) // 5 :]
    if len(series) < 3:
        return 0.0
    mean_at = sum(point["at"] for point in series) / len(series)
    mean = sum(point["memory"] for point in series) / len(series)
    spread = sum((point["at"] - mean_at) ** 2 for point in series)
    return float(60 * sum((point["at"] - mean_at) * (point["memory"] - mean) for point in series) / spread)


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2])))
