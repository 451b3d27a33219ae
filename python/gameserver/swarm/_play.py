"""A scenario, played: the server is started if need be, the core's threads play, what they tell is collected."""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import json
import os
import platform
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gameserver import _core
from gameserver.client import Client, ClientError
from gameserver.errors import ConfigError, GameServerError
from gameserver.swarm import _server
from gameserver.swarm._bots import Bots
from gameserver.swarm._scenario import Scenario
from gameserver.swarm._thresholds import Threshold, figure

__all__ = ["Result", "play"]

Result = dict[str, Any]
"""What came of a run, as it is kept in a JSON file; docs/swarm.md says what is in it."""

POLL = 0.1  # s
LATE_MIN, LATE_SHARE = 0.001, 0.25  # s; of the p99 latency: a swarm that is later than both has measured itself
BUSY = 0.95  # of a core: beyond it in a closed loop, the swarm and not the server was the bound
WHOLE = 0.5  # s; of shorter stretches rates are not asked
PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "tcp": 7777, "tls": 7777}


@dataclass(frozen=True, slots=True)
class _Address:
    host: str
    port: int
    tls: tuple[str, str] | None
    websocket: tuple[str, str] | None
    get: tuple[str, str] | None

    @classmethod
    def of(cls, url: str, ca: str | None) -> _Address:
        parts = urlsplit(url)
        try:
            port = parts.port or PORTS[parts.scheme]
            name = parts.hostname or ""
            host = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0][4][0]
        except (KeyError, ValueError):
            raise ConfigError(
                f"{url!r} is no address: ws://host:port, wss://, tcp://, tls://, http:// or https://"
            ) from None
        except OSError as error:
            raise ConfigError(f"{url}: {error.strerror or error}") from None
        tls = None
        if parts.scheme in ("wss", "tls", "https"):
            trusted = ca or ssl.get_default_verify_paths().cafile
            if trusted is None:
                raise ConfigError(f"{url}: this system has no list of certificates to trust; give one with --ca FILE")
            tls = (trusted, name)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        place = (parts.netloc.rpartition("@")[2], target)
        websocket = place if parts.scheme in ("ws", "wss") else None
        get = place if parts.scheme in ("http", "https") else None
        return cls(str(host), port, tls, websocket, get)


def play(
    scenario: Scenario,
    *,
    folder: str | os.PathLike[str] = ".",
    name: str = "",
    ca: str | None = None,
    watch: Callable[[Mapping[str, Any], Mapping[str, Any] | None], None] | None = None,
) -> Result:
    """Plays a scenario to its end, or until Ctrl-C.

    Args:
        folder: where `target` is looked for.
        name: for the report.
        ca: a PEM file with the certificates that are trusted, of a server that speaks TLS; None: those of the system.
        watch: is called once a second with what clients noticed in it, and with what the server says of itself if it was started
            here.

    Raises:
        ConfigError: the scenario can't be played, or the game does not start.
        GameServerError: the swarm itself failed.

    >>> from gameserver.swarm import Scenario, hold, play, ramp
    >>> scenario = Scenario([], [ramp(10, 0.1), hold(0.1)], pace="nothing", url="ws://127.0.0.1:1")
    >>> play(scenario)["total"]["opened"]
    0
    """
    actions, handshakes = scenario.core_actions(), scenario.handshakes()
    with _target(scenario, Path(folder)) as (url, server):
        address = _Address.of(url, ca)
        worlds = _worlds(scenario, url, ca, handshakes[0])
        if address.get is not None:
            actions = [
                {
                    "route": f"GET {address.get[1]}",
                    "is_request": True,
                    "weight": 1.0,
                    "bodies": [b""],
                    "think": (0.0, 0.0),
                }
            ]
        started = time.monotonic()
        run = _core.SwarmRun(
            host=address.host,
            port=address.port,
            tls=address.tls,
            websocket=address.websocket,
            get=address.get,
            join=scenario.join(),
            world=worlds,
            resume=scenario.resume,
            networks=scenario.core_networks(),
            handshakes=handshakes,
            actions=actions,
            phases=scenario.core_phases(),
            threads=scenario.threads,
            seed=scenario.seed,
            timeout=scenario.timeout,
        )
        bots = _bots_of(scenario, url, ca)
        series: list[dict[str, Any]] = []
        before = time.process_time()
        try:
            is_over = is_stopped = False
            while not is_over:
                try:
                    time.sleep(POLL)
                except KeyboardInterrupt:
                    if is_stopped:
                        raise
                    is_stopped = True
                    run.stop()
                is_over = run.is_over()
                if server is not None and not server.read():
                    raise GameServerError(f"the server has died after {run.elapsed():.1f} s:\n{server.complaint()}")
                if server is not None and server.reports:
                    tick = server.reports[-1]["tick"]
                    run.tell_tick(tick["next"], tick["next_due_ns"])
                for stretch in run.poll():
                    stretch["memory"] = _memory()
                    series.append(stretch)
                    if watch is not None:
                        watch(stretch, server.reports[-1] if server is not None and server.reports else None)
        finally:
            run.stop()
            minds = bots.stop() if bots is not None else None
        if (failure := run.failure()) is not None:
            raise GameServerError(f"the swarm failed: {failure}")
        total = run.total()
        elapsed = run.elapsed()
        reports = list(server.reports) if server is not None else None
        tracebacks = server.log.read_text(errors="replace").count("Traceback (") if server is not None else 0
    cpu = time.process_time() - before
    result = _result(scenario, name or scenario.target or url, url, total, series, reports, started, elapsed, cpu)
    if result["server"] is not None:
        result["server"]["tracebacks"] = tracebacks
    result["bots"] = minds
    if minds is not None and minds["is_busy"]:
        result["invalid"].append(
            "the bots' thread had no time left: they were late themselves; fewer bots, or actions in their place"
        )
    return result


