"""Real-time multiplayer game servers in Python, on a Rust core.

>>> from gameserver import App, Session
>>> app = App("hello")
>>> @app.on("echo")
... def echo(session: Session, body: bytes) -> bytes:
...     return body
"""

from gameserver._app import App, Clock
from gameserver._core import Session
from gameserver._group import Group, User
from gameserver._handlers import Handler, Router
from gameserver._timer import Timer
from gameserver._types import Left
from gameserver.errors import (
    ConfigError,
    GameServerError,
    ProtocolError,
    Refuse,
    SchemaError,
    SessionClosed,
)

__version__ = "0.1.0"

__all__ = [
    "App",
    "Clock",
    "ConfigError",
    "GameServerError",
    "Group",
    "Handler",
    "Left",
    "ProtocolError",
    "Refuse",
    "Router",
    "SchemaError",
    "Session",
    "SessionClosed",
    "Timer",
    "User",
]

for _name in __all__:
    globals()[_name].__module__ = "gameserver"
