"""The load of sessions that are cut and come back, in small: the figure itself is `python benches/resume.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_all_come_back_and_nothing_is_lost_run_twice_or_hijacked() -> None:
    command = [sys.executable, "benches/resume.py", "--sessions", "100", "--spread", "0.1", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["resumed"], found["inputs"]) == (100, 600)
    assert (found["lost"], found["twice"], found["hijacked"]) == (0, 0, 0)
