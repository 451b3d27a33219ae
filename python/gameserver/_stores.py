"""What an app has of stores: opened before its services, closed after them. The public methods are inherited by `App`."""

from __future__ import annotations

import contextlib
import inspect
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from gameserver._core import EntityBase
from gameserver._dead_letters import DeadLetter, LetterBox, Undertaker, not_heard, spelled
from gameserver._entity import Entity, table_of
from gameserver._events import Event, Subscription, names_of
from gameserver._leases import LocalLeases
from gameserver._shared import Delivery, Envelope, Known, Worker, handling
from gameserver._signature import Handler, here
from gameserver.caching import Cached
from gameserver.errors import ConfigError, GameServerError, Overloaded, Unavailable
from gameserver.locks import TTL_MIN, Lock, Locks

if TYPE_CHECKING:
    from dishka import Provider
    from sqlalchemy import MetaData

    from gameserver._app import App
    from gameserver._core import Session
    from gameserver._redis.cache import RedisTier, Tracking
    from gameserver._redis.connection import Connection
    from gameserver._redis.leases import RedisLeases
    from gameserver._redis.sessions import SessionStore
    from gameserver._redis.streams import Publisher, Reader
    from gameserver._settings import Settings
    from gameserver._sql.database import Database
    from gameserver._sql.outbox import Relay
    from gameserver._sql.saved import Saver
    from gameserver._world import World
    from gameserver.storage import UnitOfWork

C = TypeVar("C", bound=type[Entity])
E = TypeVar("E", bound=Entity)
T = TypeVar("T")
P = ParamSpec("P")

EMITTED_MAX = 100_000  # shared events that may wait for Redis
NEEDS = "storage is SQLAlchemy's and alembic's, which are not installed: pip install 'gameserver[stores]'"


