"""For each attack: what the server is set to, how much memory it may cost, and what must have been noticed of it.

How often is the machine's business: the counts only say that the attack took place.
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
        return {"drain_timeout": 1.0, **self.settings, **files}


def counts(stats: Any) -> int:
    """How many numbers there are: an attacker must not be able to add any."""
    return sum(map(counts, stats.values())) if isinstance(stats, dict) else 1


CASES: dict[str, Case] = {
    "slow_handshakes": Case(
        lambda stats, _: stats["closed"]["handshake-timeout"] > 50,
        {"handshake_timeout": 0.8},
    ),
    "length_bombs": Case(lambda stats, _: stats["closed"]["packet-too-long"] > 2),
    "deflate_bombs": Case(lambda stats, _: stats["closed"]["inflate-invalid"] > 2, {"websocket_deflate": "on"}),
    "message_flood": Case(
        lambda stats, report: (
            stats["messages"]["limited"] > 1000 and stats["ran"]["take"] <= 400 + 200 * (report.seconds + 1)
        ),
        {"message_rate": "200/s", "message_burst": 400},
    ),
    "connect_flood": Case(
        lambda stats, _: stats["connections"]["refused_rate"] > 10, {"connect_rate": "20/s", "connect_burst": 50}
    ),
    "descriptors": Case(lambda stats, _: stats["connections"]["refused_descriptors"] > 0, {"descriptors": 256}),
    "half_open": Case(
        lambda stats, _: stats["closed"]["silent"] > 50,
        {"heartbeat": 0.3, "stale_after": 0.5, "resume_grace": 1.0},
    ),
    # Each may keep its queue's bound, and no more.
    "slow_readers": Case(
        lambda stats, _: stats["closed"]["slow"] > 10,
        {"queue_bytes_max": 1 << 20},
        bounds.MEMORY_MB + 60 * 2.5,
    ),
    # Each first one ran, no second one did.
    "replays": Case(
        lambda stats, _: stats["closed"]["message-invalid"] >= stats["ran"]["buy"] > 0, {"resume_grace": 5.0}
    ),
    "tokens": Case(
        lambda stats, _: stats["resume"]["refused"] > 10 and stats["resume"]["resumed"] == 0, {"resume_grace": 5.0}
    ),
    "websockets": Case(lambda stats, _: stats["closed"]["websocket-invalid"] > 5),
    "tls_garbage": Case(lambda stats, _: stats["connections"]["tls_failed"] > 2, tls=True),
    "cross_site": Case(
        lambda stats, _: stats["closed"]["origin-refused"] > len(ORIGINS), {"allowed_origins": ["https://game.example"]}
    ),
    "recursion": Case(lambda stats, _: stats["messages"]["bodies_refused"] > 0),
    "headers": Case(lambda stats, _: stats["closed"]["http-invalid"] > 2),
    "garbage": Case(lambda stats, _: sum(stats["closed"].values()) > 10),
    "log_floods": Case(
        lambda stats, report: (
            stats["messages"]["unknown_route"] > 10
            and report.log_lines <= 4 * bounds.LOG_LINES_PER_SECOND * (report.seconds + 1)
        )
    ),
    "cardinality": Case(
        lambda stats, report: stats["messages"]["unknown_route"] > 100 and counts(stats) == counts(report.stats_before)
    ),
    "resets": Case(lambda stats, _: stats["closed"]["reset"] > 5),
}
