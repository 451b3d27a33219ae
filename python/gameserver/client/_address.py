"""Where a server is."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["Address"]

SCHEMES = {"ws": (True, False), "wss": (True, True), "tcp": (False, False), "tls": (False, True)}
"""Whether in WebSocket frames, and whether secured."""


@dataclass(frozen=True, slots=True)
class Address:
    """A URL, taken apart."""

    host: str
    port: int
    target: str
    is_websocket: bool
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str, context: ssl.SSLContext | None = None) -> Address:
        """`ws://`, `wss://`, or `tcp://` and `tls://` for packets without frames.

        Raises:
            ValueError: it is none of them.

        >>> Address.of("ws://127.0.0.1:7777/play").target
        '/play'
        """
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise ValueError(f"{url!r}: write ws://host:port/, wss://host/, tcp://host:port or tls://host:port")
        is_websocket, is_secured = SCHEMES[parts.scheme]
        port = parts.port or (443 if is_secured else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        tls = (context or ssl.create_default_context()) if is_secured else None
        return cls(parts.hostname, port, target, is_websocket, tls)

    @property
    def authority(self) -> str:
        """For HTTP's `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
