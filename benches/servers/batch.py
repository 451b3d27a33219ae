"""Notifies as columns, thirty times a second: the handler adds them up."""

from __future__ import annotations

from benches.servers.announce import announce
from benches.servers.typed import Move

from gameserver import App, Batch

app = App("bench-batch", tick_rate=30)
announce(app)
sums = [0.0, 0.0]


@app.on("echo")
def moves(batch: Batch[Move]) -> None:
    sums[0] += float(batch.x.sum())
    sums[1] += float(batch.y.sum())


if __name__ == "__main__":
    app.run(port=0, log_level="warning", serializer="protobuf")
