"""Every setting: its name, default, unit and range, and where its value came from.

`Settings` is the list; read it first. `resolve` merges the places where a value can stand: command line, then
environment, then file, then code, then default. What it returns has been checked, so nobody checks again.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

from gameserver._limit import BURST_MAX, per_second
from gameserver.errors import ConfigError

__all__ = [
    "SPECS",
    "Kind",
    "Resolved",
    "Settings",
    "Spec",
    "check_names",
    "check_typed",
    "find_file",
    "markdown",
    "resolve",
    "spell",
    "without_password",
]


ENVIRONMENT_PREFIX = "GAMESERVER_"

# Variables with our prefix that are no settings: our own benches read them.
ENVIRONMENT_OTHERS = frozenset({"GAMESERVER_BENCH_RUST_ECHO", "GAMESERVER_THROUGH_BYTES"})

FILE_NAME = "gameserver.toml"
PROJECT_FILE_NAME = "pyproject.toml"

SECONDS_MAX = 1e6  # eleven days: longer is a mistake of unit
BODY_BYTES_MAX = (1 << 24) - 1  # the length of a packet is three bytes on the wire
UNIX_PATH_BYTES_MAX = 107  # sun_path is 108 bytes with its NUL

Number = TypeVar("Number", int, float)


class Kind(StrEnum):
    """What shape a setting's value has."""

    INTEGER = "integer"
    NUMBER = "number"
    FLAG = "flag"
    TEXT = "text"
    CHOICE = "choice"
    PATH = "path"
    ORIGINS = "origins"
    RATE = "rate"
    NETWORKS = "networks"
    URL = "url"


