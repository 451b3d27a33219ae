"""What an attack may cost at most, in one place.

The tests are generous: machines are busy, and an attacker, a good client and the server share their cores. The figures that
count are those of `benches/under_attack.py`.
"""

from __future__ import annotations

P99_RATIO = 30.0
"""The good client's 99th percentile of round trips while the attack runs, as a ratio to its own before."""
P99_EXTRA = 0.1
"""s; added to that."""
MEMORY_MB = 48.0
"""The server's resident memory beyond the one before, while an attack runs that has no bound of its own."""
MEMORY_AFTER_MB = 16.0
"""The same, `RELIEF` after it."""
RELIEF = 5.0
"""s."""
LOG_LINES_PER_SECOND = 10
"""Of one cause."""
