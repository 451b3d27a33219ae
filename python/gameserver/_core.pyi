"""What the Rust core offers; the face for games is `gameserver` itself."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar, final

from typing_extensions import disjoint_base

from gameserver._delivery import Delivery
from gameserver._types import Pushable

_T = TypeVar("_T")

@disjoint_base
class Session:
    """One person on this server: it outlives its connection.

    Subclass it for what your game keeps of a person and give the class to ``App(session=...)``; an object is made without
    arguments for each session. An object made by hand belongs to no server: everything it could send raises `SessionClosed`.

    >>> from gameserver import App, Session
    >>> class Player(Session):
    ...     name: str = "?"
    >>> app = App("doc", session=Player)
    >>> @app.on("rename")
    ... def rename(player: Player, body: bytes) -> None:
    ...     player.name = body.decode()
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Session: ...
    @property
    def id(self) -> int:
        """Unique across processes; below 2^63."""
    @property
    def uid(self) -> str | None:
        """Who `authenticate` said it is; None for a guest."""
    @property
    def state(self) -> str:
        """``"connecting"``, ``"active"``, ``"pending"`` (cut or silent) or ``"closed"``."""
    @property
    def address(self) -> str:
        """The peer's address: ``"10.0.0.7:51234"``, ``"unix"``."""
    @property
    def transport(self) -> str:
        """``"tcp"`` or ``"websocket"``."""
    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
    @property
    def serializer(self) -> str:
        """What was agreed for bodies of errors and the like: ``"json"`` or ``"protobuf"``."""
    @property
    def connected_at(self) -> float:
        """When it connected, in seconds since 1970."""
    @property
    def online_time(self) -> float:
        """Seconds since it connected."""
    @property
    def last_heard(self) -> float:
        """Seconds since its last message or heartbeat that the game's thread knows of."""
    @property
    def rtt(self) -> float | None:
        """The system's smoothed round trip in seconds, at the last heartbeat; None before it and on Unix sockets."""
    @property
    def bytes_in(self) -> int:
        """Bytes of message bodies received."""
    @property
    def bytes_out(self) -> int:
        """Bytes of message bodies sent or queued."""
    @property
    def messages_in(self) -> int:
        """Messages received."""
    @property
    def messages_out(self) -> int:
        """Messages sent or queued."""
    @property
    def backlog(self) -> int:
        """Reliable bytes that are on their way to the client and, as far as is known, have not left; beyond `queue_bytes_max`
        it is disconnected. Known to some 32 KiB, and exactly at each heartbeat."""
    def push(self, route: str | Pushable, body: Any = None, *, delivery: Delivery | None = None) -> None:
        """Pushes a message, to the route of its class's name; or a body to a route: bytes as they are, None as an empty
        body (``{}`` where JSON was agreed), a message, anything else as JSON. `delivery` says what may happen to it if the client
        is slow; None: as its class says, else `RELIABLE`.

        Raises:
            SessionClosed: it is gone.
            TypeError, ValueError: a field has a value that it can't have, or the route is empty or longer than 255 bytes.
        """
    def kick(self, reason: str = "") -> None:
        """Sends a Kick with this reason, then closes; the session leaves with `Left.KICKED`."""
    def close(self) -> None:
        """Closes once what is queued has left; the session leaves with `Left.KICKED`."""
    def task(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Runs a coroutine beside the handlers, as `App.task` does; it is cancelled when the session leaves for good.

        Raises:
            SessionClosed: it has left.
        """

@final
class Core:
    """One running server; made and driven by `App`."""

    def __new__(
        cls,
        options: Mapping[str, Any],
        session_class: type[Session],
        failed: Callable[[str, BaseException], None],
        fire: Callable[[int], None],
    ) -> Core: ...
    def bind(
        self,
        handlers: Sequence[Any],
        rust_echo: bool,
        rooms: Sequence[Sequence[Any]],
        limits: Sequence[tuple[str, float, int, str]],
    ) -> None: ...
    def rooms(self) -> CoreRooms: ...
    def set_draining(self) -> None: ...
    def send_away(self, session: Session, delay: float) -> bool: ...
    def set_schema(self, document: tuple[str, str] | None) -> None: ...
    def set_world(self, world: World) -> None: ...
    def set_task(self, task: Callable[[Session, Coroutine[Any, Any, Any]], object]) -> None: ...
    def set_learn(self, learn: Callable[[type], str]) -> None: ...
    def set_http(self, host: Any) -> None: ...
    def set_on_failure(self, on_failure: Callable[[str], object]) -> None: ...
    def set_loop(self, event_loop: Any, keys: dict[int, Any]) -> None: ...
    def watch(self, fd: int, read: bool, write: bool) -> None: ...
    def unwatch(self, fd: int) -> None: ...
    def select(self, timeout: float | None = None) -> list[tuple[Any, int]]: ...
    def listen(self) -> list[str]: ...
    @staticmethod
    def raise_descriptor_limit() -> int: ...
    def start(self) -> None: ...
    def stamp(self, kind: str) -> None: ...
    def record(self, path: str, start: bytes) -> None: ...
    @staticmethod
    def started_with(path: str) -> bytes: ...
    def replay(self, path: str, on_over: Callable[[], object]) -> None: ...
    def replayed(self) -> tuple[int, int, str | None]: ...
    def note(self, kind: str, bytes: bytes) -> None: ...
    def next_note(self, kind: str) -> bytes | None: ...
    def differ(self, what: str) -> None: ...
    def end_run(self) -> None: ...
    def stop_accepting(self) -> None: ...
    def shut_down(self, reason: str, on_empty: Callable[[], object]) -> bool: ...
    def close(self) -> None: ...
    def now(self) -> float: ...
    def wall(self) -> float: ...
    def broadcast(self, route: Any, body: Any, skip: Session | None, delivery: Delivery | None = None) -> int: ...
    def group_add(self, name: str, session: Session) -> bool: ...
    def group_remove(self, name: str, session: Session) -> bool: ...
    def group_push(
        self, name: str, route: Any, body: Any, skip: Session | None, delivery: Delivery | None = None
    ) -> int: ...
    def group_has(self, name: str, session: Session) -> bool: ...
    def group_len(self, name: str) -> int: ...
    def group_members(self, name: str) -> list[Session]: ...
    def user(self, uid: str) -> Session | None: ...
    def sessions(self) -> list[Session]: ...
    def timer_start(self, seconds: float) -> int: ...
    def timer_cancel(self, key: int) -> None: ...
    def http_write(self, link: int, data: bytes) -> None: ...
    def http_close(self, link: int) -> None: ...
    def http_abort(self, link: int) -> None: ...
    def http_pause(self, link: int) -> None: ...
    def http_resume(self, link: int) -> None: ...
    def forked(self) -> None: ...
    def micro(self, route: str, body: bytes, depth: int, rounds: int) -> float: ...
    def stats(self) -> dict[str, Any]: ...

@final
class CoreRooms:
    """What a game's rooms ask."""

    def open(
        self, object: Any, class_: int, tick_rate: int, world: World | None, first: float | None = None
    ) -> int: ...
    def close(self, number: int) -> bool: ...
    def enter(self, number: int, session: Session, seat: Any) -> bool: ...
    def exit(self, number: int, session: Session) -> None: ...
    def push(
        self,
        number: int,
        route: Any,
        body: Any,
        skip: Session | None,
        group: str | None = None,
        delivery: Delivery | None = None,
    ) -> int: ...
    def push_to(
        self, number: int, session: Session, route: Any, body: Any, delivery: Delivery | None = None
    ) -> bool: ...
    def clock(self, number: int) -> tuple[int, float] | None: ...

# Messages; `gameserver.Message` is their face.

@disjoint_base
class MessageType(type):
    """The metaclass: its objects have room for what the core keeps of a class."""

class MessageBase:
    """What an instance of a message class can do."""

    def __new__(cls, *_arguments: Any, **_named: Any) -> Self: ...
    def __init__(self, *arguments: Any, **named: Any) -> None: ...
    def encode(self) -> bytes:
        """The message as protobuf: the bytes of google's deterministic serialization.

        Raises:
            TypeError: a field has a value of another type.
            ValueError: a value is out of range, too long, or not finite; or the message contains itself.

        >>> from gameserver import Message, u32
        >>> class Score(Message):
        ...     points: u32
        >>> Score(300).encode()
        b'\\x08\\xac\\x02'
        """
    @classmethod
    def decode(cls, data: bytes | bytearray, /) -> Self:
        """A message from protobuf. Fields that the class does not know are skipped.

        Raises:
            ProtocolError: not protobuf, or not of these types; too deep or too large.
            SchemaError: a value that the class does not allow, with the way to it: ``Move.path[3].x``.

        >>> from gameserver import Message, u32
        >>> class Score(Message):
        ...     points: u32
        >>> Score.decode(b"\\x08\\xac\\x02")
        Score(points=300)
        """
    def to_dict(self) -> dict[str, Any]:
        """What `to_json` writes, as a dict: protobuf's JSON mapping, with the fields' names as they are declared.

        Integers of 64 bits are strings, bytes are base64, enums the names that they have in the `.proto` file
        (``"TEAM_RED"`` for ``Team.RED``). None is left out, all else is there.

        Raises:
            TypeError, ValueError: as `encode`.

        >>> from gameserver import Message, u64
        >>> class Score(Message):
        ...     name: str
        ...     points: u64 = 0
        >>> Score("ann").to_dict()
        {'name': 'ann', 'points': '0'}
        """
    def to_json(self) -> str:
        """The message as JSON, see `to_dict`."""
    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """A message from JSON: what `to_json` writes, and what protobuf's JSON mapping allows beside it.

        Names may be in lowerCamelCase; integers may be strings or numbers; names that the class does not know are skipped. The
        bounds of the class hold as they do on the wire.

        Raises:
            ProtocolError: not JSON.
            SchemaError: a value does not fit the class, with the way to it.

        >>> from gameserver import Message, u64
        >>> class Score(Message):
        ...     best_points: u64
        >>> Score.from_json('{"bestPoints": "300"}')
        Score(best_points=300)
        """
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: Any) -> Self: ...
    def __replace__(self, **changes: Any) -> Self: ...

