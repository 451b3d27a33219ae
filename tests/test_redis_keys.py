"""Keys and scripts: what an id is can change neither a slot nor another key, and no script reaches beyond one slot."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.crc import key_slot
from redis.exceptions import ResponseError
from stores import Cluster, Redis, ask

from gameserver import App, ConfigError
from gameserver._redis import cache, leases, sessions, streams
from gameserver._redis.connection import Connection, Script
from gameserver._redis.keys import tag, under
from gameserver._redis.leases import tag_within
from gameserver._redis.streams import PARTITIONS, stream_of
from gameserver.testing import running

FOLDER = Path(streams.__file__).parent
HOSTILE = st.one_of(
    st.text(max_size=40),
    st.binary(max_size=40),
    st.text(alphabet="{}:\0*?[]\r\n ab", max_size=40),
    st.sampled_from(
        ["a}{b", "}{", "{", "}", "{}", "x" * 65_536, "\0", "gs:lock:{0}", "\ud800", "*", "\r\nFLUSHALL\r\n"]
    ),
)


@settings(max_examples=10_000, deadline=None)
@given(HOSTILE, HOSTILE)
def test_no_id_changes_a_slot_or_another_key(one: str | bytes, other: str | bytes) -> None:
    own = tag("lock", one)
    assert re.fullmatch(r"gs:lock:\{[0-9a-f]{32}\}", own)
    slot = key_slot(own.encode())
    part = other if isinstance(other, str) else other.decode("latin-1")
    for place in (under(own, "fence"), tag_within(own, part)):
        assert key_slot(place.encode("utf-8", "surrogatepass")) == slot
        assert place.startswith(own + ":")
    same = one == other or (isinstance(one, str) != isinstance(other, str) and _raw(one) == _raw(other))
    assert (tag("lock", other) == own) == same
    assert tag("cache", one) != own


def _raw(identity: str | bytes) -> bytes:
    return identity if isinstance(identity, bytes) else identity.encode("utf-8", "surrogatepass")


def test_all_partitions_of_a_class_lie_in_one_slot() -> None:
    for name in ("Bought", "a}{b", "é"):
        assert len({key_slot(stream_of(name, number).encode()) for number in range(PARTITIONS)}) == 1


SCRIPTS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": value
    for module in (leases, streams, cache, sessions)
    for name, value in vars(module).items()
    if isinstance(value, Script)
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_take_all_their_keys_from_KEYS(name: str) -> None:
    text = SCRIPTS[name].text
    assert text.startswith("#!lua\n")  # Redis refuses more than one slot then
    for command, first in re.findall(
        r"redis\.call\('([A-Z]+)'(?:, ?'(?:GROUPS|CONSUMERS|DELCONSUMER)')?(?:, ?([^,)]+))?", text
    ):
        if command == "XREADGROUP":  # its keys stand last, and come from KEYS alone
            assert "streams[#streams + 1] = KEYS[" in text
        elif command not in ("TIME", "PUBLISH"):
            assert first.startswith("KEYS["), (command, first)


def test_scripts_are_constants() -> None:
    """No text of a script is put together from parts: each is a literal at the top of a module."""
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Script":
                assert isinstance(node.args[0], ast.Constant), path
            if isinstance(node, ast.Attribute) and node.attr in ("eval", "evalsha", "script_load"):
                assert path.name == "connection.py", path


def test_more_than_one_slot_is_refused_by_the_server_itself(cluster: Cluster) -> None:
    script = Script("redis.call('SET', 'elsewhere' .. KEYS[1], 1) return 1")

    async def run() -> None:
        connection = Connection(cluster.url, 2.0)
        await connection.open()
        try:
            for number in range(20):
                await connection.run(script, [f"k{number}"], [])
        finally:
            await connection.close()

    with pytest.raises(ResponseError, match="undeclared key|non local key"):
        asyncio.run(run())


def test_scripts_are_called_by_their_digest(own_redis: Redis) -> None:
    with running(App("scripts"), redis_url=own_redis.url) as server:

        async def take() -> None:
            for _ in range(5):
                async with server.app.lock("x"):
                    pass

        ask(server, take)
        own_redis.cli("SCRIPT", "FLUSH")  # as a failover does
        ask(server, take)
    lines = {
        line.split(":")[0]: int(line.split("calls=")[1].split(",")[0])
        for line in own_redis.cli("INFO", "commandstats").splitlines()
        if line.startswith("cmdstat_eval")
    }
    assert lines["cmdstat_eval"] == 4  # each of two scripts, when it was not there
    assert lines["cmdstat_evalsha"] == 20


def refused(url: str) -> str:
    with pytest.raises(ConfigError) as raised:
        App("refused").run(port=0, redis_url=url)
    return str(raised.value)


def test_bad_urls_are_refused_at_start(own_redis: Redis) -> None:
    assert "expected a URL" in refused("http://127.0.0.1:6379")
    assert "expected a URL" in refused("127.0.0.1:6379")
    assert "start it, or check host and port" in refused("redis://127.0.0.1:1/0")
    assert "'127.0.0.1' is no host:port" in refused("redis+cluster://127.0.0.1")
    assert "no cluster answers" in refused(f"redis+cluster://127.0.0.1:{own_redis.port}")
    own_redis.cli("CONFIG", "SET", "requirepass", "right")
    for url in (f"redis://127.0.0.1:{own_redis.port}/0", f"redis://game:secret@127.0.0.1:{own_redis.port}/0"):
        said = refused(url)
        assert "check user and password" in said
        assert "secret" not in said
    with running(App("let in"), redis_url=f"redis://:right@127.0.0.1:{own_redis.port}/0"):
        pass
