"""Keys: whatever an id is, it can change neither the slot nor another key."""

from __future__ import annotations

import hashlib

PREFIX = "gs"
DIGEST_BYTES = 16  # 2^64 ids until two share one by chance; nobody can look for two that do


def tag(kind: str, identity: str | bytes) -> str:
    """The hash tag of one aggregate: all that starts with it lies in one slot, and can change together.

    >>> tag("player", "a}{b")
    'gs:player:{675fb4282c0b79ecbc2d4ff9da06c72f}'
    """
    raw = identity if isinstance(identity, bytes) else identity.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(raw, digest_size=DIGEST_BYTES, person=kind.encode()[:16]).hexdigest()
    return f"{PREFIX}:{kind}:{{{digest}}}"


def under(tagged: str, part: str) -> str:
    """A key of an aggregate.

    >>> under("gs:player:{0f}", "record")
    'gs:player:{0f}:record'
    """
    return f"{tagged}:{part}"