# The replicated world; `gameserver.World` and `gameserver.Entity` are its face.

@disjoint_base
class EntityBase:
    """What every entity has beside its columns."""

    def __new__(cls, *arguments: Any, **named: Any) -> Self: ...
    @property
    def id(self) -> int:
        """How clients call it: of its class, and never another entity's."""
    @property
    def row(self) -> int:
        """Its place in the arrays of `World.columns`, until the end of the tick."""
    @property
    def is_live(self) -> bool:
        """Whether it was not despawned."""
    owner: Session | None
    keep: bool
    def despawn(self) -> None:
        """Takes it out of the world at the end of the tick; its handles are stale at once.

        Raises:
            EntityGone: it is gone already.
        """
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class ColumnBuffer:
    def __len__(self) -> int: ...

@final
class World:
    def __new__(cls, cell: float, view: float) -> World: ...
    def like(self) -> World: ...
    def set_tick_rate(self, tick_rate: int) -> None: ...
    @property
    def cell(self) -> float: ...
    @property
    def view(self) -> float: ...
    def add(self, classes: Sequence[type]) -> None: ...
    def classes(self) -> list[type]: ...
    def count(self, cls: type) -> int: ...
    def spawn(self, cls: type, values: dict[str, Any]) -> EntityBase: ...
    def owned_all(self, session: Session) -> list[EntityBase]: ...
    def release(self, session: Session) -> list[EntityBase]: ...
    def spawn_rows(self, cls: type, count: int) -> int: ...
    def despawn_rows(self, cls: type, rows: bytes) -> int: ...
    def at(self, cls: type, rows: bytes) -> list[EntityBase]: ...
    def live(self, cls: type) -> list[EntityBase]: ...
    def live_rows(self, cls: type, count: int) -> bytes: ...
    def ids(self, cls: type, count: int) -> bytes: ...
    def has(self, entity: EntityBase) -> bool: ...
    def column(self, cls: type, column: int, rows: int) -> ColumnBuffer: ...
    def owned(self, cls: type, session: Session) -> EntityBase | None: ...
    def near(self, entity: EntityBase, radius: float) -> list[EntityBase]: ...
    def pairs(self, one: type, other: type, radius: float) -> tuple[bytes, bytes]: ...
    def end_tick(self) -> list[tuple[int, str]]: ...
    def document(self) -> str: ...
    def follow(self, session: Session, entity: EntityBase | None, radius: float) -> bool: ...
    def watch_place(self, session: Session, x: float, y: float, radius: float) -> bool: ...
    def watch_cells(self, session: Session, cells: Sequence[tuple[int, int]]) -> bool: ...
    def watch_all(self, session: Session, everything: bool) -> bool: ...
    def map(self, cls: type) -> list[tuple[tuple[int, int] | None, int, int]]: ...

