"""A call in the future, and the table of those that wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gameserver._app import App


class Timer:
    """One call in the future, made by `App.after`.

    >>> from gameserver import App
    >>> app = App("doc")
    >>> def wave() -> None: ...
    >>> @app.on_start
    ... def start() -> None:
    ...     timer = app.after(5, wave)
    ...     timer.cancel()
    """

    __slots__ = ("_app", "_arguments", "_due", "_key", "_name", "_seconds")

    def __init__(self, app: App, seconds: float, name: str, arguments: tuple[Any, ...]) -> None:
        self._app = app
        self._seconds = seconds
        self._name = name
        self._arguments = arguments
        self._key = 0
        self._due = 0.0

    @property
    def left(self) -> float:
        """Seconds until it fires; 0 when it has fired or was cancelled."""
        if self._key not in self._app._timers:
            return 0.0
        return max(0.0, self._due - self._app.clock.now())

    def cancel(self) -> None:
        """Takes it back; nothing happens if it has fired."""
        self._app._stop_timer(self)

    def restart(self, seconds: float | None = None) -> None:
        """Starts it anew, with its first delay or another one, also after it has fired.

        Args:
            seconds: from now; None: as when it was made.
        """
        self._app._stop_timer(self)
        if seconds is not None:
            self._seconds = check_delay(seconds)
        self._app._start_timer(self)

    def __repr__(self) -> str:
        return f"<Timer {self._name} {self._seconds} s>"


def check_delay(seconds: float) -> float:
    """`seconds` as a float.

    Raises:
        ValueError: not a number from 0 up to 10^9.
    """
    value = float(seconds)
    if not 0 <= value < 1e9:
        raise ValueError(f"delay of {seconds!r} s: give seconds from 0 up to 10^9")
    return value


def call_name(function: Callable[..., Any]) -> str:
    """The qualified name by which a table can find a function again after it was replaced."""
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"
