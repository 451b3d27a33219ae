"""Events of all processes: in order for each key, effects once, nothing lost; and a checker that knows each way to break that."""

from __future__ import annotations

import asyncio
import functools
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from history import CONSUMER, Base, Effect, Seen, Step, effects_of, history, killed_and_back, steps, wrongs
from stores import Cluster, Postgres, Redis, ask, dead, redis_server

from gameserver import App, ConfigError, DeadLetter, Event, GameServerError, Unavailable, shared
from gameserver._redis.streams import partition_of, stream_of
from gameserver._shared import Envelope
from gameserver.storage import UnitOfWork
from gameserver.testing import RunningServer, running


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def listener(heard: list[Seen], **options: Any) -> App:
    app = App("listener")

    @app.on_event(Step, **options)
    def hear(event: Step) -> None:
        heard.append(Seen(event.who, event.number))

    return app


def emit_all(server: RunningServer, events: Sequence[Seen], **kwargs: Any) -> None:
    def emit(part: Sequence[Seen]) -> None:
        for one in part:
            server.app.emit(Step(one.who, one.number), key=one.who)

    for start in range(0, len(events), 1000):
        server.call(emit, events[start : start + 1000], **kwargs)


# -- the checker itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda effects: effects.insert(5, effects.pop(0)), "came after"),
        (lambda effects: effects.append(effects[-1]), "2 times"),
        (lambda effects: effects.pop(), "lost"),
        (lambda effects: effects.append(Seen("nobody", 1)), "never emitted"),
    ],
)
def test_the_checker_finds_what_is_planted(spoil: Callable[[list[Seen]], object], complaint: str) -> None:
    emitted = steps(3, 5)
    effects = [*emitted]
    assert wrongs(emitted, effects) == []
    spoil(effects)
    assert complaint in " ".join(wrongs(emitted, effects))


# -- one process and several ------------------------------------------------------------------------------------------


def test_each_subscriber_hears_each_event_once_in_one_of_the_processes(one_redis: Redis) -> None:
    one_redis.cli("FLUSHALL")
    heard: list[Seen] = []
    events = steps(20, 100)
    with ExitStack() as stack:
        servers = [stack.enter_context(running(listener(heard), redis_url=one_redis.url)) for _ in range(3)]
        wait_until(lambda: sorted(len(s.app._stores._readers[0]._own) for s in servers) == [4, 6, 6])
        for start in range(0, len(events), 500):
            emit_all(random.choice(servers), events[start : start + 500])
            # The next ones come from another process, perhaps: order is that of their emitting.
            wait_until(functools.partial(lambda end: len(heard) >= end, start + 500))
        shares = [s.stats()["stores"]["subscribers"] for s in servers]
    assert wrongs(events, heard) == []
    assert all(next(iter(share.values()))["done"] > 0 for share in shares)  # each had its part


def test_without_redis_they_stay_here() -> None:
    heard: list[Seen] = []
    with running(listener(heard)) as server:
        emit_all(server, steps(3, 10))
        wait_until(lambda: len(heard) == 30)
    assert wrongs(steps(3, 10), heard) == []


def test_events_of_before_the_first_subscriber(one_redis: Redis) -> None:
    one_redis.cli("FLUSHALL")
    with running(App("emitter"), redis_url=one_redis.url) as server:
        emit_all(server, steps(3, 10))
        wait_until(lambda: server.stats()["stores"]["publisher"]["published"] == 30)
    heard: list[Seen] = []
    with running(listener(heard), redis_url=one_redis.url):
        wait_until(lambda: len(heard) == 30)
    assert wrongs(steps(3, 10), heard) == []


def test_async_subscribers_keep_the_order_of_a_key(one_redis: Redis) -> None:
    one_redis.cli("FLUSHALL")
    app, heard, under_way, most = App("async"), [], Counter[str](), [0]

    @app.on_event(Step, concurrency=8)
    async def hear(event: Step) -> None:
        under_way[event.who] += 1
        most[0] = max(most[0], sum(under_way.values()))
        assert under_way[event.who] == 1
        await asyncio.sleep(random.random() * 0.002)
        heard.append(Seen(event.who, event.number))
        under_way[event.who] -= 1

    with running(app, redis_url=one_redis.url) as server:
        emit_all(server, steps(12, 30))
        wait_until(lambda: len(heard) >= 360)
    assert wrongs(steps(12, 30), heard) == []
    assert 1 < most[0] <= 8


