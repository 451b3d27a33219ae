"""Events that belong to all processes: handled once by each subscriber, in one of them, and in order for each key.

They come from Redis Streams, or from the outbox of a database where there is no Redis. Here is what both have in common: key order,
retries, dead letters, and effects that come once.
"""

from __future__ import annotations

import asyncio
import functools
import random
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from gameserver._dead_letters import storable
from gameserver._events import DELAY_MAX, DELAY_MIN, Event, Subscription
from gameserver._tasks import ended
from gameserver.errors import ConfigError, GameServerError

if TYPE_CHECKING:
    from gameserver._app import App

__all__ = ["AlreadyHandled", "Delivery", "Envelope", "Known", "Worker", "handling"]

IN_FLIGHT_MAX = 1000  # events that one subscriber has taken and not handled: then it takes no more
RECENT_MAX = 20_000  # ids that a subscriber remembers, so that what comes twice soon is handled once
KEY_CHARACTERS_MAX = 1000

handling: ContextVar[tuple[str, str] | None] = ContextVar("handling", default=None)
"""The subscriber that runs, and the id of the event that it handles: a unit of work commits both, or neither."""


class AlreadyHandled(GameServerError):
    """The effects of this event have been committed before, so this time they were not."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event on its way."""

    id: str
    name: str
    key: str | None
    body: bytes


class Delivery:
    """An event that a subscriber has to handle.

    Args:
        done: is told when it is over, and whether it was handled, rather than died.
    """

    __slots__ = ("attempts", "done", "envelope", "event", "id", "key")

    def __init__(self, envelope: Envelope, event: Any, done: Callable[[bool], None]) -> None:
        self.envelope, self.event, self.done = envelope, event, done
        self.id, self.key = envelope.id, envelope.key
        self.attempts = 0


class Known:
    """The classes of shared events that an app knows, by name."""

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        self.classes: dict[str, type[Event]] = {}
        self._decoders: dict[str, Callable[[bytes], Any]] = {}
        for subscription in subscriptions:
            for cls in _with_subclasses(subscription.event):
                if cls._shared:
                    self._add(cls)

    def envelope(self, event: Event, key: object) -> Envelope:
        """As others can read it.

        Raises:
            ConfigError: its class is not shared, or it holds what no other process could read.
            ValueError: the key is none that can be written down.
        """
        cls = type(event)
        if not getattr(cls, "_shared", False):
            raise ConfigError(f"{cls.__qualname__} is not shared: write @shared above it, or use app.emit")
        self._add(cls)
        try:
            body = msgspec.json.encode(event)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{cls.__qualname__} can't be shared: {error}; its fields have to be plain values"
            ) from error
        return Envelope(secrets.token_hex(16), cls.__qualname__, _spelled(key), body)

    def event(self, name: str, body: bytes) -> Event:
        """What an envelope holds.

        Raises:
            ValueError: this game knows no such event, or it has other fields.
        """
        decode = self._decoders.get(name)
        if decode is None:
            raise ValueError(f"no event named {name} is known here")
        try:
            found: Event = decode(body)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{name}: {error}") from error
        return found

    def readable(self, name: str, body: bytes) -> Event | None:
        """The same; None where this game can't."""
        try:
            return self.event(name, body)
        except ValueError:
            return None

    def names_of(self, subscription: Subscription) -> list[str]:
        """What a subscriber hears of."""
        return [name for name, cls in self.classes.items() if issubclass(cls, subscription.event)]

    def _add(self, cls: type[Event]) -> None:
        name = cls.__qualname__
        known = self.classes.get(name)
        if known is cls:
            return
        if known is not None:
            raise ConfigError(
                f"two shared events are named {name}: in {known.__module__} and {cls.__module__}; rename one"
            )
        self.classes[name] = cls
        self._decoders[name] = msgspec.json.Decoder(cls).decode


@dataclass(slots=True)
class _Counts:
    done: int = 0
    failed: int = 0
    dead: int = 0
    repeated: int = 0
    """Came again, and were left out."""


