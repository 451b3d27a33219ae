"""Log lines: readable on a terminal, JSON otherwise; and errors grouped by where they were raised."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

__all__ = ["ErrorCount", "ErrorLog", "JsonFormatter", "ReadableFormatter", "configure"]


def configure(level: str, stream: TextIO | None = None) -> None:
    """Makes log lines appear: coloured ones if `stream` is a terminal, JSON lines if not.

    Where the program has set up `logging` itself (the root logger has handlers), only the level of the `gameserver`
    logger is set, and lines go the program's way. Called again, it changes level and stream and adds nothing.

    Args:
        level: `debug`, `info`, `warning`, `error` or `critical`.
        stream: where to; None: standard error.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger(LOGGER_NAME).setLevel(number)
    root = logging.getLogger()
    ours = next((handler for handler in root.handlers if isinstance(handler, _Handler)), None)
    if ours is None:
        if root.handlers:
            return
        ours = _Handler()
        root.addHandler(ours)
    # The game's own loggers shall be heard as ours are; those of our libraries at warning.
    root.setLevel(number)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    target = stream if stream is not None else sys.stderr
    ours.setStream(target)
    ours.setFormatter(ReadableFormatter(colour=_wants_colour()) if target.isatty() else JsonFormatter())


LOGGER_NAME = "gameserver"

# They speak at info of what is no news to a player's host.
CHATTY = ("asyncio", "uvicorn", "watchfiles")


class ReadableFormatter(logging.Formatter):
    """`12:34:56.789 info  gameserver.http: message  key=value`, for people.

    What clients sent can't forge a line or move the cursor: control characters are shown as `\\x1b`, and further lines
    of a message are indented.
    """

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line, or more if the message or an exception has more."""
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        level = f"{record.levelname.lower():<8}"
        if self._colour:
            time = f"{_DIM}{time}{_RESET}"
            level = f"{_COLOURS.get(record.levelno // 10 * 10, '')}{level}{_RESET}"
        text = f"{time} {level} {record.name}: {_printable(_message(record))}"
        for key, value in _extras(record).items():
            text += f"  {key}={_printable(str(value))}"
        for more in (_exception_text(record), record.stack_info):
            if more:
                text += "\n" + _printable(more, indent="")
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (UTC), `level`, `logger`, `message`, extra fields, and `exception` as text."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        for key, value in _extras(record).items():
            entry[key + "_" if key in entry else key] = value
        if exception := _exception_text(record):
            entry["exception"] = exception
        if record.stack_info:
            entry["stack"] = record.stack_info
        try:
            return json.dumps(entry, default=repr, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            # A field that JSON can't hold (a NaN, a key that is no string, a circle) is no reason to lose the line.
            return json.dumps({key: value if isinstance(value, str) else repr(value) for key, value in entry.items()})


@dataclass(slots=True)
class ErrorCount:
    """One distinct error of the game's code, and how often it was seen."""

    kind: str
    """The exception's class, with its module."""
    location: str
    """The innermost line of code: `game.py:12 in move`; empty if it has no traceback."""
    where: str
    """The handler that it left last."""
    count: int = 0
    first: float = 0.0
    last: float = 0.0
    reported: int = 0
    """The count when a line was last logged."""
    reported_at: float = 0.0


