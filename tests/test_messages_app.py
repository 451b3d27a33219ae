"""Handlers and clients by message: routes and bodies from annotations, answers, pushes, refusals, the schema in the handshake."""

from __future__ import annotations

import copy
import json
import threading
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import wire_client
from conftest import Serve, eventually
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from wire_client import Client, connected, notify, request

from gameserver import App, Batch, ConfigError, Message, Range, Refuse, Router, SchemaError, Session, f32, u32
from gameserver.wire import decode_error

PROTOBUF = b'{"sys":{"gs":{"serializer":"protobuf"}}}'


class Move(Message):
    seq: u32
    dx: Annotated[f32, Range(-1, 1)]
    dy: f32 = 0.0
    note: str = ""


class Moved(Message):
    seq: u32
    x: f32


class Blocked(Message):
    by: str


def speaking_protobuf(port: int, hello: bytes = PROTOBUF) -> Client:
    client = Client(port)
    client.handshake(hello)
    return client


def error_of(answer: wire_client.Message, serializer: Any = "protobuf") -> Any:
    return decode_error(answer.body, serializer)


def moving_app() -> App:
    app = App("test")

    @app.on
    def move(msg: Move, session: Session) -> Moved:
        return Moved(msg.seq, msg.dx * 2)

    @app.on("try")
    async def attempt(session: Session, msg: Move) -> Moved | Blocked | None:
        if msg.note == "nothing":
            return None
        return Blocked(msg.note) if msg.note else Moved(msg.seq, msg.dx)

    @app.on("wrong")
    def wrong(msg: Move) -> Moved:
        return Blocked("not what I said")  # type: ignore[return-value]

    @app.on("undeclared")
    def undeclared(body: bytes):  # type: ignore[no-untyped-def]
        return Blocked(body.decode())

    @app.on("bad-value")
    def bad_value() -> Moved:
        return Moved(-1, 0.0)

    return app


def test_the_route_is_the_name_of_the_message_and_its_answer_is_a_message(serve: Serve) -> None:
    with serve(moving_app()) as server, speaking_protobuf(server.port) as client:
        answer = client.request("Move", Move(7, 0.5).encode())
        assert (answer.error, Moved.decode(answer.body)) == (False, Moved(7, 1.0))
        assert client.request("Move", b"").body == b""  # all 0, both ways
        answer = client.request("undeclared", b"x")
        assert Blocked.decode(answer.body) == Blocked("x")


def test_an_answer_of_several_types_says_which_it_is(serve: Serve) -> None:
    with serve(moving_app()) as server, speaking_protobuf(server.port) as client:
        # A message with a oneof: field 1 is Moved, field 2 Blocked.
        assert client.request("try", Move(3, 0.5).encode()).body == b"\x0a\x07" + Moved(3, 0.5).encode()
        assert client.request("try", Move(3, 0.5, note="wall").encode()).body == b"\x12\x06" + Blocked("wall").encode()
        assert client.request("try", Move(3, 0.5, note="nothing").encode()).body == b""
        with connected(server.port) as other:
            assert json.loads(other.request("try", b'{"note":"wall"}').body) == {"blocked": {"by": "wall"}}
            assert other.request("try", b'{"note":"nothing"}').body == b"null"


