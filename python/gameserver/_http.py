"""Plain HTTP beside the game: what is no WebSocket upgrade goes from the core to an ASGI app in the same loop.

`HttpHost` is what the core speaks to. For each HTTP link it makes one of uvicorn's protocols over a `LinkTransport`,
which looks like a socket to uvicorn and hands bytes to the core.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, Protocol

import h11
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from gameserver._ending import MOMENT
from gameserver._logging import ErrorLog
from gameserver.errors import ConfigError, GameServerError

__all__ = ["HttpCore", "HttpHost", "LinkTransport", "Scope", "module_path"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("gameserver.http")

# Of the browser's client.
MODULES = (
    "gameserver.js",
    "gameserver-rooms.js",
    "gameserver-world.js",
    "gameserver-columns.js",
    "gameserver-netgraph.js",
)
HIGH_WATER_BYTES = 65536  # above this an app that streams waits: uvicorn's own mark for requests
LOW_WATER_BYTES = HIGH_WATER_BYTES // 4  # asyncio's ratio

# What the core holds for one link at a time. It must stay far below `queue_bytes_max`, since a response of any size may
# come in one write; what is beyond waits here, by reference. The kernel's own buffer comes after it, so it bounds no
# throughput that a network has.
WINDOW_BYTES = 131072

HEAD_TIMEOUT = 5.0  # s, from the first byte of a further request to the end of its head, as for the first one
STALL_TIMEOUT = 60.0  # s for STALL_BYTES of an upload, or for a window of a response: 2 kB/s is the slowest
STALL_BYTES = 4096
END_GRACE = 5.0  # s for a response to finish after the client closed its sending side (`printf ... | nc`)
SWEEP_INTERVAL = 1.0  # s; how exactly the above are kept


class HttpCore(Protocol):
    """What we ask of the core. A link's number is not used again before `HttpHost.closed` was called for it."""

    def http_write(self, link: int, data: bytes) -> None:
        """Queues bytes. `HttpHost.drained` follows when the link's queue is empty again."""

    def http_close(self, link: int) -> None:
        """Sends what is queued, then closes. `HttpHost.closed` follows."""

    def http_abort(self, link: int) -> None:
        """Closes at once. `HttpHost.closed` follows."""

    def http_pause(self, link: int) -> None:
        """Stops reading."""

    def http_resume(self, link: int) -> None:
        """Reads again."""


