"""Sessions in Redis, so that another process can go on with them: who it is, what the game keeps of them, and whose token it is.

A record lies under the hash of the newest token that the client has, which is all that a server knows of it. Whoever is shown the
token claims the record, once: from then on the process that had the session can't save it any more, and ends it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from gameserver._core import Session
from gameserver._redis.connection import Argument, Connection, Script
from gameserver._redis.keys import PREFIX, tag
from gameserver._signature import Handler, Kind, make_handler
from gameserver._tasks import begin, ended
from gameserver.errors import GameServerError, Overloaded, Unavailable

if TYPE_CHECKING:
    from gameserver._app import App

log = logging.getLogger("gameserver")

AT_ONCE = 50  # records that are written at a time
LOOKED_AT_ONCE = 100  # sessions
RECONNECT = 0.2  # s

# Keys: record (a hash). Arguments: process, version, what is kept, ms. Gives 0 if another process has claimed it; a newer version
# of our own stays.
SAVE = Script("""
local has = redis.call('HMGET', KEYS[1], 'process', 'version', 'claimed')
if has[3] then return 0 end
if has[1] and has[1] ~= ARGV[1] then return 0 end
if has[2] and tonumber(has[2]) > tonumber(ARGV[2]) then return 1 end
redis.call('HSET', KEYS[1], 'process', ARGV[1], 'version', ARGV[2], 'kept', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
""")

# Keys: record. Arguments: the channels' prefix, the token's hash. Gives what is kept, once; tells the process that has the session.
CLAIM = Script("""
local has = redis.call('HMGET', KEYS[1], 'process', 'kept', 'claimed')
if not has[2] or has[3] then return false end
redis.call('HSET', KEYS[1], 'claimed', '1')
redis.call('HDEL', KEYS[1], 'kept')
redis.call('PUBLISH', ARGV[1] .. has[1], 'token ' .. ARGV[2])
return has[2]
""")

# Keys: whose session of a uid is. Arguments: process, ms, the channels' prefix, the uid. Tells the process that had one before.
BIND = Script("""
local before = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if before and before ~= ARGV[1] then redis.call('PUBLISH', ARGV[3] .. before, 'uid ' .. ARGV[4]) end
return 1
""")

CHANNEL = f"{PREFIX}:process:"


@dataclass(slots=True)
class _Kept:
    """A session of ours."""

    session: Session
    token: bytes
    place: str
    version: int = 0
    written: bytes = b""
    due: float = 0.0
    """When it has to be written again, also if nothing has changed."""


class SessionStore:
    """The sessions of one process.

    Args:
        grace: seconds for which a session waits for its client.
        interval: seconds between two looks for what has changed.
    """

    def __init__(self, app: App, connection: Connection, grace: float, interval: float) -> None:
        self._app, self._connection, self._grace, self._interval = app, connection, grace, interval
        self._process = secrets.token_hex(8)
        self._kept: dict[int, _Kept] = {}
        self._claimed: dict[int, Any] = {}  # by session: what was kept of it elsewhere, until it joins
        self._tasks: list[asyncio.Task[None]] = []
        self._counts = {"claimed": 0, "moved": 0, "saved": 0}

    def start(self) -> None:
        """From now on."""
        self._tasks = [begin("the saving of sessions", self._run), begin("the listener for sessions", self._listen)]

    async def stop(self) -> None:
        """Others may have them."""
        await ended(self._tasks)

    def stats(self) -> dict[str, int]:
        """How many are `kept`, and counts: `claimed` from others, `moved` to others, `saved`."""
        return {"kept": len(self._kept), **self._counts}

    # -- what happens to sessions --------------------------------------------------------------------------------------

    def handlers(self, own: Sequence[Handler]) -> list[Handler]:
        """The game's handlers of its sessions' lives, with ours around and before them."""
        found = [self._claiming(handler) if handler.kind is Kind.AUTHENTICATE else handler for handler in own]
        if not any(handler.kind is Kind.AUTHENTICATE for handler in found):
            found.append(self._claiming(make_handler(Kind.AUTHENTICATE, _nobody)))
        return [make_handler(Kind.JOIN, self._joined), make_handler(Kind.RESUME, self._resumed), *found]

    def left(self, session: Session) -> None:
        """It is no more; if the server stops, another process may go on with it."""
        self._claimed.pop(session.id, None)
        kept = self._kept.pop(session.id, None)
        stopping = self._app._stopping
        if kept is not None and not (stopping is not None and stopping.is_set()):
            self._later(self._delete, kept.place)

    async def save_all(self) -> None:
        """All of them, as they are now."""
        await self._save([*self._kept.values()])

    def _claiming(self, handler: Handler) -> Handler:
        """`authenticate`, unless the client's token says who it is."""
        arguments = handler.arguments if "s" in handler.arguments else "s" + handler.arguments
        who, drops = arguments.index("s"), arguments != handler.arguments

        async def authenticate(*given: Any) -> str | None:
            session: Session = given[who]
            record = await self._claim(session)
            if record is not None:
                uid: str | None = record["uid"]
                self._claimed[session.id] = record["data"]
                return uid
            result = handler.call(*(given[:who] + given[who + 1 :] if drops else given))
            answer: str | None = await result if handler.is_async else result
            return answer

        return replace(handler, call=authenticate, arguments=arguments, is_async=True)

    async def _claim(self, session: Session) -> dict[str, Any] | None:
        token = session._came_with
        if token is None:
            return None
        try:
            raw = await self._connection.run(CLAIM, [tag("session", token)], [CHANNEL, token.hex()])
        except (Unavailable, Overloaded) as error:
            log.warning("a session of another process can't be asked for: %s", error)
            return None
        if not raw:
            return None
        self._counts["claimed"] += 1
        record: dict[str, Any] = msgspec.msgpack.decode(raw)
        return record

    def _joined(self, session: Session) -> None:
        """Before the game's own."""
        if session.id in self._claimed:
            data = self._claimed.pop(session.id)
            load = getattr(session, "on_load", None)
            if load is not None and data is not None:
                load(data)
        self._keep(session)
        if session.uid is not None:
            self._later(self._bind, session.uid)

    def _resumed(self, session: Session) -> None:
        """It has another token now."""
        self._keep(session)

    def _keep(self, session: Session) -> None:
        token = session._token_hash
        if token is None:  # its client can't come back
            return
        place, before = tag("session", token), self._kept.get(session.id)
        if before is not None and before.place != place:
            self._later(self._delete, before.place)
        kept = self._kept[session.id] = _Kept(session, token, place)
        self._later(self._save, [kept])

    # -- what is written -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._interval)
            now = loop.time()
            changed = []
            for number, kept in enumerate([*self._kept.values()], 1):
                token = kept.session._token_hash
                if token is not None and token != kept.token:  # it came back in this very moment
                    self._keep(kept.session)
                elif now >= kept.due or self._packed(kept) != kept.written:
                    changed.append(kept)
                if number % LOOKED_AT_ONCE == 0:
                    await asyncio.sleep(0)  # a tick may be due
            try:
                await self._save(changed)
            except (Unavailable, Overloaded):
                continue  # the next look tries again

    async def _save(self, some: Sequence[_Kept]) -> None:
        for start in range(0, len(some), AT_ONCE):
            await asyncio.gather(*map(self._save_one, some[start : start + AT_ONCE]))

    async def _save_one(self, kept: _Kept) -> None:
        packed = self._packed(kept)
        kept.version += 1
        arguments: Sequence[Argument] = [self._process, kept.version, packed, self._ms()]
        if await self._connection.run(SAVE, [kept.place], arguments, attempts=2):
            kept.written, kept.due = packed, asyncio.get_running_loop().time() + self._grace / 2
            self._counts["saved"] += 1
            if kept.session.uid is not None:
                await self._bind_again(kept.session.uid)
        elif self._kept.get(kept.session.id) is kept:
            self._moved(kept.session)

    def _packed(self, kept: _Kept) -> bytes:
        save = getattr(kept.session, "on_save", None)
        try:
            data = save() if save is not None else None
            return msgspec.msgpack.encode({"uid": kept.session.uid, "data": data})
        except Exception as error:  # of the game's code: what was written last stays
            self._app._failed(f"{type(kept.session).__qualname__}.on_save", error)
            return kept.written

    async def _delete(self, place: str) -> None:
        client: Any = self._connection.client
        await self._connection.call(lambda: client.delete(place), attempts=2)

    async def _bind(self, uid: str) -> None:
        await self._connection.run(
            BIND, [tag("uid", uid)], [self._process, self._ms(), CHANNEL, uid.encode("utf-8", "surrogatepass")]
        )

    async def _bind_again(self, uid: str) -> None:
        client: Any = self._connection.client
        await self._connection.call(lambda: client.pexpire(tag("uid", uid), self._ms()), attempts=2)

    def _ms(self) -> int:
        """How long what is written lasts, if it is not written again."""
        return round((3 * self._interval + 2 * self._grace) * 1000)

    def _later(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        async def run() -> None:
            try:
                await function(*arguments)
            except (Unavailable, Overloaded) as error:
                log.debug("sessions: %s", error)  # the next look tries again, or it ends by itself

        self._app.task(run())

    # -- what others say -------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        from redis.exceptions import RedisError

        client: Any = self._connection.client
        while True:
            pubsub = client.pubsub()
            try:
                await pubsub.subscribe(CHANNEL + self._process)
                while True:
                    message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=None)
                    if message is not None:
                        self._heard(message["data"].decode("utf-8", "surrogatepass"))
            except (RedisError, OSError) as error:
                log.debug("sessions: %s; listening again", error)
                await asyncio.sleep(RECONNECT)  # what was missed, the next save finds out
            finally:
                await pubsub.aclose()

    def _heard(self, text: str) -> None:
        kind, _, what = text.partition(" ")
        if kind == "uid":
            session = self._app.user(what).session
            if session is not None:
                self._moved(session)
            return
        token = bytes.fromhex(what)
        for kept in [*self._kept.values()]:
            if kept.token == token:
                self._moved(kept.session)

    def _moved(self, session: Session) -> None:
        """Another process has it, or its uid."""
        self._kept.pop(session.id, None)
        self._counts["moved"] += 1
        try:
            session.kick("replaced")
        except GameServerError:
            pass  # it is gone already


def _nobody(user: dict[str, Any]) -> str | None:
    """Of a game without `authenticate`."""
    return None
