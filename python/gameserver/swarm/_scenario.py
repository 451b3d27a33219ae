"""What a swarm does: who plays, in which phases, with which messages, and what must come out."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

from gameserver import _pb2
from gameserver._answer import is_message, is_own_message, route_of
from gameserver.errors import ConfigError
from gameserver.swarm._bots import Mind
from gameserver.swarm._network import Network
from gameserver.swarm._place import at_caller, caller
from gameserver.swarm._thresholds import Threshold
from gameserver.swarm._units import pace, per_second, seconds, think_time
from gameserver.swarm._values import Value, attributes, random_message

__all__ = ["Action", "Phase", "Scenario", "ask", "churn", "drops", "hold", "ramp", "storm", "tell"]

BODIES = 64  # of one action, made before it begins
BODIES_BYTES_MAX = 1 << 26
CLIENTS_MAX = 1_000_000
Think = str | float | tuple[str | float, str | float]


@dataclass(frozen=True, slots=True)
class Action:
    """One kind of message that clients send; made by `ask` and `tell`."""

    route: str
    is_request: bool
    weight: float
    cls: type | None
    given: Mapping[str, Any]
    body: bytes | Value | None
    think: tuple[float, float]
    """s; the least and the most that the client says nothing after it."""
    place: str

    def bodies(self, random: Random, count: int, serializer: str) -> list[bytes]:
        """So many of its bodies, as the wire has them.

        Raises:
            ConfigError: a value is none that the message may have.
        """
        return [self._body(random, serializer) for _ in range(count)]

    def _body(self, random: Random, serializer: str) -> bytes:
        if self.cls is None:
            body: Any = self.body(random) if callable(self.body) else self.body
            if body is None or isinstance(body, bytes):
                return body or b""
            return json.dumps(body, separators=(",", ":")).encode()
        try:
            message = random_message(self.cls, self.given, random)
            if is_own_message(self.cls):
                own: bytes = message.encode() if serializer == "protobuf" else message.to_json().encode()
                return own
            generated: bytes = _pb2.encode(message) if serializer == "protobuf" else _pb2.to_json(message)
            return generated
        except Exception as error:
            raise ConfigError(f"{self.place}: {self.cls.__name__}: {error}") from None


def ask(
    message: type | str, /, *, weight: float = 1.0, body: Any = None, think: Think | None = None, **given: Any
) -> Action:
    """A request: its answer is awaited, and how long it took is measured.

    Args:
        message: a class of messages, or a route.
        weight: how often it is chosen, beside the others' weights.
        body: of a route: bytes, or what is to be sent as JSON; or a function of a `random.Random` that gives one.
        think: how long the client says nothing after it: ``"2s"``, or ``("1s", "5s")``, the least and the most. In an open loop
            that comes on top of the pace's interval; in a closed loop it begins with the answer.
        given: fields of a message: values, or functions of a `random.Random` (`between`, `one_of`, `letters`). Others get valid
            values by chance.

    Raises:
        ConfigError: the message has no such field, or the weight is none.

    >>> from gameserver import Message
    >>> from gameserver.swarm import ask, letters
    >>> class Say(Message):
    ...     text: str
    >>> ask(Say, weight=3, text=letters(1, 40)).route
    'Say'
    """
    return _action(message, True, weight, body, think, given)


def tell(
    message: type | str, /, *, weight: float = 1.0, body: Any = None, think: Think | None = None, **given: Any
) -> Action:
    """A notify: nothing is awaited. Otherwise as `ask`.

    >>> tell("dash", weight=0.5).is_request
    False
    """
    return _action(message, False, weight, body, think, given)


def _action(
    message: type | str, is_request: bool, weight: float, body: Any, think: Think | None, given: Mapping[str, Any]
) -> Action:
    place = caller() or "?"
    verb = "ask" if is_request else "tell"
    with at_caller():
        thinks = think_time(think)
    if not isinstance(weight, (int, float)) or not 0 < weight < 1e9:
        raise ConfigError(f"{place}: {verb}(weight={weight!r}): a number above 0")
    if isinstance(message, str):
        if given:
            raise ConfigError(f"{place}: {verb}({message!r}): a route has a body=, and no fields: {', '.join(given)}")
        return Action(message, is_request, float(weight), None, {}, body, thinks, place)
    if not is_message(message):
        raise ConfigError(f"{place}: {verb}({message!r}): a class of messages, or a route as text")
    if body is not None:
        raise ConfigError(f"{place}: {verb}({message.__name__}): a message has fields, and no body=")
    known = attributes(message)
    if known is not None and (unknown := [name for name in given if name not in known]):
        raise ConfigError(f"{place}: {message.__name__} has no field {unknown[0]}; it has {', '.join(known) or 'none'}")
    return Action(route_of(message), is_request, float(weight), message, dict(given), None, thinks, place)


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of time; made by `ramp`, `hold`, `churn`, `drops` and `storm`."""

    name: str
    seconds: float
    clients: int | None
    """At its end; None: as many as before it."""
    jumps: bool = False
    churn: float = 0.0
    """Clients a second that leave, and others that come for them."""
    drops: float = 0.0
    """Clients a second that are cut off, and come back."""
    storms: bool = False
    counts: bool = True
    """Whether it counts in the totals."""
    pace: str | None = None
    """As `Scenario.pace`; None: as that says."""


