"""A server that is about to stop, and lets what is going on come to its end."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING

from gameserver._core import Core, Session
from gameserver._signature import Kind

if TYPE_CHECKING:
    from gameserver._app import App
    from gameserver._http import HttpHost

log = logging.getLogger("gameserver")

SPREAD_MAX = 10.0  # s; clients are sent away over so long, or over half of the grace
LOOK_EVERY = 0.1  # s


class Drain:
    """From the first SIGTERM until everybody is gone, or the grace is over.

    Newcomers are turned away (``GS-503``), rooms are locked and told, and clients that have no seat in a room are asked to come
    back by a push to ``$reconnect``, each after a time of its own: by then a load balancer, which sees that `/healthz` answers
    503, sends them elsewhere.

    Args:
        grace: seconds.
    """

    def __init__(self, app: App, core: Core, host: HttpHost, grace: float) -> None:
        self._app = app
        self._core = core
        self._host = host
        self._grace = grace
        self._spread = min(grace / 2, SPREAD_MAX)
        self._sent_away: set[Session] = set()

    async def run(self) -> None:
        """Returns when nobody is there, or after the grace."""
        app, loop = self._app, asyncio.get_running_loop()
        deadline = loop.time() + self._grace
        log.info("draining: nobody new comes in; stopping when all are gone, in %g s at the latest", self._grace)
        self._core.set_draining()
        self._host.drain()
        app._rooms.drain(self._grace)
        for handler in app._of(Kind.DRAIN):
            try:
                result = handler.call()
                if inspect.isawaitable(result):
                    app.task(_finish(result))
            except Exception as error:
                app._failed(handler.where, error)
        while app.sessions or app.rooms:
            self._send_away()
            if (left := deadline - loop.time()) <= 0:
                log.warning(
                    "drained for %g s: %d sessions and %d rooms are left",
                    self._grace,
                    len(app.sessions),
                    len(app.rooms),
                )
                return
            await asyncio.sleep(min(LOOK_EVERY, left))
        log.info("drained: everybody has gone")

    def _send_away(self) -> None:
        """Those that have no seat, each once."""
        for session in self._app.sessions:
            if session not in self._sent_away and not self._app._rooms.is_seated(session):
                self._sent_away.add(session)
                self._core.send_away(session, self._app.random.random() * self._spread)


async def _finish(result: object) -> None:
    await result  # type: ignore[misc] # it is awaitable