class Worker:
    """One subscriber in this process.

    Args:
        dead: gets what could not be handled, however often it was tried; and says when that is kept.
        has_database: it may use units of work, which have to know the event.
    """

    def __init__(
        self,
        app: App,
        subscription: Subscription,
        name: str,
        dead: Callable[[str, Delivery, Exception, Callable[[], None]], None],
        has_database: bool,
    ) -> None:
        handler = subscription.handler
        self.name = name
        self.in_flight = 0
        self._app, self._call, self._where = app, handler.call, handler.where
        self._is_async, self._batch, self._retries = handler.is_async, subscription.batch, subscription.retries
        self._dead = dead
        self._counts = _Counts()
        self._slots = asyncio.Semaphore(1 if subscription.batch else subscription.concurrency)
        self._chains: dict[str, deque[Delivery]] = {}
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._has_context = has_database

    def stats(self) -> dict[str, int]:
        """As of subscribers to events of this process."""
        return {"waiting": self.in_flight, **asdict(self._counts)}

    def bury(self, delivery: Delivery, error: Exception) -> None:
        """It can't even be read."""
        self.in_flight += 1
        self._die(delivery, error)

    @property
    def has_room(self) -> bool:
        """Whether more may be put."""
        return self._room.is_set()

    async def room(self) -> None:
        """Returns when more may be put."""
        await self._room.wait()

    async def stop(self) -> None:
        """What is under way is given up: it was not handled, and comes again."""
        await ended(self._tasks)
        self._chains.clear()

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """In their order. Those that need not wait are handled at once."""
        self.in_flight += len(deliveries)
        if self.in_flight >= IN_FLIGHT_MAX:
            self._room.clear()
        if self._batch:
            for start in range(0, len(deliveries), self._batch):
                self._begin(self._handle_batch(deliveries[start : start + self._batch]))
            return
        chains = self._chains
        for delivery in deliveries:
            key = delivery.key if delivery.key is not None else f"\0{delivery.id}"
            chain = chains.get(key)
            if chain is not None:
                chain.append(delivery)
                continue
            if not self._is_async and self._handle_now(delivery):
                continue
            chains[key] = deque([delivery])
            self._begin(self._work_off(key))

    # -- one by one ------------------------------------------------------------------------------------------------------

    def _handle_now(self, delivery: Delivery) -> bool:
        """By a `def`; False: it has failed, and has to be tried again."""
        if self._is_repeated(delivery):
            return True
        try:
            if self._has_context:
                self._in_context(delivery)
            else:
                self._call(delivery.event)
        except Exception as error:
            return self._failed(delivery, error)
        self._handled(delivery)
        return True

    def _in_context(self, delivery: Delivery) -> Any:
        token = handling.set((self.name, delivery.id))
        try:
            return self._call(delivery.event)
        finally:
            handling.reset(token)

    async def _work_off(self, key: str) -> None:
        chain = self._chains[key]
        while chain:
            delivery = chain[0]
            async with self._slots:
                is_over = await self._handle(delivery)
            if not is_over:
                await asyncio.sleep(_delay(delivery.attempts))
                continue
            chain.popleft()
        del self._chains[key]

    async def _handle(self, delivery: Delivery) -> bool:
        if not self._is_async:
            return self._handle_now(delivery)
        if self._is_repeated(delivery):
            return True
        try:
            if self._has_context:
                token = handling.set((self.name, delivery.id))
                try:
                    await self._call(delivery.event)
                finally:
                    handling.reset(token)
            else:
                await self._call(delivery.event)
        except Exception as error:
            return self._failed(delivery, error)
        self._handled(delivery)
        return True

    async def _handle_batch(self, deliveries: Sequence[Delivery]) -> None:
        async with self._slots:
            waiting = [delivery for delivery in deliveries if not self._is_repeated(delivery)]
            while waiting:
                try:
                    result = self._call([delivery.event for delivery in waiting])
                    if self._is_async:
                        await result
                except Exception as error:
                    over = [self._failed(delivery, error) for delivery in waiting]
                    waiting = [delivery for delivery, is_over in zip(waiting, over, strict=True) if not is_over]
                    if waiting:
                        await asyncio.sleep(_delay(waiting[0].attempts))
                    continue
                for delivery in waiting:
                    self._handled(delivery)
                return

    # -- what becomes of them ------------------------------------------------------------------------------------------

    def _is_repeated(self, delivery: Delivery) -> bool:
        if delivery.id not in self._recent:
            return False
        self._counts.repeated += 1
        self._over(delivery)
        return True

    def _handled(self, delivery: Delivery) -> None:
        self._counts.done += 1
        self._remember(delivery)

    def _remember(self, delivery: Delivery) -> None:
        self._recent[delivery.id] = None
        if len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)
        self._over(delivery)

    def _failed(self, delivery: Delivery, error: Exception) -> bool:
        """Whether it is over all the same."""
        error = _inner(error)
        if isinstance(error, AlreadyHandled):
            self._counts.repeated += 1
            self._remember(delivery)
            return True
        self._counts.failed += 1
        self._app._failed(self._where, error)
        if delivery.attempts >= self._retries:
            self._die(delivery, error)
            return True
        delivery.attempts += 1
        return False

    def _die(self, delivery: Delivery, error: Exception) -> None:
        self._counts.dead += 1
        self._dead(self.name, delivery, error, functools.partial(self._over, delivery, False))

    def _over(self, delivery: Delivery, is_handled: bool = True) -> None:
        self.in_flight -= 1
        if self.in_flight < IN_FLIGHT_MAX:
            self._room.set()
        delivery.done(is_handled)

    def _begin(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _delay(attempts: int) -> float:
    return float(min(DELAY_MAX, DELAY_MIN * 2 ** (attempts - 1)) * random.random())


def _inner(error: Exception) -> Exception:
    """What the end of a service has raised, which dishka wraps."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _spelled(key: object) -> str | None:
    if key is None:
        return None
    if isinstance(key, bytes):
        text = storable(key.decode("utf-8", "backslashreplace"))
    elif isinstance(key, str | int):
        text = storable(str(key))
    else:
        raise ValueError(f"a shared event's key is a str, an int or bytes, not {key!r}")
    if len(text) > KEY_CHARACTERS_MAX:
        raise ValueError(f"a shared event's key has {KEY_CHARACTERS_MAX} characters at most, not {len(text)}")
    return text


def _with_subclasses(cls: type[Event]) -> list[type[Event]]:
    return [cls, *(below for sub in cls.__subclasses__() for below in _with_subclasses(sub))]