class Stores:
    """The stores of one app; those of a run are None between runs."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.metadata: MetaData | None = None
        self.migrations: str | os.PathLike[str] = "migrations"
        self.persistent: list[type[Entity]] = []
        self.redis: Connection | None = None
        self.database: Database | None = None
        self.saver: Saver | None = None
        self.locks: Locks | None = None
        self.caches: list[Cached[Any, Any]] = []
        self._tracking: Tracking | None = None
        self.sessions: SessionStore | None = None
        self.known: Known | None = None
        self.workers: dict[Worker, list[str]] = {}
        self.publisher: Publisher | None = None
        self.relay: Relay | None = None
        self._letters: LetterBox | None = None
        self._undertaker: Undertaker | None = None
        self._readers: list[Reader] = []
        self._leases: RedisLeases | None = None
        self._replicas, self._timeout = 0, 0.0

    async def start(self, settings: Settings, home: Path) -> None:
        """Opens what the settings and the game name.

        Raises:
            ConfigError: a store is not there, or does not let us in; says what to do.
        """
        leases: Any = LocalLeases()
        self._replicas, self._timeout = settings.redis_replicas, settings.store_timeout
        if settings.redis_url is not None:
            from gameserver._redis.connection import Connection
            from gameserver._redis.leases import RedisLeases

            self.redis = Connection(settings.redis_url, settings.store_timeout)
            await self.redis.open()
            leases = self._leases = RedisLeases(self.redis)
            if settings.resume_grace > 0:
                from gameserver._redis.sessions import SessionStore

                self.sessions = SessionStore(self._app, self.redis, settings.resume_grace, settings.save_interval)
        self.locks = Locks(leases)
        # A replay has none: what they said is outside of the recording.
        if self.metadata is not None and settings.database_url:
            from gameserver._sql.saved import Saver

            self.database = self.database_of(settings, home)
            await self.database.open()
            self.saver = Saver(self.database, self._app.world, self.persistent, settings.save_interval)
            if self.persistent:
                self._app.world._leaving = self.saver.leaving
                self.saver.start()
        elif self.persistent:
            raise ConfigError(
                f"@app.persistent of {self.persistent[0].__name__}: where is it kept? call app.storage() before app.run()"
            )

    async def begin_events(self, subscriptions: Sequence[Subscription]) -> None:
        """Subscribers to shared events, with their services; what caches need."""
        self.known = known = Known(subscriptions)
        named = zip(subscriptions, names_of(subscriptions), strict=True)
        hearing = [(subscription, name, known.names_of(subscription)) for subscription, name in named]
        if self.redis is not None or self.database is not None:
            for subscription, name, heard in hearing:
                if heard:
                    worker = Worker(self._app, subscription, name, self._bury, self.database is not None)
                    self.workers[worker] = heard
        self._begin_letters()
        publish = None
        if self.redis is not None:
            from gameserver._redis.streams import Publisher, Reader, Streams

            streams = Streams(self.redis, self._replicas, self._timeout)
            publish = streams.publish
            self.publisher = Publisher(streams, EMITTED_MAX)
            self.publisher.start()
            self._readers = [
                Reader(self.redis, known, worker, name) for worker, heard in self.workers.items() for name in heard
            ]
            for reader in self._readers:
                reader.start()
        await self._start_caches()
        if self.sessions is not None:
            self.sessions.start()
        if self.database is not None:
            from gameserver._sql.outbox import Relay

            self.relay = Relay(self.database, known, publish, self.workers)
            self.relay.start()

    def _begin_letters(self) -> None:
        """Where dead ones are kept."""
        if self.redis is not None:
            from gameserver._redis.letters import RedisLetters

            self._letters = RedisLetters(self.redis)
        elif self.database is not None:
            from gameserver._sql.letters import SqlLetters

            self._letters = SqlLetters(self.database)
        if self._letters is not None:
            self._undertaker = Undertaker(self._letters)
            self._undertaker.start()

    async def _start_caches(self) -> None:
        if not self.caches:
            return
        tier: RedisTier | None = None
        if self.redis is not None:
            from gameserver._redis.cache import RedisTier, Tracking

            assert self.locks is not None
            tier = RedisTier(self.redis, self.locks, self._timeout)
            self._tracking = Tracking(self.redis, self._cache_changed, self._caches_trusted)
        for cache in self.caches:
            await cache.start(tier)
        if self._tracking is not None:
            await self._tracking.start()

    def _cache_changed(self, place: str) -> None:
        for cache in self.caches:
            cache.invalidated(place)

    def _caches_trusted(self, trusts: bool) -> None:
        for cache in self.caches:
            cache.trust_local(trusts)

    async def stop(self) -> None:
        """Saves what is not saved, and closes all."""
        self._app.world._leaving = None
        saver, database, redis, leases = self.saver, self.database, self.redis, self._leases
        readers, workers, relay, publisher = self._readers, self.workers, self.relay, self.publisher
        self._readers, self.workers, self.relay, self.publisher, self.known = [], {}, None, None, None
        self.saver = self.database = self.redis = self.locks = self._leases = None
        undertaker, self._undertaker, self._letters = self._undertaker, None, None
        sessions, self.sessions = self.sessions, None
        if sessions is not None:
            await sessions.stop()
        tracking, self._tracking = self._tracking, None
        for cache in self.caches:
            cache.stop()
        if tracking is not None:
            await tracking.stop()
        for reader in readers:
            await reader.stop()
        for worker in workers:
            await worker.stop()
        if undertaker is not None:
            await undertaker.stop()
        if relay is not None:
            await relay.stop()
        if publisher is not None:
            await publisher.stop(self._timeout)
        try:
            if saver is not None:
                await saver.stop()
        finally:
            if database is not None:
                await database.close()
            if leases is not None:
                await leases.close()
            if redis is not None:
                await redis.close()

    def database_of(self, settings: Settings, home: Path) -> Database:
        """Not opened."""
        from gameserver._sql.database import Database

        if self.metadata is None:
            raise ConfigError(f"app {self._app.name!r} has no storage: call app.storage(Base.metadata)")
        folder = home / self.migrations
        return Database(settings.database_url, home, self.metadata, folder, settings.store_timeout)

    def leave(self, session: Session) -> None:
        """The session is no more: what it owns will be despawned, and is saved before."""
        if self.sessions is not None:
            self.sessions.left(session)
        saver, world = self.saver, self._app.world
        if saver is None or not saver.is_watching:
            return
        for entity in world._core.owned_all(session):
            if isinstance(entity, Entity) and not entity.keep:
                saver.leaving(entity)

    def of_sessions(self, handlers: list[Handler]) -> list[Handler]:
        """The game's handlers, with what sessions in Redis need before and around them."""
        return self.sessions.handlers(handlers) if self.sessions is not None else handlers

    async def save_sessions(self) -> None:
        """As they are now, for other processes: this one stops."""
        if self.sessions is not None:
            with contextlib.suppress(Unavailable, Overloaded):
                await self.sessions.save_all()

    def providers(self) -> list[Provider]:
        """What handlers may name."""
        if self.metadata is None:
            return []
        from dishka import Provider

        from gameserver.services import Scope
        from gameserver.storage import UnitOfWork

        provider = Provider(scope=Scope.MESSAGE)

        async def unit_of_work() -> AsyncGenerator[UnitOfWork, Any]:
            work = await self.begin()
            try:
                error = yield work
                if error is None and handling.get() is not None and not work.has_committed:
                    await work.commit()  # an event's effects, with the note that it was handled
            finally:
                await work.close()

        unit_of_work.__annotations__["return"] = AsyncGenerator[UnitOfWork, Any]
        provider.provide(unit_of_work)
        return [provider]

    async def begin(self) -> UnitOfWork:
        """A new one, in a transaction."""
        from gameserver.storage import UnitOfWork

        database, saver = self.running("app.transaction", self.database), self.running("app.transaction", self.saver)
        sql = await database.session()
        work = UnitOfWork(database, sql, self._encode, self._emitted, saver.writer)
        try:
            await work.check_not_handled()
        except BaseException:
            await work.close()
            raise
        return work

    async def dead_letters(self) -> Sequence[DeadLetter]:
        """Those of the subscribers here."""
        if self._letters is None or self.known is None:
            return []
        found = await self._letters.list([worker.name for worker in self.workers])
        return [replace(letter, event=self.known.readable(letter.name, letter.body or b"")) for letter in found]

    def replay(self, letter: DeadLetter) -> None:
        """Gives a dead letter of a shared event to its subscriber again."""
        known = self.running("dead_letters.replay", self.known)
        undertaker = self._undertaker
        worker = next((worker for worker in self.workers if worker.name == letter.subscriber), None)
        if worker is None or undertaker is None:
            raise not_heard(letter)
        envelope = Envelope(letter.id, letter.name, None if letter.key is None else str(letter.key), letter.body or b"")
        try:
            event = known.event(letter.name, envelope.body)
        except ValueError as error:
            raise GameServerError(f"{letter.subscriber} can't read it: {error}") from error

        def done(is_handled: bool) -> None:
            if is_handled:
                undertaker.forget(letter)

        worker.put([Delivery(envelope, event, done)])

    async def forget(self, letter: DeadLetter) -> bool:
        """Removes a dead letter of a shared event."""
        return await self.running("dead_letters.remove", self._letters).remove(letter)

    def _encode(self, event: Event, key: object) -> Envelope:
        return self.running("work.emit", self.known).envelope(event, key)

    def _emitted(self) -> None:
        """A transaction with events has committed."""
        if self.relay is not None:
            self.relay.wake()

    def _bury(self, subscriber: str, delivery: Delivery, error: Exception, kept: Callable[[], None]) -> None:
        assert self._undertaker is not None
        one = delivery.envelope
        letter = DeadLetter(
            one.id, subscriber, one.name, delivery.event, one.key, spelled(error), time.time(), one.body
        )
        self._undertaker.keep(letter, kept)

    def stats(self) -> dict[str, Any]:
        """Of each store that runs."""
        found: dict[str, Any] = {}
        if self.redis is not None:
            found["redis"] = self.redis.guard.stats()
        if self.database is not None:
            found["database"] = self.database.guard.stats()
        if self.saver is not None:
            found["saved"] = self.saver.stats()
        if self.locks is not None:
            found["locks"] = self.locks.stats()
        if self.publisher is not None:
            found["publisher"] = self.publisher.stats()
        if self.relay is not None:
            found["outbox"] = self.relay.stats()
        if self.sessions is not None:
            found["sessions"] = self.sessions.stats()
        if self.caches:
            found["caches"] = {cache.name: cache.stats() for cache in self.caches}
        if self.workers:
            found["subscribers"] = {worker.name: worker.stats() for worker in self.workers}
        return found

    def running(self, where: str, store: T | None) -> T:
        """Checked."""
        if store is None:
            why = (
                "the server does not run"
                if self.locks is None
                else "the app has no storage: call app.storage(Base.metadata)"
            )
            raise GameServerError(f"{where}: {why}")
        return store