@final
class WorldCopy:
    @staticmethod
    def of(world: World) -> WorldCopy: ...
    @staticmethod
    def from_bytes(world: World, bytes: bytes) -> WorldCopy: ...
    def restore(self, world: World) -> None: ...
    @property
    def tick(self) -> int: ...
    def to_bytes(self) -> bytes: ...
    def count(self, cls: type) -> int: ...
    def ids(self, cls: type) -> bytes: ...
    def column(self, cls: type, column: int) -> bytes: ...

@final
class WorldReplica:
    """What a client knows of a replicated world; docs/wire.md has the bytes.

    Args:
        tables: `world.tables` of the schema in the handshake's answer, as JSON.
        entities_max: more than so many at a time are refused.

    Raises:
        SchemaError: these are no tables.
    """

    def __new__(cls, tables: str, entities_max: int = 65_536) -> WorldReplica: ...
    @property
    def tick(self) -> int: ...
    def apply(self, snapshot: bytes) -> list[tuple[Literal["add", "change", "remove"], str, int]] | None:
        """Takes a snapshot: what it did, which table, and the entity's id. None: it is not newer than the last one.

        Raises:
            ProtocolError: it is none, or does not follow the last one.
        """
    def entities(self, table: str) -> list[int]: ...
    def owned(self) -> list[tuple[str, int]]: ...
    def value(self, table: str, id: int, column: str) -> Any: ...

