"""Locks with a name: whoever has one is alone, in this process or, with `redis_url`, in all of them. docs/locks.md.

A lock is a lease: it ends by itself when its holder can't renew it. A holder that is stopped meanwhile does not know, so each
lease has a **fencing token** that grows: what is written under a lock carries it, and an older one is refused (Kleppmann, "How to
do distributed locking", 2016).

>>> from gameserver import App
>>> app = App("doc")
>>> @app.on("trade")
... async def trade(body: bytes) -> str:
...     async with app.lock(f"trade:{body.decode()}", ttl=10) as lock:
...         await lock.write("state", b"done")
...     return "done"
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType

from gameserver._leases import Leases
from gameserver.errors import Conflict, GameServerError, LockLost, Overloaded, Unavailable

__all__ = ["Lock", "Locks"]

log = logging.getLogger("gameserver")

TTL_MIN = 0.1  # s
RENEWAL = 1 / 3  # of the ttl, after which it is renewed
LOST = 2 / 3  # of the ttl without a renewal, after which the holder is stopped


class Lock:
    """A lock while it is held, or on the way to it; made by `App.lock`.

    Attributes:
        name: of the lock.
        fence: the fencing token: each holder's is above all before it. 0: not held.
    """

    def __init__(self, locks: Locks, name: str, ttl: float, wait: float | None, reentrant: bool) -> None:
        self.name = name
        self.fence = 0
        self._locks, self._ttl, self._wait, self._reentrant = locks, ttl, wait, reentrant
        self._holder = ""
        self._task: asyncio.Task[object] | None = None
        self._depth = 0
        self._outer: Lock | None = None  # that the same task holds already
        self._keeper: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._lost = ""

    async def __aenter__(self) -> Lock:
        task = asyncio.current_task()
        assert task is not None
        held = self._locks._held.get((self.name, task))
        if held is not None:
            if not self._reentrant:
                raise GameServerError(
                    f"lock {self.name!r}: this very task holds it, and would wait for itself for ever; "
                    "give reentrant=True if that is meant"
                )
            held._depth += 1
            self._outer = held
            self.fence = held.fence
            return held
        if self.fence:
            raise GameServerError(f"lock {self.name!r}: this one is held already; ask app.lock for another")
        self._task = task
        await self._locks._take(self)
        self._locks._held[self.name, task] = self
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._outer is not None:
            self._outer._depth -= 1
            self._outer = None
            return
        task = self._task
        assert task is not None
        self._locks._held.pop((self.name, task), None)
        self._stop_watching()
        self._task = None
        try:
            await self._locks._give_back(self)
        finally:
            self.fence = 0
        if self._lost:
            text = f"lock {self.name!r} is lost: {self._lost}; what ran under it was stopped"
            if isinstance(error, asyncio.CancelledError):
                if task.uncancel() > 0:
                    return  # somebody else has cancelled it, too
                raise LockLost(text) from error
            if error is None:
                raise LockLost(text)

    async def write(self, key: str, value: bytes) -> None:
        """Writes something that belongs to what the lock guards, unless somebody has had the lock after us. In Redis it is kept for
        a week after the last write, without Redis until the process ends.

        Raises:
            Conflict: somebody has; nothing was written.
            Unavailable: the store is down.
        """
        if not self.fence:
            raise GameServerError(f"lock {self.name!r}: it is not held")
        if not await self._locks._leases.write(self.name, key, self.fence, value):
            raise Conflict(f"lock {self.name!r}: somebody else has had it meanwhile; {key!r} was not written")

    async def read(self, key: str) -> bytes | None:
        """What was written last under any holder of this lock; None: nothing yet."""
        return await self._locks._leases.read(self.name, key)

    # -- while it is held ----------------------------------------------------------------------------------------------

    def _taken(self, fence: int, since: float) -> None:
        self.fence = fence
        if self._locks._leases.expire:
            loop = asyncio.get_running_loop()
            self._renewed(since)
            self._keeper = loop.create_task(self._keep())

    def _renewed(self, since: float) -> None:
        """The lease counts from before it was asked for, on our clock."""
        if self._deadline is not None:
            self._deadline.cancel()
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_at(since + self._ttl * LOST, self._lose, "it could not be renewed in time")

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        pause = self._ttl * RENEWAL
        while True:
            await asyncio.sleep(pause)
            asked = loop.time()
            try:
                still = await self._locks._leases.renew(self.name, self._holder, self._ttl)
            except (Unavailable, Overloaded):
                pause = self._ttl * RENEWAL / 8  # until the deadline comes
                continue
            if not still:
                self._lose("somebody else has it")
                return
            self._renewed(asked)
            pause = self._ttl * RENEWAL

    def _lose(self, why: str) -> None:
        if self._task is not None and not self._lost:
            self._lost = why
            self._locks._lost += 1
            log.warning("lock %r is lost: %s", self.name, why)
            self._task.cancel(f"lock {self.name!r} is lost: {why}")

    def _stop_watching(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        if self._deadline is not None:
            self._deadline.cancel()
        self._keeper = self._deadline = None


@dataclass(slots=True)
class _Gate:
    """Those of this process who want one lock: one of them is at the store, the others wait in their order."""

    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Locks:
    """All locks of an app."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._gates: dict[str, _Gate] = {}
        self._held: dict[tuple[str, asyncio.Task[object]], Lock] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._taken = self._waited = self._lost = 0

    def stats(self) -> dict[str, int]:
        """How many are `held`, and counts: `taken`, of which so many `waited`, and `lost`."""
        return {"held": len(self._held), "taken": self._taken, "waited": self._waited, "lost": self._lost}

    async def _take(self, lock: Lock) -> None:
        try:
            async with asyncio.timeout(lock._wait):
                await self._pass_gate(lock.name)
                try:
                    await self._take_lease(lock)
                except BaseException:
                    self._open_gate(lock.name)
                    raise
        except TimeoutError as error:
            raise Overloaded(f"lock {lock.name!r}: somebody else has had it for {lock._wait:g} s") from error
        self._taken += 1

    async def _take_lease(self, lock: Lock) -> None:
        loop = asyncio.get_running_loop()
        lock._holder = secrets.token_hex(16)
        lock._lost = ""
        try:
            asked = loop.time()
            lease = await self._leases.take(lock.name, lock._holder, lock._ttl)
            if not lease.fence:
                self._waited += 1
                async with self._leases.watch(lock.name) as freed:
                    # Once more: it may have been given back before we heard of that.
                    while True:
                        asked = loop.time()
                        lease = await self._leases.take(lock.name, lock._holder, lock._ttl)
                        if lease.fence:
                            break
                        await freed(lease.left)
        except BaseException:
            # The store may have given it to us, and we do not know.
            self._later(lock.name, lock._holder)
            raise
        lock._taken(lease.fence, asked)

    async def _give_back(self, lock: Lock) -> None:
        try:
            await self._leases.give_back(lock.name, lock._holder)
        except (Unavailable, Overloaded) as error:
            log.warning(
                "lock %r could not be given back and ends by itself within %g s: %s", lock.name, lock._ttl, error
            )
        except asyncio.CancelledError:
            self._later(lock.name, lock._holder)
            raise
        finally:
            self._open_gate(lock.name)

    def _later(self, name: str, holder: str) -> None:
        async def give_back() -> None:
            try:
                await self._leases.give_back(name, holder)
            except (Unavailable, Overloaded):
                pass  # it ends by itself

        task = asyncio.get_running_loop().create_task(give_back())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _pass_gate(self, name: str) -> None:
        gate = self._gates.get(name)
        if gate is None:
            self._gates[name] = _Gate()
            return
        future = asyncio.get_running_loop().create_future()
        gate.waiting.append(future)
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled():
                self._open_gate(name)  # it was our turn
            else:
                gate.waiting.remove(future)
            raise
        self._waited += 1

    def _open_gate(self, name: str) -> None:
        gate = self._gates[name]
        while gate.waiting:
            future = gate.waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        del self._gates[name]
