"""The nineteen attacks of `tests/attacks`, longer, and what a good client notices of each.

Attacker, good client and server share the machine's cores; each figure is the median of three runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)
sys.path.insert(0, str(ROOT / "tests"))

from attacks import bounds  # noqa: E402
from attacks.cases import CASES  # noqa: E402
from attacks.siege import besiege  # noqa: E402
from benches.harness.report import Figure, Section, asked, publish  # noqa: E402
from certificates import make_certificate  # noqa: E402

ROUNDS = 3
RATIO_MUST, EXTRA_MUST = 3.0, 0.002


def main() -> int:
    """Prints the figures; 1 if a bound is not kept."""
    parser = argparse.ArgumentParser(prog="benches/under_attack.py", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, help="of each attack; 4, and 0.7 with --quick")
    parser.add_argument("names", nargs="*", help="of attacks; all, if none is given")
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    arguments = parser.parse_args()
    seconds = arguments.seconds or (0.7 if arguments.quick else 4.0)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder))
        for name in arguments.names or CASES:
            rounds = 1 if arguments.quick else ROUNDS
            figures.append(measured(name, seconds, certificate, rounds))
            print(f"{name}: {figures[-1].measured}", flush=True)
    publish(Section("attacks", "A good client's p99 while each of nineteen attacks runs", figures, []))
    # A single short run says too little to fail for.
    return 1 if not arguments.quick and any(figure.reached == "NO" for figure in figures) else 0


def measured(name: str, seconds: float, certificate: tuple[Path, Path], rounds: int) -> Figure:
    """Three times what it is alone, and 2 ms."""
    relief = bounds.RELIEF if rounds > 1 else 1.0
    reports = [besiege(name, seconds, relief, 1.0, **CASES[name].settings_with(certificate)) for _ in range(rounds)]

    def median(value: str) -> float:
        return float(statistics.median(getattr(report, value) for report in reports))

    def more(value: str) -> float:
        return float(statistics.median(getattr(report, value) - report.memory_before for report in reports))

    before = median("p99_before")
    return asked(
        name,
        [report.p99 * 1e3 for report in reports],
        (before * RATIO_MUST + EXTRA_MUST) * 1e3,
        unit=" ms",
        detail=f"alone {before * 1e3:.2f} ms; memory {more('memory_most'):+.1f} MB at most, "
        f"{more('memory_after'):+.1f} after {relief:g} s; server's CPU {median('cpu'):.0%}",
    )


if __name__ == "__main__":
    sys.exit(main())