def entity_install(cls: type, columns: Sequence[Any]) -> None: ...
def world_rows(cls: type, sessions: Sequence[Session]) -> tuple[bytes, bytes]: ...

_SchemaField = tuple[
    str,
    int,
    str,
    Literal["single", "optional", "repeated", "map"],
    int | None,
    str | None,
    str | None,
    bool,
]
_Schema = tuple[
    list[tuple[str, list[_SchemaField]]],
    list[tuple[str, list[tuple[str, int]], Literal["keep", "skip", "refuse"]]],
]

def message_install(cls: type, defaults: Mapping[str, Any], lenient: bool, collected: bool) -> None: ...
def message_prepare(cls: type) -> None: ...
def message_restore(cls: type, values: tuple[Any, ...]) -> Any: ...
def message_micro(handler: Callable[[Any], Any], cls: type | None, body: bytes, rounds: int) -> float: ...
def message_schema_of_files(files: Sequence[str], includes: Sequence[str]) -> _Schema: ...
def message_schema_of_set(set: bytes) -> _Schema: ...

# Messages and the `.proto` file that locks their numbers; `gameserver._lock` compares them.

_Reserved = tuple[Sequence[tuple[int, int]], Sequence[str]]
_Locked = tuple[str, list[tuple[str, int, str]], list[tuple[int, int]], list[str]]

def schema_lock(name: str, text: str) -> tuple[list[_Locked], list[_Locked]]: ...
def schema_text(description: Any, reserved: Mapping[str, _Reserved], header: str) -> str: ...
def schema_changes(name: str, text: str, description: Any) -> list[tuple[str, str | None, str, str]]: ...

# The codecs; `gameserver.wire` is their face.

_Event = (
    tuple[Literal["opened"], str]
    | tuple[Literal["refused"], int, str]
    | tuple[Literal["text"], str]
    | tuple[Literal["binary", "ping", "pong"], bytes]
    | tuple[Literal["closed"], int, str, bool]
)
_Serializer = Literal["json", "protobuf"]