class HttpHost:
    """Runs an ASGI app for the core's HTTP links.

    Args:
        core: where answers go.
        app: the user's own ASGI 3 app at `/`; None: the files of `static`, or nothing.
        static: a folder served at `/`, with its index.html; None: nothing.
        address: what the app sees as its own address.
        errors: takes the exceptions of the app.
        wall: seconds since 1970, for the date of answers.

    `/healthz`, `/gameserver.js` and the modules beside it are ours whatever `app` is.

    Raises:
        ConfigError: `app` is no ASGI app, `static` is no folder, or both are given.
    """

    def __init__(
        self,
        core: HttpCore,
        *,
        app: Any = None,
        static: str | os.PathLike[str] | None = None,
        address: tuple[str, int] | str | None = None,
        errors: ErrorLog | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.address = address
        self._wall = wall
        self._core = core
        self._front = _Front(_inner(app, static))
        self._errors = errors if errors is not None else ErrorLog(log)
        self._logger = _Quiet(self._errors)
        self._links: dict[int, LinkTransport] = {}
        self._running = False
        self._sweeping: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None
        self._state = ServerState()
        self._config: Config | None = None
        self._lifespan: LifespanOn | None = None
        self._dated = 0

    async def start(self) -> None:
        """Runs the app's lifespan up to its start.

        Raises:
            GameServerError: the app failed to start.
        """
        config = Config(
            self._front,
            http=_LinkProtocol,
            ws="none",
            interface="asgi3",
            lifespan="auto",
            log_config=None,
            proxy_headers=False,
        )
        config.load()
        self._config = config
        self._state = ServerState()
        self._lifespan = LifespanOn(config)
        self._lifespan.logger = self._logger
        await self._lifespan.startup()
        if self._lifespan.should_exit:
            raise GameServerError("App(http=...): the app failed to start; what it said is logged above")
        self._front.stopping = False
        self._running = True
        self._sweep_soon()

    def drain(self) -> None:
        """From now on `/healthz` says that nobody should be sent here."""
        self._front.stopping = True

    async def stop(self, timeout: float) -> None:  # noqa: ASYNC109 -- it bounds several waits together
        """Lets responses finish, closes all links, then ends the app's lifespan: all of it within `timeout` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self._running = False
        self.drain()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for transport in list(self._links.values()):
            self._guarded(transport, transport.protocol.shutdown)
        await self._until_empty(deadline)
        for transport in list(self._links.values()):
            transport.abort()
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=max(MOMENT, deadline - loop.time()))
        if self._lifespan is not None:
            try:
                async with asyncio.timeout(max(MOMENT, deadline - loop.time())):
                    await self._lifespan.shutdown()
            except TimeoutError:
                log.warning("the HTTP app did not end within %g s; not waited for any longer", timeout)
            self._lifespan = None
        for link in list(self._links):
            self.closed(link)

    # -- called by the core ------------------------------------------------------------------------------------------

    def opened(self, link: int, address: str, tls: bool) -> None:
        """A link turned out to speak plain HTTP; its bytes follow.

        Args:
            link: the link's number.
            address: `127.0.0.1:50000`, `[::1]:50000`, or empty for a Unix socket.
            tls: whether it came over TLS.
        """
        if not self._running or self._config is None:
            self._core.http_abort(link)
            return
        assert self._lifespan is not None
        transport = LinkTransport(self._core, link, peer_name(address), self.address, tls, self._errors)
        protocol = _LinkProtocol(self._config, self._state, self._lifespan.state)
        protocol.logger = self._logger
        transport.protocol = protocol
        self._links[link] = transport
        protocol.connection_made(transport)

    def received(self, link: int, data: bytes) -> None:
        """Bytes from the client, decrypted, from the first one on."""
        transport = self._links.get(link)
        if transport is not None:
            self._date()
            self._guarded(transport, transport.receive, data)

    def ended(self, link: int) -> None:
        """The client will send no more."""
        transport = self._links.get(link)
        if transport is not None:
            self._guarded(transport, transport.receive, b"")

    def drained(self, link: int) -> None:
        """All that was written to the link has gone to the kernel."""
        transport = self._links.get(link)
        if transport is not None:
            self._guarded(transport, transport.drained)

    def closed(self, link: int) -> None:
        """The link is gone, for whatever reason; its number may be used again."""
        transport = self._links.pop(link, None)
        if transport is not None:
            self._guarded(transport, transport.lost)
        if not self._links and self._emptied is not None:
            self._emptied.set()

    # -- private -----------------------------------------------------------------------------------------------------

    def _guarded(self, transport: LinkTransport, call: Callable[..., None], *arguments: Any) -> None:
        """One client's bytes, whatever they do to a library, harm that client alone."""
        try:
            call(*arguments)
        except Exception as error:
            transport.failed(error)

    async def _until_empty(self, deadline: float) -> None:
        if not self._links:
            return
        self._emptied = asyncio.Event()
        try:
            async with asyncio.timeout_at(deadline):
                await self._emptied.wait()
        except TimeoutError:
            pass
        finally:
            self._emptied = None

    def _date(self) -> None:
        """uvicorn's server would refresh this header each second; there is none here."""
        now = int(self._wall())
        if now != self._dated:
            self._dated = now
            self._state.default_headers = [(b"date", formatdate(now, usegmt=True).encode())]

    def _sweep_soon(self) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP_INTERVAL, self._sweep_now)

    def _sweep_now(self) -> None:
        self._sweep(asyncio.get_running_loop().time())
        self._sweep_soon()

    def _sweep(self, now: float) -> None:
        """Closes links on which a client makes us wait: uvicorn itself only ends idle ones between requests.

        A link's clock starts at the sweep that first sees its state, so no call takes the time when bytes come.
        """
        for transport in list(self._links.values()):
            waits = transport.waits_for()
            if waits is None or transport.waits != waits:
                transport.waits, transport.waits_since = waits, now
            elif now - transport.waits_since >= waits.allowed:
                log.debug("closing an HTTP link: %s did not come within %g s", waits.what, waits.allowed)
                transport.abort()


