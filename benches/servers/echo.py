"""Bytes in and out, answered by a plain function. `--spin`: the loop never sleeps."""

from __future__ import annotations

import sys

from benches.servers.announce import announce

from gameserver import App, Session

app = App("bench-echo")
announce(app)


@app.on("echo")
def echo(session: Session, body: bytes) -> bytes:
    return body


if __name__ == "__main__":
    app.run(port=0, log_level="warning", spin="--spin" in sys.argv[1:])
