"""Notifies over their rate: what the core refuses costs no Python."""

from __future__ import annotations

from benches.servers.announce import announce

from gameserver import App, Session

app = App("bench-limited")
announce(app)


@app.on("echo", rate="10/s", burst=20, over="drop")
def echo(session: Session, body: bytes) -> None: ...


if __name__ == "__main__":
    app.run(port=0, log_level="warning")
