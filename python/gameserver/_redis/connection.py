"""One Redis, or a cluster, by its URL; and scripts, which are called by their digest."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from gameserver._settings import without_password
from gameserver.errors import ConfigError
from gameserver.guard import Guard, is_unreachable

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.cluster import RedisCluster

T = TypeVar("T")
Argument = str | bytes | int | float

log = logging.getLogger("gameserver")

NEEDS = "redis_url needs redis-py, which is not installed: pip install 'gameserver[stores]'"
CLUSTER = "redis+cluster"
SCHEMES = ("redis", "rediss", "unix", CLUSTER)
VERSION_MIN = 7
FAILOVER_MAX, PAUSE = 15.0, 0.2  # s: a cluster takes some seconds to replace a primary
CONNECTIONS_MAX = 256  # those that wait for events hold one each


class Script:
    """A constant in Lua. All its keys are in KEYS and of one slot, which Redis checks (that is what ``#!lua`` asks for).

    >>> Script("return 1").sha
    'cb70127618f0b0be70c53cf6bfcfa54a29d9b0c0'
    """

    def __init__(self, body: str) -> None:
        self.text = f"#!lua\n{body}"
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Connection:
    """What all of an app shares toward Redis.

    Args:
        url: ``redis://[user:password@]host:port/db``, ``rediss://...`` with TLS, ``unix://path``, or of a cluster some of its
            nodes: ``redis+cluster://host:port,host:port``.
        timeout: of one command, in s.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url = without_password(url)
        self.is_cluster = url.startswith(f"{CLUSTER}://")
        self.guard = Guard("redis", timeout=timeout, is_failure=_is_failure)
        self.client: Redis | RedisCluster = _client(url, timeout)

    async def open(self) -> None:
        """Looks whether it is there.

        Raises:
            ConfigError: it is not, does not let us in, or is too old.
        """
        from redis.exceptions import AuthenticationError, RedisClusterException, RedisError

        try:
            info = await self._info()
        except AuthenticationError as error:
            raise ConfigError(
                f"redis_url={self.url}: it does not let us in ({error}); check user and password"
            ) from error
        except RedisClusterException as error:
            raise ConfigError(
                f"redis_url={self.url}: no cluster answers ({error}); start it, check hosts and ports, or write "
                "redis://host:port for a single server"
            ) from error
        except (RedisError, OSError) as error:
            raise ConfigError(
                f"redis_url={self.url}: it does not answer ({error}); start it, or check host and port"
            ) from error
        version = str(info["redis_version"])
        if int(version.partition(".")[0]) < VERSION_MIN:
            raise ConfigError(f"redis_url={self.url}: Redis {version} is too old; {VERSION_MIN}.0 or later is needed")

    async def _info(self) -> dict[str, Any]:
        """Of a server; of a cluster, of any that is there: one that has just died keeps nobody from starting."""
        client: Any = self.client
        if not self.is_cluster:
            found: dict[str, Any] = await client.info("server")
            return found
        from redis.exceptions import RedisClusterException, RedisError

        deadline = time.monotonic() + FAILOVER_MAX
        while True:
            try:
                await client.initialize()
                break
            except RedisClusterException:  # none of them answers
                raise
            except (RedisError, OSError):  # those that answer name one that does not: it will be replaced
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(PAUSE)
        last: BaseException | None = None
        for node in client.get_nodes():
            try:
                said: dict[str, Any] = await client.info("server", target_nodes=node)
            except (RedisError, OSError) as error:
                last = error
                continue
            return said if "redis_version" in said else next(iter(said.values()))
        raise last or RedisError("it has no nodes")

    async def close(self) -> None:
        """Gives all connections back."""
        await self.client.aclose()

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, attempts: int = 1
    ) -> Any:
        """Calls a script: one round trip, two where a server sees it for the first time.

        Args:
            attempts: more than one, if it may be done twice.

        Raises:
            Unavailable: Redis is down.
        """
        return await self.guard.call(lambda: self._run(script, keys, arguments), attempts=attempts)

    async def call(self, function: Callable[[], Awaitable[T]], *, attempts: int = 1) -> T:
        """Any other command, guarded in the same way."""
        return await self.guard.call(function, attempts=attempts)

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        from redis.exceptions import NoScriptError

        client: Any = self.client
        try:
            return await client.evalsha(script.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.eval(script.text, len(keys), *keys, *arguments)


def _client(url: str, timeout: float) -> Redis | RedisCluster:
    try:
        from redis.asyncio import Redis
        from redis.asyncio.cluster import ClusterNode, RedisCluster
        from redis.asyncio.retry import Retry
        from redis.backoff import ExponentialBackoff
    except ImportError as error:
        raise ConfigError(NEEDS) from error
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"redis_url={without_password(url)}: {' or '.join(f'{scheme}://' for scheme in SCHEMES)}")
    # A connection that was open when Redis went away is found dead at its next use: once more, on a new one.
    retry = Retry(ExponentialBackoff(cap=0.1, base=0.01), 1)
    common: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "protocol": 3}
    if parts.scheme != CLUSTER:
        return Redis.from_url(url, retry=retry, max_connections=CONNECTIONS_MAX, **common)
    _, _, places = parts.netloc.rpartition("@")
    nodes = []
    for place in places.split(","):
        host, _, port = place.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"redis_url={without_password(url)}: {place!r} is no host:port")
        nodes.append(ClusterNode(host, int(port)))
    return RedisCluster(
        startup_nodes=nodes, username=parts.username, password=parts.password, max_connections=CONNECTIONS_MAX, **common
    )


def _is_failure(error: BaseException) -> bool:
    from redis import exceptions

    down = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ClusterDownError, exceptions.TryAgainError)
    gone = (exceptions.ReadOnlyError, exceptions.BusyLoadingError, exceptions.MasterDownError)
    return isinstance(error, (*down, *gone)) or is_unreachable(error)
