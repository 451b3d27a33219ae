"""Signed tickets for `App.authenticate`: a login service signs who somebody is, the game server checks it."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gameserver.errors import ConfigError, Refuse

try:
    import jwt
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
except ImportError:  # an extra
    raise ConfigError("gameserver.auth needs PyJWT and cryptography: pip install 'gameserver[auth]'") from None

__all__ = ["Claims", "Tickets"]

SECRET_BYTES_MIN = 32  # of HMAC-SHA-256: as long as what it makes (RFC 7518, 3.2)
TICKET_BYTES_MAX = 4096
UID_LEN_MAX = 255


@dataclass(frozen=True, slots=True)
class Claims:
    """What a ticket says."""

    uid: str
    """Who it is: the claim `sub`."""
    expires: float
    """Seconds since 1970."""
    claims: Mapping[str, Any]
    """All of it: roles, say."""


class Tickets:
    """Checks JSON Web Tokens (RFC 7519), and makes them.

    A ticket has `sub` (the uid), `aud` (this game), `exp`, and `jti` if it is for one use. How it is signed is a matter of the key
    and not of what the ticket says: HS256 with a secret, EdDSA with an Ed25519 key.

    Args:
        keys: by their ids, which tickets name as `kid`: a secret of 32 bytes or more, or an Ed25519 key in PEM. To rotate, add the
            new one, sign with it, and take the old one out once its tickets are over. Bytes alone are the only key, without an id.
        audience: `aud` has to be this, or a list with it.
        issuer: `iss` has to be this; None: whatever.
        single_use: each ticket is good for one login.
        leeway: seconds by which clocks may differ.
        remembered_max: used tickets that are remembered until they are over; if there are more, further logins are refused.
        wall: seconds since 1970.

    Raises:
        ConfigError: a key is too short or of another kind, or there is none.

    >>> from gameserver.auth import Tickets
    >>> tickets = Tickets({"2026": b"a secret of at least 32 bytes ..."}, audience="arena")
    >>> ticket = tickets.sign("ann", seconds=60, role="admin")
    >>> claims = tickets.check(ticket)
    >>> claims.uid, claims.claims["role"]
    ('ann', 'admin')
    >>> tickets.check(ticket)
    Traceback (most recent call last):
    gameserver.Refuse: ticket-used: this ticket was used already; ask for a new one

    In an app::

        @app.authenticate
        def who(user: dict[str, Any]) -> str:
            return tickets.check(user.get("ticket")).uid
    """

    def __init__(
        self,
        keys: Mapping[str, bytes | str] | bytes | str,
        *,
        audience: str,
        issuer: str | None = None,
        single_use: bool = True,
        leeway: float = 5.0,
        remembered_max: int = 1_000_000,
        wall: Callable[[], float] = time.time,
    ) -> None:
        by_id = keys if isinstance(keys, Mapping) else {"": keys}
        if not by_id:
            raise ConfigError("Tickets(keys={}): give at least one key")
        if not audience:
            raise ConfigError(
                "Tickets(audience=''): say whom tickets are for, so that those of another game are no good here"
            )
        self._keys = {id: _Key(id, key) for id, key in by_id.items()}
        self._audience = audience
        self._issuer = issuer
        self._single_use = single_use
        self._leeway = leeway
        self._remembered_max = remembered_max
        self._wall = wall
        self._used: set[str] = set()
        self._over: list[tuple[float, str]] = []
        self._last_id = 0

    def check(self, ticket: Any) -> Claims:
        """Who somebody is, by what they gave as their ticket: anything at all.

        Raises:
            Refuse: `no-ticket`, `bad-ticket`, `ticket-expired`, `ticket-used`, or `busy` (see `remembered_max`).
        """
        if not isinstance(ticket, str) or not ticket:
            raise Refuse("no-ticket", "log in first: a ticket is needed")
        if len(ticket) > TICKET_BYTES_MAX:
            raise Refuse("bad-ticket", "this is no ticket")
        now = self._wall()
        try:
            id = jwt.get_unverified_header(ticket).get("kid", "")
            key = self._keys.get(id) if isinstance(id, str) else None
            if key is None:
                raise Refuse("bad-ticket", "this ticket is signed with a key that is not known here")
            found = jwt.decode(
                ticket,
                key.public,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=self._issuer,
                # Times are judged below, by our clock.
                options={
                    "require": ["exp", "sub", "aud"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            expires, begins = float(found["exp"]), float(found.get("nbf", 0))
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, RecursionError):
            raise Refuse("bad-ticket", "this ticket is not good here") from None
        if not expires + self._leeway > now:
            raise Refuse("ticket-expired", "this ticket is over; ask for a new one")
        if not begins - self._leeway <= now:
            raise Refuse("bad-ticket", "this ticket is not good yet")
        uid = found["sub"]
        if not isinstance(uid, str) or not 0 < len(uid) <= UID_LEN_MAX:
            raise Refuse("bad-ticket", "this ticket names nobody")
        if self._single_use:
            self._use(found.get("jti"), expires, now)
        return Claims(uid, expires, found)

    def sign(self, uid: str, *, seconds: float = 60.0, key: str | None = None, **claims: Any) -> str:
        """A ticket, for login services and tests.

        Args:
            uid: who it is.
            seconds: how long it is good.
            key: the id of the key; None: the last one.
            claims: more of them.

        Raises:
            ConfigError: there is no such key, or it can only check.
        """
        made = self._keys.get(next(reversed(self._keys)) if key is None else key)
        if made is None or made.private is None:
            raise ConfigError(f"Tickets.sign(key={key!r}): there is no such key, or it is a public one")
        now = self._wall()
        self._last_id += 1
        named = {
            "sub": uid,
            "aud": self._audience,
            "iat": int(now),
            "exp": now + seconds,
            "jti": f"{now}-{self._last_id}",
        }
        if self._issuer is not None:
            named["iss"] = self._issuer
        headers = {"kid": made.id} if made.id else None
        return jwt.encode({**named, **claims}, made.private, algorithm=made.algorithm, headers=headers)

    def _use(self, id: Any, expires: float, now: float) -> None:
        if not isinstance(id, str) or not id:
            raise Refuse("bad-ticket", "this ticket has no jti: it could be used twice")
        while self._over and self._over[0][0] + self._leeway <= now:
            self._used.discard(heapq.heappop(self._over)[1])
        if id in self._used:
            raise Refuse("ticket-used", "this ticket was used already; ask for a new one")
        if len(self._used) >= self._remembered_max:
            raise Refuse("busy", "too many logins; try again later")
        self._used.add(id)
        heapq.heappush(self._over, (expires, id))


class _Key:
    """A key, and the one algorithm that goes with it."""

    def __init__(self, id: str, key: bytes | str) -> None:
        raw = key.encode() if isinstance(key, str) else key
        self.id = id
        self.public: bytes | Ed25519PublicKey
        self.private: bytes | Ed25519PrivateKey | None
        if b"-----BEGIN" not in raw:
            if len(raw) < SECRET_BYTES_MIN:
                raise ConfigError(
                    f"Tickets: the secret {id!r} has {len(raw)} bytes: at least {SECRET_BYTES_MIN}, from secrets.token_bytes(32)"
                )
            self.algorithm, self.public, self.private = "HS256", raw, raw
            return
        try:
            loaded: Any = load_pem_private_key(raw, None) if b"PRIVATE KEY" in raw else load_pem_public_key(raw)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"Tickets: the key {id!r} is no PEM that can be read: {error}") from None
        self.algorithm = "EdDSA"
        if isinstance(loaded, Ed25519PrivateKey):
            self.public, self.private = loaded.public_key(), loaded
        elif isinstance(loaded, Ed25519PublicKey):
            self.public, self.private = loaded, None
        else:
            raise ConfigError(f"Tickets: the key {id!r} is of another kind: Ed25519 keys, or secrets for HMAC")