@dataclass(frozen=True, slots=True)
class Waits:
    """What a client owes us. While it stays equal, the client makes no progress."""

    what: str
    allowed: float
    """Seconds that it may stay so."""
    progress: object
    """Another value is progress."""


class LinkTransport(asyncio.Transport):
    """A link of the core, as an asyncio transport."""

    def __init__(
        self,
        core: HttpCore,
        link: int,
        peer: tuple[str, int] | None,
        own: tuple[str, int] | str | None,
        tls: bool,
        errors: ErrorLog,
    ) -> None:
        super().__init__({"peername": peer, "sockname": own, "sslcontext": tls or None})
        self.protocol: _LinkProtocol
        self.waits: Waits | None = None
        self.waits_since = 0.0
        self._core = core
        self._errors = errors
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._bytes_in = 0
        self._bytes_out = 0
        self._closing = False
        self._close_asked = False
        self._aborted = False
        self._lost = False
        self._ended = False
        self._high, self._low = HIGH_WATER_BYTES, LOW_WATER_BYTES
        self._held_back = False  # the protocol was told to stop writing
        self._unsent: deque[bytes] = deque()  # waits for the window
        self._unsent_bytes = 0
        self._in_core_bytes = 0
        self._paused = False
        self._unread: deque[bytes] = deque()  # came while paused; b"" is the end
        self._core_paused = False
        self._delivering = False

    # -- asyncio's side ----------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Sends bytes, in order, never blocking; see `pause_writing` of the protocol for the bound."""
        if self._closing or self._lost or not data:
            return
        block = bytes(data)
        self._unsent.append(block)
        self._unsent_bytes += len(block)
        self._fill_window()
        if not self._held_back and self.get_write_buffer_size() > self._high:
            self._held_back = True
            self.protocol.pause_writing()

    def close(self) -> None:
        """Sends what was written, then closes; nothing is read any more."""
        if self._closing:
            return
        self._closing = True
        self._unread.clear()
        self._close_when_sent()

    def abort(self) -> None:
        """Closes at once; what was written is dropped."""
        self._closing = True
        self._unsent.clear()
        self._unsent_bytes = 0
        self._unread.clear()
        if not self._aborted and not self._lost:
            self._aborted = True
            self._core.http_abort(self._link)

    def is_closing(self) -> bool:
        """Whether `close` or `abort` was called, or the link is gone."""
        return self._closing or self._lost

    def pause_reading(self) -> None:
        """The protocol gets no more bytes; those that the core has under way are kept."""
        self._paused = True
        if not self._core_paused and not self.is_closing():
            self._core_paused = True
            self._core.http_pause(self._link)

    def resume_reading(self) -> None:
        """The protocol gets bytes again, from the loop and not from within this call."""
        self._paused = False
        if self._unread:
            if not self._delivering:
                self._delivering = True
                self._loop.call_soon(self._deliver)
        else:
            self._resume_core()

    def is_reading(self) -> bool:
        """Whether bytes are handed to the protocol."""
        return not self._paused and not self.is_closing()

    def get_write_buffer_size(self) -> int:
        """Bytes written that are not known to have left."""
        return self._unsent_bytes + self._in_core_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The low and the high mark."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Sets the marks at which the protocol is told to stop writing and to go on.

        Raises:
            ValueError: not `high >= low >= 0`.
        """
        if high is None:
            high = HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high={high} must be at least low={low}, and that at least 0")
        self._high, self._low = high, low

    def can_write_eof(self) -> bool:
        """HTTP ends its messages itself."""
        return False

    def get_protocol(self) -> asyncio.BaseProtocol:
        """uvicorn's protocol for this link."""
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Only for an upgrade, and there is none here.

        Raises:
            TypeError: always, but for a protocol of ours.
        """
        if not isinstance(protocol, _LinkProtocol):
            raise TypeError("an HTTP link keeps its protocol: WebSockets are the game's own")
        self.protocol = protocol

    # -- the host's side ---------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Bytes from the core, or b"" for their end."""
        self._bytes_in += len(data)
        if self.is_closing() or self._ended:
            return
        if self._paused or self._unread:
            self._unread.append(data)
        else:
            self._hand_over(data)

    def drained(self) -> None:
        """The core has sent all that it had of this link."""
        if self._lost or self._aborted:
            return
        self._bytes_out += self._in_core_bytes
        self._in_core_bytes = 0
        self._fill_window()
        if self._held_back and self.get_write_buffer_size() <= self._low:
            self._held_back = False
            self.protocol.resume_writing()
        self._close_when_sent()

    def failed(self, error: Exception) -> None:
        """A library stumbled over this client: it is closed, nobody else notices."""
        self._errors.record(error, "HTTP link", time.monotonic())
        self.abort()

    def lost(self) -> None:
        """The link is gone."""
        if self._lost:
            return
        self._lost = True
        self._unsent.clear()
        self._unread.clear()
        self._unsent_bytes = self._in_core_bytes = 0
        self.protocol.connection_lost(None)

    def waits_for(self) -> Waits | None:
        """What the client owes us now, if anything."""
        if self._unsent_bytes or self._in_core_bytes:
            return Waits("room for the response", STALL_TIMEOUT, self._bytes_out)
        if self._closing or self._ended:
            return Waits("the end", END_GRACE, self._bytes_out)
        if self._paused:
            return None
        return self.protocol.waits_for(self._bytes_in)

    def _close_when_sent(self) -> None:
        if self._closing and not self._unsent and not (self._close_asked or self._aborted or self._lost):
            self._close_asked = True
            self._core.http_close(self._link)

    def _fill_window(self) -> None:
        while self._unsent and self._in_core_bytes < WINDOW_BYTES:
            block = self._unsent.popleft()
            room = WINDOW_BYTES - self._in_core_bytes
            if len(block) > room:
                self._unsent.appendleft(block[room:])
                block = block[:room]
            self._unsent_bytes -= len(block)
            self._in_core_bytes += len(block)
            self._core.http_write(self._link, block)

    def _deliver(self) -> None:
        self._delivering = False
        try:
            while self._unread and not self._paused and not self.is_closing():
                self._hand_over(self._unread.popleft())
        except Exception as error:
            self.failed(error)
        if not self._unread and not self._paused:
            self._resume_core()

    def _hand_over(self, data: bytes) -> None:
        if data:
            self.protocol.data_received(data)
            return
        self._ended = True
        if self.protocol.finish():
            self.close()

    def _resume_core(self) -> None:
        if self._core_paused and not self.is_closing():
            self._core_paused = False
            self._core.http_resume(self._link)


