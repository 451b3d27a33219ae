"""Log lines for people and for machines, and errors that are counted instead of repeated."""

from __future__ import annotations

import gc
import io
import json
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gameserver import _logging
from gameserver._logging import ErrorLog, JsonFormatter, ReadableFormatter, configure


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def bare_logging() -> Iterator[None]:
    """Logging as in a program that has not set it up; within the test, as pytest adds its own handlers before it."""
    root, ours = logging.getLogger(), logging.getLogger("gameserver")
    names = ("", "gameserver", *_logging.CHATTY)
    levels = {name: logging.getLogger(name).level for name in names}
    handlers = root.handlers[:]
    root.handlers[:] = []
    ours.setLevel(logging.NOTSET)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def say(stream: io.StringIO, level: str = "info") -> Callable[..., str]:
    """Configures `stream`; a call logs a line to the `gameserver` logger and gives what came out."""
    configure(level, stream)

    def line(text: str, *arguments: object, **named: object) -> str:
        stream.seek(0)
        stream.truncate()
        logging.getLogger("gameserver.x").warning(text, *arguments, **named)  # type: ignore[arg-type]
        return stream.getvalue()

    return line


@bare_logging()
def test_lines_are_json_unless_a_person_reads_them() -> None:
    line = say(io.StringIO())
    entry = json.loads(line("hello %s", "you", extra={"session": 7, "time": "mine", "odd": {1, 2}}))
    assert entry["message"] == "hello you"
    assert (entry["level"], entry["logger"], entry["session"], entry["time_"]) == ("warning", "gameserver.x", 7, "mine")
    assert entry["odd"] == "{1, 2}"
    assert entry["time"].endswith("Z")
    assert len(entry["time"]) == len("2026-01-01T00:00:00.000Z")


@bare_logging()
def test_a_terminal_gets_colours_unless_it_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[33mwarning " in say(Terminal())("hello")
    monkeypatch.setenv("NO_COLOR", "1")
    text = say(Terminal())("hello", extra={"session": 7})
    assert text.endswith("warning  gameserver.x: hello  session=7\n")
    assert "\x1b" not in text


@bare_logging()
def test_configured_twice_it_says_each_line_once_and_at_the_new_level() -> None:
    first, second = io.StringIO(), io.StringIO()
    say(first)
    line = say(second, "error")
    assert line("not said") == ""
    logging.getLogger("gameserver").error("said")
    assert second.getvalue().count("said") == 1
    assert first.getvalue() == ""
    assert len(logging.getLogger().handlers) == 1


@bare_logging()
def test_the_games_own_loggers_are_heard_and_libraries_only_when_they_warn() -> None:
    stream = io.StringIO()
    configure("debug", stream)
    logging.getLogger("mygame").debug("mine")
    logging.getLogger("asyncio").info("theirs")
    assert "mine" in stream.getvalue()
    assert "theirs" not in stream.getvalue()


@bare_logging()
def test_a_program_that_logs_in_its_own_way_is_left_alone() -> None:
    own = logging.NullHandler()
    logging.getLogger().addHandler(own)
    level = logging.getLogger().level
    configure("debug", io.StringIO())
    assert logging.getLogger().handlers == [own]
    assert logging.getLogger().level == level
    assert logging.getLogger("gameserver").level == logging.DEBUG


def test_what_a_client_sent_cannot_forge_a_line() -> None:
    record = logging.makeLogRecord(
        {"name": "x", "msg": "route %r %s", "args": ("a", "b\n12:00 info gone\x1b[2J\r\x9b")}
    )
    text = ReadableFormatter(colour=False).format(record)
    assert text.endswith("route 'a' b\n    12:00 info gone\\x1b[2J\\r\\x9b")
    assert len(JsonFormatter().format(record).splitlines()) == 1


@pytest.mark.parametrize("extra", [{"a": float("nan")}, {"a": {(1, 2): 3}}, {"a": "\ud800"}, {"a": object()}])
def test_odd_fields_and_wrong_arguments_do_not_lose_the_line(extra: dict[str, object]) -> None:
    circle: list[object] = []
    circle.append(circle)
    fields = {"name": "x", "msg": "%d things", "args": ("no number",), "levelname": "INFO", "b": circle, **extra}
    record = logging.makeLogRecord(fields)
    assert "%d things" in json.loads(JsonFormatter().format(record))["message"]
    assert "%d things" in ReadableFormatter(colour=False).format(record)


def test_exceptions_are_text_in_both_forms() -> None:
    try:
        raise ValueError("over\nlines")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "oh", "exc_info": (ValueError, error, error.__traceback__)})
    assert "ValueError: over\nlines" in json.loads(JsonFormatter().format(record))["exception"]
    assert "ValueError: over" in ReadableFormatter(colour=False).format(record)


