"""Events that could not be handled, however often it was tried: kept, listed, and replayed."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gameserver._tasks import begin, ended
from gameserver.errors import GameServerError, Overloaded, Unavailable

__all__ = ["DEAD_MAX", "DeadLetter", "DeadLetters", "LetterBox", "Undertaker"]

log = logging.getLogger("gameserver")

DEAD_MAX = 10_000  # of this process, and of each subscriber to shared events
PAUSE = 0.2  # s while the store is down, and after it has refused a letter: then twice as long each time, up to
PAUSE_MAX = 10.0  # s


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a subscriber could not handle, however often it was tried.

    >>> DeadLetter("1", "game.welcome", "PlayerLoggedIn", None, "ada", "OSError: no disk", 0.0).subscriber
    'game.welcome'
    """

    id: str
    """Its own among those of its subscriber."""
    subscriber: str
    """The function's qualified name."""
    name: str
    """The event's class."""
    event: Any
    """None if it is shared, and this game can't read it."""
    key: object
    error: str
    """Of the last attempt."""
    at: float
    """When it died, seconds since the epoch."""
    body: bytes | None = field(default=None, repr=False)
    """Of a shared event: as it was published."""


def spelled(error: BaseException) -> str:
    """As a letter says what was wrong."""
    return storable(f"{type(error).__name__}: {error}")


def storable(text: str) -> str:
    r"""The same text as every store takes it: PostgreSQL has no NUL, and nobody has half a surrogate pair.

    >>> storable("a\0b\ud800")
    'a\\0b\\ud800'
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


class LetterBox(Protocol):
    """A store in which letters of shared events outlive their process. Its methods raise `Unavailable` while it is down."""

    async def put(self, letter: DeadLetter) -> None:
        """Keeps one; in the place of an older one of the same subscriber and id."""

    async def list(self, subscribers: Sequence[str]) -> Sequence[DeadLetter]:
        """Those of some subscribers, each one's oldest first; `DeadLetter.event` is None."""
        ...

    async def remove(self, letter: DeadLetter) -> bool:
        """Forgets one; False: there is none."""
        ...


class Shared(Protocol):
    """What `DeadLetters` has of a running app's stores."""

    async def dead_letters(self) -> Sequence[DeadLetter]:
        """Those of shared events."""
        ...

    def replay(self, letter: DeadLetter) -> None:
        """Gives one to its subscriber."""

    async def forget(self, letter: DeadLetter) -> bool:
        """Removes one."""
        ...


class DeadLetters:
    """What could not be handled: of this process's events the last 10,000; of shared events the last 10,000 of each subscriber,
    which Redis keeps or, without it, the database: all processes see them.

    >>> import asyncio
    >>> from gameserver import App
    >>> asyncio.run(App("doc").dead_letters.list())
    []
    """

    def __init__(self, replay: Callable[[DeadLetter], None], shared: Shared) -> None:
        self._letters: dict[str, DeadLetter] = {}
        self._replay, self._shared = replay, shared
        self._numbers = itertools.count(1)

    async def list(self, subscriber: str | None = None) -> Sequence[DeadLetter]:
        """All of them, oldest first, or those of one subscriber.

        Raises:
            Unavailable: there are shared events, and the store of their letters is down.
        """
        found = [*self._letters.values(), *await self._shared.dead_letters()]
        found = [letter for letter in found if subscriber in (None, letter.subscriber)]
        return sorted(found, key=lambda letter: letter.at)

    async def replay(self, letter: DeadLetter) -> None:
        """Gives one to its subscriber again, behind what waits there. A shared one is kept until it has been handled.

        Raises:
            KeyError: there is none such.
            GameServerError: its subscriber is no more, or can't read it.
        """
        if letter.body is not None:
            self._shared.replay(letter)
            return
        if letter.id not in self._letters:
            raise KeyError(letter.id)
        self._replay(letter)
        del self._letters[letter.id]

    async def remove(self, letter: DeadLetter) -> None:
        """Forgets one.

        Raises:
            KeyError: there is none such.
            Unavailable: it is shared, and the store of its letters is down.
        """
        if letter.body is not None:
            if not await self._shared.forget(letter):
                raise KeyError(letter.id)
            return
        del self._letters[letter.id]

    def _add(self, subscriber: str, event: Any, key: object, error: BaseException) -> None:
        """Of this process's."""
        number, name = str(next(self._numbers)), type(event).__qualname__
        self._letters[number] = DeadLetter(number, subscriber, name, event, key, spelled(error), time.time())
        while len(self._letters) > DEAD_MAX:
            del self._letters[next(iter(self._letters))]


class Undertaker:
    """Brings letters of shared events into their store. Until one is there its event is not over: it would come again.

    One that the store refuses is said in the log, and holds up nobody: it goes behind the others, and is tried again.
    """

    def __init__(self, box: LetterBox) -> None:
        self._box = box
        self._waiting: deque[tuple[Callable[[], Any], Callable[[], None]]] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on."""
        self._task = begin("the undertaker of shared events", self._run)

    async def stop(self) -> None:
        """What waits is not kept: its events come again."""
        await ended([self._task])

    def keep(self, letter: DeadLetter, kept: Callable[[], None]) -> None:
        """Tells `kept` when it is in the store."""
        self._do(lambda: self._box.put(letter), kept)

    def forget(self, letter: DeadLetter) -> None:
        """Its event has been handled after all."""
        self._do(lambda: self._box.remove(letter), lambda: None)

    def _do(self, what: Callable[[], Any], done: Callable[[], None]) -> None:
        self._waiting.append((what, done))
        self._wake.set()

    async def _run(self) -> None:
        refused = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                what, done = self._waiting[0]
                try:
                    await what()
                except (Unavailable, Overloaded) as error:
                    log.debug("dead letters: %s", error)
                    await asyncio.sleep(PAUSE)
                    continue
                except Exception:
                    log.exception("a dead letter of a shared event is refused by its store, and is tried again")
                    self._waiting.rotate(-1)
                    await asyncio.sleep(min(PAUSE_MAX, PAUSE * 2**refused))
                    refused = min(refused + 1, 10)
                    continue
                refused = 0
                self._waiting.popleft()
                done()


def not_heard(letter: DeadLetter) -> GameServerError:
    """Nobody here would take it."""
    return GameServerError(f"{letter.subscriber} is no subscriber (any more)")
