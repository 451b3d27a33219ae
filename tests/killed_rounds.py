"""``killed_rounds.py DATABASE_URL ROUNDS``: writers killed at random moments; exit code 1 if anything is lost or half-written."""

from __future__ import annotations

import asyncio
import random
import sys

from killed import Found, kill_process, killed_round, prepare


def main() -> int:
    url, rounds = sys.argv[1], int(sys.argv[2])
    asyncio.run(prepare(url))
    total = Found(0, 0, 0, 0)
    for number in range(rounds):
        found = killed_round(url, number * 1_000_000, random.random() * 0.1, kill_process)
        total = Found(*(a + b for a, b in zip(total, found, strict=True)))
    print(f"{rounds} rounds: {total.acknowledged} transactions acknowledged, {total.lost} lost, {total.halves} half-written, "
          f"{total.events} with rows or events alone")  # fmt: skip
    return int(total.lost + total.halves + total.events > 0 or total.acknowledged < rounds)


if __name__ == "__main__":
    sys.exit(main())