# --- errors that are counted ------------------------------------------------------------------------------------------


def fails(number: int) -> None:
    if number % 2:
        raise KeyError(number)
    raise ValueError(number)


def caught(call: Callable[..., object], *arguments: object) -> Exception:
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError("it was to raise")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    def take() -> list[logging.LogRecord]:
        records = caplog.records[:]
        caplog.clear()
        return records

    return take


Lines = Callable[[], list[logging.LogRecord]]


def test_the_first_of_a_kind_is_said_in_full_and_the_others_are_counted(lines: Lines) -> None:
    errors = ErrorLog()
    for number in range(0, 2000, 2):
        errors.record(caught(fails, number), "game.move", now=0.0)
    said = lines()
    assert [line.getMessage() for line in said] == [
        "game.move: ValueError: 0",
        *(
            f"game.move: ValueError: {2 * count - 2} at {__file__}:{fails.__code__.co_firstlineno + 3} in fails: "
            f"{count} times, {new} of them new"
            for count, new in ((10, 9), (100, 90), (1000, 900))
        ),
    ]
    assert "Traceback" in JsonFormatter().format(said[0])
    assert "in fails" in ReadableFormatter(colour=False).format(said[0])
    assert "Traceback" not in JsonFormatter().format(said[1])


def test_distinct_is_by_class_and_way_and_not_by_text(lines: Lines) -> None:
    errors = ErrorLog()
    for number in range(10):
        errors.record(caught(fails, number), "a", now=0.0)
    errors.record(caught(lambda: fails(0)), "b", now=0.0)  # one frame more: another way
    assert sorted((seen.kind, seen.count) for seen in errors.counts()) == [
        ("KeyError", 5),
        ("ValueError", 1),
        ("ValueError", 5),
    ]
    assert len(lines()) == 3
    assert [seen.count for seen in errors.counts()] == [5, 5, 1]


def test_a_rare_error_is_mentioned_again_after_the_interval(lines: Lines) -> None:
    errors = ErrorLog(interval=60.0)
    for now in (0.0, 1.0, 59.9, 60.0, 61.0, 119.9, 120.0):
        errors.record(caught(fails, 0), "a", now=now)
    assert [line.getMessage().rpartition(": ")[2] for line in lines()[1:]] == [
        "4 times, 3 of them new",
        "7 times, 3 of them new",
    ]


def test_causes_tell_errors_apart() -> None:
    def wraps(number: int) -> None:
        try:
            fails(number)
        except Exception as error:
            raise RuntimeError("wrapped") from error

    errors = ErrorLog()
    for number in (0, 1, 0, 1):
        errors.record(caught(wraps, number), "a", now=0.0)
    assert [seen.count for seen in errors.counts()] == [2, 2]


def test_distinct_errors_are_bounded(lines: Lines) -> None:
    errors = ErrorLog(distinct_max=10)
    for number in range(50):
        # As a game that evaluates text could make them: each from a place of its own.
        code = compile("\n" * number + "1 / 0", "made", "exec")
        errors.record(caught(exec, code), "a", now=0.0)
    counts = errors.counts()
    assert len(counts) == 11
    assert (counts[0].kind, counts[0].count) == ("other errors", 40)
    assert len(lines()) == 10 + 2  # the first of the others, and their tenth


def test_nothing_of_an_exception_is_kept() -> None:
    class Held:
        pass

    def hold() -> weakref.ref[Held]:
        held = Held()
        reference = weakref.ref(held)

        def fail() -> None:
            raise ValueError(held)

        errors.record(caught(fail), "a", now=0.0)
        return reference

    errors = ErrorLog()
    reference = hold()
    gc.collect()
    assert reference() is None


class Spiteful(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def recurse() -> None:
    recurse()


def circular() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    raise first


def spite() -> None:
    raise Spiteful


@pytest.mark.parametrize("call", [recurse, circular, spite])
def test_the_strangest_exceptions_are_logged(call: Callable[[], None], lines: Lines) -> None:
    errors = ErrorLog()
    for _ in range(10):
        errors.record(caught(call), "a", now=0.0)
    assert [seen.count for seen in errors.counts()] == [10]
    assert len(_logging._key(caught(call))) < 100  # what is kept and compared is bounded
    for line in lines():
        assert len(JsonFormatter().format(line)) < 20_000
    errors.record(ValueError("raised nowhere"), "a", now=0.0)
    assert {seen.location for seen in errors.counts()} >= {""}