@final
class WirePacketDecoder:
    def __new__(cls, body_bytes_max: int) -> WirePacketDecoder: ...
    def feed(self, data: bytes) -> list[tuple[int, bytes]]: ...
    @property
    def before_error(self) -> list[tuple[int, bytes]]: ...
    @property
    def buffered(self) -> int: ...
    @property
    def capacity(self) -> int: ...

@final
class WireWebSocket:
    @staticmethod
    def server(message_bytes_max: int, allowed_origins: Sequence[str]) -> WireWebSocket: ...
    @staticmethod
    def client(host: str, target: str, origin: str | None, message_bytes_max: int) -> WireWebSocket: ...
    @staticmethod
    def opened(is_server: bool, message_bytes_max: int) -> WireWebSocket: ...
    def feed(self, data: bytes) -> list[_Event]: ...
    def feed_eof(self) -> list[_Event]: ...
    def bytes_to_send(self) -> bytes: ...
    def send_text(self, text: str) -> None: ...
    def send_binary(self, data: bytes) -> None: ...
    def send_ping(self, data: bytes) -> None: ...
    def send_close(self, code: int, reason: str) -> None: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def buffered(self) -> int: ...

def wire_detect(data: bytes) -> Literal["incomplete", "packets", "http", "tls", "unknown"]: ...
def wire_encode_packet(kind: int, body: bytes) -> bytes: ...
def wire_encode_message(
    kind: int, id: int, route: str | int | None, error: bool, compressed: bool, body: bytes
) -> bytes: ...
def wire_decode_message(data: bytes) -> tuple[int, int, str | int | None, bool, bool, bytes]: ...
def wire_inflate(body: bytes, bytes_max: int) -> bytes: ...
def wire_deflate(body: bytes) -> bytes | None: ...
def wire_encode_error(serializer: str, code: str, msg: str, metadata: Sequence[tuple[str, str]]) -> bytes: ...
def wire_decode_error(serializer: str, body: bytes) -> tuple[str, str, list[tuple[str, str]]]: ...
def wire_encode_client_handshake(
    sys_type: str, version: str, gs_serializer: str | None, gs_dict: bool | None, user: str
) -> bytes: ...
def wire_decode_client_handshake(
    body: bytes,
) -> tuple[str | None, str | None, str | None, str | None, tuple[_Serializer | None, bool] | None, str | None]: ...
def wire_encode_server_handshake(
    heartbeat: int, serializer: str, dict: Sequence[tuple[str, int]], session: int | None, user: str
) -> bytes: ...
def wire_encode_refusal(heartbeat: int, code: int, user_code: str, user_msg: str) -> bytes: ...
def wire_decode_server_handshake(
    body: bytes,
) -> tuple[int, int | None, _Serializer | None, list[tuple[str, int]], int | None, str | None]: ...
def wire_repair_surrogates(text: bytes) -> bytes: ...
def wire_escape_ascii(json: bytes) -> bytes: ...

@final
class SwarmRun:
    """A plan that is being played by threads of the core; `gameserver.swarm.play` is its face."""

    def __new__(
        cls,
        *,
        host: str,
        port: int,
        tls: tuple[str, str] | None,
        websocket: tuple[str, str] | None,
        get: tuple[str, str] | None,
        join: bytes | None,
        world: tuple[str | None, str | None, int],
        resume: bool,
        networks: Sequence[dict[str, Any]],
        handshakes: Sequence[bytes],
        actions: Sequence[dict[str, Any]],
        phases: Sequence[dict[str, Any]],
        threads: int,
        seed: int,
        timeout: float,
    ) -> SwarmRun: ...
    def poll(self) -> list[dict[str, Any]]:
        """What all threads have told since the last call: a dict for each stretch of a second or less."""
    def total(self) -> dict[str, Any]:
        """What has counted so far, with curves, and each action for itself."""
    def is_over(self) -> bool:
        """Whether all threads have ended."""
    def failure(self) -> str | None:
        """Why a thread has failed, if one has; asked once all have ended."""
    def elapsed(self) -> float:
        """Seconds since the start."""
    def tell_tick(self, number: int, due: int) -> None:
        """The server's tick of this number is due then, ns of the monotonic clock: so the age of snapshots is known."""
    def stop(self) -> None:
        """Ends it early."""
