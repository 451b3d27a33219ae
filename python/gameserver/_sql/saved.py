"""Persistent entities: what of the world is kept, without stopping the tick.

Every `save_interval` the rows of all live persistent entities are copied and compared with the copy before, which is some
NumPy; what differs is written by the loop, in batches, one transaction each. What can't be written waits, the newest state of each
entity alone.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

import msgspec
import numpy as np
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from gameserver._columns import ColumnShape
from gameserver._entity import Entity, table_of
from gameserver._sql.database import Database
from gameserver._sql.dialect import insert
from gameserver._sql.tables import ENTITIES, KEY_MAX
from gameserver._tasks import begin, ended
from gameserver._world import World
from gameserver._world_columns import Array, dtype_of
from gameserver.errors import Conflict, GameServerError, Overloaded, SchemaError, Unavailable

E = TypeVar("E", bound=Entity)

log = logging.getLogger("gameserver")

LOAD = 1 << 32  # versions between two loads of an entity
BATCH = 500  # rows of one transaction
STATEMENT = 50  # rows of one statement: while one is made ready, a tick waits
SPECIAL = ("str", "bytes", "vector", "list")  # columns that JSON has not as NumPy has them
PENDING_MAX = 100_000  # entities that may wait for a database that is down


@dataclass(slots=True)
class _Counts:
    saved: int = 0
    failed: int = 0
    """Batches that could not be written, and wait."""
    conflicts: int = 0
    """Entities that another process has saved meanwhile: our state of them was not written."""
    dropped: int = 0


@dataclass(slots=True)
class _Kept:
    """One entity that is kept."""

    entity: Entity
    key: str
    version: int
    """Of the newest state that was packed: above it the load that made us the owner, below it a count."""

    def next_version(self) -> int:
        self.version += 1
        return self.version


@dataclass(slots=True)
class _Row:
    """A state that has to be written."""

    kind: _Kind
    kept: _Kept
    version: int
    record: Any
    """The columns as they were, packed only when they are written."""

    @property
    def place(self) -> tuple[str, str]:
        return self.kind.name, self.kept.key


class _Kind:
    """A persistent class."""

    def __init__(self, cls: type[Entity]) -> None:
        shape = table_of(cls)
        self.cls, self.name = cls, shape.name
        self.columns = [column for column in shape.columns if column.kind != "entity"]
        self.record = np.dtype([("id", "u8"), *((column.name, dtype_of(column)) for column in self.columns)])
        self.kept: dict[int, _Kept] = {}  # by the entity's id
        self.by_key: dict[str, _Kept] = {}
        self.loading: dict[str, asyncio.Future[Any]] = {}
        self.before: Array = np.empty(0, self.record)  # the last copy, by id
        self._names = [column.name for column in self.columns]
        self._special = [(place, column) for place, column in enumerate(self.columns, 1) if column.kind in SPECIAL]

    def copied(self, world: World) -> Array:
        """The rows of those that are kept, by id."""
        columns = world.columns(self.cls)
        records = np.zeros(len(columns), self.record)
        records["id"] = columns.ids
        for column in self.columns:
            records[column.name] = getattr(columns, column.name)
        records = records[np.isin(records["id"], np.fromiter(self.kept, "u8", len(self.kept)))]
        return cast(Array, records[np.argsort(records["id"])])

    def changed(self, world: World) -> Array:
        """Those rows that differ from the last copy."""
        now, before = self.copied(world), self.before
        self.before = now
        if not len(before) or not len(now):
            return now
        place = np.minimum(np.searchsorted(before["id"], now["id"]), len(before) - 1)
        width = self.record.itemsize
        ours = now.view("u1").reshape(-1, width)
        theirs = before[place].view("u1").reshape(-1, width)
        return cast(Array, now[(ours != theirs).any(axis=1)])

    def packed(self, record: Any) -> bytes:
        """A row as JSON: its columns by name."""
        values = list(record.item())
        for place, column in self._special:
            values[place] = _plain(column, values[place])
        return msgspec.json.encode(dict(zip(self._names, values[1:], strict=True)))

    def unpacked(self, data: bytes, key: str) -> dict[str, Any]:
        """What `packed` gave, as far as the class still has these columns."""
        stored = msgspec.json.decode(data)
        try:
            return {
                column.name: _value(column, stored[column.name]) for column in self.columns if column.name in stored
            }
        except (TypeError, ValueError) as error:
            raise _changed_types(self, key, error) from error


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _changed_types(kind: _Kind, key: str, error: Exception) -> SchemaError:
    return SchemaError(f"{kind.name} {key!r} was stored with columns of other types: {error}")


def _plain(column: ColumnShape, value: Any) -> Any:
    match column.kind:
        case "str":
            return value.decode("utf-8", "replace")
        case "bytes":
            return base64.b64encode(value).decode()
        case "vector":
            return np.asarray(value).tolist()
        case _:  # a list
            count, items = value
            return np.asarray(items)[:count].tolist()


def _value(column: ColumnShape, stored: Any) -> Any:
    match column.kind:
        case "bytes":
            return base64.b64decode(stored)
        case "enum":
            return cast(Any, column.of)(stored)
        case "vector":
            return tuple(stored)
        case _:
            return stored


class Saver:
    """All persistent entities of an app's world."""

    def __init__(self, database: Database, world: World, classes: Iterable[type[Entity]], interval: float) -> None:
        self._database, self._world, self._interval = database, world, interval
        self._kinds = {cls: _Kind(cls) for cls in classes}
        self._pending: dict[tuple[str, str], _Row] = {}
        self._counts = _Counts()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._scan_seconds = 0.0

    def start(self) -> None:
        """From now on they are saved."""
        if self._kinds:
            self._task = begin("the saving of entities", self._run)

    async def stop(self) -> None:
        """After a last save."""
        if self._task is None:
            return
        await ended([self._task])
        self._scan()
        await self._flush()
        if self._pending:
            log.error("%d persistent entities could not be saved when the server stopped", len(self._pending))

    def stats(self) -> dict[str, Any]:
        """How many are `kept` and `pending`, counts, and how long the last copy took, `scan_seconds`."""
        kept = sum(len(kind.kept) for kind in self._kinds.values())
        return {"kept": kept, "pending": len(self._pending), "scan_seconds": self._scan_seconds, **asdict(self._counts)}

    async def load(self, cls: type[E], key: str, columns: dict[str, Any]) -> E:
        """See `App.load`."""
        kind = self._kind(cls)
        if not isinstance(key, str) or not 0 < len(key) <= KEY_MAX or "\0" in key or not _is_utf8(key):
            raise ValueError(
                f"app.load({kind.name}, {key!r}): a key is a text of 1 to {KEY_MAX} characters, without NUL"
            )
        while (under_way := kind.loading.get(key)) is not None:
            await asyncio.wait([under_way])
        if (found := kind.by_key.get(key)) is not None:
            return cast(E, found.entity)
        kind.loading[key] = future = asyncio.get_running_loop().create_future()
        try:
            stored, version = await self._own(kind, key)
            try:
                entity = self._world.spawn(cls, **{**columns, **stored})
            except (TypeError, ValueError) as error:
                if not stored:
                    raise
                raise _changed_types(kind, key, error) from error
            kind.kept[entity.id] = kind.by_key[key] = _Kept(entity, key, version)
            return entity
        finally:
            del kind.loading[key]
            future.set_result(None)

    async def save(self, entities: Iterable[Entity]) -> None:
        """See `App.save`."""
        await self._write([self._row_of(entity) for entity in entities])

    def writer(self, entity: Entity) -> _Writer:
        """What a unit of work writes of it."""
        return _Writer(self, entity)

    async def delete(self, cls: type[Entity], key: str) -> bool:
        """See `App.delete`."""
        kind = self._kind(cls)
        kept = kind.by_key.pop(key, None)
        if kept is not None:
            kind.kept.pop(kept.entity.id, None)
        statement = ENTITIES.delete().where(ENTITIES.c.kind == kind.name, ENTITIES.c.key == key)

        async def run(connection: AsyncConnection) -> bool:
            return bool((await connection.execute(statement)).rowcount)

        async with self._not_written(kind, key):  # it would come back
            self._pending.pop((kind.name, key), None)
            return await self._database.transact(run)

    def leaving(self, entity: Entity) -> None:
        """It is about to be despawned: what it is now will be saved, and no more."""
        kind = self._kinds.get(type(entity))
        kept = kind.kept.pop(entity.id, None) if kind is not None else None
        if kind is None or kept is None:
            return
        del kind.by_key[kept.key]
        self._put(_Row(kind, kept, kept.next_version(), _record(kind, entity)))
        self._wake.set()

    @property
    def is_watching(self) -> bool:
        """Whether anything is kept at all."""
        return any(kind.kept for kind in self._kinds.values())

    # -- what is written ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + self._interval, time.monotonic())
            while (left := due - time.monotonic()) > 0:
                try:
                    async with asyncio.timeout(left):
                        await self._wake.wait()
                except TimeoutError:
                    break
                self._wake.clear()
                await self._flush()
            self._scan()
            await self._flush()

    def _scan(self) -> None:
        began = time.perf_counter()
        for kind in self._kinds.values():
            if not kind.kept:
                continue
            for record in kind.changed(self._world):
                kept = kind.kept[int(record["id"])]
                self._put(_Row(kind, kept, kept.next_version(), record))
        self._scan_seconds = time.perf_counter() - began

    def _put(self, row: _Row) -> None:
        if row.place not in self._pending and len(self._pending) >= PENDING_MAX:
            del self._pending[next(iter(self._pending))]
            self._counts.dropped += 1
        self._pending[row.place] = row

    async def _flush(self) -> None:
        async with self._writing:
            while self._pending:
                batch = [*self._pending.items()][:BATCH]
                try:
                    try:
                        await self._write([row for _, row in batch])
                    except (Unavailable, Overloaded, Conflict):
                        raise
                    except Exception:
                        await self._write_alone([row for _, row in batch])
                except (Unavailable, Overloaded):
                    self._counts.failed += 1
                    return  # the next interval tries again
                except Conflict as error:
                    log.error("%s", error)
                for place, row in batch:
                    if self._pending.get(place) is row:
                        del self._pending[place]

    async def _write_alone(self, rows: list[_Row]) -> None:
        """One of them can't be written at all, and must not keep the others from it."""
        for row in rows:
            try:
                await self._write([row])
            except (Unavailable, Overloaded):
                raise
            except Conflict as error:
                log.error("%s", error)
            except Exception:
                self._counts.dropped += 1
                log.exception("%s %r can't be saved, and is left out", row.kind.name, row.kept.key)

    async def _write(self, rows: list[_Row]) -> None:
        """All of them, or, if another process has loaded some of them, the others and a `Conflict`."""

        async def run(connection: AsyncConnection) -> list[_Row]:
            return await _upsert(connection, rows)

        lost = await self._database.transact(run)
        self._counts.saved += len(rows) - len(lost)
        if lost:
            self._forget(lost)
            raise _conflict(lost)

    def _forget(self, lost: list[_Row]) -> None:
        """They are another process's now."""
        self._counts.conflicts += len(lost)
        for row in lost:
            row.kind.kept.pop(row.kept.entity.id, None)
            if row.kind.by_key.get(row.kept.key) is row.kept:
                del row.kind.by_key[row.kept.key]

    async def _own(self, kind: _Kind, key: str) -> tuple[dict[str, Any], int]:
        """What is stored, and the version from which on it is ours: whoever had it before can't write it any more."""
        newer = (ENTITIES.c.version // LOAD + 1) * LOAD
        made = ENTITIES.c.data, ENTITIES.c.version
        async with self._not_written(kind, key):
            waiting = self._pending.get((kind.name, key))

            async def run(connection: AsyncConnection) -> Any:
                if waiting is not None:  # what has left and still waits is newer than what is stored
                    await _upsert(connection, [waiting])
                take = insert(connection, ENTITIES).values(kind=kind.name, key=key, version=LOAD, data=b"{}")
                take = take.on_conflict_do_update(index_elements=["kind", "key"], set_={"version": newer})
                return (await connection.execute(take.returning(*made))).one()

            found = await self._database.transact(run)
            if waiting is not None and self._pending.get((kind.name, key)) is waiting:
                del self._pending[kind.name, key]
        return kind.unpacked(found.data, key), found.version

    def _not_written(self, kind: _Kind, key: str) -> AbstractAsyncContextManager[object]:
        """In the block nothing is written of this key: what is not pending can't be under way either."""
        return self._writing if (kind.name, key) in self._pending else contextlib.nullcontext()

    def _row_of(self, entity: Entity) -> _Row:
        kind = self._kind(type(entity))
        kept = kind.kept.get(entity.id)
        if kept is None:
            raise GameServerError(f"{entity!r} is not kept: app.load gives entities that are")
        return _Row(kind, kept, kept.next_version(), _record(kind, entity))

    def _kind(self, cls: type[Entity]) -> _Kind:
        found = self._kinds.get(cls)
        if found is None:
            raise GameServerError(f"{cls.__name__} is not persistent: mark it by @app.persistent")
        return found


class _Writer:
    """One entity in a unit of work."""

    def __init__(self, saver: Saver, entity: Entity) -> None:
        self._row = saver._row_of(entity)
        self._saver = saver

    async def write(self, sql: AsyncSession) -> None:
        """Within the transaction.

        Raises:
            Conflict: another process has loaded it.
        """
        if lost := await _upsert(await sql.connection(), [self._row]):
            raise _conflict(lost)

    def saved(self) -> None:
        """It has committed."""
        self._saver._counts.saved += 1


def _conflict(lost: list[_Row]) -> Conflict:
    names = ", ".join(f"{row.kind.name} {row.kept.key!r}" for row in lost[:5])
    return Conflict(f"another process has loaded {names} meanwhile; ours was not written")


def _record(kind: _Kind, entity: Entity) -> Any:
    """The row of one entity."""
    record = np.zeros(1, kind.record)[0]
    record["id"] = entity.id
    for column in kind.columns:
        value = getattr(entity, column.name)
        if column.kind == "str":
            value = value.encode()
        elif column.kind == "list":
            record[column.name]["count"] = len(value)
            record[column.name]["items"][: len(value)] = value
            continue
        elif column.kind == "vector":
            value = tuple(value)
        record[column.name] = value
    return record


async def _upsert(connection: AsyncConnection, rows: list[_Row]) -> list[_Row]:
    """Writes rows, unless a newer state of them is there already; those that are not ours any more."""
    newer = insert(connection, ENTITIES)
    version, stored = newer.excluded.version, ENTITIES.c.version
    newer = newer.on_conflict_do_update(
        index_elements=["kind", "key"],
        set_={"data": newer.excluded.data, "version": version},
        where=(stored < version) & (stored // LOAD == version // LOAD),
    ).returning(ENTITIES.c.kind, ENTITIES.c.key)
    written = set()
    for start in range(0, len(rows), STATEMENT):
        values = [
            {"kind": row.kind.name, "key": row.kept.key, "version": row.version, "data": row.kind.packed(row.record)}
            for row in rows[start : start + STATEMENT]
        ]
        written |= {(row.kind, row.key) for row in await connection.execute(newer, values)}
    return [row for row in rows if row.place not in written and not await _is_ours(connection, row)]


async def _is_ours(connection: AsyncConnection, row: _Row) -> bool:
    kind, key = row.place
    query = select(ENTITIES.c.version).where(ENTITIES.c.kind == kind, ENTITIES.c.key == key)
    stored = (await connection.execute(query)).scalar_one_or_none()
    return stored is not None and stored // LOAD == row.version // LOAD
