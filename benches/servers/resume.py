"""Sessions that come back: each input is checked to be the next of its session; `report` says how many were not."""

from __future__ import annotations

from typing import Any

from benches.servers.announce import announce

from gameserver import App, Session

app = App("bench-resume", resume_grace=60)
announce(app)

handled: dict[str, int] = {}
report: dict[str, int] = {"lost": 0, "twice": 0}


@app.authenticate
def authenticate(session: Session, user: dict[str, str]) -> str:
    return user["uid"]


@app.on("input")
def take(session: Session, body: bytes) -> bytes:
    uid = session.uid or ""
    expected, number = handled.get(uid, 0), int(body)
    report["lost"] += max(0, number - expected)
    report["twice"] += number < expected
    handled[uid] = number + 1
    return body


@app.on("report")
def tell(session: Session) -> dict[str, Any]:
    return {**report, "inputs": sum(handled.values()), **app.stats()["resume"]}


if __name__ == "__main__":
    app.run(port=0, log_level="warning")
