"""The browser client in Chromium on a network that is cut: it plays on, nothing is lost, and nothing runs twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import TIMEOUT, chromium
from playwright.sync_api import Page
from returning import Network
from test_js_messages import run

from gameserver import App, Left, Session
from gameserver.testing import running


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT)
        yield page


SCRIPT = """
    const told = [], got = [], answers = [];
    client.onDrop(() => told.push('drop'));
    client.onReconnect(() => told.push('reconnect'));
    let resumed;
    client.onResume(() => { told.push('resume'); resumed(); });
    const all = new Promise((resolve) => client.on('told', (number) => { got.push(number); if (number === 59) resolve(); }));
    for (let number = 0; number < 60; number += 1) {
        client.notify('tell', number);
        answers.push(client.request('ask', number));
        if (number % 20 === 5) await cutNetwork();
        if (number % 20 === 15) await new Promise((resolve) => { resumed = resolve; networkIsBack(); });
    }
    await all;
    return [await Promise.all(answers), got, told, client.state];
"""


def test_a_page_plays_on_when_its_network_is_cut(page: Page) -> None:
    app = App("cut")
    ran: list[str] = []
    story: list[str] = []

    @app.on("tell")
    def tell(session: Session, body: bytes) -> None:
        ran.append(f"tell {body.decode()}")
        session.push("told", body)

    @app.on("ask")
    def ask(session: Session, body: bytes) -> bytes:
        ran.append(f"ask {body.decode()}")
        return body

    @app.on_drop
    def drop(session: Session) -> None:
        story.append("drop")

    @app.on_resume
    def resume(session: Session) -> None:
        story.append("resume")

    @app.on_leave
    def leave(session: Session, why: Left) -> None:
        story.append(why.value)

    with running(app, resume_grace=60) as server, Network(server.port) as network:

        def cut() -> None:
            network.is_down = True
            network.cut()

        def is_back() -> None:
            network.is_down = False

        page.expose_function("cutNetwork", cut)
        page.expose_function("networkIsBack", is_back)
        answers, got, told, state = run(page, network.port, SCRIPT, reconnect={"delay": 20, "delayMax": 100})
        assert answers == got == list(range(60))
        assert ran == [f"{what} {number}" for number in range(60) for what in ("tell", "ask")]
        assert told == ["drop", "resume"] * 3
        assert state == "open"
    assert story == [*["drop", "resume"] * 3, "left"]
