"""Domain events in this process: each subscriber has a queue, its own retries and its own dead letters.

Same key: strictly in order. Different keys: independent. Nobody waits for a subscriber, and none for another.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from gameserver._dead_letters import DeadLetter, DeadLetters, not_heard
from gameserver._signature import Handler
from gameserver.errors import ConfigError, Overloaded

if TYPE_CHECKING:
    from gameserver._app import App

__all__ = ["Event", "Events", "Subscription", "WhenFull", "names_of", "queued", "shared"]

E = TypeVar("E", bound="type[Event]")
WhenFull = Literal["refuse", "drop_oldest", "coalesce"]

SLICE = 0.001  # s that one subscriber may take before the loop goes on
BETWEEN_LOOKS = 64  # events between two looks at the clock
DELAY_MIN, DELAY_MAX = (
    0.1,
    30.0,
)  # s before the first retry, and the most; each is twice the one before, with full jitter


_REFUSE: WhenFull = "refuse"


class _Frozen(msgspec.Struct, **({} if TYPE_CHECKING else {"frozen": True, "gc": False})):
    """Immutable, and of plain values, so that no cycle goes through it. Type checkers would want `frozen=True` of each subclass."""


class Event(_Frozen):
    """The base of your domain events: what has happened, in the past tense. Fields are plain values, other structs, lists.

    >>> class LoggedIn(Event):
    ...     player: str
    >>> LoggedIn("ada").player
    'ada'
    """

    # Without annotations: these are no fields.
    _shared = False
    _queue_max = 100_000
    _when_full = _REFUSE


def queued(maximum: int, *, when_full: WhenFull = "refuse") -> Callable[[E], E]:
    """Says how many events of a class may wait for one subscriber, and what becomes of more; else 100,000, and more are refused.

    Args:
        when_full: ``"refuse"``: `App.emit` raises `Overloaded`, and no subscriber gets it; ``"drop_oldest"``; ``"coalesce"``:
            always, one that waits with the same key is replaced, in its place; and beyond the maximum the oldest goes.

    Raises:
        ConfigError: the maximum is none, or there is no such policy.

    >>> @queued(1000, when_full="coalesce")
    ... class Moved(Event):
    ...     player: str
    ...     x: float
    """
    if not isinstance(maximum, int) or maximum < 1:
        raise ConfigError(f"queued({maximum!r}): a whole number above 0")
    if when_full not in ("refuse", "drop_oldest", "coalesce"):
        raise ConfigError(f'queued(when_full={when_full!r}): "refuse", "drop_oldest" or "coalesce"')

    def mark(cls: E) -> E:
        if not (isinstance(cls, type) and issubclass(cls, Event)):
            raise ConfigError(f"queued(...) of {cls!r}: a subclass of Event")
        cls._queue_max, cls._when_full = maximum, when_full
        return cls

    return mark


def shared(cls: E) -> E:
    """Marks events that belong to all processes: with `redis_url`, each subscriber handles one once, in any of them.

    They go through Redis Streams (`App.emit`), or from a transaction's outbox (`UnitOfWork.emit`): at least once, in order for each
    key, and what a subscriber does in a `UnitOfWork` exactly once. Without Redis they stay in this process. The class's name names
    them everywhere, and their fields are written as JSON: add fields with defaults, and take none away that others still read.

    Raises:
        ConfigError: it is no class of events.

    >>> @shared
    ... class Bought(Event):
    ...     player: str
    ...     item: str
    """
    if not (isinstance(cls, type) and issubclass(cls, Event)):
        raise ConfigError(f"@shared of {cls!r}: a subclass of Event")
    cls._shared = True
    return cls


@dataclass(frozen=True, slots=True)
class Subscription:
    """What `on_event` says of a subscriber."""

    handler: Handler
    event: type[Event]
    batch: int
    """Events that it takes at once; 0: one by one."""
    concurrency: int
    retries: int


@dataclass(slots=True)
class _Counts:
    done: int = 0
    failed: int = 0
    dead: int = 0
    dropped: int = 0
    coalesced: int = 0
    refused: int = 0


_Waiting = Sequence[Any]
"""An event in a queue: itself, its key, and if it was tried before, how often. A list where it may be replaced."""


def names_of(subscriptions: Sequence[Subscription]) -> list[str]:
    """How subscribers are called; functions that a function has made share a name."""
    names: list[str] = []
    for subscription in subscriptions:
        name = subscription.handler.qualname
        same = sum(one == name or one.startswith(f"{name} (") for one in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names


class Events:
    """An app's events, of one run."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._plain: dict[type, list[_Subscriber]] = {}  # by class, if none of them coalesces
        self._all: list[_Subscriber] = []
        self.dead_letters = DeadLetters(self._replay, app._stores)

    def start(self, subscriptions: Iterable[Subscription]) -> None:
        """With these subscribers; what they get is resolved."""
        self._all, self._plain = [], {}
        subscriptions = [*subscriptions]
        for subscription, name in zip(subscriptions, names_of(subscriptions), strict=True):
            self._all.append(_Subscriber(self._app, self, subscription, name))

    def emit(self, event: Event, key: object) -> None:
        """See `App.emit`."""
        subscribers = self._plain.get(type(event))
        if subscribers is None:
            self._put(event, key, self._find(event))
            return
        for subscriber in subscribers:
            if len(subscriber.queue) >= subscriber.limit:
                self._put(event, key, subscribers)
                return
        waiting = (event, key)
        for subscriber in subscribers:
            subscriber.queue.append(waiting)
            if not subscriber.is_awake:
                subscriber.wake()

    def _find(self, event: Event) -> list[_Subscriber]:
        """Those of an event's class, the first time that there is one, or if one of them coalesces."""
        self._app._core_running()
        cls = type(event)
        if not issubclass(cls, Event):
            raise TypeError(f"app.emit({event!r}): an object of a subclass of Event")
        found = [one for one in self._all if issubclass(cls, one.subscription.event)]
        if not any(one.coalesces for one in found):
            self._plain[cls] = found
        return found

    def _put(self, event: Event, key: object, subscribers: Sequence[_Subscriber]) -> None:
        """With a full queue, or one that coalesces."""
        if event._when_full == "refuse":
            full = [one for one in subscribers if len(one.queue) >= one.limit]
            for one in full:
                one.counts.refused += 1
            if full:
                raise Overloaded(f"{full[0].queue_max} events wait for {full[0].name} already")
        for subscriber in subscribers:
            subscriber.put(event, key)

    async def drain(self) -> None:
        """Until nothing waits any more, retries included."""
        while waiting := [one for one in self._all if one.open]:
            await asyncio.wait([asyncio.ensure_future(one.empty.wait()) for one in waiting])

    def stop(self) -> int:
        """Ends it; how many were not handled."""
        left = sum(one.stop() for one in self._all)
        self._all, self._plain = [], {}
        return left

    def stats(self) -> dict[str, dict[str, int]]:
        """Of each subscriber."""
        return {one.name: one.stats() for one in self._all}

    def _replay(self, letter: DeadLetter) -> None:
        for one in self._all:
            if one.name == letter.subscriber:
                one.put(letter.event, letter.key)
                return
        raise not_heard(letter)