@contextlib.contextmanager
def _target(scenario: Scenario, folder: Path) -> Iterator[tuple[str, _server.ServerProcess | None]]:
    if scenario.url is not None:
        yield scenario.url, None
        return
    assert scenario.target is not None
    with _server.start(scenario.target, folder, scenario.settings) as server:
        yield f"{server.scheme}://{'localhost' if server.scheme == 'wss' else '127.0.0.1'}:{server.port}/", server


def _bots_of(scenario: Scenario, url: str, ca: str | None) -> Bots | None:
    def user(number: int) -> Any:
        return scenario.says(scenario.clients + number) or {"name": f"bot-{scenario.clients + number}"}

    return Bots(scenario.bots, url, ca, user, scenario.seed) if scenario.bots else None


def _worlds(scenario: Scenario, url: str, ca: str | None, handshake: bytes) -> tuple[str | None, str | None, int]:
    """The tables of the app's world and of the room's, if they are to be decoded, and ticks a second of the app's.

    Raises:
        ConfigError: there is nothing to decode.
    """
    if not scenario.world:
        return None, None, 0
    context = ssl.create_default_context(cafile=ca) if ca is not None else None
    user = json.loads(handshake)["user"]
    try:
        with Client.open(url, user=user, tls=context, world=True, resume=False, reconnect=False) as client:
            schema = client.schema
    except (ClientError, ValueError) as error:
        if scenario.world != "decode":
            return None, None, 0  # the run will say what is wrong
        raise ConfigError(f"{url}: asking for the world's tables: {error}") from None
    world, room = schema.get("world"), schema.get("rooms", {}).get(scenario.room)
    rate = int(world["tick_rate"]) if world is not None else 0
    if scenario.world != "decode":
        return None, None, rate
    if world is None and room is None:
        raise ConfigError(f"{url}: this server has no world to decode")
    tables = [json.dumps(shape["tables"]) if shape is not None else None for shape in (world, room)]
    return tables[0], tables[1], rate


