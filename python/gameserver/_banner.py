"""What a server says of itself when it starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from gameserver._settings import Settings

__all__ = ["HandlerInfo", "banner", "byte_size"]


class HandlerInfo(Protocol):
    """What can be told of a handler."""

    @property
    def kind(self) -> str:
        """`route`, `join`, `tick` and so on."""
        ...

    @property
    def route(self) -> str:
        """The route, empty for a handler of another kind."""
        ...

    @property
    def qualname(self) -> str:
        """The function's name, with its module."""
        ...

    @property
    def file(self) -> str:
        """Where it is written."""
        ...

    @property
    def line(self) -> int:
        """Where in that file."""
        ...

    @property
    def is_async(self) -> bool:
        """Whether it is an `async def`."""
        ...


def banner(
    app_name: str,
    handlers: Sequence[HandlerInfo],
    settings: Settings,
    urls: Sequence[str],
    descriptors: int,
    rooms: Sequence[str] = (),
) -> str:
    """The app, its handlers, tick rate, limits and URLs, on a few aligned lines without colour.

    Args:
        app_name: as given to `App`.
        handlers: as registered.
        settings: as resolved.
        urls: where it listens, the port known.
        descriptors: how many the process may have open; each connection is one.
        rooms: names of classes of rooms.
    """
    rows = [("listens", _join(urls, 4) or "nowhere")]
    rows.append(("handlers", _handlers(handlers)))
    if rooms:
        rows.append(("rooms", _join(rooms, ROUTES_SHOWN)))
    is_asked = any(handler.kind == "authenticate" for handler in handlers)
    rows.append(("people", "who @app.authenticate lets in" if is_asked else "anybody: there is no @app.authenticate"))
    rows.append(("tick", _tick(settings)))
    rows.append(("limits", _limits(settings, descriptors)))
    rows.append(("clients", _clients(settings)))
    width = max(len(name) for name, _ in rows)
    return "\n".join([f"{app_name} is up", *(f"  {name:<{width}}  {text}" for name, text in rows)])


def byte_size(count: int) -> str:
    """`65536` as `64 KiB`; exact, so what is no whole unit stays in bytes."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size and count % size == 0:
            return f"{count // size} {unit}"
    return f"{count} B"


ROUTES_SHOWN = 6


def _handlers(handlers: Sequence[HandlerInfo]) -> str:
    routes = [handler.route for handler in handlers if handler.kind == "route"]
    others = Counter(str(handler.kind) for handler in handlers if handler.kind != "route")
    if not routes and not others:
        return "none yet: add one with @app.on(route)"
    parts = []
    if routes:
        parts.append(f"{len(routes)} route{'s' if len(routes) > 1 else ''}: {_join(routes, ROUTES_SHOWN)}")
    if others:
        parts.append(", ".join(kind if count == 1 else f"{kind} ({count})" for kind, count in others.items()))
    return "; ".join(parts)


def _tick(settings: Settings) -> str:
    rate = settings.tick_rate
    if rate == 0:
        return "none (tick_rate=0)"
    late = "skip ticks" if settings.on_late == "skip" else "stretch time"
    return f"{rate:g} Hz, every {1000 / rate:.4g} ms; when late: catch up {settings.max_catch_up}, then {late}"


def _limits(settings: Settings, descriptors: int) -> str:
    parts = [
        f"body {byte_size(settings.body_bytes_max)} ({byte_size(settings.auth_bytes_max)} before login)",
        f"queue {byte_size(settings.queue_bytes_max)}",
    ]
    if settings.message_rate != "none":
        parts.append(f"{settings.message_rate} messages a client")
    if settings.max_connections:
        parts.append(f"{settings.max_connections} connections")
    if settings.max_connections_per_address:
        parts.append(f"{settings.max_connections_per_address} per address")
    parts.append(f"{descriptors} descriptors")
    return ", ".join(parts)


def _clients(settings: Settings) -> str:
    threads = f"{settings.io_threads} I/O threads" if settings.io_threads else "no I/O threads"
    parts = [
        f"heartbeat {settings.heartbeat:g} s",
        settings.serializer,
        "TLS" if settings.tls_cert else "no TLS",
        threads,
    ]
    if settings.spin:
        parts.append("spinning")
    return ", ".join(parts)


def _join(names: Sequence[str], most: int) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