def test_an_answer_that_is_none_is_the_games_mistake(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with serve(moving_app()) as server, speaking_protobuf(server.port) as client:
        for route in ("wrong", "bad-value"):
            answer = client.request(route, b"")
            assert error_of(answer).code == "GS-500"
        assert len(server.stats()["errors"]) == 2
    text = caplog.text
    assert "returned Blocked, annotated as Moved" in text
    assert "Moved.seq" in text


def test_json_clients_speak_the_same_classes_with_the_same_checks(serve: Serve) -> None:
    with serve(moving_app()) as server, connected(server.port) as client:
        answer = client.request("Move", b'{"seq":7,"dx":0.5,"note":"\xed\xa0\xbd\xed\xb8\x80","unknown":1}')
        assert json.loads(answer.body) == {"seq": 7, "x": 1.0}
        for body, field in (
            (b'{"dx":2}', "Move.dx"),
            (b'{"seq":-1}', "Move.seq"),
            (b'{"note":5}', "Move.note"),
            (b"{", "Move"),
            (b"", "Move"),
            (b"[]", "Move"),
        ):
            refused = client.request("Move", body)
            error = error_of(refused, "json")
            assert (refused.error, error.code) == (True, "GS-400"), body
            assert field in error.msg, body


def test_what_does_not_decode_is_refused_with_the_field_and_counted_by_route(serve: Serve) -> None:
    seen: list[Move] = []
    app = moving_app()

    @app.on("see")
    def see(msg: Move) -> None:
        seen.append(msg)

    with serve(app) as server, speaking_protobuf(server.port) as client:
        for body, field in (
            (b"\x15\x00\x00\x00\x40", "Move.dx: 2 is not in -1"),
            (b"\x1d\x00\x00\xc0\x7f", "Move.dy"),
            (b"\xff", "Move"),
            (b"\x22\x01\xff", "Move.note"),
        ):
            error = error_of(client.request("see", body))
            assert error.code == "GS-400", body
            assert field in error.msg, body
        client.request("Move", b"\xff")
        counts = server.stats()["messages"]
        assert counts["bodies_refused_by_route"] == {"see": 4, "Move": 1}
        assert counts["bodies_refused"] == 5
        assert seen == []


def test_a_refused_notify_is_told_by_a_push_to_those_who_know_of_it(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    app = moving_app()

    @app.on("refuse")
    async def refuse(msg: Move) -> None:
        raise Refuse("too-far", "no", {"by": "2"})

    @app.on("crash")
    def crash(msg: Move) -> None:
        raise ZeroDivisionError

    with serve(app) as server, speaking_protobuf(server.port) as client, connected(server.port) as old:
        for route, body, code in (
            ("Move", b"\xff", "GS-400"),
            ("refuse", b"", "too-far"),
            ("crash", b"", "GS-500"),
            ("nowhere", b"", "GS-404"),
        ):
            client.send(notify(route, body))
            old.send(notify(route, body))
            error = error_of(client.push("$error"))
            assert (error.code, error.metadata["route"]) == (code, route)
        assert old.request("Move", b"{}").body
        assert old.pushes == []  # it asked for nothing of the kind


@pytest.mark.parametrize("serializer", ["json", "protobuf"])
def test_too_many_bad_messages_close_the_connection(serve: Serve, serializer: str) -> None:
    hello = b'{"sys":{"gs":{"serializer":"%s"}}}' % serializer.encode()
    with serve(moving_app(), bad_messages_max=5) as server, speaking_protobuf(server.port, hello) as client:
        client.send(b"".join(request(number, "Move", b"\xff") for number in range(1, 8)))
        for number in range(1, 7):  # the sixth is the one too many
            assert client.response(number).error
        assert client.until_closed() == []
        closed = eventually(server, lambda stats: stats["closed"]["bad-messages"] == 1)["closed"]
        assert sum(closed.values()) == 1


def test_pushes_are_messages_encoded_once_for_each_serializer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    app = moving_app()
    app.messages(Blocked)

    @app.authenticate
    def who(user: dict[str, Any]) -> str | None:
        return user.get("name")

    @app.on_join
    def join(session: Session) -> None:
        app.group("all").add(session)

    @app.on("say")
    def say(session: Session, body: bytes) -> list[Any]:
        message = Blocked(body.decode())
        session.push(message)
        return [
            app.group("all").push(message, skip=session),
            app.push(message),
            app.user("ann").push(message),
            app.push("by-route", message),
        ]

    hello = b'{"sys":{"gs":{"serializer":"protobuf"}},"user":{"name":"ann"}}'
    with serve(app) as server, speaking_protobuf(server.port, hello) as ann, connected(server.port) as bob:
        assert json.loads(bob.request("say", "é".encode()).body) == [1, 2, True, 2]
        assert [bob.push().body for _ in range(3)] == [rb'{"by":"\u00e9"}'] * 3
        routes = []
        for _ in range(4):
            push = ann.push()
            routes.append(push.route)
            assert Blocked.decode(push.body) == Blocked("é")
        assert routes == ["Blocked"] * 3 + ["by-route"]


def test_what_is_pushed_is_checked(serve: Serve) -> None:
    app = App("test")
    failures: list[BaseException] = []

    @app.on("push")
    def push(session: Session) -> None:
        for arguments in ((3,), (None,), (Moved(1, 1.0), b"x"), (Moved(-1, 1.0),), ({"a": 1},)):
            for target in (session, app, app.group("all")):
                try:
                    target.push(*arguments)
                except (TypeError, ValueError) as error:
                    failures.append(error)

    app.messages(Moved)
    with serve(app) as server, speaking_protobuf(server.port) as client:
        assert not client.request("push").error
        assert client.pushes == []
        assert len(failures) == 15
        assert "Moved.seq" in str(failures[-4])


def test_a_class_that_is_named_nowhere_is_learned_when_it_is_pushed(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    app = App("test")

    @app.on("push")
    def push(session: Session) -> None:
        session.push(Blocked("x"))

    hello = b'{"sys":{"gs":{"serializer":"protobuf","schema":""}}}'
    with serve(app) as server:
        with speaking_protobuf(server.port, hello) as client:
            assert "schema" not in client.hello["sys"]["gs"]
            client.request("push")
            client.request("push")
        with speaking_protobuf(server.port, hello) as client:
            assert client.hello["sys"]["gs"]["schema"]["pushes"] == {"Blocked": "Blocked"}
    assert caplog.text.count("write app.messages(Blocked)") == 1


def test_the_schema_is_in_the_handshake_of_who_asks(serve: Serve) -> None:
    app = moving_app()
    app.messages(Blocked)
    with serve(app) as server:
        hello = b'{"sys":{"gs":{"serializer":"protobuf","schema":"%s"}}}'
        with speaking_protobuf(server.port, hello % b"") as client:
            schema = client.hello["sys"]["gs"]["schema"]
        assert schema["messages"]["Move"] == [[1, "seq", "u32"], [2, "dx", "f32"], [3, "dy", "f32"], [4, "note", "str"]]
        assert schema["messages"]["MovedOrBlocked"] == [
            [1, "moved", ".Moved", "oneof", "answer"],
            [2, "blocked", ".Blocked", "oneof", "answer"],
        ]
        assert schema["routes"]["Move"] == {"request": "Move", "response": "Moved"}
        assert schema["routes"]["try"] == {"request": "Move", "response": "MovedOrBlocked"}
        assert schema["routes"]["bad-value"] == {"response": "Moved"}
        assert "undeclared" not in schema["routes"]
        assert schema["pushes"] == {"Move": "Move", "Moved": "Moved", "Blocked": "Blocked"}
        with speaking_protobuf(server.port, hello % schema["digest"].encode()) as client:
            gs = client.hello["sys"]["gs"]
            assert (gs["digest"], "schema" in gs) == (schema["digest"], False)
        with speaking_protobuf(server.port) as client:
            assert not {"digest", "schema"} & client.hello["sys"]["gs"].keys()
        with connected(server.port) as client:
            assert "gs" not in client.hello["sys"]
    other = moving_app()
    other.messages(Told)
    with serve(other) as server, speaking_protobuf(server.port, hello % schema["digest"].encode()) as client:
        assert client.hello["sys"]["gs"]["schema"]["digest"] != schema["digest"]


def generated(name: str = "Spin") -> Any:
    """What protoc would have made of ``message Spin {float by = 1; optional string why = 2; map<string, int32> at = 3;}``."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="game", syntax="proto3")
    message = file.message_type.add(name=name)
    field = descriptor_pb2.FieldDescriptorProto
    message.field.add(name="by", number=1, type=field.TYPE_FLOAT, label=field.LABEL_OPTIONAL)
    message.field.add(
        name="why", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL, proto3_optional=True, oneof_index=0
    )
    message.oneof_decl.add(name="_why")
    entry = message.nested_type.add(name="AtEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    message.field.add(
        name="at", number=3, type=field.TYPE_MESSAGE, type_name=f".game.{name}.AtEntry", label=field.LABEL_REPEATED
    )
    message.field.add(name="ids", number=4, type=field.TYPE_SINT64, label=field.LABEL_REPEATED)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"game.{name}"))


def test_classes_that_protoc_generated_are_messages_too(serve: Serve) -> None:
    spin_class: Any = generated()
    app = App("test")

    def spin(session: Session, msg: Any) -> Any:
        session.push(msg)
        app.push("by-route", msg)
        return spin_class(by=msg.by * 2)

    spin.__annotations__ = {"session": Session, "msg": spin_class, "return": spin_class}
    app.on(spin)
    hello = b'{"sys":{"gs":{"serializer":"protobuf","schema":""}}}'
    with serve(app) as server, speaking_protobuf(server.port, hello) as client, connected(server.port) as old:
        schema = client.hello["sys"]["gs"]["schema"]
        assert schema["routes"] == {"Spin": {"request": "game.Spin", "response": "game.Spin"}}
        assert schema["messages"]["game.Spin"] == [
            [1, "by", "f32"],
            [2, "why", "str", "optional"],
            [3, "at", "i32", "map", "str"],
            [4, "ids", "s64", "repeated"],
        ]
        answer = client.request("Spin", spin_class(by=1.5, why="é").SerializeToString())
        assert spin_class.FromString(answer.body) == spin_class(by=3.0)
        pushes = [client.push() for _ in range(2)]
        assert [push.route for push in pushes] == ["Spin", "by-route"]
        assert {spin_class.FromString(push.body).why for push in pushes} == {"é"}
        assert error_of(client.request("Spin", b"\xff")).code == "GS-400"
        old.pushes.clear()
        assert json.loads(old.request("Spin", '{"by":2,"why":"é","no":1}'.encode()).body) == {"by": 4.0}
        assert json.loads(old.push("Spin").body) == {"by": 2.0, "why": "é"}
        assert error_of(old.request("Spin", b'{"by":"x"}'), "json").code == "GS-400"
        assert server.stats()["errors"] == []


def test_messages_in_a_router_have_its_prefix(serve: Serve) -> None:
    router = Router("walk")

    @router.on
    def move(msg: Move) -> Moved:
        return Moved(msg.seq, 0.0)

    app = App("test")
    app.include(router)
    with serve(app) as server, speaking_protobuf(server.port) as client:
        assert Moved.decode(client.request("walk.Move", Move(5, 0).encode()).body).seq == 5


# -- batches -----------------------------------------------------------------------------------------------------------


class Batches:
    """What a batch handler was called with, call by call."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.happened = threading.Condition()

    def take(self, batch: Batch[Move]) -> None:
        with self.happened:
            self.calls.append(
                {
                    "seq": batch.seq.tolist(),
                    "dx": batch.dx.tolist(),
                    "dy": batch.dy.tolist(),
                    "ids": batch.ids.tolist(),
                    "sessions": [session.id for session in batch.sessions],
                    "dtypes": [str(getattr(batch, name).dtype) for name in ("seq", "dx", "ids")],
                }
            )
            self.happened.notify_all()

    def wait(self, rows: int) -> dict[str, list[Any]]:
        """All calls as one, once so many rows have come."""
        with self.happened:
            assert self.happened.wait_for(lambda: sum(len(call["seq"]) for call in self.calls) >= rows, 10)
            return {key: [value for call in self.calls for value in call[key]] for key in self.calls[0]}


def batch_app(batches: Batches, **options: Any) -> App:
    app = App("test", tick_rate=50)

    @app.on(**options)
    def moves(batch: Batch[Move]) -> None:
        batches.take(batch)

    @app.on("id")
    def number(session: Session) -> int:
        return session.id

    return app


def test_a_batch_holds_every_message_in_order_as_columns(serve: Serve) -> None:
    batches = Batches()
    with serve(batch_app(batches)) as server, speaking_protobuf(server.port) as ann, connected(server.port) as bob:
        ids = [int(client.request("id").body) for client in (ann, bob)]
        ann.send(b"".join(notify("Move", Move(seq, 0.5, dy=seq / 4, note="x" * seq).encode()) for seq in range(100)))
        bob.send(notify("Move", b'{"seq":1000,"dx":-1}') + notify("Move", b'{"seq":1001}'))
        got = batches.wait(102)
        rows = list(zip(got["ids"], got["seq"], got["dx"], got["dy"], strict=True))
        assert [row[1:] for row in rows if row[0] == ids[0]] == [(seq, 0.5, seq / 4) for seq in range(100)]
        assert [row[1:] for row in rows if row[0] == ids[1]] == [(1000, -1.0, 0.0), (1001, 0.0, 0.0)]
        assert got["ids"] == got["sessions"]
        assert set(got["dtypes"]) == {"uint32", "float32", "uint64"}
        stats = server.stats()
        assert (stats["errors"], stats["messages"]["in"]) == ([], 2 + 102)


def test_who_sends_nothing_but_to_batches_may_be_read_late_and_loses_nothing(serve: Serve) -> None:
    batches = Batches()
    app = batch_app(batches)
    with (
        serve(app, message_rate="none") as server,
        speaking_protobuf(server.port) as ann,
        connected(server.port) as bob,
    ):

        def told_late() -> int:
            return int(server.stats()["connections"]["told_late"])

        bob.send(notify("Move", b'{"seq":1000000}'))
        sent = 0
        while told_late() == 0:
            assert sent < 200_000, "told of late never"
            for _ in range(1000):  # one by one: these are many reads
                ann.send(notify("Move", Move(sent, 0.5).encode()))
                sent += 1
        for _ in range(10):
            before = told_late()
            assert ann.request("id").body == ann.request("id").body  # in order, behind the move before
        assert told_late() == before, "whoever asks is heard at once"
        got = batches.wait(sent + 1)["seq"]
        got.remove(1_000_000)
        assert got == [*range(sent)]
        ann.close()
        eventually(server, lambda stats: stats["connections"]["open"] == 1)


def test_a_batch_of_runs_gives_each_row_its_sender() -> None:
    one, other = Session(), Session()
    runs: Batch[Move] = Batch({"dx": np.arange(5)}, np.array([1, 2, 1], "u8"), [one, other, one], np.array([2, 1, 2]))
    assert len(runs) == 5
    assert runs.ids.tolist() == [1, 1, 2, 1, 1]
    assert [session is one for session in runs.sessions] == [True, True, False, True, True]
    assert len(runs) == 5


def test_a_batch_can_be_copied_and_says_which_columns_it_has() -> None:
    batch: Batch[Move] = Batch({"dx": np.array([0.5])}, np.array([1], "u8"), [Session()])
    assert copy.copy(batch).dx.tolist() == [0.5]
    with pytest.raises(AttributeError, match="dz is no column of this batch; columns are: dx"):
        _ = batch.dz


def test_a_batch_that_keeps_the_last_has_a_row_for_each_session(serve: Serve) -> None:
    batches = Batches()
    app = batch_app(batches, keep="last")
    app._code_settings["tick_rate"] = 1  # both writes come well before a tick
    with (
        serve(app, message_rate="none") as server,
        speaking_protobuf(server.port) as ann,
        speaking_protobuf(server.port) as bob,
    ):
        ids = [int(client.request("id").body) for client in (ann, bob)]
        count = 10_000  # beyond what is kept of replaced rows
        bob.send(notify("Move", Move(7, 0.25).encode()))
        bob.request("id")
        ann.send(b"".join(notify("Move", Move(seq, 0.5).encode()) for seq in range(count)))
        ann.request("id")
        got = batches.wait(2)
        newest = dict(zip(got["ids"], got["seq"], strict=True))
        assert newest == {ids[0]: count - 1, ids[1]: 7}
        assert len(got["ids"]) <= 4  # a tick may have come between


def test_batches_refuse_what_does_not_fit_and_go_on(serve: Serve) -> None:
    batches = Batches()
    with serve(batch_app(batches)) as server, speaking_protobuf(server.port) as client:
        bodies = [Move(1, 0.5).encode(), b"\x15\x00\x00\x00\x40", b"\x08\x01\xff", Move(2, 0.5).encode()]
        client.send(b"".join(notify("Move", body) for body in bodies))
        assert batches.wait(2)["seq"] == [1, 2]
        for _ in range(2):
            assert error_of(client.push("$error")).code == "GS-400"
        asked = error_of(client.request("Move", Move(3, 0.5).encode()))
        assert asked.code == "GS-405"
        assert server.stats()["messages"]["bodies_refused_by_route"] == {"Move": 2}


def test_what_a_session_sent_that_has_left_is_left_out(serve: Serve) -> None:
    batches = Batches()
    left = threading.Event()
    app = batch_app(batches)
    app._code_settings["tick_rate"] = 1

    @app.on_leave
    def leave(session: Session) -> None:
        left.set()

    with serve(app) as server, speaking_protobuf(server.port) as stays:
        with speaking_protobuf(server.port) as goes:
            stays.send(notify("Move", Move(1, 0.5).encode()))
            stays.request("id")
            goes.send(notify("Move", Move(2, 0.5).encode()) * 3)
            goes.request("id")
            stays.send(notify("Move", Move(3, 0.25).encode()))
            stays.request("id")
        assert left.wait(10)
        got = batches.wait(2)
        rows = [(seq, dx) for seq, dx in zip(got["seq"], got["dx"], strict=True) if seq != 2]
        assert rows == [(1, 0.5), (3, 0.25)]


# -- mistakes ------------------------------------------------------------------------------------------------------------


class Told(Message):
    text: str


def test_mistakes_are_found_at_registration_with_file_and_line() -> None:
    app = App("test", tick_rate=10)

    def fails(function: Any, said: str, **options: Any) -> None:
        with pytest.raises(ConfigError, match=said) as found:
            app.on(**options)(function)
        assert Path(__file__).name in str(found.value)

    def no_message(session: Session) -> None: ...

    def two(msg: Move, other: Moved) -> None: ...

    def mixed(msg: Move) -> Moved | bytes:
        return b""

    def bare_base(msg: Message) -> None: ...

    async def waiting(batch: Batch[Move]) -> None: ...

    def answering(batch: Batch[Move]) -> Moved:
        return Moved(1, 1)

    def both(session: Session, batch: Batch[Move]) -> None: ...

    def of_nothing(batch: Batch) -> None: ...  # type: ignore[type-arg]

    def of_bytes(batch: Batch[bytes]) -> None: ...

    def single(msg: Move) -> None: ...

    fails(no_message, "takes the route from the message")
    fails(two, "a second your subclass of Message")
    fails(mixed, "of Message classes alone")
    fails(bare_base, "can't be filled")
    fails(waiting, "can't wait")
    fails(answering, "nobody waits for an answer")
    fails(both, "takes nothing else")
    fails(of_nothing, "a batch is of one Message")
    fails(of_bytes, "a batch is of one Message")
    fails(single, "is for batches", keep="last")
    with pytest.raises(ConfigError, match="'all' or 'last'"):
        app.on(keep="newest")  # type: ignore[call-overload]
    app.on(single)
    with pytest.raises(ConfigError, match="handled already"):
        app.on(single)
    with pytest.raises(ConfigError, match="give subclasses of Message"):
        app.messages(int)
    assert [handler.route for handler in app.handlers] == ["Move"]


def test_mistakes_that_show_at_start(serve: Serve) -> None:
    def start(app: App) -> None:
        with serve(app):
            raise AssertionError("it started")

    app = App("test")

    @app.on
    def texts(batch: Batch[Move]) -> None: ...

    with pytest.raises(ConfigError, match="set tick_rate"):
        start(app)
    app = App("test", tick_rate=10)

    @app.on
    def no_numbers(batch: Batch[Told]) -> None: ...

    with pytest.raises(ConfigError, match="no field that is a number"):
        start(app)

    def another() -> type[Message]:
        class Move(Message):
            other: u32

        return Move

    app = App("test")
    app.messages(Move, another())
    with pytest.raises(ConfigError, match=rf"{Path(__file__).name}:\d+.*{Path(__file__).name}:\d+.*rename one"):
        start(app)
    app = App("test")

    class Holds(Message):
        inner: "Nowhere"  # type: ignore[name-defined] # noqa: F821, UP037

    app.messages(Holds)
    with pytest.raises(SchemaError, match="Nowhere"):
        start(app)
