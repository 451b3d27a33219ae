"""Writers killed by -9, shortly. 200 rounds on each database: `make chaos`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_nothing_durable_is_lost_and_nothing_half_written(database_url: str) -> None:
    """In a process of its own, without threads, since it forks."""
    command = [sys.executable, str(Path(__file__).with_name("killed_rounds.py")), database_url, "15"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "15 rounds" in done.stdout