def ramp(to: int, over: str | float, *, pace: str | None = None, counts: bool = False) -> Phase:
    """Clients come, or leave, one after the other until there are `to` of them. Does not count in the totals unless `counts`.

    >>> ramp(2000, "10s").seconds
    10.0
    """
    with at_caller():
        return Phase("ramp", seconds(over), _clients(to), counts=counts, pace=pace)


def hold(duration: str | float, *, pace: str | None = None, clients: int | None = None) -> Phase:
    """As many clients as there are; or `clients`, at once.

    >>> hold("30s").seconds
    30.0
    """
    jumps = clients is not None
    with at_caller():
        return Phase("hold", seconds(duration), _clients(clients) if clients is not None else None, jumps, pace=pace)


def churn(rate: str | float, duration: str | float, *, pace: str | None = None) -> Phase:
    """Clients leave, so many a second, and others come for them.

    >>> churn("50/s", "1m").churn
    50.0
    """
    with at_caller():
        return Phase("churn", seconds(duration), None, churn=per_second(rate), pace=pace)


def drops(rate: str | float, duration: str | float, *, pace: str | None = None) -> Phase:
    """So many connections a second are cut, and their clients come back at once: to their sessions, if the scenario has `resume`.

    >>> drops("5/s", "1m").drops
    5.0
    """
    with at_caller():
        return Phase("drops", seconds(duration), None, drops=per_second(rate), pace=pace)


