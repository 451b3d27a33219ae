"""One command, one table: how fast are we beside a bare epoll server, asyncio, uvloop and picows? See README.md."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # so that `benches` is a package, as it is for its servers

from benches.harness.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