@dataclass(frozen=True, slots=True)
class Spec:
    """What may stand in one setting, and what it means."""

    name: str
    kind: Kind
    default: Any
    doc: str
    unit: str = ""
    low: float | None = None
    """The smallest value allowed."""
    above: float | None = None
    """The value must be above this one."""
    high: float | None = None
    """The largest value allowed."""
    choices: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """The name on the command line: `--tick-rate`."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The name in the environment: `GAMESERVER_TICK_RATE`."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def expected(self) -> str:
        """What may stand here, in words: `a whole number from 0 to 65535`."""
        match self.kind:
            case Kind.INTEGER | Kind.NUMBER:
                word = "a whole number" if self.kind is Kind.INTEGER else "a number"
                least = f"above {self.above:g}" if self.above is not None else f"from {self.low or 0:g}"
                return f"{word} {least} to {self.high:.15g}" + (f" ({self.unit})" if self.unit else "")
            case Kind.FLAG:
                return "true or false"
            case Kind.CHOICE:
                return " or ".join(repr(choice) for choice in self.choices)
            case Kind.PATH:
                return "the path of a file"
            case Kind.ORIGINS:
                return (
                    "a list of origins like 'https://example.com' or 'http://192.168.1.5:7777', or with commas between"
                )
            case Kind.RATE:
                return "a rate like '10/s', '90/min' or '5/h', or 'none'"
            case Kind.NETWORKS:
                return "a list of addresses and networks like '10.0.0.0/8', or 'unix', or with commas between"
            case Kind.TEXT:
                return "a host name or an IP address"
            case Kind.URL:
                return f"a URL: {' or '.join(self.choices)}"


def _setting(
    kind: Kind,
    default: object,
    doc: str,
    *,
    unit: str = "",
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    spec = Spec("", kind, default, doc, unit, low, above, high, choices)
    return dataclasses.field(default=default, metadata={"spec": spec})


def _seconds(default: float, doc: str, *, zero: bool = False) -> Any:
    """A time in seconds; `zero` says whether 0 may stand."""
    low, above = (0.0, None) if zero else (None, 0.0)
    return _setting(Kind.NUMBER, default, doc, unit="s", low=low, above=above, high=SECONDS_MAX)


def _count(default: int, doc: str, *, low: int = 0, high: int, unit: str = "") -> Any:
    return _setting(Kind.INTEGER, default, doc, unit=unit, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a server, checked.

    The names are the same everywhere: `App(heartbeat=15)`, `--heartbeat 15`, `GAMESERVER_HEARTBEAT=15`, and
    `heartbeat = 15` under `[tool.gameserver]` in pyproject.toml or in gameserver.toml.
    """

    host: str = _setting(Kind.TEXT, "127.0.0.1", "The address to listen on; `0.0.0.0` or `::` for every interface.")
    port: int = _count(
        7777, "The port for everything: packets, WebSocket, TLS and HTTP; 0 lets the system choose.", high=65535
    )
    unix: str | None = _setting(Kind.PATH, None, "Listen on a Unix socket at this path in place of `host` and `port`.")
    tls_cert: str | None = _setting(Kind.PATH, None, "The certificate chain, a PEM file; with it the port speaks TLS.")
    tls_key: str | None = _setting(Kind.PATH, None, "The private key of `tls_cert`, a PEM file.")
    allowed_origins: tuple[str, ...] = _setting(
        Kind.ORIGINS, (), "Pages of these origins may open a WebSocket, besides those that this port itself serves."
    )
    proxies: tuple[str, ...] = _setting(
        Kind.NETWORKS,
        (),
        "Proxies whose word for where a client is counts: of their `Forwarded` headers, or by `proxy_protocol`.",
    )
    proxy_protocol: bool = _setting(
        Kind.FLAG, False, "Connections from `proxies` begin with a header of the PROXY protocol, version 2."
    )
    websocket_deflate: str = _setting(
        Kind.CHOICE,
        "off",
        "Whether WebSocket clients may compress messages; `takeover`: with reference to earlier ones, 40 KB each.",
        choices=("off", "on", "takeover"),
    )
    io_threads: int = _count(
        0, "Threads that do the sockets; 0: the game's own thread does them, best on few cores.", high=64
    )
    spin: bool = _setting(Kind.FLAG, False, "Never sleep while waiting: half the latency, a whole core.")
    serializer: str = _setting(
        Kind.CHOICE, "json", "What clients that do not ask for one are told.", choices=("json", "protobuf")
    )
    tick_rate: int = _count(0, "How often `@app.tick` runs; 0: no tick.", unit="Hz", high=10_000)
    max_catch_up: int = _count(
        5, "After a stall, at most so many ticks are run at once.", unit="ticks", low=1, high=1000
    )
    on_late: str = _setting(
        Kind.CHOICE,
        "skip",
        "What happens to ticks beyond `max_catch_up`: left out and counted, or time is stretched.",
        choices=("skip", "dilate"),
    )
    heartbeat: float = _seconds(15.0, "The time between heartbeats.")
    missed_heartbeats: int = _count(3, "A client silent for so many heartbeats is closed.", low=1, high=1000)
    stale_after: float = _seconds(37.5, "A client silent for so long is taken as dropped.")
    resume_grace: float = _seconds(
        0.0, "How long a dropped session waits for its client to come back; 0: not at all.", zero=True
    )
    resume_bytes_max: int = _count(
        262144, "What is kept for one client until it has seen it, for when it comes back.", unit="bytes", high=1 << 30
    )
    resume_waiting_max: int = _count(100_000, "Sessions that wait for their client at a time.", high=10_000_000)
    handshake_timeout: float = _seconds(5.0, "From accept to the end of the handshake, TLS and HTTP included.")
    auth_timeout: float = _seconds(5.0, "How long `@app.authenticate` may take.")
    drain_timeout: float = _seconds(
        5.0, "How long a shutdown may take: `on_stop`, clients that take what was sent, tasks that end.", zero=True
    )
    drain_grace: float = _seconds(
        0.0,
        "How long SIGTERM lets rooms and players come to an end before the server stops; 0: it stops at once.",
        zero=True,
    )
    auth_bytes_max: int = _count(
        4096, "The largest body before authentication.", unit="bytes", low=1, high=BODY_BYTES_MAX
    )
    body_bytes_max: int = _count(
        65536, "The largest body after authentication.", unit="bytes", low=1, high=BODY_BYTES_MAX
    )
    queue_bytes_max: int = _count(
        1048576, "What may wait for one client; a slower one is closed.", unit="bytes", low=1, high=1 << 32
    )
    congested_bytes: int = _count(
        262144, "With more than this waiting for a client, it is congested.", unit="bytes", low=1, high=1 << 32
    )
    bad_messages_max: int = _count(
        60, "Messages in a minute that are not what their route takes; a client that sends more is closed.", high=65534
    )
    message_rate: str = _setting(
        Kind.RATE, "1000/s", "Messages of one client, whatever their routes; routes may have rates of their own."
    )
    message_burst: int = _count(4000, "How many of them may come at once.", unit="messages", low=1, high=BURST_MAX)
    message_over: str = _setting(
        Kind.CHOICE,
        "refuse",
        "What becomes of more: dropped; refused, as far as somebody waits for an answer; or the client is closed.",
        choices=("drop", "refuse", "kick"),
    )
    address_message_rate: str = _setting(
        Kind.RATE, "none", "Messages of all clients of one address (of IPv6: of one /64) together."
    )
    address_message_burst: int = _count(
        20_000, "How many of them may come at once.", unit="messages", low=1, high=BURST_MAX
    )
    connect_rate: str = _setting(
        Kind.RATE, "500/s", "Connections from one address (of IPv6: from one /64); more are closed at once."
    )
    connect_burst: int = _count(10_000, "How many of them may come at once.", unit="connections", low=1, high=BURST_MAX)
    max_connections: int = _count(0, "Connections at a time; 0: no cap.", high=10_000_000)
    max_connections_per_address: int = _count(0, "Connections at a time from one address; 0: no cap.", high=10_000_000)
    blocking_threads: int = _count(8, "Threads of `app.run_blocking`.", unit="threads", low=1, high=1000)
    blocking_waiting: int = _count(
        1000, "Calls that may wait for one of them; more are refused.", unit="calls", high=10_000_000
    )
    cpu_processes: int = _count(
        0, "Processes of `app.run_cpu`; 0: as many as there are cores.", unit="processes", high=1000
    )
    cpu_waiting: int = _count(
        100, "Calls that may wait for one of them; more are refused.", unit="calls", high=10_000_000
    )
    redis_url: str | None = _setting(
        Kind.URL,
        None,
        "The Redis that locks, caches, events and sessions share with other processes; without it they are this process's own.",
        choices=("redis://host:port/0", "rediss://...", "unix://...", "redis+cluster://host:port,host:port"),
    )
    redis_replicas: int = _count(
        0,
        "Replicas that must have a shared event before it counts as published; 0: a failover may lose the last ones.",
        unit="replicas",
        high=100,
    )
    database_url: str = _setting(
        Kind.URL,
        "sqlite:///game.db",
        "The database of `app.storage`; a file's path is relative to the game's folder.",
        choices=("sqlite:///file", "postgresql://user:password@host/name"),
    )
    store_timeout: float = _seconds(2.0, "How long one command of Redis or of the database may take.")
    save_interval: float = _seconds(1.0, "How often persistent entities are saved: at most so much of them is lost.")
    log_level: str = _setting(
        Kind.CHOICE,
        "info",
        "What is logged, and all above it.",
        choices=("debug", "info", "warning", "error", "critical"),
    )