class ErrorLog:
    """Exceptions of the game's code: each distinct one is logged once in full, then counted.

    Distinct means another class or another way through the code; the message may differ. After the first, a line says
    the count at 10, 100, 1000 and so on, and else at most every `interval` seconds. Printing each would cost more than
    the handler and bury everything else.
    """

    def __init__(
        self, logger: logging.Logger | None = None, *, interval: float = 60.0, distinct_max: int = 256
    ) -> None:
        self._logger = logger if logger is not None else logging.getLogger(LOGGER_NAME)
        self._interval = interval
        self._distinct_max = distinct_max
        self._counts: dict[_Key, ErrorCount] = {}

    def record(self, exc: BaseException, where: str, now: float) -> None:
        """Counts `exc`, that left the handler `where`, and logs what is due.

        Args:
            exc: nothing of it is kept, so the frames of its traceback are free to go.
            where: the handler, for people.
            now: seconds of any clock that only goes forward.
        """
        key = _key(exc)
        seen = self._counts.get(key)
        if seen is None and len(self._counts) >= self._distinct_max:
            key = _OVERFLOW
            seen = self._counts.get(key)
        if seen is None:
            kind, location = (_kind(exc), _location(exc)) if key is not _OVERFLOW else ("other errors", "")
            seen = self._counts[key] = ErrorCount(kind, location, where, first=now)
        seen.count += 1
        seen.last, seen.where = now, where
        if seen.count == 1:
            self._first(seen, exc, where)
        elif _is_power_of_ten(seen.count) or now - seen.reported_at >= self._interval:
            self._again(seen, exc)
        else:
            return
        seen.reported, seen.reported_at = seen.count, now

    def counts(self) -> list[ErrorCount]:
        """Every distinct error seen, the most frequent first."""
        return sorted(self._counts.values(), key=lambda seen: -seen.count)

    def _first(self, seen: ErrorCount, exc: BaseException, where: str) -> None:
        if seen.kind == "other errors":
            self._logger.error(
                "%s: %s (more than %d distinct errors: further ones are only counted)",
                where,
                _summary(exc),
                self._distinct_max,
            )
            return
        text = "".join(_format(exc)).rstrip()
        self._logger.error("%s: %s", where, _summary(exc), extra={_EXCEPTION: text})

    def _again(self, seen: ErrorCount, exc: BaseException) -> None:
        at = f" at {seen.location}" if seen.location else ""
        new = seen.count - seen.reported
        self._logger.error("%s: %s%s: %d times, %d of them new", seen.where, _summary(exc), at, seen.count, new)


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that it is found again; never fails because the stream has gone."""

    def handleError(self, record: logging.LogRecord) -> None:
        """A closed pipe must not end the game, and there is nowhere left to say it."""


_Key = tuple[object, ...]

_OVERFLOW: _Key = ("overflow",)

# A traceback deeper than this is told apart by its ends: a recursion's middle says nothing and costs time.
_FRAMES_EACH_END = 32

# The name of the extra field in which a ready-made traceback travels.
_EXCEPTION = "_gameserver_exception"

_DIM = "\x1b[2m"
_RESET = "\x1b[0m"
_COLOURS = {
    logging.DEBUG: "\x1b[36m",
    logging.INFO: "\x1b[32m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", _EXCEPTION}

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # wrong arguments for the text, or an object whose str fails: still worth a line
        return f"{record.msg!r} % {type(record.args).__name__} ({type(error).__name__}: {error})"


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD}


def _exception_text(record: logging.LogRecord) -> str:
    ready = record.__dict__.get(_EXCEPTION)
    if isinstance(ready, str):
        return ready
    exc = record.exc_info[1] if record.exc_info else None
    return "".join(_format(exc)).rstrip() if exc is not None else record.exc_text or ""


def _printable(text: str, indent: str = "    ") -> str:
    shown = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return shown.replace("\n", "\n" + indent)


def _wants_colour() -> bool:
    return "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _format(exc: BaseException) -> list[str]:
    try:
        return traceback.format_exception(exc)
    except Exception as error:  # a class whose __str__ or __cause__ is broken
        return [f"{_kind(exc)} (its traceback can't be shown: {type(error).__name__})"]


def _summary(exc: BaseException) -> str:
    try:
        return "".join(traceback.format_exception_only(exc)).strip().splitlines()[-1][:500]
    except Exception:
        return _kind(exc)


def _kind(exc: BaseException) -> str:
    kind = type(exc)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _location(exc: BaseException) -> str:
    step = exc.__traceback__
    if step is None:
        return ""
    while step.tb_next is not None:
        step = step.tb_next
    code = step.tb_frame.f_code
    return f"{code.co_filename}:{step.tb_lineno} in {code.co_name}"


def _key(exc: BaseException) -> _Key:
    parts: list[object] = []
    seen: set[int] = set()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen and len(seen) < 8:
        seen.add(id(link))
        parts.append(_kind(link))
        parts.extend(_path(link.__traceback__))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return tuple(parts)


def _path(step: TracebackType | None) -> list[tuple[str, int]]:
    path: list[tuple[str, int]] = []
    while step is not None:
        path.append((step.tb_frame.f_code.co_filename, step.tb_lineno))
        step = step.tb_next
    if len(path) > 2 * _FRAMES_EACH_END:
        path = path[:_FRAMES_EACH_END] + path[-_FRAMES_EACH_END:]
    return path


def _is_power_of_ten(count: int) -> bool:
    while count % 10 == 0:
        count //= 10
    return count == 1
