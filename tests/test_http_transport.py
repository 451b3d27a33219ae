"""Plain HTTP over the core's five calls: a real client on a real socket, bridged by asyncio in place of the core."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from gameserver import _http
from gameserver._http import WINDOW_BYTES, HttpHost, LinkTransport, peer_name
from gameserver._logging import ErrorLog
from gameserver.errors import ConfigError, GameServerError

# --- the bridge -------------------------------------------------------------------------------------------------------


class Bridge:
    """The core's part, played by asyncio: sockets on one side, the five calls on the other."""

    def __init__(self) -> None:
        self.host: HttpHost
        self.links: dict[int, BridgeLink] = {}
        self.in_core_bytes_max = 0
        self.pauses = 0
        self.aborts = 0
        self.next_link = 0

    def http_write(self, link: int, data: bytes) -> None:
        assert isinstance(data, bytes)
        assert data
        transport = self.links[link].transport
        transport.write(data)
        waiting = transport.get_write_buffer_size()
        self.in_core_bytes_max = max(self.in_core_bytes_max, waiting)
        if not waiting:
            asyncio.get_running_loop().call_soon(self.host.drained, link)

    def http_close(self, link: int) -> None:
        assert not self.links[link].transport.is_closing()  # once, and not after abort
        self.links[link].transport.close()

    def http_abort(self, link: int) -> None:
        self.aborts += 1
        self.links[link].transport.abort()

    def http_pause(self, link: int) -> None:
        self.pauses += 1
        self.links[link].transport.pause_reading()

    def http_resume(self, link: int) -> None:
        self.links[link].transport.resume_reading()


class BridgeLink(asyncio.Protocol):
    """One socket of the bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        bridge.next_link += 1
        self.link = bridge.next_link
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(0, 0)
        self.bridge.links[self.link] = self
        host, port = transport.get_extra_info("peername")
        self.bridge.host.opened(self.link, f"{host}:{port}", False)

    def data_received(self, data: bytes) -> None:
        self.bridge.host.received(self.link, data)

    def eof_received(self) -> bool:
        self.bridge.host.ended(self.link)
        return True

    def resume_writing(self) -> None:
        self.bridge.host.drained(self.link)

    def connection_lost(self, exc: Exception | None) -> None:
        del self.bridge.links[self.link]
        self.bridge.host.closed(self.link)


class Site:
    """A running host with its bridge, and clients for it."""

    def __init__(self, host: HttpHost, bridge: Bridge, port: int) -> None:
        self.host, self.bridge, self.port = host, bridge, port
        self.clients: list[Client] = []

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def ask(self, text: str) -> Answer:
        client = await self.connect()
        client.send(text)
        answer = await client.answer(head_only=text.startswith("HEAD"))
        client.close()
        return answer

    async def get(self, path: str, headers: str = "") -> Answer:
        return await self.ask(f"GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")


class Answer:
    """One response."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class Client:
    """A connection that speaks HTTP by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)

    async def head(self) -> Answer:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return Answer(int(lines[0].split()[1]), headers, b"")

    async def answer(self, head_only: bool = False) -> Answer:
        answer = await self.head()
        if head_only or answer.status in (204, 304):
            return answer
        if answer.headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                answer.body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        elif "content-length" in answer.headers:
            answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
        else:
            answer.body = await self.reader.read()
        return answer

    async def gone(self) -> None:
        """The server closed this connection and sent nothing more."""
        with suppress(ConnectionError):
            assert await self.reader.read() == b""

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def site(app: Any = None, static: Path | None = None) -> AsyncIterator[Site]:
    bridge = Bridge()
    bridge.host = HttpHost(bridge, app=app, static=static, address=("127.0.0.1", 7777))
    await bridge.host.start()
    server = await asyncio.get_running_loop().create_server(lambda: BridgeLink(bridge), "127.0.0.1", 0)
    running = Site(bridge.host, bridge, server.sockets[0].getsockname()[1])
    try:
        yield running
    finally:
        for client in running.clients:
            client.close()
            with suppress(ConnectionError):
                await client.writer.wait_closed()
        await bridge.host.stop(timeout=1.0)
        server.close()
        await until(lambda: not bridge.links)
        assert not bridge.host._links


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded(), debug=False)
    gc.collect()


async def until(condition: Callable[[], bool]) -> None:
    """Waits in turns of the loop; the test's own bound ends it."""
    while not condition():  # noqa: ASYNC110 -- what is waited for has no event, being the thing under test
        await asyncio.sleep(0.001)


