"""A client in a frame loop: nothing runs but in `pump`, and that never waits."""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from gameserver._logging import LOGGER_NAME
from gameserver.client._address import Address
from gameserver.client._errors import ClientError
from gameserver.client._protocol import Protocol

__all__ = ["PumpDriver"]

READ_BYTES = 64 * 1024
READS_MAX = 16  # per call: a frame has to be drawn, too
log = logging.getLogger(LOGGER_NAME)


# `select` knows no descriptor beyond 1,023; Windows has no other.
Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


def _is_ready(of: socket.socket, events: int, seconds: float) -> bool:
    """Whether a socket can be read or written, within so long."""
    with Selector() as selector:
        selector.register(of, events)
        return bool(selector.select(seconds))


class PumpDriver:
    """Moves bytes between a socket that does not block and a `Protocol`, and runs what that calls."""

    def __init__(self, protocol: Protocol, address: Address, user: Any) -> None:
        self._protocol = protocol
        self._address = address
        self._user = user
        self._socket: socket.socket | None = None
        self._opening: Callable[[], bool] | None = None
        """Whether the socket is ready; of one that is being connected."""
        self._out = bytearray()
        self._open_by = 0.0

    def now(self) -> float:
        """s."""
        return time.monotonic()

    def future(self) -> Future[Any]:
        """For an answer."""
        return Future()

    def settle(self) -> None:
        """Sends what can be sent."""
        self._out += self._protocol.bytes_to_send()
        if self._socket is not None and self._opening is None:
            self._send()
            if not self._protocol.wants_socket:
                self._close()

    def pump(self) -> None:
        """Reads, sends and calls what is due, and returns."""
        now = self.now()
        if self._protocol.wants_connection and self._socket is None:
            self._begin(now)
        if self._socket is not None and self._opening is not None:
            self._go_on(now)
        if self._socket is not None and self._opening is None:
            self._receive()
        if now >= self._protocol.due:
            self._protocol.handle_timeouts(now)
        self.settle()
        while self._protocol.calls:
            function, arguments = self._protocol.calls.popleft()
            try:
                function(*arguments)
            except Exception:
                log.exception("gameserver.client: %r failed", function)
            self.settle()

    def wait(self, seconds: float) -> None:
        """Until something comes, or so long."""
        if self._socket is None:
            time.sleep(seconds)
            return
        writes = self._opening is not None or self._out
        _is_ready(self._socket, selectors.EVENT_READ | (selectors.EVENT_WRITE if writes else 0), seconds)

    def _begin(self, now: float) -> None:
        try:
            found = socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM)
            family, kind, number, _, address = found[0]
            self._socket = socket.socket(family, kind, number)
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = self._socket.connect_ex(address)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, errno.errorcode.get(code, "?"))
        except OSError as error:
            self._fail(now, str(error))
            return
        self._open_by = now + self._protocol.options.timeout
        self._opening = self._is_connected

    def _is_connected(self) -> bool:
        assert self._socket is not None
        if not _is_ready(self._socket, selectors.EVENT_WRITE, 0):
            return False
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, errno.errorcode.get(code, "?"))
        tls = self._address.tls
        if tls is None:
            return True
        self._socket = tls.wrap_socket(self._socket, server_hostname=self._address.host, do_handshake_on_connect=False)
        self._opening = self._is_secured
        return self._is_secured()

    def _is_secured(self) -> bool:
        assert isinstance(self._socket, ssl.SSLSocket)
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._socket.do_handshake()
            return True
        return False

    def _go_on(self, now: float) -> None:
        assert self._opening is not None
        try:
            if self._opening():
                user = self._user() if callable(self._user) else self._user
                self._opening = None
                self._out.clear()
                self._protocol.connected(now, user)
            elif now > self._open_by:
                self._fail(now, "no connection in time")
        except OSError as error:
            self._fail(now, str(error))

    def _fail(self, now: float, why: str) -> None:
        self._close()
        self._protocol.failed(now, ClientError("unreachable", why))

    def _receive(self) -> None:
        for _ in range(READS_MAX):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:
                data = b""
            if not data:
                self._close()
            self._protocol.feed(self.now(), data)
            self.settle()

    def _send(self) -> None:
        assert self._socket is not None
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:
                self._out.clear()  # what is wrong with it, the next read says
                return
            del self._out[:sent]

    def _close(self) -> None:
        if self._socket is not None:
            # A socket that is closed with something unread takes back what it has not sent.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
                for _ in range(READS_MAX):
                    if not self._socket.recv(READ_BYTES):
                        break
            self._socket.close()
        self._socket, self._opening = None, None
        self._out.clear()
