"""Shared events in Redis Streams: a consumer group for each subscriber, and partitions, so that each key has one reader at a time.

A partition belongs to one process by a lease, without which Redis gives it nothing to read. Who takes one over claims all that
others have read and not acknowledged, and goes on from there. A process that was stopped and does not know that it has lost its
lease may do the same events once more, in the same order: their effects come once by their ids (`gameserver.storage`), so neither
order nor effects suffer.

An event may kill the process that handles it, and then the next. What was taken over again and again is therefore handled one by
one, and counted before: what was begun too often and is not over is a dead letter.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from gameserver._redis.connection import Connection, Script
from gameserver._redis.keys import tag, under
from gameserver._shared import Delivery, Envelope, Known, Worker
from gameserver._tasks import begin, ended
from gameserver.errors import GameServerError, Overloaded, Unavailable

log = logging.getLogger("gameserver")

PARTITIONS = 16
FIELD = b"e"  # of an entry: all of the event in one, since each costs a reader as much as an event
LENGTH_MAX = 1_000_000  # entries of one partition: beyond it the oldest go, handled or not
COUNT = 100  # entries of one partition in one read
CLAIMED = 1000  # and in one look at what others have not acknowledged
BLOCK = 0.5  # s
LEASE = 6.0  # s
BALANCE = 1.5  # s between two looks at who has which partitions
TRIM_EVERY = 8  # looks
GONE_MS = 600_000  # since a consumer has read
PAUSE = 0.2  # s after an error
SUSPECTED = 2  # times that an entry was given to somebody; beyond it, it or one beside it may kill who handles it
TRIES_MAX = 3  # processes that may begin with a suspect, alone, and not come to its end
TRIES_MS = 86_400_000  # for which those are remembered

# Keys: members. Arguments: who, for how many ms. Gives how many there are.
MEMBERS = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
""")

# Keys: the owner of each partition. Arguments: who, for how many ms, how many more than now. Renews those that are theirs, takes
# so many that are nobody's; gives a 1 for each that is theirs then.
OWN = Script("""
local found, more = {}, tonumber(ARGV[3])
for i = 1, #KEYS do
  local has = redis.call('GET', KEYS[i])
  local mine = has == ARGV[1]
  if not has and more > 0 then
    mine = true
    more = more - 1
  end
  if mine then redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2]) end
  found[i] = mine and 1 or 0
end
return found
""")

# Keys: the owner of a partition. Arguments: who.
DISOWN = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")

# Keys: the owners of partitions, then as many streams. Arguments: who, the group, how many entries of each. Reads those that are
# theirs.
READ = Script("""
local streams, after = {}, {}
for i = 1, #KEYS / 2 do
  if redis.call('GET', KEYS[i]) == ARGV[1] then
    streams[#streams + 1] = KEYS[#KEYS / 2 + i]
    after[#after + 1] = '>'
  end
end
if #streams == 0 then return {} end
for _, id in ipairs(after) do streams[#streams + 1] = id end
return redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[1], 'COUNT', ARGV[3], 'STREAMS', unpack(streams)) or {}
""")

# Keys: a stream. Arguments: a group, ms. Removes what all groups have acknowledged, and consumers of this group that have been
# gone for so long, and have nothing.
TRIM = Script("""
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local field = {}
  for i = 1, #consumer, 2 do field[consumer[i]] = consumer[i + 1] end
  if field['pending'] == 0 and field['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], field['name'])
  end
end
local function parts(id)
  local ms, number = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(number)
end
local least
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local field = {}
  for i = 1, #group, 2 do field[group[i]] = group[i + 1] end
  local id = field['last-delivered-id']
  if field['pending'] > 0 then id = redis.call('XPENDING', KEYS[1], field['name'])[2] end
  if not least then least = id else
    local a, b = parts(id)
    local c, d = parts(least)
    if a < c or (a == c and b < d) then least = id end
  end
end
if not least then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', least)
""")

# Keys: the tries of a partition. Arguments: an event, who begins with it, for how many ms that is known. Gives how many others have
# begun, and not come to its end.
TRY = Script("""
local had, others, is_known = redis.call('HGET', KEYS[1], ARGV[1]) or '', 0, false
for who in string.gmatch(had, '[^,]+') do
  if who == ARGV[2] then is_known = true else others = others + 1 end
end
if not is_known then redis.call('HSET', KEYS[1], ARGV[1], had .. ARGV[2] .. ',') end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return others
""")


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str | None, bytes]).decode


def _pack(envelope: Envelope) -> bytes:
    return _encode((envelope.id, envelope.key, envelope.body))


