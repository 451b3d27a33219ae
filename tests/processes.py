"""Examples run as a user runs them: processes of their own, on ports that the system picks."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

EXAMPLES = Path(__file__).parents[1] / "examples"
TIMEOUT = 20.0  # s for anything that must happen


class Process:
    """A script under test; what it says is read as it comes, so that no pipe fills up.

    Args:
        script: of `examples/`.
        arguments: its command line.
        settings: of a server; they win over the code, as any `GAMESERVER_...` variable does.
    """

    def __init__(self, script: str, *arguments: str, **settings: str | int) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GAMESERVER_")}
        environment |= {f"GAMESERVER_{name.upper()}": str(value) for name, value in settings.items()}
        self.said: list[str] = []
        self.popen = subprocess.Popen(
            [sys.executable, str(EXAMPLES / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self._lines: Queue[str | None] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The next line that has this in it.

        Raises:
            AssertionError: it ended before, or `TIMEOUT` is over.
        """
        while True:
            try:
                line = self._lines.get(timeout=TIMEOUT)
            except Empty:
                line = None
            assert line is not None, f"{self.popen.args!r}: no {pattern!r} in {self.said}"
            self.said.append(line)
            if found := re.search(pattern, line):
                return found

    def type(self, line: str) -> None:
        """A line on its standard input."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def end_of_input(self) -> None:
        """Ctrl-D."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()

    def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        code = self.popen.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        while not self._lines.empty():
            if (line := self._lines.get()) is not None:
                self.said.append(line)
        return code

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self.popen.kill()
        self.popen.wait(TIMEOUT)

    def close(self) -> None:
        """Kills what still runs, and closes the pipes."""
        self.kill()
        self._reader.join(TIMEOUT)
        for pipe in (self.popen.stdin, self.popen.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()


class Server(Process):
    """An example that serves; `port` is read off its banner."""

    def __init__(self, script: str, port: int = 0, **settings: str) -> None:
        super().__init__(script, port=port, **settings)
        self.port = int(self.wait_for(r"http://127\.0\.0\.1:(\d+)/")[1])
        self._told = False

    def terminate(self) -> None:
        """SIGTERM, once: a second one would end it at once."""
        if not self._told:
            self._told = True
            self.popen.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def serving(script: str, port: int = 0, **settings: str) -> Iterator[Server]:
    """An example's server; in the end SIGTERM must stop it in good order, and it must have had no error to tell of."""
    server = Server(script, port, **settings)
    try:
        yield server
        server.terminate()
        assert server.ended() == 0, server.said
        assert not re.search(r"Traceback|\"level\": \"(warning|error|critical)\"", "\n".join(server.said)), server.said
    finally:
        server.close()


@contextlib.contextmanager
def running_script(script: str, *arguments: str) -> Iterator[Process]:
    """A script, killed in the end if it still runs."""
    process = Process(script, *arguments)
    try:
        yield process
    finally:
        process.close()