class HasStores:
    """The methods of `App` that speak of stores; see docs/stores.md."""

    _stores: Stores
    world: World

    def storage(self, metadata: MetaData | None = None, *, migrations: str | os.PathLike[str] = "migrations") -> None:
        """Opens `database_url` with the server: for units of work (`gameserver.storage`) and persistent entities.

        Args:
            metadata: the game's tables, ``Base.metadata``; None: it has none of its own.
            migrations: the folder of the game's migrations, relative to the game; without one, missing tables are made.

        Raises:
            ConfigError: SQLAlchemy is not installed. When the server starts: the database is not there, does not let us in, or
                lacks a migration.

        >>> from gameserver import App
        >>> app = App("doc")
        >>> app.storage()
        """
        try:
            import alembic  # noqa: F401
            from sqlalchemy import MetaData
        except ImportError as error:
            raise ConfigError(f"{here(1)}app.storage(...): {NEEDS}") from error
        if metadata is not None and not isinstance(metadata, MetaData):
            raise ConfigError(f"{here(1)}app.storage({metadata!r}): give the metadata of your tables: Base.metadata")
        self._stores.metadata = metadata if metadata is not None else MetaData()
        self._stores.migrations = migrations

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[UnitOfWork]:
        """A unit of work beside the handlers: commits when the block ends, rolls back if it raises.

        Raises:
            Conflict: somebody else has changed the same meanwhile.
            Unavailable: the database is down.
            GameServerError: the server does not run, or has no storage.

        >>> async def pay(app: App) -> None:
        ...     async with app.transaction() as work:
        ...         ...  # work.sql.add(Payment(...))
        """
        work = await self._stores.begin()
        try:
            async with work.committed():
                yield work
        finally:
            await work.close()

    def persistent(self, cls: C) -> C:
        """Marks an entity class: those that `load` gives are saved every `save_interval`, when they leave, and when the server
        stops.

        At most one interval of their changes is lost if the process dies; of what `save` has returned from, nothing. All columns
        are kept but references to other entities. The class's name names it in the database.

        Raises:
            ConfigError: it is no entity class, or its name is taken.

        >>> from gameserver import App, Entity, Session
        >>> app = App("doc")
        >>> app.storage()
        >>> @app.persistent
        ... class Hero(Entity):
        ...     is_brave: bool = False
        >>> @app.on_join
        ... async def join(session: Session) -> None:
        ...     await app.load(Hero, session.uid or "guest", owner=session)
        """
        if not (isinstance(cls, type) and issubclass(cls, Entity)) or cls is Entity:
            raise ConfigError(f"{here(1)}@app.persistent of {cls!r}: give a subclass of Entity")
        name = table_of(cls).name
        if any(table_of(other).name == name for other in self._stores.persistent):
            raise ConfigError(f"{here(1)}@app.persistent: there is a persistent class named {name} already")
        self._stores.persistent.append(cls)
        self.world.declare(cls)
        world = self.world

        def despawn(entity: Entity) -> None:
            """Takes it out of the world at the end of the tick, and saves what it is now."""
            if world._leaving is not None and entity in world:
                world._leaving(entity)
            EntityBase.despawn(entity)

        setattr(cls, "despawn", despawn)  # noqa: B010, of each class its own
        return cls

    async def load(self, cls: type[E], key: str, **columns: Any) -> E:
        """The entity that is kept under a key: spawned as it was saved last, or as a new one. If it lives already, that one.

        From then on it belongs to this process: what another one still has of it can't be saved any more.

        Args:
            cls: a class that is marked by `persistent`.
            key: a text of at most 200 characters: whose it is.
            columns: of a new one, as of `World.spawn`; `owner` and `keep` of any.

        Raises:
            Unavailable: the database is down.
            SchemaError: it was saved with columns of other types.
            ValueError: no such key can be.
        """
        return await self._stores.running("app.load", self._stores.saver).load(cls, key, columns)

    async def save(self, *entities: Entity) -> None:
        """Saves entities now, all or none: when it returns, they have been committed.

        Raises:
            Conflict: another process has loaded one since.
            Unavailable: the database is down.
            GameServerError: one did not come from `load`.
        """
        await self._stores.running("app.save", self._stores.saver).save(entities)

    async def delete(self, cls: type[Entity], key: str) -> bool:
        """Forgets what is kept under a key; an entity that lives goes on, and is kept no more. Whether there was one.

        Raises:
            Unavailable: the database is down.
        """
        return await self._stores.running("app.delete", self._stores.saver).delete(cls, key)

    def lock(self, name: str, *, ttl: float = 10.0, wait: float | None = None, reentrant: bool = False) -> Lock:
        """A lock: whoever is in its block is alone, in this process or, with `redis_url`, in all of them. See `gameserver.locks`.

        Args:
            name: what is locked: any text.
            ttl: seconds after which it ends if its holder is gone. It is renewed at a third of them; if that has not succeeded
                after two thirds, what runs in the block is cancelled.
            wait: seconds to wait for it; None: as long as it takes.
            reentrant: a task that has it already goes on; else that is an error.

        Raises:
            ValueError: `ttl` is too short, or `wait` negative.
            Overloaded: from the block's begin: somebody else has had it for `wait` seconds.
            Unavailable: from there, too: Redis is down.
            LockLost: from the block's end: it was not renewed in time, and what ran was cancelled.

        >>> async def trade(app: App, one: str) -> None:
        ...     async with app.lock(f"trade:{one}", ttl=10) as lock:
        ...         await lock.write("state", b"done")
        """
        if not isinstance(name, str):
            raise ValueError(f"app.lock({name!r}): a name is a text")
        if not ttl >= TTL_MIN:
            raise ValueError(f"app.lock({name!r}, ttl={ttl!r}): seconds, {TTL_MIN} or more")
        if wait is not None and not wait >= 0:
            raise ValueError(f"app.lock({name!r}, wait={wait!r}): seconds, 0 or more, or None")
        return Lock(self._stores.running("app.lock", self._stores.locks), name, ttl, wait, reentrant)

    def cached(
        self,
        *,
        ttl: float,
        key: Callable[..., Any] | None = None,
        negative_ttl: float | None = None,
        known: Callable[[], Awaitable[Iterable[Any]]] | None = None,
        jitter: float = 0.1,
        maximum: int = 10_000,
        stale_for: float = 60.0,
    ) -> Callable[[Callable[P, Awaitable[T]]], Cached[P, T]]:
        """Keeps what an ``async def`` gives for a while: in this process and, with `redis_url`, for all of them. See
        `gameserver.caching`.

        Args:
            ttl: seconds; each value's own is up to `jitter` longer or shorter.
            key: of the arguments, what is kept is told apart by; None: the arguments themselves, plain values.
            negative_ttl: of None, which says that there is nothing; None: a tenth of `ttl`.
            known: gives all keys that exist, when the server starts: others are answered with None at once, but for one in a
                hundred. Tell it of new ones by `Cached.learn`.
            jitter: a share of `ttl`.
            maximum: values that are kept in this process, and as many Nones; beyond it those go that were not asked for lately.
            stale_for: seconds for which a value may be given beyond its end if the function is refused or finds nobody.

        Raises:
            ConfigError: a number is out of range, or it is no ``async def``.

        >>> from gameserver import App
        >>> app = App("doc")
        >>> @app.cached(ttl=60)
        ... async def profile(player: str) -> dict[str, int]:
        ...     return {"wins": len(player)}
        """
        where, negative = here(1), ttl / 10 if negative_ttl is None else negative_ttl
        for name, value, holds, what in (
            ("ttl", ttl, ttl > 0, "seconds, above 0"),
            ("negative_ttl", negative_ttl, negative > 0, "seconds, above 0"),
            ("jitter", jitter, 0 <= jitter < 1, "a share from 0 to below 1"),
            ("maximum", maximum, isinstance(maximum, int) and maximum >= 1, "how many, 1 or more"),
            ("stale_for", stale_for, stale_for >= 0, "seconds, 0 or more"),
        ):
            if not holds:
                raise ConfigError(f"{where}@app.cached({name}={value!r}): {what}")

        def register(function: Callable[P, Awaitable[T]]) -> Cached[P, T]:
            if not inspect.iscoroutinefunction(function):
                raise ConfigError(f"{where}@app.cached of {getattr(function, '__qualname__', function)}: an async def")
            made = Cached(
                function,
                ttl=ttl,
                negative_ttl=negative,
                key=key,
                known=known,
                jitter=jitter,
                maximum=maximum,
                stale_for=stale_for,
            )
            self._stores.caches.append(made)
            return made

        return register

    @property
    def redis(self) -> Any:
        """redis-py's asyncio client of `redis_url`, for a game's own commands; a `Redis` or a `RedisCluster`.

        Raises:
            GameServerError: there is no `redis_url`, or the server does not run.
        """
        connection = self._stores.redis
        if connection is None:
            raise GameServerError("app.redis: set redis_url; it is there while the server runs")
        return connection.client