class Streams:
    """Where shared events go.

    Args:
        replicas: copies that must have an event before it counts as published.
        timeout: seconds to wait for them.
    """

    def __init__(self, connection: Connection, replicas: int, timeout: float) -> None:
        self._connection, self._replicas, self._timeout = connection, replicas, timeout

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        """All of them, in order; if it raises, some of them may have been.

        Raises:
            Unavailable: Redis is down, or too few replicas have them.
        """
        await self._connection.call(lambda: self._publish(envelopes))

    async def _publish(self, envelopes: Sequence[Envelope]) -> None:
        client: Any = self._connection.client
        pipeline = client.pipeline(transaction=False)
        places = set()
        for envelope in envelopes:
            place = partition_of(envelope)
            places.add(place)
            pipeline.xadd(place, {FIELD: _pack(envelope)}, maxlen=LENGTH_MAX, approximate=True)
        await pipeline.execute()
        if self._replicas:
            await self._wait(client, places)

    async def _wait(self, client: Any, places: set[str]) -> None:
        """WAIT counts what this connection has written: a write of its own goes before it, behind ours in each server's order."""
        milliseconds = max(1, round(self._timeout * 500))
        for place in places:
            if self._connection.is_cluster:
                node = client.get_node_from_key(place)
                has = await _wait_on(client, place, self._replicas, milliseconds, node)
            else:
                has = await _wait_on(client, place, self._replicas, milliseconds, None)
            if has < self._replicas:
                raise Unavailable(f"redis: {has} of {self._replicas} replicas have the events; they are sent again")


async def _wait_on(client: Any, place: str, replicas: int, milliseconds: int, node: Any) -> int:
    marker = under(place, "wait")
    if node is None:
        async with client.client() as one:
            await one.set(marker, b"", px=60_000)
            return int(await one.wait(replicas, milliseconds))
    connection = node.acquire_connection()
    try:
        await connection.connect()
        await connection.send_command("SET", marker, b"", "PX", 60_000)
        await connection.read_response()
        await connection.send_command("WAIT", replicas, milliseconds)
        return int(await connection.read_response())
    finally:
        node.release(connection)


class Publisher:
    """What `App.emit` has for Redis: it waits here, not in the handler.

    Args:
        maximum: events that may wait.
    """

    def __init__(self, streams: Streams, maximum: int) -> None:
        self._streams, self._maximum = streams, maximum
        self._waiting: list[Envelope] = []
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._task: asyncio.Task[None] | None = None
        self._published = self._failed = self._refused = 0

    def start(self) -> None:
        """From now on."""
        self._task = begin("the publisher of shared events", self._run)

    async def stop(self, seconds: float) -> None:
        """When all is published, at most after so many seconds."""
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        await ended([self._task])
        if self._waiting:
            log.error("%d shared events could not be published when the server stopped", len(self._waiting))

    def put(self, envelope: Envelope) -> None:
        """One more.

        Raises:
            Overloaded: too many wait already.
        """
        if len(self._waiting) >= self._maximum:
            self._refused += 1
            raise Overloaded(f"{self._maximum} shared events wait for Redis already")
        self._waiting.append(envelope)
        self._empty.clear()
        self._wake.set()

    def stats(self) -> dict[str, int]:
        """How many are `waiting`, and counts."""
        return {
            "waiting": len(self._waiting),
            "published": self._published,
            "failed": self._failed,
            "refused": self._refused,
        }

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = self._waiting[:500]
                try:
                    await self._streams.publish(batch)
                except (Unavailable, Overloaded):
                    self._failed += 1
                    await asyncio.sleep(PAUSE)
                    continue
                del self._waiting[: len(batch)]
                self._published += len(batch)
            self._empty.set()


def stream_of(name: str, partition: int) -> str:
    """The key of a partition: all of one class lie in one slot, so that one command reads them."""
    return under(tag("events", name), str(partition))


def partition_of(envelope: Envelope) -> str:
    """Where an event goes."""
    key = envelope.key if envelope.key is not None else envelope.id
    return stream_of(envelope.name, zlib.crc32(key.encode("utf-8", "surrogatepass")) % PARTITIONS)


