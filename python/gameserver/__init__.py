"""Real-time multiplayer game servers in Python, on a Rust core.

>>> from gameserver import App, Session
>>> app = App("hello")
>>> @app.on("echo")
... def echo(session: Session, body: bytes) -> bytes:
...     return body
"""

from gameserver._app import App, Clock
from gameserver._batch import Batch
from gameserver._columns import ALL, NOBODY, OTHERS, OWNER, Audience, sync
from gameserver._core import Session
from gameserver._dead_letters import DeadLetter, DeadLetters
from gameserver._delivery import DROPPABLE, LATEST, RELIABLE, Delivery
from gameserver._entity import Entity
from gameserver._events import Event, queued, shared
from gameserver._group import Group, User
from gameserver._handlers import Router
from gameserver._member import Member
from gameserver._message import Message
from gameserver._protos import Protos, load_protos
from gameserver._ranked import Ranked
from gameserver._room import Room, RoomClock
from gameserver._room_group import RoomGroup
from gameserver._rooms import every, on
from gameserver._scalars import (
    Field,
    MaxLen,
    Range,
    dvec2,
    dvec3,
    f32,
    f64,
    fixed32,
    fixed64,
    i8,
    i16,
    i32,
    i64,
    s32,
    s64,
    sfixed32,
    sfixed64,
    u8,
    u16,
    u32,
    u64,
    vec2,
    vec3,
)
from gameserver._signature import Handler
from gameserver._timer import Timer
from gameserver._types import Left
from gameserver._world import World
from gameserver._world_columns import Columns
from gameserver._world_snapshot import WorldSnapshot
from gameserver.errors import (
    ConfigError,
    Conflict,
    EntityGone,
    GameServerError,
    LockLost,
    Overloaded,
    ProtocolError,
    Refuse,
    SchemaError,
    SessionClosed,
    Unavailable,
)

__version__ = "0.1.0"

__all__ = [
    "ALL",
    "App",
    "Audience",
    "Batch",
    "Clock",
    "Columns",
    "ConfigError",
    "Conflict",
    "DROPPABLE",
    "DeadLetter",
    "DeadLetters",
    "Delivery",
    "Entity",
    "EntityGone",
    "Event",
    "Field",
    "GameServerError",
    "Group",
    "Handler",
    "LATEST",
    "Left",
    "LockLost",
    "MaxLen",
    "Member",
    "Message",
    "NOBODY",
    "OTHERS",
    "OWNER",
    "Overloaded",
    "ProtocolError",
    "Protos",
    "RELIABLE",
    "Range",
    "Ranked",
    "Refuse",
    "Room",
    "RoomClock",
    "RoomGroup",
    "Router",
    "SchemaError",
    "Session",
    "SessionClosed",
    "Timer",
    "Unavailable",
    "User",
    "World",
    "WorldSnapshot",
    "dvec2",
    "dvec3",
    "every",
    "f32",
    "f64",
    "fixed32",
    "fixed64",
    "i16",
    "i32",
    "i64",
    "i8",
    "load_protos",
    "on",
    "queued",
    "s32",
    "s64",
    "sfixed32",
    "sfixed64",
    "shared",
    "sync",
    "u16",
    "u32",
    "u64",
    "u8",
    "vec2",
    "vec3",
]

for _name in __all__:
    if not isinstance(globals()[_name], Delivery):
        globals()[_name].__module__ = "gameserver"