SPECS: Mapping[str, Spec] = MappingProxyType(
    {field.name: dataclasses.replace(field.metadata["spec"], name=field.name) for field in dataclasses.fields(Settings)}
)
"""What may stand in each setting, in the order of `Settings`."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings, and where each came from."""

    settings: Settings
    sources: Mapping[str, str]
    """For each setting: `command line`, `GAMESERVER_PORT`, `pyproject.toml [tool.gameserver]`, `gameserver.toml`,
    `code` or `default`."""
    file: Path | None = None
    """The file that was read, if any."""


def resolve(
    code: Mapping[str, Any],
    *,
    command_line: Mapping[str, Any],
    environ: Mapping[str, str],
    start: Path,
) -> Resolved:
    """Merges what stands in code, in a file, in the environment and on the command line; the later of these wins.

    Args:
        code: as given to `App(...)`.
        command_line: as typed: strings, or values of the right type.
        environ: usually `os.environ`; variables without our prefix are passed over.
        start: the game's folder; the file is looked for here and above, see `find_file`.

    Raises:
        ConfigError: an unknown name, or a value that can't stand; says what, where and what would be right.

    >>> resolve({"port": 9000}, command_line={}, environ={"GAMESERVER_PORT": "9001"}, start=Path("/")).sources["port"]
    'GAMESERVER_PORT'
    """
    found = find_file(start)
    places: list[_Place] = [_Place.of_code(code, start)]
    if found is not None:
        places.append(_Place.of_file(found))
    places.append(_Place.of_environment(environ))
    places.append(_Place.of_command_line(command_line))
    values: dict[str, Any] = {}
    sources = dict.fromkeys(SPECS, "default")
    labels = dict(sources)
    for place in places:
        for name, raw in place.values.items():
            # Checked even if a later place overrides it: a mistake shall not sleep until that one is gone.
            values[name] = _Reader(SPECS[name], place).read(raw)
            sources[name] = place.source(name)
            labels[name] = place.label(name)
    settings = Settings(**values)
    _check_together(settings, labels)
    return Resolved(settings, MappingProxyType(sources), found[0] if found is not None else None)