class _LinkProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which can also say what it waits for."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.access_logger = _ACCESS
        self.access_log = log.isEnabledFor(logging.DEBUG)

    def waits_for(self, bytes_in: int) -> Waits | None:
        """What of a request the client has begun and not finished."""
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            return Waits("the rest of a head", HEAD_TIMEOUT, self.cycle)  # a byte now and then is no progress
        if self.conn.their_state is h11.SEND_BODY and not self.conn.they_are_waiting_for_100_continue:
            return Waits("the rest of a body", STALL_TIMEOUT, bytes_in // STALL_BYTES)
        return None

    def finish(self) -> bool:
        """The client sends no more: whether the link can be closed now, else it will be after the response."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return True
        self.cycle.keep_alive = False
        return False


class _Front:
    """The ASGI app in front: our paths, everything else to the inner app."""

    def __init__(self, inner: Asgi) -> None:
        self.stopping = False
        self._inner = inner
        self._ours = {"/healthz": self._health, **{f"/{name}": _Module(name).respond for name in MODULES}}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = self._ours.get(scope.get("path", ""))
        if scope["type"] != "http" or ours is None:
            await self._inner(scope, receive, send)
        elif scope["method"] not in ("GET", "HEAD"):
            await PlainTextResponse("Method Not Allowed", 405, {"allow": "GET, HEAD"})(scope, receive, send)
        else:
            await ours(scope)(scope, receive, send)

    def _health(self, scope: Scope) -> Response:
        status, word = (503, "stopping") if self.stopping else (200, "ok")
        return JSONResponse({"status": word}, status, {"cache-control": "no-store"})


class _Module:
    """One of the browser's modules, kept in memory; read again when the file has changed."""

    def __init__(self, name: str) -> None:
        self._path = module_path(name)
        self._stamp = (0, 0)
        self._text = b""
        self._etag = ""

    def respond(self, scope: Scope) -> Response:
        # Any page may import it: it holds no secret, and who may connect is the WebSocket's matter.
        headers = {"cache-control": "no-cache", "access-control-allow-origin": "*", "x-content-type-options": "nosniff"}
        if not self._load():
            return PlainTextResponse(f"{self._path.name} is not part of this installation", 404, headers)
        headers["etag"] = self._etag
        asked = dict(scope["headers"]).get(b"if-none-match", b"").decode("latin-1")
        if self._etag in (tag.strip().removeprefix("W/") for tag in asked.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self._text, 200, headers, "text/javascript")

    def _load(self) -> bool:
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp != self._stamp:
                self._text = self._path.read_bytes()
                self._etag = f'"{hashlib.sha256(self._text).hexdigest()[:16]}"'
                self._stamp = stamp
        except OSError:
            return False
        return True


class _Files(StaticFiles):
    """A folder's files, without those that begin with a dot: `.git` and `.env` were never meant for players."""

    def get_path(self, scope: Scope) -> str:
        """The path inside the folder; one that names nothing in place of a hidden one."""
        path = super().get_path(scope)
        hidden = any(part.startswith(".") and part not in (".", ".well-known") for part in Path(path).parts)
        return "\0" if hidden else path

    def file_response(self, *arguments: Any, **named: Any) -> Response:
        """A file, to be asked for again at each use: a game's page changes with its server."""
        response = super().file_response(*arguments, **named)
        response.headers.setdefault("cache-control", "no-cache")
        response.headers.setdefault("x-content-type-options", "nosniff")
        return response


async def _nothing_here(request: Request) -> Response:
    return PlainTextResponse('A game server. It has no page: give it one with App(static="web").\n')


class _Quiet(logging.Logger):
    """uvicorn's logger, for all links: what a client causes is debug, what the app raises is grouped."""

    def __init__(self, errors: ErrorLog) -> None:
        super().__init__("gameserver.http", logging.INFO)
        self._errors = errors

    def handle(self, record: logging.LogRecord) -> None:
        """Takes what uvicorn says to where it belongs."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, asyncio.CancelledError):
            return  # ours, when the server stops
        if error is not None:
            self._errors.record(error, "HTTP app", time.monotonic())
        elif record.levelno >= logging.ERROR:
            log.error("HTTP app: %s", record.getMessage().rstrip())
        else:
            log.debug("%s", record.getMessage().rstrip())


class _Access(logging.Logger):
    """uvicorn's access log, one level down: a game's host wants players in the log, not requests."""

    def handle(self, record: logging.LogRecord) -> None:
        """Says it at debug."""
        log.debug(record.msg, *record.args if isinstance(record.args, tuple) else ())


_ACCESS = _Access("gameserver.http.access", logging.INFO)


def module_path(name: str = MODULES[0]) -> Path:
    """Where a module of the browser's client is: in the package; in a checkout that is a link to clients/js."""
    return Path(__file__).parent / "static" / name


def peer_name(address: str) -> tuple[str, int] | None:
    """`[::1]:50000` as `("::1", 50000)`; None for what is no host and port."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def _inner(app: Any, static: str | os.PathLike[str] | None) -> Asgi:
    if app is not None and static is not None:
        raise ConfigError("App(static=..., http=...): give one of them; an ASGI app can mount the folder itself")
    if app is not None:
        _check_asgi(app)
        inner: Asgi = app
        return inner
    routes: list[BaseRoute] = []
    if static is not None:
        folder = Path(static)
        if not folder.is_dir():
            raise ConfigError(f"App(static={str(static)!r}): no such folder: {folder.absolute()}")
        routes.append(Mount("/", _Files(directory=folder, html=True)))
    else:
        routes.append(Route("/", _nothing_here))
    return Starlette(routes=routes)


def _check_asgi(app: Any) -> None:
    """Found at start, and not when the first browser comes."""
    what = f"App(http={type(app).__name__})" if not inspect.isfunction(app) else f"App(http={app.__qualname__})"
    if not callable(app) or inspect.isclass(app):
        raise ConfigError(
            f"{what}: give an ASGI app: a Starlette or FastAPI object, or async def app(scope, receive, send)"
        )
    try:
        inspect.signature(app).bind({}, None, None)
    except TypeError:
        raise ConfigError(f"{what}: an ASGI app takes (scope, receive, send); is it a factory? then call it") from None
    except ValueError:
        return  # a callable without a readable signature: it will show
