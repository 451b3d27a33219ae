"""A game that is played for long: `python benches/soak.py [MINUTES]`, 30 by default. Exit code 1: something leaks, or fails.

Clients come and go, are cut off all at once, take seats in rooms, and play; two swarms, one for the app and one for its rooms, one
after the other. What must hold: no traceback, no error, no block of the pool left when all have gone, and memory that grows by less
than `SLOPE_MAX` after the first fifth.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benches.servers.soak import Add, Move, Say  # noqa: E402

from gameserver.swarm import Scenario, ask, churn, hold, letters, play, ramp, storm, tell  # noqa: E402

CLIENTS, ROUND = 300, 40.0  # and s
SLOPE_MAX = 1e6  # bytes a minute
SLOPE_FROM = 5.0  # minutes; shorter runs say nothing of it


def main(minutes: float = 30.0) -> int:
    """Prints what it came to; 0 if all holds."""
    rounds = max(1, round(minutes * 60 / ROUND))
    share = minutes * 60 / rounds / ROUND
    phases = [ramp(CLIENTS, max(0.5, 3 * share), counts=True)]
    for _ in range(rounds):
        phases += [hold(15 * share), churn(CLIENTS / 15, 15 * share), storm(10 * share)]
    phases += [ramp(0, 0.5), hold(3.5, pace="nothing")]
    actions = [ask(Add, weight=4), ask(Move, weight=10), tell(Say, weight=0.05, text=letters(1, 30))]
    game = play(Scenario(actions, phases, pace="4/s", target="benches/servers/soak.py", world="decode"), folder=ROOT)
    seats = [ask(Say, text=letters(1, 30))]
    rooms = play(Scenario(seats, phases, pace="1/s", target="benches/servers/soak.py", room="table"), folder=ROOT)
    failed = [*complaints("the app", game, minutes), *complaints("rooms", rooms, minutes)]
    for name, result in (("the app", game), ("rooms", rooms)):
        server, total = result["server"], result["total"]
        print(
            f"{name}: {total['answered']:,} answers, {total['opened']:,} connections, {total['snapshots']:,} snapshots; "
            f"memory {server['memory_before'] / 1e6:.0f} MB before, {server['memory_max'] / 1e6:.0f} at most, "
            f"{slope(server) / 1e3:+.0f} kB a minute; "
            f"longest garbage collection {server['gc_max'] * 1e3:.1f} ms; tick p99 {server['tick_lateness_p99'] * 1e3:.2f} ms late"
        )
    for text in failed:
        print(f"FAILED: {text}")
    return 1 if failed else 0


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