def _result(
    scenario: Scenario,
    name: str,
    url: str,
    total: dict[str, Any],
    series: list[dict[str, Any]],
    reports: list[dict[str, Any]] | None,
    started: float,
    elapsed: float,
    cpu: float,
) -> Result:
    core_phases = scenario.core_phases()
    counted = [
        second for second in series if second["phase"] >= len(core_phases) or core_phases[second["phase"]]["counts"]
    ]
    seconds = sum(stretch["seconds"] for stretch in counted if stretch["phase"] < len(core_phases))
    client_seconds = sum(second["clients"] * second["seconds"] for second in counted) or 1
    answered = total["answered"] + total["timed_out"] + total["lost"]
    total |= {
        "seconds": seconds,
        "error_share": (total["failed"] + total["timed_out"] + total["lost"]) / answered if answered else 0.0,
        "sent_per_second": total["sent"] / seconds if seconds else 0.0,
        "answered_per_second": total["answered"] / seconds if seconds else 0.0,
        "entities_each": total["entities"] / total["decoded"] if total["decoded"] else 0.0,
        "dropped": sum(total["ended"].values()),
        "client_seconds": client_seconds,
        "kb_in_per_client_second": total["bytes_in"] / client_seconds / 1e3,
        "kb_out_per_client_second": total["bytes_out"] / client_seconds / 1e3,
    }
    result: Result = {
        "swarm": 1,
        "version": importlib.metadata.version("gameserver"),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "name": name,
        "url": url if scenario.url is not None else None,
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "scenario": {
            "clients": scenario.clients,
            "pace": scenario.pace,
            "serializer": scenario.serializer,
            "world": scenario.world,
            "room": scenario.room,
            "resume": scenario.resume,
            "networks": scenario.core_networks(),
            "threads": scenario.threads,
            "seed": scenario.seed,
            "timeout": scenario.timeout,
            "phases": core_phases,
        },
        "elapsed": elapsed,
        "total": total,
        "series": series,
        "server": _server_figures(reports, started),
        "swarm_cpu": cpu / elapsed,
        "swarm_memory": max((second["memory"] for second in series), default=0),
    }
    result["invalid"] = _invalid(scenario, result)
    result["thresholds"] = [
        {"text": text, "value": figure(result, (found := Threshold.read(text)).name), "holds": found.holds(result)}
        for text in scenario.thresholds
    ]
    return result


def _server_figures(reports: Sequence[Mapping[str, Any]] | None, started: float) -> dict[str, Any] | None:
    """What a server that was started here said of itself; None: it was not, or had no time to."""
    if not reports:
        return None
    first, last = reports[0], reports[-1]
    passed = max(1e-9, last["at"] - first["at"])
    series = []
    for before, now in itertools.pairwise(reports):
        series.append(
            {
                "at": now["at"] - started,
                "cpu": (now["cpu"] - before["cpu"]) / max(1e-9, now["at"] - before["at"]),
                "memory": now["memory"],
                "sessions": now["sessions"],
                "blocks": now["blocks"],
                "gc_longest": now["gc_longest"],
                "tick_skipped": now["tick"]["skipped"] - before["tick"]["skipped"],
                "tick_lateness_p99": now["tick"]["lateness_p99_ns"] / 1e9,
            }
        )
    return {
        "cpu": (last["cpu"] - first["cpu"]) / passed,
        "memory_before": first["memory"],
        "memory_max": max(report["memory"] for report in reports),
        "gc_max": max(report["gc_longest"] for report in reports[1:] or reports),  # not of its start
        "blocks": last["blocks"],
        "gc_share": (last["gc_sum"] - first["gc_sum"]) / passed,
        "ticks": last["tick"]["count"] - first["tick"]["count"],
        "tick_skipped": last["tick"]["skipped"] - first["tick"]["skipped"],
        "tick_lateness_p99": last["tick"]["lateness_p99_ns"] / 1e9,
        "errors": last["errors"],
        "limited": last["messages"]["limited"],
        "series": series,
    }


def _invalid(scenario: Scenario, result: Mapping[str, Any]) -> list[str]:
    """Why a run says nothing of the server."""
    total, found = result["total"], []
    late, p99 = total["lateness"]["p99"], total["latency"]["p99"]
    if late > max(LATE_MIN, LATE_SHARE * p99) and total["lateness"]["count"]:
        found.append(
            f"the swarm itself was late: its p99 is {late * 1e3:.2f} ms behind the plan, beside a p99 latency of "
            f"{p99 * 1e3:.2f} ms; give it more threads or another machine, or fewer clients"
        )
    if any(phase["kind"] == "closed" for phase in result["scenario"]["phases"]):
        shares = sorted(s["cpu"] / s["seconds"] / scenario.threads for s in result["series"] if s["seconds"] >= WHOLE)
        if shares and shares[len(shares) // 2] > BUSY:
            found.append(
                "the swarm's threads had no time left: in this closed loop it, and not the server, set the rate"
            )
    came_back = total["begun"] > scenario.clients and any(
        phase["drops"] or phase["storms"] for phase in result["scenario"]["phases"]
    )
    if scenario.resume and came_back and not total["resumed"] and not total["renewed"] and total["opened"]:
        found.append("no session could go on: the server keeps none (its setting resume_grace)")
    if total["begun"] and not total["opened"] and scenario.clients:
        why = max(total["ended"], key=total["ended"].get, default="no answer in time")
        found.append(f"no client was let in: {why}")
    return found


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