# --- an app of a user -------------------------------------------------------------------------------------------------


async def hello(request: Request) -> Response:
    return PlainTextResponse(f"hello {request.client.host if request.client else ''} {request.url.scheme}")


async def upload(request: Request) -> Response:
    total = 0
    async for part in request.stream():
        total += len(part)
    return PlainTextResponse(str(total))


async def small_upload(request: Request) -> Response:
    if int(request.headers["content-length"]) > 1000:
        raise HTTPException(413, headers={"connection": "close"})
    return PlainTextResponse("taken")


async def numbers(request: Request) -> Response:
    async def parts() -> AsyncIterator[str]:
        for number in range(int(request.query_params["to"])):
            yield f"{number}\n"

    return StreamingResponse(parts())


async def large(request: Request) -> Response:
    return Response(bytes(5_000_000))


async def broken(request: Request) -> Response:
    raise LookupError("a mistake of the user's")


def user_app() -> Starlette:
    return Starlette(
        routes=[
            Route("/", hello),
            Route("/upload", upload, methods=["POST"]),
            Route("/small", small_upload, methods=["POST"]),
            Route("/numbers", numbers),
            Route("/large", large),
            Route("/broken", broken),
        ]
    )


# --- the default app --------------------------------------------------------------------------------------------------


def test_the_default_app_has_health_and_the_sdk_and_no_server_header() -> None:
    async def test() -> None:
        async with site() as web:
            health = await web.get("/healthz")
            assert (health.status, json.loads(health.body)) == (200, {"status": "ok"})
            assert "server" not in health.headers
            assert health.headers["date"].endswith("gmt")
            assert (await web.get("/nothing")).status == 404
            assert b"App(static=" in (await web.get("/")).body

    run(test)


def test_the_sdk_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "gameserver.js"
    monkeypatch.setattr(_http, "module_path", lambda name: module)

    async def test() -> None:
        async with site(user_app()) as web:
            assert (await web.get("/gameserver.js")).status == 404
            module.write_text("export const a = 1")
            first = await web.get("/gameserver.js")
            assert first.status == 200
            assert first.headers["content-type"].startswith("text/javascript")
            assert first.headers["access-control-allow-origin"] == "*"
            tag = first.headers["etag"]
            assert (await web.get("/gameserver.js", f"if-none-match: {tag}\r\n")).status == 304
            module.write_text("export const b = 22")
            second = await web.get("/gameserver.js", f"if-none-match: {tag}\r\n")
            assert (second.status, second.body) == (200, b"export const b = 22")
            assert (await web.ask("POST /gameserver.js HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")).status == 405

    run(test)


def test_the_sdk_is_that_of_the_browser_client() -> None:
    async def test() -> None:
        async with site() as web:
            answer = await web.get("/gameserver.js")
            assert answer.status == 200
            assert answer.body == (Path(__file__).parents[1] / "clients" / "js" / "gameserver.js").read_bytes()

    run(test)