class _Subscriber:
    """One of them: a queue, and who works it off."""

    def __init__(self, app: App, events: Events, subscription: Subscription, name: str) -> None:
        handler = subscription.handler
        self.subscription = subscription
        self.name = name
        self.queue: deque[_Waiting] = deque()
        self.queue_max = self.limit = subscription.event._queue_max
        self.coalesces = subscription.event._when_full == "coalesce"
        self.counts = _Counts()
        self.empty = asyncio.Event()
        self.is_awake = False
        """Somebody will look at the queue soon."""
        self._app, self._events, self._call = app, events, handler.call
        self._where, self._batch = handler.where, subscription.batch
        # A batch is of many keys, so there is one at a time.
        self._workers_max = 0 if not handler.is_async else 1 if self._batch else subscription.concurrency
        self._by_key: dict[object, list[Any]] = {}  # what waits, if it may be replaced
        # Of keys whose event is under way or waits to be tried again: what came behind it.
        self._behind: dict[object, deque[_Waiting]] = {}
        self._retrying: dict[int, asyncio.TimerHandle] = {}
        self._retries = itertools.count()
        self._workers: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """All that is not done."""
        parked = self.queue_max - self.limit
        return len(self.queue) + parked + len(self._retrying) + len(self._workers)

    def put(self, event: Any, key: object) -> None:
        """One more, by the policy of its class."""
        waiting: _Waiting = (event, key)
        if self.coalesces and key is not None:
            waits = self._by_key.get(key)
            if waits is not None:
                waits[0] = event
                self.counts.coalesced += 1
                return
            waiting = self._by_key[key] = [event, key]
        if len(self.queue) >= self.limit:
            self._drop_oldest()
        self.queue.append(waiting)
        if not self.is_awake:
            self.wake()

    def stats(self) -> dict[str, int]:
        """Counts."""
        return {"waiting": self.open, **asdict(self.counts)}

    def stop(self) -> int:
        """Nothing more is begun; how many were not handled."""
        left = self.open
        for timer in self._retrying.values():
            timer.cancel()
        for worker in list(self._workers):
            worker.cancel()
        self.queue.clear()
        self._retrying.clear()
        self._behind.clear()
        return left

    def _drop_oldest(self) -> None:
        if self.queue:
            oldest = self.queue.popleft()
        else:
            oldest = next(held for held in self._behind.values() if held).popleft()
            self.limit += 1
        if self._by_key.get(oldest[1]) is oldest:
            del self._by_key[oldest[1]]
        self.counts.dropped += 1

    # -- working it off ------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Somebody has to come for what waits, unless all are busy: then they will."""
        loop = self._app._loop
        if loop is None:
            return
        self.empty.clear()
        self.is_awake = True
        loop.call_soon(self._help if self._workers_max else self._work)

    def _work(self) -> None:
        """Sync: as many as fit into a slice of time."""
        self.is_awake = False
        end = time.perf_counter() + SLICE
        while self.queue:
            if self._batch:
                if taken := self._take_batch():
                    self._handle_batch(taken)
            elif self._behind or self.coalesces:
                if (waiting := self._take()) is not None:
                    self._handle(waiting)
            else:
                self._handle_some()
            if time.perf_counter() >= end:
                break
        if self.queue:
            if not self.is_awake:
                self.wake()
        elif not self.open:
            self.empty.set()

    def _handle_some(self) -> None:
        """A few. Nothing else works here and nothing waits to be tried again, so no key has to be marked as taken."""
        call, take, done = self._call, self.queue.popleft, 0
        waiting: _Waiting = (None, None)
        try:
            for _ in range(min(BETWEEN_LOOKS, len(self.queue))):
                waiting = take()
                call(waiting[0])
                done += 1
        except Exception as error:
            if waiting[1] is not None:
                self._behind[waiting[1]] = _NOTHING
            self._failed(waiting, error)
        finally:
            self.counts.done += done

    def _handle(self, waiting: _Waiting) -> None:
        try:
            self._call(waiting[0])
        except Exception as error:
            self._failed(waiting, error)
        else:
            self.counts.done += 1
            self._release(waiting[1])

    def _help(self) -> None:
        """Async: it runs once the workers that there are wait for something. For what they have left there is one more."""
        loop = self._app._loop
        if self.queue and loop is not None and len(self._workers) < self._workers_max:
            self._workers.add(loop.create_task(self._work_async()))
            loop.call_soon(self._help)
        else:
            self.is_awake = False
            if not self.open:
                self.empty.set()

    async def _work_async(self) -> None:
        """One of at most so many workers."""
        end, done, looks, call = time.perf_counter() + SLICE, 0, 0, self._call
        queue, behind, is_plain = self.queue, self._behind, not (self._batch or self.coalesces)
        try:
            while queue:
                if not is_plain:
                    taken = self._take_batch() if self._batch else self._take()
                    if not taken:
                        return
                    if self._batch:
                        await self._handle_batch_async(taken)
                    else:
                        await self._handle_async(taken)
                else:
                    waiting = queue.popleft()
                    key = waiting[1]
                    if key is not None:
                        if key in behind:
                            self._park(waiting)
                            continue
                        behind[key] = _NOTHING
                    try:
                        await call(waiting[0])
                    except Exception as error:
                        self._failed(waiting, error)
                    else:
                        done += 1
                        if key is not None and (held := behind.pop(key)):
                            self._unpark(held)
                looks += 1
                if looks == BETWEEN_LOOKS:
                    self.counts.done += done
                    done = looks = 0
                    if time.perf_counter() >= end:
                        await asyncio.sleep(0)
                        end = time.perf_counter() + SLICE
        finally:
            self.counts.done += done
            worker = asyncio.current_task()
            assert worker is not None
            self._workers.discard(worker)  # at once: what comes now needs another one
            if not self.open:
                self.empty.set()

    def _take(self) -> _Waiting | None:
        """The next whose key is free; that is marked as taken."""
        queue, behind = self.queue, self._behind
        while queue:
            waiting = queue.popleft()
            key = waiting[1]
            if key is None:
                return waiting
            if self.coalesces:
                self._by_key.pop(key, None)
            if key not in behind:
                behind[key] = _NOTHING
                return waiting
            self._park(waiting)
        return None

    def _take_batch(self) -> list[_Waiting]:
        """As many as may be handled together; those of one key in their order."""
        found: list[_Waiting] = []
        queue, behind = self.queue, self._behind
        while queue and len(found) < self._batch:
            waiting = queue.popleft()
            if self.coalesces:
                self._by_key.pop(waiting[1], None)
            if waiting[1] is not None and waiting[1] in behind:
                self._park(waiting)
            else:
                found.append(waiting)
        return found

    def _park(self, waiting: _Waiting) -> None:
        """It waits for another one of its key."""
        held = self._behind[waiting[1]]
        if held is _NOTHING:
            held = self._behind[waiting[1]] = deque()
        held.append(waiting)
        self.limit -= 1

    def _unpark(self, held: deque[_Waiting]) -> None:
        """They come before all others."""
        self.limit += len(held)
        self.queue.extendleft(reversed(held))

    def _release(self, key: object) -> None:
        """An event of this key is over."""
        if key is not None and (held := self._behind.pop(key)):
            self._unpark(held)

    async def _handle_async(self, waiting: _Waiting) -> None:
        try:
            await self._call(waiting[0])
        except Exception as error:
            self._failed(waiting, error)
        else:
            self.counts.done += 1
            self._release(waiting[1])

    def _handle_batch(self, taken: Sequence[_Waiting]) -> None:
        try:
            self._call([waiting[0] for waiting in taken])
        except Exception as error:
            self._batch_failed(taken, error)
        else:
            self.counts.done += len(taken)

    async def _handle_batch_async(self, taken: Sequence[_Waiting]) -> None:
        try:
            await self._call([waiting[0] for waiting in taken])
        except Exception as error:
            self._batch_failed(taken, error)
        else:
            self.counts.done += len(taken)

    def _batch_failed(self, taken: Sequence[_Waiting], error: Exception) -> None:
        """Each is tried again; those of one key in their order."""
        for waiting in taken:
            key = waiting[1]
            if key is not None and key in self._behind:
                self._park(waiting)
                continue
            if key is not None:
                self._behind[key] = _NOTHING
            self._failed(waiting, error)

    def _failed(self, waiting: _Waiting, error: Exception) -> None:
        """It is tried again after a while, or is dead; others of its key wait for that."""
        self.counts.failed += 1
        self._app._failed(self._where, error)
        event, key, *before = waiting
        attempts = before[0] if before else 0
        if attempts >= self.subscription.retries:
            self.counts.dead += 1
            self._events.dead_letters._add(self.name, event, key, error)
            self._release(key)
            return
        delay = min(DELAY_MAX, DELAY_MIN * 2**attempts) * random.random()
        loop = self._app._loop
        assert loop is not None
        number = next(self._retries)
        self._retrying[number] = loop.call_later(delay, self._again, number, (event, key, attempts + 1))

    def _again(self, number: int, waiting: _Waiting) -> None:
        """Before those that came behind it."""
        del self._retrying[number]
        self._release(waiting[1])
        self.queue.appendleft(waiting)
        if not self.is_awake:
            self.wake()


_NOTHING: deque[_Waiting] = deque()
"""Of a key that is taken, and nothing has come behind."""
