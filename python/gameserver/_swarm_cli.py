"""`gameserver swarm`: load for a game, from its own messages or from a scenario."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gameserver import _target
from gameserver._schema_cli import near
from gameserver._signature import Argument, Kind
from gameserver.errors import ConfigError, GameServerError
from gameserver.swarm import Action, Scenario, ask, changes, hold, play, ramp
from gameserver.swarm._network import network_of
from gameserver.swarm._page import page
from gameserver.swarm._scenario import load
from gameserver.swarm._show import LiveView, show_changes, show_result
from gameserver.swarm._units import pace, seconds

__all__ = ["swarm"]

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="A game (game.py, game.py:app, package.module:app), a file with a Scenario, or a page (http://...)",
    ),
]
Clients = Annotated[int | None, typer.Option("--clients", help="How many clients. Default: 100", show_default=False)]
Rate = Annotated[
    str | None,
    typer.Option(
        "--rate",
        help='What each sends: "20/s", "depth 16" (closed loop) or "nothing". Default: 1/s',
        show_default=False,
    ),
]
For = Annotated[
    str | None, typer.Option("--for", help="How long, once all are there. Default: 10s", show_default=False)
]
Ramp = Annotated[
    str | None,
    typer.Option("--ramp", help="How long they take to come. Default: 1 s for each 1000", show_default=False),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="A server that runs: ws://host:port, wss://, tcp://, tls://. Default: the game is started",
        show_default=False,
    ),
]
User = Annotated[
    str | None,
    typer.Option(
        "--user",
        help='What clients say of themselves, in JSON; {n} is a client\'s number. Default: {"name":"bot-{n}"}',
        show_default=False,
    ),
]
Decode = Annotated[bool, typer.Option("--decode", help="Decode the world, as players' clients do")]
Room = Annotated[
    str | None,
    typer.Option("--room", help="Take a seat in a room of this name, and play its messages", show_default=False),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Who is cut off goes on with the session, as players' clients do")
]
Net = Annotated[
    str | None,
    typer.Option(
        "--network",
        help='Between clients and the server: cable, wifi, mobile, poor, or "delay=40ms jitter=10ms loss=1% bandwidth=1MB/s"',
        show_default=False,
    ),
]
World = Annotated[
    bool | None, typer.Option("--world/--no-world", help="Ask for the replicated world. Default: if the game has one")
]
Serializer = Annotated[
    str | None, typer.Option("--serializer", help="protobuf or json. Default: protobuf", show_default=False)
]
Threads = Annotated[int | None, typer.Option("--threads", help="Of the swarm. Default: 1", show_default=False)]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Of all that is left to chance. Default: 1", show_default=False)
]
Must = Annotated[
    list[str] | None,
    typer.Option(
        "--must",
        help='What has to come out, else exit code 1: "p99 < 50ms". May stand several times',
        show_default=False,
    ),
]
Json = Annotated[Path | None, typer.Option("--json", help="Keep the result here", show_default=False)]
Html = Annotated[Path | None, typer.Option("--html", help="Write a report here, one file", show_default=False)]
Compare = Annotated[
    Path | None, typer.Option("--compare", help="An earlier --json to compare with", show_default=False)
]
Ca = Annotated[str | None, typer.Option("--ca", help="A PEM file of certificates to trust", show_default=False)]


def swarm(
    target: Target,
    clients: Clients = None,
    rate: Rate = None,
    duration: For = None,
    ramp_up: Ramp = None,
    url: Url = None,
    user: User = None,
    world: World = None,
    decode: Decode = False,
    room: Room = None,
    resume: Resume = False,
    network: Net = None,
    serializer: Serializer = None,
    threads: Threads = None,
    seed: Seed = None,
    must: Must = None,
    json_file: Json = None,
    html_file: Html = None,
    compare: Compare = None,
    ca: Ca = None,
) -> None:
    """Plays a game with thousands of clients and says what they noticed.

    Without a scenario each message of the game is sent with valid random values, as a request. Latency counts from the time at
    which a message was to be sent. Exit code 1: a threshold does not hold, or the run says nothing (the swarm was the bottleneck,
    nobody was let in).
    """
    earlier = _earlier(compare) if compare is not None else None
    for file in (json_file, html_file):
        if file is not None and not file.absolute().parent.is_dir():
            raise ConfigError(f"{file}: there is no such folder")
    if is_page := target.startswith(("http://", "https://")):
        if rate is not None or url is not None:
            raise ConfigError(
                "a page is got in a closed loop, each client its next one when it has the last: no --rate, no --url"
            )
        rate, url = "depth 1", target
    found = None if is_page else _scenario(target, clients, rate, duration, ramp_up, url)
    scenario = found or _of_game(target, clients, rate, duration, ramp_up, url, world, room)
    shown = "decode" if decode else world
    scenario = replace(
        scenario,
        **_typed(user=_user(user), serializer=serializer, threads=threads, seed=seed, world=shown, room=room),
        **_typed(resume=resume or None, network=network_of(network) if network is not None else None),
    )
    if must:
        scenario = replace(scenario, thresholds=(*scenario.thresholds, *must))
    file = None if is_page else _target.module_file(target.partition(":")[0])
    folder = file.parent if found is not None and file is not None else Path.cwd()
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=160)
    name = near(file) if file is not None else target
    if scenario.bots:
        console.print(
            f"{sum(scenario.bots.values())} bots are Python: they share one core, and each message of theirs costs a hundred "
            "times an action's",
            style="yellow",
        )
    try:
        with LiveView(console, scenario, name) as view:
            result = play(scenario, folder=folder, name=name, ca=ca, watch=view.add)
    except GameServerError as error:
        if isinstance(error, ConfigError):
            raise
        print(f"gameserver: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    show_result(console, result)
    found_changes = changes(earlier, result) if earlier is not None else []
    if found_changes:
        show_changes(console, found_changes)
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1) + "\n")
    if html_file is not None:
        html_file.write_text(page(result, found_changes))
    if result["invalid"] or not all(threshold["holds"] for threshold in result["thresholds"]):
        raise typer.Exit(1)


def _scenario(
    target: str, clients: int | None, rate: str | None, duration: str | None, ramp_up: str | None, url: str | None
) -> Scenario | None:
    """The scenario that a file declares, if it does.

    Raises:
        ConfigError: options say what the scenario says.
    """
    file = _target.module_file(target)
    if file is None:
        return None
    scenario = load(file, _target._import_file(file))
    if scenario is None:
        return None
    given = {"--clients": clients, "--rate": rate, "--for": duration, "--ramp": ramp_up}
    if options := [name for name, value in given.items() if value is not None]:
        raise ConfigError(
            f"{file.name} declares a scenario, which says {' and '.join(options)} itself: leave the option out"
        )
    return replace(scenario, url=url, target=None) if url is not None else scenario


def _of_game(
    target: str,
    clients: int | None,
    rate: str | None,
    duration: str | None,
    ramp_up: str | None,
    url: str | None,
    world: bool | None,
    room: str | None,
) -> Scenario:
    """Every message of a game, with valid random values."""
    app: Any = None if target == url else _target.load(target).app
    count = clients if clients is not None else 100
    over = seconds(ramp_up) if ramp_up is not None else max(0.5, count / 1000)
    text = rate or "1/s"
    kind, _ = pace(text)
    actions = _actions(_handlers(app, room)) if app is not None else []
    if not actions and kind != "quiet" and app is not None:
        raise ConfigError(f'{target} has no handlers to send messages to: give it one, or --rate "nothing"')
    return Scenario(
        actions,
        [ramp(count, over), hold(duration if duration is not None else "10s")],
        pace=text,
        target=None if url is not None else target,
        url=url,
        world=(app is not None and app.world is not None) if world is None else world,
    )


def _handlers(app: Any, room: str | None) -> Sequence[Any]:
    """Those of the app, or of a class of rooms.

    Raises:
        ConfigError: there is no such class.
    """
    if room is None:
        return list(app.handlers)
    kinds = app._rooms.types
    if room not in kinds:
        raise ConfigError(f"--room {room}: the game has {', '.join(kinds) or 'no rooms'}")
    return list(kinds[room].handlers)


def _actions(handlers: Sequence[Any]) -> list[Action]:
    found: dict[str, Action] = {}
    for handler in handlers:
        if handler.kind is not Kind.ROUTE or handler.route in found:
            continue
        if handler.message is not None:
            found[handler.route] = replace(ask(handler.message), route=handler.route)
        elif Argument.JSON in handler.arguments:
            found[handler.route] = ask(handler.route, body={})
        else:
            found[handler.route] = ask(handler.route, body=lambda random: random.randbytes(random.randint(0, 64)))
    return [*found.values()]


def _user(text: str | None) -> Any:
    if text is None:
        return None
    try:
        json.loads(text.replace("{n}", "0"))
    except ValueError as error:
        raise ConfigError(f"--user {text!r} is no JSON: {error}") from None
    return lambda number: json.loads(text.replace("{n}", str(number)))


def _earlier(path: Path) -> Mapping[str, Any]:
    try:
        result = json.loads(path.read_text())
        if result["swarm"] == 1:
            return dict(result)
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = (
            error.strerror
            if isinstance(error, OSError) and error.strerror
            else "it is no result of gameserver swarm --json"
        )
        raise ConfigError(f"--compare {os.fspath(path)}: {text}") from None
    raise ConfigError(f"--compare {os.fspath(path)}: it is of another version of gameserver")


def _typed(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
