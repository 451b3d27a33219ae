"""Dead letters of shared events, in Redis: of each subscriber a hash, and the order in which they died."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gameserver._dead_letters import DEAD_MAX, DeadLetter
from gameserver._redis.connection import Argument, Connection, Script
from gameserver._redis.keys import tag, under

PAGE = 500  # letters in one answer

# Keys: letters, order. Arguments: id, letter, when, how many at most. Beyond them the oldest go.
PUT = Script("""
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
local over = redis.call('ZCARD', KEYS[2]) - ARGV[4]
if over > 0 then
  local oldest = redis.call('ZPOPMIN', KEYS[2], over)
  for place = 1, #oldest, 2 do redis.call('HDEL', KEYS[1], oldest[place]) end
end
return over
""")

# Keys: letters, order. Arguments: id. Gives whether there was one.
REMOVE = Script("""
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
""")

# Keys: letters, order. Arguments: the first, the last of a page. Gives ids and letters in turns.
PAGE_OF = Script("""
local found = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], ARGV[1], ARGV[2])) do
  found[#found + 1] = id
  found[#found + 1] = redis.call('HGET', KEYS[1], id)
end
return found
""")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str | None, str, float, bytes]).decode


class RedisLetters:
    """See `LetterBox`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put(self, letter: DeadLetter) -> None:
        packed = _encode((letter.name, letter.key, letter.error, letter.at, letter.body))
        arguments: list[Argument] = [letter.id, packed, letter.at, DEAD_MAX]
        await self._connection.run(PUT, _keys(letter.subscriber), arguments, attempts=3)

    async def list(self, subscribers: Sequence[str]) -> Sequence[DeadLetter]:
        found = []
        for subscriber in subscribers:
            for first in range(0, DEAD_MAX, PAGE):
                page: list[Any] = await self._connection.run(
                    PAGE_OF, _keys(subscriber), [first, first + PAGE - 1], attempts=3
                )
                for number, packed in zip(page[::2], page[1::2], strict=True):
                    name, key, error, at, body = _decode(packed)
                    found.append(DeadLetter(number.decode(), subscriber, name, None, key, error, at, body))
                if len(page) < 2 * PAGE:
                    break
        return found

    async def remove(self, letter: DeadLetter) -> bool:
        return bool(await self._connection.run(REMOVE, _keys(letter.subscriber), [letter.id], attempts=3))


def _keys(subscriber: str) -> list[str]:
    tagged = tag("dead", subscriber)
    return [under(tagged, "letters"), under(tagged, "order")]
