"""`make bench`: every scenario in alternating rounds, then the table."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Any

from benches.harness import processes, table
from benches.harness.measures import (
    IDLE_CONNECTIONS,
    MESSAGES,
    MICRO_CALLS_MAX,
    PYTHON,
    ROWS,
    SCENARIOS,
    SERVERS,
    Kind,
    Scenario,
)
from benches.harness.processes import OUT, ROOT, Server, Unmeasured, running
from benches.harness.report import Section, machine, publish

WARMUP_SECONDS = 0.4
SETTLE_SECONDS = 0.3  # after the last of the idle connections
MICRO_SECONDS_MAX = 120
BUSY_MIN = 0.9  # a closed loop that keeps the server less busy than this was disturbed


def main() -> int:
    """Measures, prints the table, keeps its figures and, in benches/out/runs.json, each run."""
    arguments = _arguments()
    scenarios = [_shortened(scenario) if arguments.quick else scenario for scenario in SCENARIOS]
    scenarios = [scenario for scenario in scenarios if re.search(arguments.only, scenario.name)]
    processes.build()
    processes.build_go()
    runs: table.Runs = {}
    failures: table.Failures = {}
    started = time.monotonic()
    for scenario in scenarios:
        _run(scenario, _stand_ins(scenario) if arguments.self_check else SERVERS, runs, failures)
    names = [scenario.name for scenario in scenarios]
    if re.search(arguments.only, MESSAGES) and not arguments.self_check:
        _messages(runs)
        names.append(MESSAGES)
    wants_micro = bool(re.search(arguments.only, "micro")) and not arguments.self_check
    micro = _without_sockets("micro") if wants_micro else {}
    found = table.results(runs, failures, names)
    notes = [note for note in (_micro_line(micro), _notes(runs, failures, started)) if note]
    print(f"\n{machine()}\n")
    publish(Section("messages", "Connections and messages", [table.figure(result) for result in found], notes))
    (OUT / "runs.json").write_text(json.dumps(_as_json(found, runs, micro), indent=1) + "\n")
    missed = [result for result in found if result.reached in ("NO", "") and result.row.must is not None]
    dear = _micro_complaints(micro) if wants_micro else []
    for complaint in dear:
        print(f"FAILED: {complaint}", file=sys.stderr)
    return 1 if dear or (arguments.check and missed) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/bench.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter windows, one round: more noise")
    parser.add_argument(
        "--only",
        default="",
        metavar="REGEX",
        help="only scenarios whose name matches; 'micro' and 'typed messages' are two",
    )
    parser.add_argument(
        "--self-check", action="store_true", help="the reference in our place: what differs from 1 is noise"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 if a must is not reached")
    return parser.parse_args()


def _shortened(scenario: Scenario) -> Scenario:
    seconds = max(0.7, scenario.seconds / 3) if scenario.seconds > 1 else 0.4
    return replace(scenario, rounds=1, seconds=seconds)


def _stand_ins(scenario: Scenario) -> dict[str, Server]:
    """Every server of ours replaced by the first reference that it is compared with here."""
    rows = [row for row in reversed(ROWS) if row.scenario == scenario.name]
    return SERVERS | {row.ours: SERVERS[row.reference] for row in rows}


def _run(scenario: Scenario, servers: Mapping[str, Server], runs: table.Runs, failures: table.Failures) -> None:
    """All rounds. Every run is a fresh process; each second round goes backwards, so that drift hits both sides."""
    print(f"{scenario.name}: ", end="", flush=True)
    for number in range(scenario.rounds):
        for name in scenario.servers if number % 2 == 0 else reversed(scenario.servers):
            if (scenario.name, name) in failures:
                continue
            try:
                run = _run_once(servers[name], scenario)
            except Unmeasured as why:
                failures[scenario.name, name] = str(why)
                continue
            runs.setdefault((scenario.name, name), {})[number] = run
        print(".", end="", flush=True)
    print(flush=True)


def _run_once(server: Server, scenario: Scenario) -> table.Run:
    stolen, total = processes.stolen_ticks()
    with running(server) as process:
        run: dict[str, Any] = {}
        if scenario.kind is Kind.MEMORY:
            run["connection_bytes"] = processes.memory_per_connection(process, IDLE_CONNECTIONS, SETTLE_SECONDS)
        elif scenario.kind is Kind.TICK_IDLE:
            time.sleep(scenario.seconds)
        else:
            run |= processes.apply_load(
                process, scenario.load, min(WARMUP_SECONDS, scenario.seconds / 2), scenario.seconds
            )
        if scenario.kind in (Kind.TICK_IDLE, Kind.TICK_LOAD):
            run |= process.stop()
            if "lateness_p50_ns" not in run:
                raise Unmeasured(f"{server.name} did not say how late its ticks were")
    stolen_after, total_after = processes.stolen_ticks()
    run["stolen"] = (stolen_after - stolen) / max(1, total_after - total)
    return run


def _messages(runs: table.Runs) -> None:
    """Adds the rounds of `servers/messages.py`, as if each measure were a server."""
    for name, figures in _without_sockets("messages").items():
        for number, figure in enumerate(figures):
            runs.setdefault((MESSAGES, name), {})[number] = {"server_cpu_ns": figure, "messages": 1, "stolen": 0.0}


def _without_sockets(program: str) -> dict[str, list[float]]:
    """Nanoseconds per message, by what is measured, of a program in `servers/`; a fresh process."""
    print(program, flush=True)
    command = ["taskset", "-c", str(processes.SERVER_CORE), PYTHON, "-m", f"benches.servers.{program}"]
    done = subprocess.run(
        command, cwd=ROOT, env=processes.environment(), capture_output=True, text=True, timeout=MICRO_SECONDS_MAX
    )
    if not done.stdout.startswith("{"):
        complaint = done.stderr.strip().splitlines()
        print(f"{program}: not measured: {complaint[-1] if complaint else 'it said nothing'}", file=sys.stderr)
        return {}
    figures: dict[str, list[float]] = json.loads(done.stdout)
    return figures


def _micro_line(micro: dict[str, list[float]]) -> str:
    if not micro:
        return ""
    spelled = {key: f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})" for key, values in micro.items()}
    depths = ", ".join(f"{spelled[depth]} at depth {depth}" for depth in spelled if depth != "empty")
    return (
        f"Without sockets, ns a message from bytes in to bytes out: {depths}; "
        f"an empty call of the handler: {spelled['empty']}."
    )


def _micro_complaints(micro: dict[str, list[float]]) -> list[str]:
    """What is dearer than it may be. Each round has its own ratio, so that what slows all of it down slows both sides."""
    if not micro:
        return ["micro: not measured, so that nothing is known of what a message costs; the reason is above"]
    complaints = []
    for depth, bound in MICRO_CALLS_MAX.items():
        calls = median(figure / empty for figure, empty in zip(micro[depth], micro["empty"], strict=True))
        if calls > bound:
            complaints.append(
                f"micro, depth {depth}: a message without sockets costs {calls:.2f} empty calls of its handler "
                f"({median(micro[depth]):.0f} ns to {median(micro['empty']):.0f} ns), and may cost {bound:g}. "
                "Find what was added to a message's way; MICRO_CALLS_MAX in benches/harness/measures.py has the bounds."
            )
    return complaints


def _notes(runs: table.Runs, failures: table.Failures, started: float) -> str:
    every = [run for rounds in runs.values() for run in rounds.values()]
    notes = [f"{len(every)} runs in {time.monotonic() - started:.0f} s."]
    if every:
        stolen = [run["stolen"] for run in every]
        notes.append(
            f"Stolen by the hypervisor: {100 * median(stolen):.1f} % (median), {100 * max(stolen):.1f} % (most)."
        )
    closed = [run for run in every if run.get("mode") == "echo" and run["loop"] == "closed" and run["connections"] > 1]
    disturbed = sum(run["server_cpu_ns"] < BUSY_MIN * run["elapsed_ns"] for run in closed)
    if disturbed:
        notes.append(
            f"In {disturbed} of {len(closed)} closed loops the server had its core for less than {BUSY_MIN:.0%} of the "
            "time: something else ran on this machine."
        )
    notes += [f"Left out: {why}." for why in dict.fromkeys(failures.values())]
    return " ".join(notes)


def _as_json(found: list[table.Result], runs: table.Runs, micro: dict[str, list[float]]) -> dict[str, Any]:
    return {
        "machine": machine(),
        "rows": [result.as_json() for result in found],
        "micro_ns": micro,
        "runs": [
            {"scenario": scenario, "server": server, "round": number, **run}
            for (scenario, server), rounds in runs.items()
            for number, run in rounds.items()
        ],
    }