def test_batches(one_redis: Redis) -> None:
    one_redis.cli("FLUSHALL")
    app, sizes = App("batches"), []
    heard: list[Seen] = []

    @app.on_event(Step, batch=50)
    def hear(events: list[Step]) -> None:
        sizes.append(len(events))
        heard.extend(Seen(event.who, event.number) for event in events)

    with running(app, redis_url=one_redis.url) as server:
        emit_all(server, steps(5, 100))
        wait_until(lambda: len(heard) >= 500)
    assert wrongs(steps(5, 100), heard) == []
    assert max(sizes) <= 50


def test_a_poisoned_event_dies_and_blocks_nothing(one_redis: Redis) -> None:
    one_redis.cli("FLUSHALL")
    app, heard, is_poisoned = App("poison"), [], [True]

    @app.on_event(Step, retries=2)
    def hear(event: Step) -> None:
        if event.number == 3 and is_poisoned[0]:
            raise ValueError("poison")
        heard.append(Seen(event.who, event.number))

    with running(app, redis_url=one_redis.url) as server:
        emit_all(server, steps(2, 10))
        wait_until(lambda: len(heard) == 18)
        wait_until(lambda: len(dead(server)) == 2)
        letters = dead(server)
        assert [(letter.event.number, letter.error) for letter in letters] == [(3, "ValueError: poison")] * 2
        ask(server, lambda: app.dead_letters.replay(letters[0]))  # and is dead again, later
        wait_until(lambda: [letter.id for letter in dead(server)] == [letters[1].id, letters[0].id])
        is_poisoned[0] = False
        for letter in letters:
            ask(server, functools.partial(app.dead_letters.replay, letter))
        wait_until(lambda: len(heard) == 20 and not dead(server))
        # What nobody can read, too.
        place = partition_of(Envelope("x", "Step", "player 0", b""))
        one_redis.cli("XADD", place, "*", "e", "no event")
        one_redis.cli("XADD", place, "*", "neither", "field")
        wait_until(lambda: len(dead(server)) == 2)
        for letter in dead(server):
            assert letter.event is None
            with pytest.raises(GameServerError, match="can't read it"):
                ask(server, functools.partial(app.dead_letters.replay, letter))
            ask(server, functools.partial(app.dead_letters.remove, letter))
            with pytest.raises(KeyError):
                ask(server, functools.partial(app.dead_letters.remove, letter))
        emit_all(server, [Seen("player 0", 99)])
        wait_until(lambda: len(heard) == 21)


class Mourning:
    """A game whose subscriber fails as long as it is told to."""

    def __init__(self, poison: str = "poison") -> None:
        self.is_poisoned, self.poison = True, poison
        self.heard: list[int] = []
        self.app = App("mourning")
        self.app.storage(Base.metadata)
        self.app.on_event(Step, retries=0)(self.hear)

    def hear(self, event: Step) -> None:
        if self.is_poisoned:
            raise ValueError(self.poison)
        self.heard.append(event.number)

    async def emit(self, *numbers: int, key: str | bytes = "ada") -> None:
        async with self.app.transaction() as work:
            for number in numbers:
                work.emit(Step("ada", number), key=key)


@pytest.fixture(params=["redis", "database"])
def kept_in(request: pytest.FixtureRequest, one_redis: Redis, database_url: str) -> dict[str, Any]:
    """Where dead letters are kept: in Redis, or where there is none in the database."""
    one_redis.cli("FLUSHALL")
    return {"database_url": database_url} | ({"redis_url": one_redis.url} if request.param == "redis" else {})


def test_dead_letters_outlive_their_process(kept_in: dict[str, Any]) -> None:
    game = Mourning()
    with running(game.app, **kept_in) as server:
        ask(server, lambda: game.emit(1, 2, 3))
        wait_until(lambda: [letter.event.number for letter in dead(server)] == [1, 2, 3])
        kept = dead(server)
    heir = Mourning()
    heir.is_poisoned = False
    with running(heir.app, **kept_in) as server:
        assert dead(server) == kept
        assert dead(server, "nobody") == []
        with running(App("stranger"), **kept_in | {"database_url": "sqlite:///:memory:"}) as other:
            assert dead(other) == []
            with pytest.raises(GameServerError, match="is no subscriber"):
                ask(other, lambda: other.app.dead_letters.replay(kept[0]))
        ask(server, lambda: heir.app.dead_letters.replay(kept[1]))
        ask(server, lambda: heir.app.dead_letters.remove(kept[0]))
        wait_until(lambda: heir.heard == [2] and dead(server) == kept[2:])