def check_names(names: Mapping[str, Any], where: str) -> None:
    """Each name must be a setting's.

    Raises:
        ConfigError: one is not; suggests the nearest.
    """
    for name in names:
        if name not in SPECS:
            raise ConfigError(f"{where}: {name!r} is no setting{_suggest(str(name), SPECS)}")


def check_typed(command_line: Mapping[str, Any]) -> None:
    """What was typed must be right by itself, whatever stands elsewhere: no change of a file could mend it.

    Raises:
        ConfigError: an unknown name, or a value that can't stand.
    """
    place = _Place.of_command_line(command_line)
    for name, raw in place.values.items():
        _Reader(SPECS[name], place).read(raw)


def find_file(start: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """The nearest gameserver.toml, or pyproject.toml with a `[tool.gameserver]`, in `start` or above it.

    The search ends at the project's root: the first folder with a pyproject.toml or a .git.

    Raises:
        ConfigError: a file that can't be read or is no TOML, or both files with settings in one folder.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        own, project = folder / FILE_NAME, folder / PROJECT_FILE_NAME
        own_values = _load(own)
        project_values = _load(project)
        table = _tool_table(project, project_values) if project_values is not None else None
        if own_values is not None and table is not None:
            raise ConfigError(f"{own} and {project} [tool.gameserver] both hold settings: keep one of them")
        if own_values is not None:
            return own, own_values
        if table is not None:
            return project, table
        if project_values is not None or (folder / ".git").exists():
            return None
    return None


def spell(value: object) -> str:
    """A setting's value as a person would write it: no quotes, `-` for nothing."""
    match value:
        case None | () | "":
            return "-"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case tuple():
            return ", ".join(map(str, cast("tuple[object, ...]", value)))
        case str():
            return without_password(value)
        case _:
            return str(value)


def without_password(text: str) -> str:
    """A URL as it may be shown; any other text as it is.

    >>> without_password("redis://game:secret@10.0.0.1/0")
    'redis://game:***@10.0.0.1/0'
    """
    return re.sub(r"^([a-z+]+://[^:/@]*:)[^/]*@", r"\1***@", text)


def markdown() -> str:
    """All settings as the table of docs/settings.md."""
    lines = ["| setting | default | may be | what it does |", "|---|---|---|---|"]
    for spec in SPECS.values():
        default = spell(spec.default)
        default = default if default == "-" else f"`{default}`"
        lines.append(f"| `{spec.name}` | {default} | {spec.expected} | {spec.doc} |")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Place:
    """One place where settings stand, with their names already checked."""

    kind: str
    values: Mapping[str, Any]
    folder: Path
    """Relative paths are meant from here."""
    file: Path | None = None

    @classmethod
    def of_code(cls, values: Mapping[str, Any], start: Path) -> _Place:
        check_names(values, "App(...)")
        return cls("code", values, start.absolute())

    @classmethod
    def of_file(cls, found: tuple[Path, Mapping[str, Any]]) -> _Place:
        path, values = found
        place = cls("file", values, path.parent, path)
        check_names(values, place._file_label())
        return place

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> _Place:
        names = {spec.variable: spec.name for spec in SPECS.values()}
        values: dict[str, Any] = {}
        for variable in sorted(environ):
            if not variable.startswith(ENVIRONMENT_PREFIX) or variable in ENVIRONMENT_OTHERS:
                continue
            if variable not in names:
                raise ConfigError(f"environment: {variable} is no setting{_suggest(variable, names)}")
            values[names[variable]] = environ[variable]
        return cls("environment", values, Path.cwd())

    @classmethod
    def of_command_line(cls, values: Mapping[str, Any]) -> _Place:
        check_names(values, "command line")
        return cls("command line", values, Path.cwd())

    @property
    def is_text(self) -> bool:
        """Whether everything is text here, so that `"7777"` is a number."""
        return self.kind in ("environment", "command line")

    def source(self, name: str) -> str:
        """As shown to users beside the value."""
        match self.kind:
            case "environment":
                return SPECS[name].variable
            case "file":
                assert self.file is not None
                return FILE_NAME if self.file.name == FILE_NAME else f"{PROJECT_FILE_NAME} [tool.gameserver]"
            case kind:
                return kind

    def label(self, name: str) -> str:
        """As shown in errors: with the whole path, or the option."""
        match self.kind:
            case "file":
                return self._file_label()
            case "command line":
                return f"command line {SPECS[name].option}"
            case _:
                return self.source(name)

    def _file_label(self) -> str:
        assert self.file is not None
        return str(self.file) if self.file.name == FILE_NAME else f"{self.file} [tool.gameserver]"


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns one raw value into the setting's type, or says what is wrong with it."""

    spec: Spec
    place: _Place

    def read(self, raw: object) -> object:
        match self.spec.kind:
            case Kind.INTEGER:
                return self._ranged(self._integer(raw), raw)
            case Kind.NUMBER:
                return float(self._ranged(self._number(raw), raw))
            case Kind.FLAG:
                return self._flag(raw)
            case Kind.CHOICE:
                return self._choice(raw)
            case Kind.PATH:
                return self._path(raw)
            case Kind.ORIGINS:
                return self._origins(raw)
            case Kind.RATE:
                return self._rate(raw)
            case Kind.NETWORKS:
                return tuple(dict.fromkeys(self._network(part, raw) for part in self._list(raw)))
            case Kind.TEXT:
                return self._host(raw)
            case Kind.URL:
                return self._url(raw)

    def _wrong(self, raw: object, why: str = "", do: str = "") -> ConfigError:
        shown = repr(without_password(raw) if isinstance(raw, str) else raw)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        why = why or f"expected {self.spec.expected}"
        where = self.place.label(self.spec.name)
        return ConfigError(f"{self.spec.name}={shown} ({where}): {why}" + (f"; {do}" if do else ""))

    def _integer(self, raw: object) -> int:
        if isinstance(raw, int) and not isinstance(raw, bool):
            return raw
        if isinstance(raw, str) and self.place.is_text and re.fullmatch(r"[+-]?[0-9_]{1,32}", raw.strip(), re.ASCII):
            try:
                return int(raw)
            except ValueError:
                raise self._wrong(raw) from None
        raise self._wrong(raw)

    def _number(self, raw: object) -> float | int:
        value: float | int
        if isinstance(raw, (int, float)) and not isinstance(raw, bool):
            value = raw
        elif isinstance(raw, str) and self.place.is_text:
            try:
                value = float(raw)
            except ValueError:
                raise self._wrong(raw) from None
        else:
            raise self._wrong(raw)
        if isinstance(value, float) and not math.isfinite(value):
            raise self._wrong(raw)
        return value

    def _ranged(self, value: Number, raw: object) -> Number:
        spec = self.spec
        too_low = (spec.low is not None and value < spec.low) or (spec.above is not None and value <= spec.above)
        if too_low or (spec.high is not None and value > spec.high):
            raise self._wrong(raw)
        return value

    def _flag(self, raw: object) -> bool:
        if isinstance(raw, bool):
            return raw
        if isinstance(raw, str) and self.place.is_text and raw.strip().lower() in _FLAGS:
            return _FLAGS[raw.strip().lower()]
        raise self._wrong(raw)

    def _choice(self, raw: object) -> str:
        if isinstance(raw, str):
            if raw in self.spec.choices:
                return raw
            if self.place.is_text and raw.strip().lower() in self.spec.choices:
                return raw.strip().lower()
            near = difflib.get_close_matches(raw.lower(), self.spec.choices, n=1)
            raise self._wrong(raw, do=f"did you mean {near[0]!r}?" if near else "")
        raise self._wrong(raw)

    def _path(self, raw: object) -> str | None:
        if raw is None or raw == "":
            return None
        if not isinstance(raw, (str, Path)) or "\0" in str(raw):
            raise self._wrong(raw)
        try:
            path = (self.place.folder / Path(raw).expanduser()).absolute()
            length = len(os.fsencode(path))
        except (RuntimeError, UnicodeEncodeError):  # a ~user that is none, or no text that a path can be
            raise self._wrong(raw) from None
        if self.spec.name == "unix":
            if length > UNIX_PATH_BYTES_MAX:
                raise self._wrong(
                    raw,
                    f"{path} has {length} bytes, a socket's path at most {UNIX_PATH_BYTES_MAX}; choose a shorter one",
                )
            if not path.parent.is_dir():
                raise self._wrong(raw, f"the folder {path.parent} does not exist; create it")
            return str(path)
        self._check_pem(raw, path, "PRIVATE KEY-----" if self.spec.name == "tls_key" else "BEGIN CERTIFICATE-----")
        return str(path)

    def _check_pem(self, raw: object, path: Path, marker: str) -> None:
        """Found at start, with the file's name, and not when the first client comes."""
        try:
            text = path.read_bytes()
        except IsADirectoryError:
            raise self._wrong(raw, f"{path} is a folder; give the PEM file") from None
        except FileNotFoundError:
            raise self._wrong(raw, f"no such file: {path}; relative paths are meant from {self.place.folder}") from None
        except OSError as error:
            raise self._wrong(raw, f"can't read {path}: {error.strerror}") from None
        if marker.encode() not in text:
            other = "is it the other one of certificate and key?" if b"-----BEGIN " in text else "convert it to PEM"
            raise self._wrong(raw, f"no '{marker.strip('-')}' in {path}; {other}")

    def _list(self, raw: object) -> list[object]:
        if isinstance(raw, str):
            return [part.strip() for part in raw.split(",") if part.strip()]
        if isinstance(raw, (list, tuple)):
            return list(raw)
        raise self._wrong(raw)

    def _network(self, part: object, raw: object) -> str:
        if part == "unix":
            return "unix"
        try:
            if isinstance(part, str):
                return str(ipaddress.ip_network(part))
        except ValueError as error:
            raise self._wrong(raw, str(error)) from None
        raise self._wrong(raw)

    def _origins(self, raw: object) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._origin(part) for part in self._list(raw)))

    def _origin(self, raw: object) -> str:
        match = _ORIGIN.fullmatch(raw) if isinstance(raw, str) else None
        if match is None:
            if raw in ("*", "null"):
                raise self._wrong(raw, "every page of the web could play in its visitors' names; list the origins")
            do = "leave out the path" if isinstance(raw, str) and _ORIGIN.match(raw) else ""
            raise self._wrong(raw, "expected scheme://host or scheme://host:port, as browsers send it", do)
        scheme, host, port = match["scheme"].lower(), match["host"].lower(), match["port"]
        if port is not None and not 1 <= int(port) <= 65535:
            raise self._wrong(raw, "a port is 1 to 65535")
        # Browsers leave the scheme's own port out.
        shown = "" if port is None or int(port) == _SCHEME_PORTS.get(scheme) else f":{int(port)}"
        return f"{scheme}://{host}{shown}"

    def _rate(self, raw: object) -> str:
        if raw == "none" or raw is None:
            return "none"
        if not isinstance(raw, str) or per_second(raw) is None:
            raise self._wrong(raw)
        return raw.strip()

    def _url(self, raw: object) -> str | None:
        if raw is None or (self.place.is_text and raw == ""):
            return cast("str | None", self.spec.default)
        if not isinstance(raw, str) or "://" not in raw:
            raise self._wrong(raw)
        schemes = {choice.partition("://")[0] for choice in self.spec.choices}
        scheme = raw.partition("://")[0]
        if scheme.partition("+")[0] not in {known.partition("+")[0] for known in schemes}:
            raise self._wrong(raw)
        return raw

    def _host(self, raw: object) -> str:
        if not isinstance(raw, str):
            raise self._wrong(raw)
        host = raw.strip()
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if "://" in host or "/" in host:
            raise self._wrong(raw, do="leave out the scheme and the path")
        if host.count(":") == 1:
            raise self._wrong(raw, do="the port is a setting of its own: port")
        if not re.fullmatch(r"[0-9A-Za-z._:%-]{1,253}", host):
            raise self._wrong(raw)
        return host


