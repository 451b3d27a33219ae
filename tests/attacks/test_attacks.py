"""Nineteen attacks, and a good client that must not notice: see `bounds.py` for what it may notice all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from attacks import bounds
from attacks.attackers import ATTACKS, ORIGINS
from attacks.cases import CASES
from attacks.siege import besiege

SECONDS = 2.0


def test_there_are_nineteen() -> None:
    assert list(CASES) == list(ATTACKS)
    assert len(CASES) == 19
    assert len(ORIGINS) == len(set(ORIGINS)) == 20


# What differs with threads of their own for the sockets.
ON_THREADS = ["slow_handshakes", "message_flood", "slow_readers", "garbage", "resets"]


@pytest.mark.parametrize(("name", "threads"), [*((name, 0) for name in CASES), *((name, 2) for name in ON_THREADS)])
def test_a_good_client_does_not_notice(name: str, threads: int, certificate: tuple[Path, Path]) -> None:
    case = CASES[name]
    settings = case.settings_with(certificate)
    report = besiege(name, SECONDS, bounds.RELIEF, bounds.MEMORY_AFTER_MB, io_threads=threads, **settings)
    assert case.noticed(report.stats, report), report
    assert report.p99 <= bounds.P99_RATIO * report.p99_before + bounds.P99_EXTRA, report
    assert report.memory_most <= report.memory_before + case.memory_mb, report
    assert report.memory_after <= report.memory_before + bounds.MEMORY_AFTER_MB, report
    assert report.stats["closed"]["panic"] == 0