@pytest.mark.parametrize("key", ["a\0b\ud800", b"a\0b\xff"])
def test_texts_that_stores_do_not_take_are_kept_all_the_same(kept_in: dict[str, Any], key: str | bytes) -> None:
    game = Mourning("no \0 and no \ud800")
    with running(game.app, **kept_in) as server:
        ask(server, lambda: game.emit(1, key=key))
        wait_until(lambda: len(dead(server)) == 1)
        letter = dead(server)[0]
        assert letter.error == r"ValueError: no \0 and no \ud800"
        assert letter.key == (r"a\0b\ud800" if isinstance(key, str) else r"a\0b\xff")
        game.is_poisoned = False
        ask(server, lambda: game.app.dead_letters.replay(letter))
        wait_until(lambda: game.heard == [1] and dead(server) == [])


def test_a_letter_that_its_store_refuses_holds_up_nobody(
    kept_in: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    game = Mourning()
    with running(game.app, **kept_in) as server:
        box = game.app._stores._letters
        assert box is not None
        put, kept = box.put, list[int]()

        async def refuse(letter: DeadLetter) -> None:
            if letter.event.number == 1 and len(kept) < 2:
                raise ValueError("this one I don't like")
            await put(letter)
            kept.append(letter.event.number)

        monkeypatch.setattr(box, "put", refuse)
        ask(server, lambda: game.emit(1, 2, 3))
        wait_until(lambda: len(dead(server)) == 3)
        assert kept == [2, 3, 1]
    assert "is refused by its store" in caplog.text


def test_of_dead_letters_the_newest_are_kept(kept_in: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from gameserver._redis import letters as of_redis
    from gameserver._sql import letters as of_database

    monkeypatch.setattr(of_redis, "DEAD_MAX", 3)
    monkeypatch.setattr(of_database, "DEAD_MAX", 3)
    game = Mourning()
    with running(game.app, **kept_in) as server:
        ask(server, lambda: game.emit(*range(7)))
        wait_until(lambda: [letter.event.number for letter in dead(server)] == [4, 5, 6])


def test_an_event_is_over_only_when_its_dead_letter_is_kept(
    kept_in: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    game, heir = Mourning(), Mourning()
    heir.is_poisoned = False
    with running(game.app, **kept_in) as server:
        refused = threading.Event()

        async def refuse(_: DeadLetter) -> None:
            refused.set()
            raise Unavailable("no")

        box = game.app._stores._letters
        assert box is not None
        monkeypatch.setattr(box, "put", refuse)
        ask(server, lambda: game.emit(1))
        assert refused.wait(30)
    with running(heir.app, **kept_in) as server:
        wait_until(lambda: heir.heard == [1])
        assert dead(server) == []


def test_events_that_come_twice_are_handled_once(one_redis: Redis) -> None:
    one_redis.cli("FLUSHALL")
    heard: list[Seen] = []
    app = listener(heard)
    with running(app, redis_url=one_redis.url) as server:
        known = app._stores.known
        assert known is not None
        envelope = known.envelope(Step("ada", 1), "ada")

        async def twice() -> None:
            publisher = app._stores.publisher
            assert publisher is not None
            for _ in range(3):
                publisher.put(envelope)

        ask(server, twice)
        emit_all(server, [Seen("ada", 2)])
        wait_until(lambda: len(heard) == 2)
        assert server.stats()["stores"]["subscribers"].popitem()[1]["repeated"] == 2
    assert heard == [Seen("ada", 1), Seen("ada", 2)]


def test_what_has_been_handled_is_removed_from_redis(one_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    from gameserver._redis import streams

    monkeypatch.setattr(streams, "BALANCE", 0.05)
    one_redis.cli("FLUSHALL")
    heard: list[Seen] = []
    with running(listener(heard), redis_url=one_redis.url) as server:
        emit_all(server, steps(5, 100))
        wait_until(lambda: len(heard) == 500)
        places = [stream_of("Step", number) for number in range(16)]
        wait_until(lambda: sum(int(one_redis.cli("XLEN", place)) for place in places) <= 16)


def test_redis_goes_and_comes_back_and_nothing_is_lost(own_redis: Redis) -> None:
    own_redis.kill()
    own_redis._options = ("--appendonly", "yes", "--appendfsync", "always")
    own_redis.start()
    heard: list[Seen] = []
    events = steps(10, 100)
    with running(listener(heard), redis_url=own_redis.url, store_timeout=0.5) as server:
        emit_all(server, events[:300])
        wait_until(lambda: len(heard) >= 100)
        own_redis.kill()
        emit_all(server, events[300:600])
        own_redis.start()
        emit_all(server, events[600:])
        wait_until(lambda: len(heard) >= 1000)
    assert wrongs(events, heard) == []


def test_a_redis_that_has_lost_everything(own_redis: Redis) -> None:
    """The groups are made anew, and what comes then is heard."""
    heard: list[Seen] = []
    with running(listener(heard), redis_url=own_redis.url) as server:
        emit_all(server, steps(2, 5))
        wait_until(lambda: len(heard) == 10)
        own_redis.cli("FLUSHALL")
        emit_all(server, [Seen("new", 1)])
        wait_until(lambda: len(heard) == 11)


def test_too_many_for_redis_are_refused(own_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    from gameserver import Overloaded, _stores

    monkeypatch.setattr(_stores, "EMITTED_MAX", 100)
    with running(App("emitter"), redis_url=own_redis.url, store_timeout=0.3) as server:
        own_redis.kill()
        with pytest.raises(Overloaded, match="100 shared events wait for Redis already"):
            emit_all(server, steps(1, 200))
        assert server.stats()["stores"]["publisher"]["refused"] == 1


def test_who_has_lost_a_lease_is_given_nothing(own_redis: Redis) -> None:
    """Though it has not noticed: what it read then would be out of order elsewhere."""
    heard: list[Seen] = []
    with running(listener(heard), redis_url=own_redis.url) as server:
        reader = server.app._stores._readers[0]
        wait_until(lambda: len(reader._own) == 16)
        server.call(setattr, reader, "_next_balance", float("inf"))
        owners = [reader._owner(number) for number in range(16)]
        for owner in owners:
            own_redis.cli("SET", owner, "another")
        emit_all(server, [Seen("ada", 1)])
        place = partition_of(Envelope("x", "Step", "ada", b""))
        wait_until(lambda: own_redis.cli("XLEN", place).strip() == "1")
        reads = server.stats()["stores"]["redis"]["done"]
        wait_until(lambda: server.stats()["stores"]["redis"]["done"] > reads + 5)  # it has asked again and again
        assert heard == []
        assert "another" in own_redis.cli("GET", owners[0])
        for owner in owners:
            own_redis.cli("SET", owner, reader._consumer)
        wait_until(lambda: heard == [Seen("ada", 1)])


def test_what_redis_gave_and_nobody_got_is_asked_for_again(one_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    from gameserver._redis import streams
    from gameserver._redis.connection import Connection

    one_redis.cli("FLUSHALL")
    run, answers_lost = Connection.run, [0]

    async def lossy(self: Connection, script: Any, *rest: Any, **more: Any) -> Any:
        found = await run(self, script, *rest, **more)
        if script is streams.READ and found and answers_lost[0] < 3:
            answers_lost[0] += 1
            raise Unavailable("the answer is lost")
        return found

    monkeypatch.setattr(Connection, "run", lossy)
    heard: list[Seen] = []
    with running(listener(heard), redis_url=one_redis.url) as server:
        emit_all(server, steps(5, 20))
        wait_until(lambda: len(heard) >= 100)
    assert answers_lost[0] >= 1
    assert wrongs(steps(5, 20), heard) == []


def test_so_many_replicas_must_have_an_event(own_redis: Redis) -> None:
    heard: list[Seen] = []
    with running(listener(heard), redis_url=own_redis.url, redis_replicas=1, store_timeout=0.5) as server:
        emit_all(server, [Seen("ada", 1)])
        wait_until(lambda: server.stats()["stores"]["publisher"]["failed"] >= 2)
        assert server.stats()["stores"]["publisher"]["waiting"] == 1
        with redis_server("--replicaof", "127.0.0.1", str(own_redis.port)):
            wait_until(lambda: server.stats()["stores"]["publisher"]["published"] == 1)
            wait_until(lambda: heard == [Seen("ada", 1)])  # once, however often it was sent


# -- effects once ------------------------------------------------------------------------------------------------------


def doer(database_url: str, fails: float = 0.0) -> App:
    app = App("doer", database_url=database_url)
    app.storage(Base.metadata)

    @app.on_event(Step, retries=20)
    async def do(event: Step, work: UnitOfWork) -> None:
        work.sql.add(Effect(who=event.who, number=event.number))
        if random.random() < fails:
            await work.sql.flush()
            raise OSError("not this time")

    return app


def effects(server: RunningServer) -> list[Seen]:
    return ask(server, lambda: effects_of(server.app))


def test_effects_come_once_though_events_come_twice(one_redis: Redis, database_url: str) -> None:
    one_redis.cli("FLUSHALL")
    events = steps(5, 20)
    with running(doer(database_url, fails=0.1), redis_url=one_redis.url) as server:
        app = server.app
        known, publisher = app._stores.known, app._stores.publisher
        assert known is not None
        assert publisher is not None
        envelopes = [known.envelope(Step(one.who, one.number), one.who) for one in events]

        def put() -> None:
            for start in range(0, len(envelopes), 10):
                for _ in range(2):
                    for envelope in envelopes[start : start + 10]:
                        publisher.put(envelope)

        server.call(put)
        worker = next(iter(app._stores.workers))
        worker._recent = _Nothing()  # as a process that was started anew: what it has done, only the database knows
        wait_until(lambda: len(effects(server)) >= len(events))
        wait_until(lambda: worker.in_flight == 0 and worker.stats()["repeated"] == len(events))
        assert wrongs(events, effects(server)) == []


class _Nothing(OrderedDict[str, None]):
    def __setitem__(self, key: str, value: None) -> None:
        pass


def test_from_the_outbox_to_another_process(one_redis: Redis, one_postgres: Postgres) -> None:
    one_redis.cli("FLUSHALL")
    heard: list[Seen] = []
    sender = App("sender", database_url=one_postgres.database())
    sender.storage()
    with running(sender, redis_url=one_redis.url) as server, running(listener(heard), redis_url=one_redis.url):

        async def send() -> None:
            for number in range(50):
                async with sender.transaction() as work:
                    for key in range(4):
                        work.emit(Step(f"player {key}", number), key=f"player {key}")

        ask(server, send)
        wait_until(lambda: len(heard) >= 200)
    assert wrongs(steps(4, 50), heard) == []


def test_a_consumer_that_is_stopped_loses_its_part_and_does_no_harm(
    one_redis: Redis, one_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server's thread stands in the middle of an event, for longer than its leases; others take over."""
    from gameserver._redis import streams

    monkeypatch.setattr(streams, "LEASE", 1.0)
    monkeypatch.setattr(streams, "BALANCE", 0.2)
    one_redis.cli("FLUSHALL")
    url, events = one_postgres.database(), steps(20, 20)
    go_on, stands = threading.Event(), threading.Event()
    slow = App("slow", database_url=url)
    slow.storage(Base.metadata)

    @slow.on_event(Step, retries=20)
    async def do(event: Step, work: UnitOfWork) -> None:
        if event.number == 5 and not stands.is_set():
            stands.set()
            go_on.wait(60)
        work.sql.add(Effect(who=event.who, number=event.number))

    fast = App("fast", database_url=url)
    fast.storage(Base.metadata)
    fast._subscriptions = []

    async def do_fast(event: Step, work: UnitOfWork) -> None:
        work.sql.add(Effect(who=event.who, number=event.number))

    do_fast.__qualname__ = do.__qualname__
    fast.on_event(Step, retries=20)(do_fast)
    with running(slow, redis_url=one_redis.url) as one:
        wait_until(lambda: sum(len(reader._own) for reader in slow._stores._readers) == 16)
        emit_all(one, events)
        assert stands.wait(30)
        with running(fast, redis_url=one_redis.url) as other:
            wait_until(lambda: len(effects(other)) >= len(events))
            go_on.set()
            emit_all(one, [Seen("last", 0)], timeout=30)
            wait_until(lambda: Seen("last", 0) in effects(other))
            wait_until(lambda: next(iter(slow._stores.workers)).in_flight == 0)
            assert wrongs([*events, Seen("last", 0)], effects(other)) == []


def test_an_event_that_kills_whoever_handles_it_dies_in_the_end(one_redis: Redis, one_postgres: Postgres) -> None:
    """Nobody catches a SIGKILL; and those that stood beside it, before and behind, are handled once, in their order."""
    from gameserver._redis import streams

    one_redis.cli("FLUSHALL")
    url, events = one_postgres.database(), steps(30, 10)
    events[100:100] = [Seen("victim", -1)]
    events.append(Seen("victim", 1))
    app = App("emitter", redis_url=one_redis.url, database_url=url)
    app.storage(Base.metadata)
    with running(app) as server:
        emit_all(server, events)
        deaths = 0
        command = [sys.executable, str(CONSUMER), one_redis.url, url, "deadly"]
        others = [event for event in events if event.number != -1]

        def is_over(consumer: subprocess.Popen[bytes]) -> bool:
            return consumer.poll() is not None or len(effects(server)) >= len(others)

        while True:
            with subprocess.Popen(command, stdout=subprocess.PIPE) as consumer:
                wait_until(functools.partial(is_over, consumer))
                if consumer.poll() is None:
                    consumer.terminate()
                    break
            deaths += 1
            assert deaths <= streams.SUSPECTED + streams.TRIES_MAX
        assert deaths > streams.TRIES_MAX
        assert wrongs(others, effects(server)) == []
    mourner = App("mourner", redis_url=one_redis.url)

    async def do(event: Step) -> None:
        pass

    do.__module__, do.__qualname__ = "__main__", "do"  # as of a consumer
    mourner.on_event(Step)(do)
    with running(mourner) as server:
        [letter] = dead(server)
        assert (letter.event, letter.error) == (
            Step("victim", -1),
            "GameServerError: 3 processes have begun with it, and not come to its end",
        )


def test_in_a_cluster(cluster: Cluster) -> None:
    heard: list[Seen] = []
    with running(listener(heard), redis_url=cluster.url) as server:
        emit_all(server, steps(20, 20))
        wait_until(lambda: len(heard) >= 400)
    assert wrongs(steps(20, 20), heard) == []


# -- histories ---------------------------------------------------------------------------------------------------------


def test_a_history_with_everything_in_it(own_redis: Redis, one_postgres: Postgres) -> None:
    """Consumers killed, Redis killed, a tenth of the events twice. 100,000 of them: `make chaos ARGS=history`."""
    found = history(own_redis.url, one_postgres, 3_000, killed_and_back(own_redis))
    assert found.wrongs == []
    assert found.kills >= 5
    assert found.repeated == 300


@pytest.mark.parametrize(
    ("bug", "complaint"),
    [
        ("acknowledge_early", "is lost|came after"),  # what was lost comes after others if it came twice
        ("effects_twice", "2 times"),
        ("no_takeover", "is lost|came after"),
        ("keys_mixed", "came after"),
    ],
)
def test_a_history_of_a_broken_mechanism(bug: str, complaint: str, own_redis: Redis, one_postgres: Postgres) -> None:
    for _ in range(3):  # whoever is killed may have had nothing under way
        own_redis.cli("FLUSHALL")
        found = history(own_redis.url, one_postgres, 2_000, None, bug=bug)
        if re.search(complaint, " ".join(found.wrongs)):
            return
    pytest.fail(f"no history shows it: {found}")


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_mistakes(one_redis: Redis) -> None:
    with pytest.raises(ConfigError, match="a subclass of Event"):
        shared(int)  # type: ignore[type-var]

    @shared
    class Odd(Event):
        what: Any

    with running(App("odd"), redis_url=one_redis.url) as server:
        with pytest.raises(ConfigError, match="Odd can't be shared: .*plain values"):
            server.call(lambda: server.app.emit(Odd(object())))
        with pytest.raises(ValueError, match="a shared event's key is a str, an int or bytes"):
            server.call(lambda: server.app.emit(Step("a", 1), key=(1, 2)))
        with pytest.raises(ValueError, match="1000 characters at most"):
            server.call(lambda: server.app.emit(Step("a", 1), key="x" * 1001))
