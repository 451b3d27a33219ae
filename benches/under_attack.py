"""The nineteen attacks of `tests/attacks`, longer, and what a good client notices of each.

`python benches/under_attack.py [SECONDS] [NAME ...]`. Attacker, good client and server share the machine's cores; each figure
is the median of three runs.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from attacks import bounds  # noqa: E402
from attacks.cases import CASES  # noqa: E402
from attacks.siege import Report, besiege  # noqa: E402
from certificates import make_certificate  # noqa: E402

ROUNDS = 3
RATIO_MUST, EXTRA_MUST = 3.0, 0.002


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    names = sys.argv[2:] or list(CASES)
    print(
        "| attack | p99 alone, ms | p99 meanwhile, ms | must, ms | memory at most, MB more | 5 s after | server's CPU |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder))
        missed = [name for name in names if not measured(name, seconds, certificate)]
    print(f"\nover the bound: {', '.join(missed) or 'none'}")


def measured(name: str, seconds: float, certificate: tuple[Path, Path]) -> bool:
    """Prints one row; says whether the bounds are kept."""
    reports = [
        besiege(name, seconds, bounds.RELIEF, 1.0, **CASES[name].settings_with(certificate)) for _ in range(ROUNDS)
    ]

    def median(value: str) -> float:
        return float(statistics.median(getattr(report, value) for report in reports))

    def more(report: Report, value: str) -> float:
        return float(getattr(report, value)) - report.memory_before

    before, meanwhile = median("p99_before"), median("p99")
    must = before * RATIO_MUST + EXTRA_MUST
    most = statistics.median(more(report, "memory_most") for report in reports)
    after = statistics.median(more(report, "memory_after") for report in reports)
    print(
        f"| {name} | {before * 1e3:.2f} | {meanwhile * 1e3:.2f} | {must * 1e3:.2f} | {most:.1f} | {after:.1f} "
        f"| {median('cpu'):.0%} |",
        flush=True,
    )
    return meanwhile <= must


if __name__ == "__main__":
    main()
