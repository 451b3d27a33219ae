"""Sessions that are addressed together, and all sessions of one person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

from gameserver._delivery import Delivery
from gameserver._types import Pushable

if TYPE_CHECKING:
    from gameserver._app import App
    from gameserver._core import Session


class Group:
    """Sessions that are pushed to together; membership ends with the session. Made by `App.group`.

    >>> from gameserver import App, Session
    >>> app = App("doc")
    >>> @app.on("join-red")
    ... def join_red(session: Session) -> None:
    ...     red = app.group("red")
    ...     red.add(session)
    ...     red.push("hello", {"new": session.id}, skip=session)
    """

    __slots__ = ("_app", "name")

    def __init__(self, app: App, name: str) -> None:
        self._app = app
        self.name = name

    def add(self, session: Session) -> bool:
        """Adds a session; False if it is in already.

        Raises:
            SessionClosed: it is gone.
        """
        return self._app._core_running().group_add(self.name, session)

    def remove(self, session: Session) -> bool:
        """Takes a session out; False if it is not in."""
        return self._app._core_running().group_remove(self.name, session)

    @overload
    def push(self, message: Pushable, /, *, skip: Session | None = None, delivery: Delivery | None = None) -> int: ...
    @overload
    def push(
        self, route: str, body: Any = None, *, skip: Session | None = None, delivery: Delivery | None = None
    ) -> int: ...
    def push(
        self, route: Any, body: Any = None, *, skip: Session | None = None, delivery: Delivery | None = None
    ) -> int:
        """Pushes a message, or a body to a route, to each member but `skip`; see `App.push`.

        Returns:
            To how many.
        """
        return self._app._core_running().group_push(self.name, route, body, skip, delivery)

    def __len__(self) -> int:
        return self._app._core_running().group_len(self.name)

    def __contains__(self, session: Session) -> bool:
        return self._app._core_running().group_has(self.name, session)

    def __iter__(self) -> Iterator[Session]:
        """Its members, in the order in which they came."""
        return iter(self._app._core_running().group_members(self.name))

    def __repr__(self) -> str:
        return f"<Group {self.name!r}>"


class User:
    """One person, wherever they are connected. Made by `App.user`.

    >>> from gameserver import App
    >>> app = App("doc")
    >>> @app.on("wave")
    ... def wave(body: bytes) -> bool:
    ...     return app.user("ann").push("wave", body)
    """

    __slots__ = ("_app", "uid")

    def __init__(self, app: App, uid: str) -> None:
        self._app = app
        self.uid = uid

    @property
    def session(self) -> Session | None:
        """The session that is bound to this uid now, if there is one."""
        return self._app._core_running().user(self.uid)

    @overload
    def push(self, message: Pushable, /, *, delivery: Delivery | None = None) -> bool: ...
    @overload
    def push(self, route: str, body: Any = None, *, delivery: Delivery | None = None) -> bool: ...
    def push(self, route: Any, body: Any = None, *, delivery: Delivery | None = None) -> bool:
        """Pushes a message, or a body to a route, to the person's session; False if there is none."""
        session = self.session
        if session is None:
            return False
        session.push(route, body, delivery=delivery)
        return True

    def kick(self, reason: str = "") -> bool:
        """Kicks the person's session; False if there is none."""
        session = self.session
        if session is None:
            return False
        session.kick(reason)
        return True

    def __repr__(self) -> str:
        return f"<User {self.uid!r}>"
