"""The page in a real browser: seen, heard, answered, by keyboard, on a phone, in the dark."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harken.page.machines import key_of
from harken.page.server import PageServer
from harken.page.settings import PageSettings
from harken.service.alarm_state import AlarmState
from harken.service.changes import Changes
from harken.service.store.store import Store
from stored_plant import MONITOR, fill

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.xdist_group("browser"),
]
playwright = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    server = PageServer(PageSettings(store, store.parent / "evidence", port=0))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: playwright.Browser, request: pytest.FixtureRequest) -> Iterator[playwright.Page]:
    """A page in which nothing may go wrong: no error of a script, nothing that the policy blocks."""
    context = chromium.new_context(**{"locale": "en-GB", **getattr(request, "param", {})})
    page, troubles = context.new_page(), []
    page.on("console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda sent: None if sent.url.startswith("http://127.0.0.1:") else troubles.append(sent.url))
    yield page
    context.close()
    assert [trouble for trouble in troubles if "404" not in trouble] == []


def violations(page: playwright.Page) -> list[str]:
    """What a screen reader or a keyboard would stumble over."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    return [f"{each['id']}: {[node['html'] for node in each['nodes'][:2]]}" for each in found]


def test_an_alarm_is_seen_heard_and_acknowledged(page: playwright.Page, url: str, store: Path) -> None:
    page.goto(url)
    page.get_by_role("link", name="PUMP 3").click()
    # The browser decodes the sound of the alarm, and plays it.
    player = page.get_by_label("Listen to the alarm").first
    player.evaluate("audio => { audio.muted = true; return audio.play() }")
    page.wait_for_function("audio => audio.currentTime > 0.1", arg=player.element_handle())
    assert player.evaluate("audio => audio.duration") == pytest.approx(2.0, abs=0.01)
    page.wait_for_selector("#chart canvas")
    assert page.evaluate("document.querySelector('figure img').naturalWidth") == 100

    def monitor() -> None:
        """Answers the next request."""
        writer = Store.open(store, MONITOR)
        while not (requests := writer.requests()):
            pass
        writer.commit(Changes(requests_done={requests[0].number: f"acknowledged by {requests[0].who}"}))
        writer.close()

    answering = threading.Thread(target=monitor)
    answering.start()
    page.get_by_label("Your name").fill("Jo Doe")
    page.get_by_role("button", name="I have seen it").click()
    page.get_by_text("Done: acknowledged by Jo Doe").wait_for()
    answering.join()
    # The name is known the next time.
    assert page.get_by_label("Your name").input_value() == "Jo Doe"


def test_an_open_page_shows_what_is_new(page: playwright.Page, url: str, store: Path) -> None:
    page.goto(url)
    page.get_by_text("as usual").wait_for()
    writer = Store.open(store, MONITOR)
    writer.commit(Changes(states={"Fan <b>1</b>": {"state": AlarmState(out_of_service=True).to_json()}}))
    page.get_by_text("as usual").wait_for(state="detached", timeout=15_000)
    writer.commit(Changes(states={"Fan <b>1</b>": {"state": AlarmState().to_json()}}))
    writer.close()


@pytest.mark.parametrize(
    "page",
    [
        {"viewport": {"width": 1280, "height": 900}},
        {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
        {"viewport": {"width": 390, "height": 844}, "locale": "de-DE"},
    ],
    indirect=True,
    ids=["desktop", "phone, dark", "phone, German"],
)
def test_everybody_can_read_it(page: playwright.Page, url: str) -> None:
    for path in ("/", f"/machines/{key_of(MONITOR, 'PUMP 3')}", "/login", "/nothing"):
        page.goto(url + path)
        page.wait_for_load_state("load")
        assert violations(page) == [], path
        # Nothing is wider than the screen.
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path


def test_it_can_be_used_by_keyboard_and_without_scripts(chromium: playwright.Browser, url: str, store: Path) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.locator(":focus").inner_text() == "PUMP 3":
            break
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="PUMP 3").wait_for()
    assert page.locator("noscript svg").count() == 1 or page.locator("#chart svg").count() == 1
    context.close()