def test_a_folder_is_served_and_nothing_beside_it(tmp_path: Path) -> None:
    web_folder = tmp_path / "web"
    (web_folder / "sub").mkdir(parents=True)
    (web_folder / ".well-known").mkdir()
    (web_folder / "index.html").write_text("<h1>game</h1>")
    (web_folder / "sub" / "index.html").write_text("sub")
    (web_folder / "app.js").write_text("1")
    (web_folder / ".env").write_text("SECRET")
    (web_folder / ".well-known" / "x").write_text("known")
    (tmp_path / "secret.txt").write_text("SECRET")
    (web_folder / "link.txt").symlink_to(tmp_path / "secret.txt")

    async def test() -> None:
        async with site(static=web_folder) as web:
            index = await web.get("/")
            assert (index.status, index.body) == (200, b"<h1>game</h1>")
            assert index.headers["content-type"].startswith("text/html")
            assert index.headers["cache-control"] == "no-cache"
            assert (await web.get("/", f"if-none-match: {index.headers['etag']}\r\n")).status == 304
            assert (await web.get("/app.js")).headers["content-type"].startswith("text/javascript")
            assert (await web.get("/sub/")).body == b"sub"
            assert (await web.get("/.well-known/x")).body == b"known"
            assert (await web.get("/healthz")).status == 200
            for path in (
                "/../secret.txt",
                "/%2e%2e/secret.txt",
                "/..%2fsecret.txt",
                "/sub/../../secret.txt",
                "//etc/passwd",
                "/%2fetc/passwd",
                "/.env",
                "/sub/../.env",
                "/%2eenv",
                "/link.txt",
                "/app.js%00.html",
                "/" + "a" * 5000,
                "*",
                "http://x/index.html",
            ):
                answer = await web.get(path)
                assert answer.status in (400, 404), path
                assert b"SECRET" not in answer.body

    run(test)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"static": "no/such/folder"}, "no such folder"),
        ({"static": ".", "app": Starlette()}, "give one of them"),
        ({"app": 7}, "give an ASGI app"),
        ({"app": Starlette}, "give an ASGI app"),
        ({"app": user_app}, "is it a factory"),
    ],
)
def test_a_wrong_app_or_folder_fails_at_once(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        HttpHost(Bridge(), **options)


# --- the user's app ---------------------------------------------------------------------------------------------------


def test_a_users_app_answers_at_the_root_and_our_paths_stay() -> None:
    async def test() -> None:
        async with site(user_app()) as web:
            assert (await web.get("/")).body == b"hello 127.0.0.1 http"
            assert (await web.get("/healthz")).status == 200
            head = await web.ask("HEAD / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (head.status, head.headers["content-length"]) == (200, "20")

            def urllib_get() -> tuple[int, bytes]:
                with urllib.request.urlopen(f"http://127.0.0.1:{web.port}/numbers?to=3", timeout=10) as answer:
                    return answer.status, answer.read()

            assert await asyncio.to_thread(urllib_get) == (200, b"0\n1\n2\n")

    run(test)


def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_order() -> None:
    async def test() -> None:
        async with site(user_app()) as web:
            client = await web.connect()
            for number in range(3):
                client.send(f"GET /numbers?to={number} HTTP/1.1\r\nhost: x\r\n\r\n")
                assert (await client.answer()).body.count(b"\n") == number
            client.send("".join(f"GET /numbers?to={number} HTTP/1.1\r\nhost: x\r\n\r\n" for number in range(1, 50)))
            for number in range(1, 50):
                assert (await client.answer()).body.count(b"\n") == number
            client.send("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert (await client.answer()).headers["connection"] == "close"
            assert await client.reader.read() == b""
            assert web.bridge.next_link == 1
            client.close()

    run(test)


def test_a_request_may_come_in_pieces_of_one_byte() -> None:
    async def test() -> None:
        async with site(user_app()) as web:
            client = await web.connect()
            await until(lambda: bool(web.bridge.links))
            (link,) = web.bridge.links
            text = b"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"
            for index in range(len(text)):
                web.host.received(link, text[index : index + 1])
            assert (await client.answer()).body == b"5"
            client.close()

    run(test)


def test_a_big_upload_arrives_whole_and_reading_pauses_meanwhile() -> None:
    size = 8_000_000

    async def test() -> None:
        async with site(user_app()) as web:
            client = await web.connect()
            client.send(f"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n")
            client.send(bytes(size))
            assert (await client.answer()).body == str(size).encode()
            chunked = "POST /upload HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"
            client.send(chunked)
            assert (await client.head()).status == 100
            client.send(b"4\r\nabcd\r\n3\r\nefg\r\n0\r\n\r\n")
            assert (await client.answer()).body == b"7"
            client.close()

    run(test)


def test_an_app_that_does_not_read_keeps_the_upload_out_of_memory() -> None:
    go_on = asyncio.Event()

    async def lazy(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await go_on.wait()
        await PlainTextResponse(str(len(await Request(scope, receive).body())))(scope, receive, send)

    async def test() -> None:
        async with site(lazy) as web:
            client = await web.connect()
            size = 30_000_000  # far beyond what two kernel buffers take
            client.send(f"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n")
            client.send(bytes(size))
            await until(lambda: web.bridge.pauses > 0)
            (transport,) = web.host._links.values()
            before = transport._bytes_in
            for _ in range(50):
                await asyncio.sleep(0)
            assert transport._bytes_in <= before + (1 << 18)
            assert transport.waits_for() is None  # it is we who make the client wait
            go_on.set()
            assert (await client.answer()).body == str(size).encode()
            client.close()

    run(test)


def test_bytes_under_way_while_paused_are_kept_in_order() -> None:
    """The core's own queue holds bytes that it read before it heard of the pause."""
    seen: list[bytes] = []

    class Recorder:
        def data_received(self, data: bytes) -> None:
            seen.append(data)
            if data == b"2":
                held[0].pause_reading()

        def finish(self) -> bool:
            seen.append(b"end")
            return False

    class Core(Bridge):
        def http_pause(self, link: int) -> None:
            seen.append(b"pause")

        def http_resume(self, link: int) -> None:
            seen.append(b"resume")

    held: list[LinkTransport] = []

    async def test() -> None:
        transport = LinkTransport(Core(), 1, None, None, False, ErrorLog())
        held.append(transport)
        transport.protocol = Recorder()  # type: ignore[assignment]
        transport.pause_reading()
        for data in (b"1", b"2", b"3"):
            transport.receive(data)
        assert seen == [b"pause"]
        transport.resume_reading()
        assert seen == [b"pause"]  # never from within the call
        await asyncio.sleep(0)
        assert seen == [b"pause", b"1", b"2"]
        transport.resume_reading()
        transport.resume_reading()
        transport.receive(b"4")  # may not overtake the third
        transport.receive(b"")
        await asyncio.sleep(0)
        assert seen == [b"pause", b"1", b"2", b"3", b"4", b"end", b"resume"]

    run(test)


def test_errors_of_requests_and_of_the_app_keep_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with site(user_app()) as web:
            client = await web.connect()
            client.send("POST /small HTTP/1.1\r\nhost: x\r\ncontent-length: 2000\r\n\r\n")
            assert (await client.answer()).status == 413
            assert await client.reader.read() == b""
            client.close()
            assert (await web.ask("GET / HTTP/1.1\r\n\r\n")).status == 400  # no host
            assert (await web.ask("GARBAGE\r\n\r\n")).status == 400
            assert (await web.ask("GET /" + "a" * 100_000)).status == 400  # a head that does not end
            assert (await web.ask("DELETE / HTTP/1.1\r\nhost: x\r\n\r\n")).status == 405
            assert not [record for record in caplog.records if record.levelno > logging.INFO]
            for _ in range(3):
                assert (await web.get("/broken")).status == 500
            errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
            assert len(errors) == 1  # each distinct traceback once
            assert "LookupError" in errors[0].getMessage()
            assert (await web.get("/")).status == 200

    with caplog.at_level(logging.INFO, "gameserver.http"):
        run(test)


def test_a_stumbling_library_closes_one_link_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(self: Any, data: bytes) -> None:
        if b"/bad" in data:
            raise RuntimeError("a library's mistake")
        received(self, data)

    received = _http._LinkProtocol.data_received
    monkeypatch.setattr(_http._LinkProtocol, "data_received", stumble)

    async def test() -> None:
        async with site(user_app()) as web:
            good, bad = await web.connect(), await web.connect()
            bad.send("GET /bad HTTP/1.1\r\nhost: x\r\n\r\n")
            await until(lambda: web.bridge.aborts == 1)
            await bad.gone()
            good.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await good.answer()).status == 200
            good.close()

    run(test)


def test_the_access_log_speaks_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with site(user_app()) as web:
            await web.get("/?q=1")

    with caplog.at_level(logging.DEBUG, "gameserver.http"):
        run(test)
    assert any('"GET /?q=1 HTTP/1.1" 200' in record.getMessage() for record in caplog.records)


# --- clients that are slow or gone ------------------------------------------------------------------------------------


def test_a_response_larger_than_the_window_arrives_whole_and_the_core_holds_one_window() -> None:
    async def test() -> None:
        async with site(user_app()) as web:
            answer = await web.get("/large")
            assert answer.body == bytes(5_000_000)
            assert web.bridge.in_core_bytes_max <= WINDOW_BYTES

    run(test)


def test_a_slow_reader_stops_the_app_and_gets_all_in_the_end() -> None:
    sent = 0

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(400):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            sent += 1
        await send({"type": "http.response.body", "body": b""})

    async def test() -> None:
        async with site(endless) as web:
            client = await web.connect()
            client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await until(lambda: bool(web.host._links) and next(iter(web.host._links.values()))._held_back)
            for _ in range(100):
                await asyncio.sleep(0)
            assert sent < 300  # held back: the kernel's buffers took the rest
            (transport,) = web.host._links.values()
            assert transport.get_write_buffer_size() <= WINDOW_BYTES + 2 * 65536
            assert len((await client.answer()).body) == 400 * 65536
            assert sent == 400
            client.close()

    run(test)


def test_an_app_hears_that_its_client_is_gone() -> None:
    heard = asyncio.Event()

    async def patient(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        heard.set()

    async def test() -> None:
        async with site(patient) as web:
            client = await web.connect()
            client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await client.head()
            client.writer.transport.abort()
            await until(lambda: next(iter(web.host._links.values()))._ended)
            assert not heard.is_set()  # it may only have closed its sending side
            web.host._sweep(100.0)
            web.host._sweep(100.0 + _http.END_GRACE)
            await heard.wait()

    run(test)


def test_a_client_gone_in_mid_response_leaves_nothing() -> None:
    async def test() -> None:
        async with site(user_app()) as web:
            for _ in range(20):
                client = await web.connect()
                client.send("GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
                await client.head()
                client.writer.transport.abort()
            await until(lambda: web.bridge.next_link == 20 and not web.host._links)
            await until(lambda: not web.host._state.tasks)

    run(test)


def test_a_client_that_closes_its_sending_side_still_gets_its_answer() -> None:
    async def test() -> None:
        async with site(user_app()) as web:
            client = await web.connect()
            client.send("GET /numbers?to=1000 HTTP/1.1\r\nhost: x\r\n\r\n")
            client.writer.write_eof()
            assert (await client.answer()).body.count(b"\n") == 1000
            async with asyncio.timeout(2):  # at once, and not when the idle connection's time is over
                await client.gone()
            idle = await web.connect()
            idle.writer.write_eof()
            assert await idle.reader.read() == b""
            idle.close()

    run(test)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("GET / HTTP/1.1\r\nhost: x\r\n", _http.HEAD_TIMEOUT),
        ("POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n", _http.STALL_TIMEOUT),
    ],
)
def test_half_a_request_is_not_waited_for_for_ever(text: str, seconds: float) -> None:
    async def test() -> None:
        async with site(user_app()) as web:
            client = await web.connect()
            client.send(text)
            await until(lambda: bool(web.host._links) and next(iter(web.host._links.values()))._bytes_in == len(text))
            (link,) = web.bridge.links
            web.host._sweep(100.0)
            web.host.received(link, b"x")  # a byte now and then is no progress
            web.host._sweep(100.0 + seconds - 0.1)
            assert web.host._links
            web.host._sweep(100.0 + seconds)
            assert web.bridge.aborts == 1
            await client.gone()

    run(test)


def test_a_reader_that_takes_nothing_is_closed_and_an_idle_stream_is_not() -> None:
    async def stream(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        size = 30_000_000 if scope["path"] == "/large" else 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(size), "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def test() -> None:
        async with site(stream) as web:
            events, stuck = await web.connect(), await web.connect()
            events.send("GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
            await events.head()
            stuck.send("GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
            await until(lambda: any(transport._unsent_bytes for transport in web.host._links.values()))
            for _ in range(100):
                await asyncio.sleep(0)
            web.host._sweep(100.0)
            web.host._sweep(100.0 + _http.STALL_TIMEOUT)
            await until(lambda: len(web.bridge.links) == 1)
            web.host._sweep(10_000.0)
            assert len(web.bridge.links) == 1
            events.close()
            stuck.close()

    run(test)


# --- start and stop ---------------------------------------------------------------------------------------------------


def test_the_lifespan_of_a_users_app_runs_once_each_way() -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        steps.append("start")
        yield {"name": "value"}
        steps.append("stop")

    async def state(request: Request) -> Response:
        return PlainTextResponse(request.state.name)

    async def test() -> None:
        async with site(Starlette(routes=[Route("/", state)], lifespan=lifespan)) as web:
            assert steps == ["start"]
            assert (await web.get("/")).body == b"value"
        assert steps == ["start", "stop"]

    run(test)


def test_an_app_that_fails_to_start_says_why(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    async def test() -> None:
        with pytest.raises(GameServerError, match="failed to start"):
            async with site(Starlette(lifespan=lifespan)):
                pass

    run(test)
    assert "no database" in caplog.text


def test_stop_lets_a_response_finish_and_then_ends_what_does_not(caplog: pytest.LogCaptureFixture) -> None:
    go_on = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/never":
            await asyncio.Event().wait()
        await go_on.wait()
        await PlainTextResponse("done")(scope, receive, send)

    async def test() -> None:
        async with site(slow) as web:
            finishing, never = await web.connect(), await web.connect()
            finishing.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            never.send("GET /never HTTP/1.1\r\nhost: x\r\n\r\n")
            await until(lambda: len(web.host._state.tasks) == 2)
            stopping = asyncio.ensure_future(web.host.stop(timeout=0.2))
            await asyncio.sleep(0)
            late = await web.connect()
            go_on.set()
            answer = await finishing.answer()
            assert answer.body == b"done"
            await finishing.gone()
            await never.gone()
            await late.gone()
            await stopping
            assert not web.host._state.tasks
            aborts = web.bridge.aborts
            after = await web.connect()
            await after.gone()
            assert web.bridge.aborts == aborts + 1

    run(test)
    assert not caplog.records  # ending what does not end is no error of the app


def test_a_host_can_start_again_after_it_stopped() -> None:
    async def test() -> None:
        async with site(user_app()) as web:
            assert (await web.get("/")).status == 200
            await web.host.stop(5.0)
            await web.host.start()
            assert (await web.get("/healthz")).status == 200

    run(test)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:8080", ("::1", 8080)),
        ("", None),
        ("/run/game.sock", None),
        ("unix:", None),
    ],
)
def test_addresses_become_what_asgi_calls_a_client(address: str, name: tuple[str, int] | None) -> None:
    assert peer_name(address) == name
