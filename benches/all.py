"""Every figure in one place: all benches, one after the other, then one table and one page. `make bench`.

Leaves `benches/out/bench.md` and `benches/out/bench.html`. Each bench can also be run by itself; README.md says what it measures.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benches.harness import processes, report  # noqa: E402

BENCHES = {
    "messages": "bench.py",
    "world": "world.py",
    "rooms": "rooms.py",
    "services": "services.py",
    "stores": "stores.py",
    "swarm": "swarm.py",
    "resume": "resume.py",
    "attacks": "under_attack.py",
}


def main() -> int:
    """Runs them; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="benches/all.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: five minutes, more noise")
    parser.add_argument("--sections", default=",".join(BENCHES), help=f"some of {', '.join(BENCHES)}")
    arguments, more = parser.parse_known_args()
    names = arguments.sections.split(",")
    if unknown := [name for name in names if name not in BENCHES]:
        parser.error(f"there is no {unknown[0]}: {', '.join(BENCHES)}")
    if more:  # what only one of them knows
        names = ["messages"]
    failed, sections, began = [], [], time.monotonic()
    for name in names:
        print(f"\n== {name}", flush=True)
        stolen, total = processes.stolen_ticks()
        started = time.monotonic()
        (processes.OUT / f"{name}.json").unlink(missing_ok=True)
        command = [
            sys.executable,
            str(ROOT / "benches" / BENCHES[name]),
            *(["--quick"] if arguments.quick else []),
            *more,
        ]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
        stolen_after, total_after = processes.stolen_ticks()
        share = (stolen_after - stolen) / max(1, total_after - total)
        if (section := report.read(name)) is not None:
            section.notes.append(
                f"{time.monotonic() - started:.0f} s; stolen by the hypervisor meanwhile: {share:.1%} of both cores."
            )
            sections.append(section)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    head = (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit.stdout.strip() or 'unknown'}, {time.monotonic() - began:.0f} s"
        f"{', --quick' if arguments.quick else ''}. {report.machine()}."
    )
    (processes.OUT / "bench.md").write_text(report.markdown(sections, head))
    (processes.OUT / "bench.html").write_text(report.html(sections, head))
    print(f"\nbenches/out/bench.md, benches/out/bench.html{'; failed: ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
