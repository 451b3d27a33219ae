"""For each attack: what the server is set to, how much memory it may cost, and what must have been noticed of it.

Of all that an attacker has seen answered or ended, the server must have counted each; how often that was is the machine's
business, but for a floor that says that the attack took place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attacks import bounds
from attacks.attackers import ORIGINS
from attacks.siege import Report

Check = Callable[[dict[str, Any], Report], object]


@dataclass(frozen=True)
class Case:
    """One attack's."""

    noticed: Check
    settings: dict[str, Any] = field(default_factory=dict)
    memory_mb: float = bounds.MEMORY_MB
    tls: bool = False

    def settings_with(self, certificate: tuple[Path, Path]) -> dict[str, Any]:
        """With a certificate, if it needs one."""
        files = {"tls_cert": str(certificate[0]), "tls_key": str(certificate[1])} if self.tls else {}
        # The attacks come as fast as they can, but for the one that is about that.
        return {"drain_timeout": 1.0, "connect_rate": "none", **self.settings, **files}


def counts(stats: Any) -> int:
    """How many numbers there are: an attacker must not be able to add any."""
    return sum(map(counts, stats.values())) if isinstance(stats, dict) else 1


CASES: dict[str, Case] = {
    "slow_handshakes": Case(
        lambda stats, report: stats["closed"]["handshake-timeout"] >= report.seen["ended"] >= 300,
        {"handshake_timeout": 0.8},
        tls=True,
    ),
    "length_bombs": Case(
        lambda stats, report: (
            stats["closed"]["packet-too-long"] + stats["closed"]["websocket-invalid"] == report.seen["ended"] > 100
        )
    ),
    "deflate_bombs": Case(
        lambda stats, report: stats["closed"]["inflate-invalid"] == report.seen["ended"] > 100,
        {"websocket_deflate": "on"},
    ),
    "message_flood": Case(
        lambda stats, report: (
            stats["messages"]["limited"] + stats["ran"]["take"] == report.seen["said"] > 100_000
            and stats["ran"]["take"] <= 400 + 200 * (report.seconds + 1)
        ),
        {"message_rate": "200/s", "message_burst": 400},
    ),
    "connect_flood": Case(
        lambda stats, report: (
            stats["connections"]["refused_rate"] + stats["connections"]["accepted"] >= report.seen["connected"] > 1000
            and stats["connections"]["accepted"] <= 50 + 20 * (report.seconds + 1)
        ),
        {"connect_rate": "20/s", "connect_burst": 50},
    ),
    "descriptors": Case(
        lambda stats, report: stats["connections"]["refused_descriptors"] >= report.seen["ended"] > 0,
        {"descriptors": 256},
    ),
    "half_open": Case(
        lambda stats, report: stats["closed"]["silent"] == report.seen["ended"] == 300,
        {"heartbeat": 0.3, "stale_after": 0.5, "resume_grace": 1.0},
    ),
    # Each may keep its queue's bound, and no more.
    "slow_readers": Case(
        lambda stats, report: stats["closed"]["slow"] == report.seen["answered"] == 60,
        {"queue_bytes_max": 1 << 20},
        bounds.MEMORY_MB + 60 * 2.5,
    ),
    # Each first one ran, no second one did; of two that come with one token, one goes on.
    "replays": Case(
        lambda stats, report: (
            stats["closed"]["message-invalid"] == stats["ran"]["buy"] == report.seen["bought"] > 10
            and stats["resume"]["refused"] == stats["resume"]["resumed"] == report.seen["replayed"] / 2
        ),
        {"resume_grace": 2.0},
    ),
    "tokens": Case(
        lambda stats, report: (
            stats["resume"]["refused"] == report.seen["guessed"] > 100 and stats["resume"]["resumed"] == 0
        ),
        {"resume_grace": 2.0},
    ),
    "websockets": Case(
        lambda stats, report: (
            stats["closed"]["websocket-invalid"] + stats["closed"]["packet-too-long"] >= report.seen["refused"] > 50
        )
    ),
    "tls_garbage": Case(
        lambda stats, report: stats["connections"]["tls_failed"] >= report.seen["ended"] > 10, tls=True
    ),
    "cross_site": Case(
        lambda stats, report: stats["closed"]["origin-refused"] == report.seen["refused"] > len(ORIGINS),
        {"allowed_origins": ["https://game.example"]},
    ),
    "recursion": Case(lambda stats, report: stats["messages"]["bodies_refused"] == report.seen["refused"] > 50),
    "headers": Case(lambda stats, report: stats["closed"]["http-invalid"] >= report.seen["refused"] > 50),
    "garbage": Case(lambda stats, report: sum(stats["closed"].values()) >= report.seen["ended"] > 100),
    "log_floods": Case(
        lambda stats, report: (
            stats["messages"]["unknown_route"] >= report.seen["answered"] > 100
            and report.log_lines <= 4 * bounds.LOG_LINES_PER_SECOND * (report.seconds + 1)
        )
    ),
    "cardinality": Case(
        lambda stats, report: (
            stats["messages"]["unknown_route"] == report.seen["routes"] > 500
            and counts(stats) == counts(report.stats_before)
        )
    ),
    "resets": Case(lambda stats, report: stats["closed"]["reset"] >= report.seen["ended"] > 100),
}
