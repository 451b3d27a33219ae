"""A conformance run over WebSocket's rules: what each case comes to is written down, and read by whoever changes it."""

from __future__ import annotations

from pathlib import Path

from conftest import Serve
from websocket_cases import Case, cases, play

from gameserver import App, Session

RESULTS = Path(__file__).with_name("websocket_results.txt")


def test_every_case_comes_to_what_is_written_down(serve: Serve) -> None:
    """`websocket_results.txt` is the expectation: a change of it has to be wanted, line by line."""
    app = App("conformance", websocket_deflate="on")

    @app.on("echo")
    def echo(session: Session, body: bytes) -> bytes:
        return body

    with serve(app) as server:
        found = [line(case, play(server.port, case)) for case in cases()]
        assert play(server.port, Case("after all of it", ())) == "open"
    assert found == RESULTS.read_text().splitlines()


def test_the_cases_have_names_of_their_own() -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names)) > 100


def line(case: Case, outcome: str) -> str:
    return f"{case.name}: {outcome}"
