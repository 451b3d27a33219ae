"""Where in a scenario's file something is declared, for what is wrong with it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from gameserver.errors import ConfigError

__all__ = ["at_caller", "caller"]

PACKAGE = str(Path(__file__).resolve().parents[1])


def caller() -> str | None:
    """The file and line of whoever declares something; None: nobody's file, as when the command does."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.endswith(".py") and not file.startswith(PACKAGE) and file != contextlib.__file__:
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return None


@contextlib.contextmanager
def at_caller() -> Iterator[None]:
    """What is wrong is told with its place."""
    try:
        yield
    except ConfigError as error:
        place = caller()
        raise ConfigError(f"{place}: {error}" if place else str(error)) from None
