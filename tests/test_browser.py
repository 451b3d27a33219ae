"""The plaza in Debian's Chromium, as people use it: two windows, a phone, and a server that dies and comes back.

The page shows its own objects as `globalThis.plaza` (for the console, too): `me`, `dots`, `client`. Set PLAZA_SHOTS to a folder
to get pictures of what the tests saw.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import TIMEOUT, chromium
from playwright.sync_api import Browser, BrowserContext, Page
from processes import Server, serving


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


class Window:
    """A page of its own person: nothing is shared with other windows; what goes wrong in it is kept in `wrong`."""

    def __init__(self, browser: Browser, port: int, name: str, **context: Any) -> None:
        self.context: BrowserContext = browser.new_context(**{"viewport": {"width": 640, "height": 480}, **context})
        self.context.set_default_timeout(TIMEOUT)
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("console", lambda said: self.wrong.append(f"{said.type}: {said.text}"))
        self.page.on("requestfailed", lambda request: self.wrong.append(f"failed: {request.url}"))
        self.page.on("response", lambda answer: self._judge(answer.status, answer.url))
        self.page.add_init_script(f"localStorage.setItem('plaza', JSON.stringify({{name: {name!r}, hue: 20}}))")
        self.page.goto(f"http://127.0.0.1:{port}/")
        self.until("plaza.me && plaza.client.state === 'open'")
        self.id = int(self.page.evaluate("plaza.me.id"))

    def _judge(self, status: int, url: str) -> None:
        if status >= 400:
            self.wrong.append(f"{status}: {url}")

    def until(self, holds: str, argument: object = None) -> None:
        """Waits until an expression in the page is true; `given` in it is `argument`."""
        self.page.wait_for_function(f"(given) => {holds}", arg=argument)

    def at(self, who: int) -> tuple[float, float]:
        """Where the page draws somebody."""
        x, y = self.page.evaluate("(id) => [plaza.dots.get(id).x, plaza.dots.get(id).y]", who)
        return x, y

    def sees(self, who: int) -> None:
        self.until("plaza.dots.has(given)", who)

    def picture(self, name: str) -> None:
        """For the eyes of whoever works on the page."""
        if folder := os.environ.get("PLAZA_SHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.fixture
def plaza() -> Iterator[Server]:
    with serving("plaza.py") as server:
        yield server


def open_windows(browser: Browser, port: int, *names: str) -> list[Window]:
    windows = [Window(browser, port, name) for name in names]
    for window in windows:
        for other in windows:
            window.sees(other.id)
    return windows


def close(*windows: Window, expected: str = "") -> None:
    """No window may have had anything to complain of, but what was `expected`."""
    for window in windows:
        wrong = [line for line in window.wrong if not (expected and expected in line)]
        window.context.close()
        assert wrong == []


@pytest.mark.parametrize(("key", "axis", "sign"), [("ArrowLeft", 0, -1), ("s", 1, 1)])
def test_keys_move_a_dot_in_both_windows(browser: Browser, plaza: Server, key: str, axis: int, sign: int) -> None:
    ann, bob = open_windows(browser, plaza.port, "Ann", "Bob")
    mine, seen = ann.at(ann.id), bob.at(ann.id)
    ann.page.keyboard.down(key)
    moved = "(plaza.dots.get(given[0])[given[1]] - given[2]) * given[3] > 40"
    ann.until(moved, [ann.id, "xy"[axis], mine[axis], sign])
    bob.until(moved, [ann.id, "xy"[axis], seen[axis], sign])
    ann.page.keyboard.up(key)
    # It stops, and both windows agree on where.
    same = "Math.hypot(plaza.dots.get(given[0]).x - given[1], plaza.dots.get(given[0]).y - given[2]) < 3"
    ann.until("plaza.me.pace < 1")
    bob.until("plaza.dots.get(given).pace < 1", ann.id)
    bob.until(same, [ann.id, *ann.at(ann.id)])
    assert ann.page.locator("#hint").get_attribute("class") == "glass gone"
    close(ann, bob)


def test_what_one_says_is_read_by_the_other_as_text(browser: Browser, plaza: Server) -> None:
    ann, bob = open_windows(browser, plaza.port, "Ann", "Bob")
    before = ann.at(ann.id)
    ann.page.keyboard.press("Enter")  # into the line, from the plaza
    ann.page.keyboard.type("<b>hello</b> & good evening")
    ann.page.keyboard.press("Enter")
    bob.page.locator("#log p", has_text="Ann: <b>hello</b> & good evening").wait_for()
    bob.until("plaza.dots.get(given).bubble.lines.join(' ') === '<b>hello</b> & good evening'", ann.id)
    bob.picture("chat")
    ann.until("document.activeElement.id === 'stage' && !document.getElementById('line').value")
    assert ann.at(ann.id) == pytest.approx(before, abs=1)  # typing a d has moved nobody
    close(ann, bob)


def test_another_name_and_colour_are_seen_and_kept(browser: Browser, plaza: Server) -> None:
    ann, bob = open_windows(browser, plaza.port, "Ann", "Bob")
    ann.page.fill("#name", "Queen  Ann\t")
    ann.page.press("#name", "Enter")
    bob.until("plaza.dots.get(given).name === 'Queen Ann'", ann.id)
    ann.until("document.getElementById('name').value === 'Queen Ann'")
    ann.page.click("#colour")
    bob.until("plaza.dots.get(given).hue === 67", ann.id)
    assert ann.page.evaluate("JSON.parse(localStorage.plaza)") == {"name": "Queen Ann", "hue": 67}
    close(ann, bob)


def test_a_finger_moves_a_dot_on_a_phone(browser: Browser, plaza: Server) -> None:
    bob = Window(browser, plaza.port, "Bob")
    phone = {"width": 390, "height": 844}
    ann = Window(browser, plaza.port, "Ann", viewport=phone, is_mobile=True, has_touch=True, device_scale_factor=2)
    bob.sees(ann.id)
    x, _ = bob.at(ann.id)
    assert ann.page.locator(".coarse").is_visible()
    assert not ann.page.locator(".fine").is_visible()
    touch = ann.context.new_cdp_session(ann.page)

    def finger(kind: str, *points: tuple[int, int]) -> None:
        touch.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]},
        )

    finger("touchStart", (150, 500))
    finger("touchMove", (60, 500))
    bob.until("plaza.dots.get(given[0]).x < given[1] - 40", [ann.id, x])
    ann.picture("phone")
    finger("touchEnd")
    bob.until("plaza.dots.get(given).pace < 1", ann.id)
    # Nothing sticks out of the screen, and the page itself does not scroll.
    assert ann.page.evaluate("[document.documentElement.scrollWidth, scrollX, scrollY]") == [390, 0, 0]
    for part in ("header", "#status", "#form"):
        box = ann.page.locator(part).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390, part
    close(ann, bob)


def test_the_page_tells_that_the_server_is_gone_and_comes_back_with_it(browser: Browser) -> None:
    first = Server("plaza.py")
    try:
        ann, bob = open_windows(browser, first.port, "Ann", "Bob")
        ann.page.keyboard.down("d")  # held all the time
        ann.until("plaza.me.pace > 100")
        first.kill()
        lost = ann.page.get_by_role("alert")
        lost.wait_for()
        assert "The server is away" in lost.inner_text()
        assert ann.page.locator("#status").inner_text() == "reconnecting"
        assert ann.page.locator("#status").get_attribute("data-state") == "waiting"
        ann.page.fill("#line", "are you there?")
        ann.page.press("#line", "Enter")
        ann.page.locator("#log p", has_text="no connection").wait_for()
        assert ann.page.input_value("#line") == "are you there?"  # not lost
        bob.picture("lost")
        second = Server("plaza.py", port=first.port)
        try:
            for window, name in ((ann, "Ann"), (bob, "Bob")):
                window.until("plaza.client.state === 'open' && plaza.me.name === given", name)
                window.until("plaza.dots.size === 52")  # of the new plaza alone
                window.page.locator("#status[data-state=open]").wait_for()
                assert window.page.get_by_role("alert").count() == 0
            bob.page.keyboard.down("s")
            ann.until("[...plaza.dots.values()].some((dot) => dot.name === 'Bob' && dot.pace > 100)")
            bob.picture("back")
        finally:
            second.close()
        close(ann, bob, expected="WebSocket connection to")  # Chromium's own words on each attempt
    finally:
        first.close()


def test_a_restart_in_good_order_and_one_click(browser: Browser) -> None:
    with serving("plaza.py") as first:
        ann = Window(browser, first.port, "Ann")
        first.terminate()
        ann.page.get_by_role("alert").wait_for()
        assert first.ended() == 0
    ann.page.evaluate("Math.random = () => 0.999")  # further attempts are seconds away
    with serving("plaza.py", port=first.port):
        ann.page.evaluate("document.querySelector('#lost button').click()")
        ann.until("plaza.client.state === 'open' && plaza.me.name === 'Ann'")
        close(ann, expected="WebSocket connection to")