def storm(duration: str | float, *, pace: str | None = None) -> Phase:
    """Every connection is cut, and all clients come back as fast as they can: to their sessions, if the scenario has `resume`.

    >>> storm("10s").storms
    True
    """
    with at_caller():
        return Phase("storm", seconds(duration), None, storms=True, pace=pace)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load, declared.

    Args:
        actions: what clients say, by `ask` and `tell`; none: they only listen.
        phases: one after the other.
        pace: what each client sends: ``"20/s"`` (an open loop: evenly, whatever the answers do), ``"depth 16"`` (a closed loop: so
            many requests under way at any time) or ``"nothing"``.
        target: the game: ``game.py``, ``game.py:app``, ``package.module:app``; beside the scenario's file. It is started for the
            run.
        url: or a server that runs: ``ws://host:port``, ``wss://``, ``tcp://``, ``tls://``. With ``http://`` or ``https://`` clients
            get that page, each its next one when it has the last.
        user: what client n says of itself at login: a dict, or a function of n that gives one.
        serializer: ``"protobuf"`` or ``"json"``.
        world: whether clients ask for snapshots of the replicated world; ``"decode"``: and decode them, as players' clients do.
        room: each client takes a seat in a room of this name before it plays (`join_or_create`), and what it says goes there.
        room_options: what it asks for.
        resume: a client that is cut off goes on with its session, as players' clients do: what was under way counts on, and what
            the server has not seen is sent again. Else it begins a new one.
        network: what lies between clients and the server: a `Network`; or several, and how many of the clients have each
            (``{Network(): 3, Network(delay="80ms"): 1}``). Not for Python bots.
        bots: clients with a mind of their own beside them, for what no declaration can say: async functions of a `Bot`, and how
            many of each. They are Python, so they cost a hundred times as much as the others, and are counted for themselves.
        thresholds: what must hold, else the command fails: ``"p99 < 50ms"``, ``"errors < 0.1%"``, ``"tick_skipped == 0"``.
        timeout: s that a request may wait for its answer, and a connection for being let in.
        threads: of the swarm.
        seed: of all that is left to chance.
        settings: of the server that is started.

    Raises:
        ConfigError: something is not as it has to be.

    >>> from gameserver.swarm import Scenario, ask, hold, ramp
    >>> Scenario([ask("echo", body=b"hi")], [ramp(100, "1s"), hold("5s")], pace="10/s", target="game.py").clients
    100
    """

    actions: Sequence[Action]
    phases: Sequence[Phase]
    pace: str = "1/s"
    target: str | None = None
    url: str | None = None
    user: Mapping[str, Any] | Callable[[int], Mapping[str, Any]] | None = None
    serializer: Literal["protobuf", "json"] = "protobuf"
    world: bool | Literal["decode"] = False
    room: str | None = None
    room_options: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    network: Network | Mapping[Network, float] | None = None
    bots: Mapping[Mind, int] = field(default_factory=dict)
    thresholds: Sequence[str] = ()
    timeout: float = 10.0
    threads: int = 1
    seed: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with at_caller():
            self._check()

    def _check(self) -> None:
        if not self.phases:
            raise ConfigError("Scenario(phases=[]): it needs a phase: ramp(100, '1s'), hold('10s')")
        if (self.target is None) == (self.url is None):
            raise ConfigError("Scenario: either target='game.py', which is started for it, or url='ws://host:port'")
        if self.serializer not in ("protobuf", "json"):
            raise ConfigError(f'Scenario(serializer={self.serializer!r}): "protobuf" or "json"')
        if not 1 <= self.threads <= 64 or not self.timeout > 0:
            raise ConfigError("Scenario: threads from 1 to 64, and a timeout above 0 s")
        if self.clients == 0 and not self.bots:
            raise ConfigError("Scenario: no phase has any clients: begin with ramp(100, '1s')")
        for phase in self.phases:
            kind, _ = pace(phase.pace or self.pace)
            if kind == "closed" and not all(action.is_request for action in self.actions):
                raise ConfigError(
                    "Scenario: a closed loop (depth N) waits for answers: ask() everything, tell() nothing"
                )
        for network, weight in self._networks():
            if not isinstance(network, Network) or not isinstance(weight, (int, float)) or not 0 < weight < 1e9:
                raise ConfigError(f"Scenario(network={{{network!r}: {weight!r}}}): a Network, and a number above 0")
        if (self.url or "").startswith(("http://", "https://")) and (self.network is not None or self.resume):
            raise ConfigError("Scenario(url='http://...'): a page has no sessions: no resume, no network")
        for mind, count in self.bots.items():
            if not inspect.iscoroutinefunction(mind) or not isinstance(count, int) or count < 1:
                raise ConfigError(
                    f"Scenario(bots={{{mind!r}: {count!r}}}): an async function of a Bot, and how many of it"
                )
        for text in self.thresholds:
            Threshold.read(text)

    @property
    def clients(self) -> int:
        """The most at any time."""
        return max(phase.clients or 0 for phase in self.phases)

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return sum(phase.seconds for phase in self.phases)

    def core_phases(self) -> list[dict[str, Any]]:
        """As the core takes them."""
        found, clients = [], 0
        for phase in self.phases:
            clients = phase.clients if phase.clients is not None else clients
            kind, amount = pace(phase.pace or self.pace)
            found.append(
                {
                    "name": phase.name, "seconds": phase.seconds, "clients": clients, "jumps": phase.jumps, "kind": kind,
                    "amount": amount, "churn": phase.churn, "drops": phase.drops, "storms": phase.storms, "counts": phase.counts,
                }
            )  # fmt: skip
        return found

    def core_networks(self) -> list[dict[str, Any]]:
        """As the core takes them."""
        return [network.core(weight) for network, weight in self._networks()]

    def _networks(self) -> list[tuple[Network, float]]:
        if self.network is None:
            return []
        return [(self.network, 1.0)] if isinstance(self.network, Network) else [*self.network.items()]

    def core_actions(self) -> list[dict[str, Any]]:
        """As the core takes them, with bodies by chance.

        Raises:
            ConfigError: a value is none that its message may have.
        """
        random, found = Random(self.seed), []
        for action in self.actions:
            first = action.bodies(random, 1, self.serializer)
            count = max(1, min(BODIES, BODIES_BYTES_MAX // max(1, len(first[0])) // max(1, len(self.actions))))
            bodies = first + action.bodies(random, count - 1, self.serializer)
            found.append(
                {
                    "route": action.route, "is_request": action.is_request, "weight": action.weight, "bodies": bodies,
                    "think": action.think,
                }
            )  # fmt: skip
        return found

    def says(self, number: int) -> Mapping[str, Any] | None:
        """What a client says of itself, if anything."""
        return self.user(number) if callable(self.user) else self.user

    def join(self) -> bytes | None:
        """What asks for a seat in a room."""
        if self.room is None:
            return None
        return json.dumps({"name": self.room, "options": dict(self.room_options)}).encode()

    def handshakes(self) -> list[bytes]:
        """Of each client.

        Raises:
            ConfigError: `user` gives what is no JSON object.
        """
        gs: dict[str, Any] = {"serializer": self.serializer}
        if self.resume:
            gs["resume"] = {}
        if self.world:
            gs["world"] = True
        found = []
        for number in range(max(1, self.clients) if callable(self.user) or self.user is None else 1):
            user = self.says(number)
            try:
                hello = {
                    "sys": {"type": "swarm", "version": "1", "gs": gs},
                    "user": dict(user or {"name": f"bot-{number}"}),
                }
                found.append(json.dumps(hello, separators=(",", ":"), allow_nan=False).encode())
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"Scenario(user=...): of client {number}: {user!r} is no JSON object: {error}"
                ) from None
        return found


def load(path: Path, module: Any) -> Scenario | None:
    """The scenario of a file that was imported, if it has one.

    Raises:
        ConfigError: it has several.
    """
    found = {name: value for name, value in vars(module).items() if isinstance(value, Scenario)}
    if "scenario" in found:
        return found["scenario"]
    if len(found) > 1:
        raise ConfigError(f"{path} has several scenarios ({', '.join(found)}): call the one to play `scenario`")
    return next(iter(found.values()), None)


def _clients(number: int) -> int:
    if not isinstance(number, int) or not 0 <= number <= CLIENTS_MAX:
        raise ConfigError(f"{number!r} clients: a whole number from 0 to {CLIENTS_MAX}")
    return number
