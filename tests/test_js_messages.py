"""The browser client against a real server, by messages: the schema of the handshake in both directions, kept by its digest."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import pytest
from chromium import TIMEOUT, chromium
from playwright.sync_api import Page

from gameserver import App, Batch, Message, Refuse, Session, f32, s64, u8, u32
from gameserver.testing import running

Kind = IntEnum("Kind", {"NONE": 0, "RUN": 1, "JUMP": 2})


class Point(Message):
    x: f32
    y: f32


class Move(Message):
    path: list[Point]
    kind: Kind
    target: Point | None
    tags: dict[str, u32]
    count: u8
    far: s64
    data: bytes


class Moved(Message):
    move: Move
    by: str


class Blocked(Message):
    why: str


class Steps(Message):
    total: u32
    rows: u32


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT)
        yield page


def app() -> App:
    app = App("test", tick_rate=50)

    @app.on
    def move(session: Session, msg: Move) -> Moved | Blocked | None:
        if not msg.path:
            return None
        app.push(msg)
        return Blocked("far") if msg.count else Moved(msg, session.serializer)

    @app.on("refuse")
    def refuse(msg: Point) -> None:
        raise Refuse("no", "never")

    @app.on
    def steps(batch: Batch[Steps]) -> None:
        app.push(Steps(int(batch.total.sum()), len(batch)))

    return app


def run(page: Page, port: int, script: str, **options: Any) -> Any:
    """Runs the script's body in the page with a new client; what it returns."""
    if not page.url.startswith(f"http://127.0.0.1:{port}/"):
        page.goto(f"http://127.0.0.1:{port}/healthz")
    wrapped = """async ([script, options]) => {
        const { connect } = await import('/gameserver.js');
        const client = await connect(`ws://${location.host}/`, options);
        const pushed = (route) => new Promise((resolve) => client.on(route, resolve));
        const AsyncFunction = (async () => {}).constructor;
        try {
            return await new AsyncFunction('client', 'pushed', script)(client, pushed);
        } finally {
            client.close();
        }
    }"""
    return page.evaluate(wrapped, [script, options])


MOVE = """{
    path: [{ x: 0.5 }, { y: -1 }], kind: 'KIND_RUN', target: { x: 2, y: 0 }, tags: { é: 7 }, far: -5n,
    data: new Uint8Array([1, 255])
}"""


def test_messages_go_both_ways_without_generated_code(page: Page) -> None:
    script = f"""
        const push = pushed('Move');
        const answer = await client.request('Move', {MOVE});
        const plain = (value) => JSON.parse(JSON.stringify(value, (key, one) => typeof one === 'bigint' ? `${{one}}n` : one));
        return [plain(answer.moved.move), answer.moved.by, plain(await push), client.schema.digest,
                await client.request('Move', {{ path: [{{}}], count: 1 }}).then((one) => one.blocked.why),
                Object.keys(plain(await client.request('Move', {{}})))];
    """
    with running(app()) as server:
        answer, by, push, digest, blocked, nothing = run(page, server.port, script)
        assert answer == push
        assert answer["path"] == [{"x": 0.5, "y": 0}, {"x": 0, "y": -1}]
        assert (answer["kind"], answer["target"], answer["tags"]) == ("KIND_RUN", {"x": 2, "y": 0}, {"é": 7})
        assert (answer["far"], answer["data"]) == ("-5n", {"0": 1, "1": 255})
        assert by == "protobuf"
        assert blocked == "far"
        assert "moved" not in nothing
        assert len(digest) == 16
        # A second connection has the schema already, and works as the first.
        again = run(page, server.port, script)
        assert again == [answer, by, push, digest, blocked, nothing]


def test_the_same_over_json(page: Page) -> None:
    script = """
        const push = pushed('Move');
        const answer = await client.request('Move', { path: [{ x: 0.5 }], kind: 'KIND_JUMP', far: '-5' });
        return [answer, await push, client.schema];
    """
    with running(app()) as server:
        answer, push, schema = run(page, server.port, script, serializer="json")
        assert answer == {"moved": {"move": push, "by": "json"}}
        assert (push["path"], push["kind"], push["far"]) == ([{"x": 0.5, "y": 0}], "KIND_JUMP", "-5")
        assert schema is None


def test_what_is_refused_says_so(page: Page) -> None:
    script = """
        const failures = [];
        const told = pushed('$error');
        for (const [route, body] of [['Move', { count: 256 }], ['refuse', { x: 1 }], ['Steps', { rows: 1 }]])
            await client.request(route, body).catch((error) => failures.push([error.code, error.msg]));
        client.notify('refuse', { x: 1 });
        const error = await told;
        return [failures, [error.code, error.msg, error.metadata.route]];
    """
    with running(app()) as server:
        failures, told = run(page, server.port, script)
        assert [code for code, _ in failures] == ["GS-400", "no", "GS-405"]
        assert "Move.count" in failures[0][1]
        assert told == ["no", "never", "refuse"]


def test_a_batch_of_notifies(page: Page) -> None:
    script = """
        let rows = 0, total = 0;
        const all = new Promise((resolve) => client.on('Steps', (sum) => {
            rows += sum.rows; total += sum.total;
            if (rows === 100) resolve([rows, total]);
        }));
        for (let i = 0; i < 100; i++) client.notify('Steps', { total: i });
        return all;
    """
    with running(app()) as server:
        assert run(page, server.port, script) == [100, 4950]