_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_SCHEME_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<host>[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)


def _check_together(settings: Settings, labels: Mapping[str, str]) -> None:
    """What one value alone can't show."""
    for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if getattr(settings, one) is not None and getattr(settings, other) is None:
            path = getattr(settings, one)
            raise ConfigError(f"{one}={path!r} ({labels[one]}): {other} is missing; TLS needs both, set {other} too")
    if settings.proxy_protocol and not settings.proxies:
        raise ConfigError(
            f"proxy_protocol=true ({labels['proxy_protocol']}): from whom? set proxies to the addresses of those that speak it"
        )
    if settings.stale_after <= settings.heartbeat:
        raise ConfigError(
            f"stale_after={settings.stale_after:g} ({labels['stale_after']}): must be above "
            f"heartbeat={settings.heartbeat:g} ({labels['heartbeat']}), or every idle client would drop; "
            # Pomelo's JavaScript clients answer every second heartbeat only, so twice the heartbeat is a race.
            f"set stale_after={settings.heartbeat * 2.5:g}"
        )


def _load(path: Path) -> Mapping[str, Any] | None:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from None


def _tool_table(path: Path, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    tool = values.get("tool")
    table = tool.get("gameserver") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"{path}: tool.gameserver is no table; write [tool.gameserver] and the settings under it")
    return table


def _suggest(wrong: str, known: Mapping[str, object]) -> str:
    plain = {name.removeprefix(ENVIRONMENT_PREFIX): name for name in known}
    near = difflib.get_close_matches(wrong.removeprefix(ENVIRONMENT_PREFIX), plain, n=1)
    return f"; did you mean {plain[near[0]]!r}?" if near else "; `gameserver info` lists them all"