class Reader:
    """One subscriber's share of one class of events."""

    def __init__(self, connection: Connection, known: Known, worker: Worker, name: str) -> None:
        self._connection, self._known, self._worker, self._name = connection, known, worker, name
        self._group = worker.name
        self._consumer = secrets.token_hex(8)
        self._first = secrets.randbelow(PARTITIONS)  # so that those who begin at once do not all want the same
        self._own: dict[int, _Partition] = {}
        self._acks: dict[str, list[bytes]] = {}
        self._task: asyncio.Task[None] | None = None
        self._suspects: set[asyncio.Task[None]] = set()
        self._one_by_one = asyncio.Lock()
        self._looks = 0
        self._next_balance = 0.0

    def start(self) -> None:
        """From now on."""
        self._task = begin(f"the reader of {self._name} for {self._group}", self._run)

    async def stop(self) -> None:
        """Acknowledges what was handled, and gives its partitions to others."""
        await ended([self._task])
        await ended(self._suspects)  # which that task begins
        with contextlib.suppress(Unavailable, Overloaded):
            await self._acknowledge()
            for number in [*self._own]:
                await self._connection.run(DISOWN, [self._owner(number)], [self._consumer])
            members, consumer, client = self._members(), self._consumer, self._client()
            await self._connection.call(lambda: client.zrem(members, consumer))
        self._own.clear()

    async def _run(self) -> None:
        from redis.exceptions import RedisError, ResponseError

        loop = asyncio.get_running_loop()
        is_made = False
        while True:
            try:
                if not is_made:
                    await self._make_groups()
                    is_made = True
                if loop.time() >= self._next_balance:
                    await self._balance()
                    self._next_balance = loop.time() + BALANCE
                await self._acknowledge()
                if self._worker.has_room:
                    await self._read()
                else:  # leases go on meanwhile
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(BALANCE):
                            await self._worker.room()
            except ResponseError as error:
                if not any(word in str(error) for word in ("NOGROUP", "UNBLOCKED")):
                    log.warning("shared events of %s: %s", self._group, error)
                is_made = False  # Redis has lost them
                await asyncio.sleep(PAUSE)
            except (Unavailable, Overloaded, RedisError, OSError) as error:
                log.debug("shared events: %s", error)
                await asyncio.sleep(PAUSE)

    async def _make_groups(self) -> None:
        from redis.exceptions import ResponseError

        client = self._client()
        for number in range(PARTITIONS):
            try:
                place = stream_of(self._name, number)
                make = functools.partial(client.xgroup_create, place, self._group, id="0", mkstream=True)
                await self._connection.call(make, attempts=3)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    # -- who has which ---------------------------------------------------------------------------------------------------

    async def _balance(self) -> None:
        """As many partitions as are our share of them."""
        members = await self._connection.run(MEMBERS, [self._members()], [self._consumer, round(LEASE * 1000)])
        share = -(-PARTITIONS // max(1, int(members)))
        staying = [number for number, part in self._own.items() if not part.is_leaving]
        for number in staying[share:]:
            self._own[number].is_leaving = True
        for number, part in [*self._own.items()]:
            if part.is_leaving and not part.open:
                await self._acknowledge()
                del self._own[number]
                await self._connection.run(DISOWN, [self._owner(number)], [self._consumer])
        order = [(number + self._first) % PARTITIONS for number in range(PARTITIONS)]
        wants = max(0, share - len(self._own))
        flags = await self._connection.run(
            OWN, [*map(self._owner, order)], [self._consumer, round(LEASE * 1000), wants]
        )
        for number, is_ours in zip(order, flags, strict=True):
            if not is_ours:
                self._own.pop(number, None)  # somebody else has it, or it was given away
            elif number not in self._own:
                await self._take_over(number)
        self._looks += 1
        if self._looks % TRIM_EVERY == 0:
            for number in self._own:
                await self._connection.run(TRIM, [stream_of(self._name, number)], [self._group, GONE_MS])

    async def _take_over(self, number: int) -> None:
        """Begins with what whoever had it before has not acknowledged."""
        client, place = self._client(), stream_of(self._name, number)
        part = _Partition(place)
        entries: list[tuple[bytes, Any]] = []
        start = "0-0"
        while True:
            claim = functools.partial(client.xautoclaim, place, self._group, self._consumer, 0, start, count=CLAIMED)
            found = await self._connection.call(claim, attempts=3)
            start = _text(found[0])
            entries += [(entry, next(iter(fields.items())) if fields else None) for entry, fields in found[1]]
            if start == "0-0":
                break
        suspects = await self._count_suspects(place, entries)
        deliveries = self._deliveries(part, entries)
        if suspects:
            part.is_held = True
            task = asyncio.get_running_loop().create_task(self._try(number, part, deliveries, suspects))
            self._suspects.add(task)
            task.add_done_callback(self._suspects.discard)
        else:
            self._worker.put(deliveries)
        self._own[number] = part

    async def _count_suspects(self, place: str, entries: Sequence[tuple[bytes, Any]]) -> int:
        """So many of the first were given away too often, or stand before one that was."""
        client, count = self._client(), 0
        for at in range(0, len(entries), CLAIMED):
            some = entries[at : at + CLAIMED]
            first, last = some[0][0], some[-1][0]
            look = functools.partial(
                client.xpending_range, place, self._group, first, last, len(some), consumername=self._consumer
            )
            given = {row["message_id"]: row["times_delivered"] for row in await self._connection.call(look, attempts=3)}
            for index, (entry, _) in enumerate(some, at + 1):
                if given.get(entry, 0) > SUSPECTED:
                    count = index
        return count

    async def _try(self, number: int, part: _Partition, deliveries: Sequence[Delivery], suspects: int) -> None:
        """The suspects one by one, then the rest; one partition at a time."""
        try:
            async with self._one_by_one:
                for delivery in deliveries[:suspects]:
                    if self._own.get(number) is part:  # else somebody else has them now
                        await self._try_one(part, delivery)
        except Exception as error:
            if not isinstance(error, Unavailable | Overloaded):
                log.exception("shared events of %s: what was taken over is taken over anew", self._group)
            if self._own.get(number) is part:
                del self._own[number]
        else:
            if self._own.get(number) is part:
                part.is_held = False
                self._worker.put(deliveries[suspects:])

    async def _try_one(self, part: _Partition, delivery: Delivery) -> None:
        tries, client = under(part.place, f"tries:{self._group}"), self._client()
        others = int(await self._connection.run(TRY, [tries], [delivery.id, self._consumer, TRIES_MS]))
        is_over = asyncio.Event()
        delivery.done = _then(delivery.done, is_over.set)
        if others >= TRIES_MAX:
            text = f"{others} processes have begun with it, and not come to its end"
            self._worker.bury(delivery, GameServerError(text))
        else:
            self._worker.put([delivery])
        try:
            await is_over.wait()
        finally:  # also where we are stopped: it has killed nobody
            with contextlib.suppress(Unavailable, Overloaded):
                await self._connection.call(functools.partial(client.hdel, tries, delivery.id), attempts=2)

    # -- what is read ----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        numbers = [number for number, part in self._own.items() if not part.is_leaving and not part.is_held]
        if not numbers:
            await asyncio.sleep(PAUSE)
            return
        places = [self._own[number].place for number in numbers]
        keys = [*map(self._owner, numbers), *places]
        try:
            found = await self._connection.run(READ, keys, [self._consumer, self._group, COUNT])
        except BaseException:
            # What Redis has given us, and has not reached us, is pending: it is claimed as if these were taken over now.
            self._own.clear()
            self._next_balance = 0.0
            raise
        parts = {part.place: part for part in self._own.values()}
        for place, entries in found:
            part = parts[_text(place)]
            self._worker.put(self._deliveries(part, entries))
            part.last = entries[-1][0]
        if not found:
            await self._wait(places, [self._own[number].last for number in numbers])

    async def _wait(self, places: Sequence[str], last: Sequence[bytes]) -> None:
        """Until there may be something to read, at most `BLOCK` seconds."""
        client = self._client()
        read = functools.partial(client.xread, dict(zip(places, last, strict=True)), count=1, block=round(BLOCK * 1000))
        await self._connection.call(read)

    def _deliveries(self, part: _Partition, entries: Sequence[Any]) -> list[Delivery]:
        """What can be read of them."""
        deliveries = []
        for number, fields in entries:
            if not fields:  # trimmed meanwhile
                self._acks.setdefault(part.place, []).append(number)
                continue
            part.open += 1
            delivery = Delivery(self._unpacked(number, fields[1]), None, functools.partial(self._done, part, number))
            try:
                delivery.event = self._known.event(self._name, delivery.envelope.body)
            except ValueError as error:
                self._worker.bury(delivery, error)
                continue
            deliveries.append(delivery)
        return deliveries

    def _unpacked(self, number: bytes, packed: bytes) -> Envelope:
        """What is none of ours is read as the body of an event, which it is not either."""
        try:
            event_id, key, body = _decode(packed)
        except msgspec.MsgspecError:
            return Envelope(_text(number), self._name, None, packed)
        return Envelope(event_id, self._name, key, body)

    def _done(self, part: _Partition, number: bytes, is_handled: bool) -> None:
        part.open -= 1
        self._acks.setdefault(part.place, []).append(number)

    async def _acknowledge(self) -> None:
        client = self._client()
        for place in [*self._acks]:
            numbers = self._acks.pop(place)
            try:
                await self._connection.call(functools.partial(client.xack, place, self._group, *numbers), attempts=2)
            except BaseException:
                self._acks[place] = numbers + self._acks.get(place, [])
                raise

    def _client(self) -> Any:
        return self._connection.client

    def _owner(self, number: int) -> str:
        return under(stream_of(self._name, number), f"owner:{self._group}")

    def _members(self) -> str:
        return under(tag("events", self._name), f"members:{self._group}")


class _Partition:
    """One that is ours."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.last: bytes = b"$"  # the entry that was read last
        self.open = 0  # events that are not handled
        self.is_leaving = False
        self.is_held = False  # nothing more is read before what was taken over is handled


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _then(done: Callable[[bool], None], more: Callable[[], object]) -> Callable[[bool], None]:
    def both(is_handled: bool) -> None:
        done(is_handled)
        more()

    return both
