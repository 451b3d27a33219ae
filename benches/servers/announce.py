"""What every server of the benches tells the harness: its port at the start, how late its ticks were at the end."""

from __future__ import annotations

import json

from gameserver import App


def announce(app: App) -> None:
    """Prints `PORT <n>` once it listens, and the tick's figures as JSON before it stops."""

    @app.on_start
    def started() -> None:
        print("PORT", app.port, flush=True)

    @app.on_stop
    def stopping() -> None:
        print(json.dumps(app.stats()["tick"]), flush=True)
