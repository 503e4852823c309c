"""The page in a real browser: seen, heard, answered, by keyboard, on a phone, in the dark."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harken.page.machines import key_of
from harken.page.server import PageServer
from harken.page.settings import PageSettings
from harken.service import demo
from harken.service.alarm_state import AlarmState
from harken.service.changes import Changes, HistoryEntry
from harken.service.monitor import Monitor
from harken.service.store.rows import alarm_of_id
from harken.service.store.store import Store
from peers import wait_for
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
    page.get_by_role("link", name="PUMP 3", exact=True).click()
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
    page.get_by_text("as usual").wait_for(state="detached", timeout=60_000)
    writer.commit(Changes(states={"Fan <b>1</b>": {"state": AlarmState().to_json()}}))
    writer.close()


@pytest.mark.parametrize("where", ["list", "machine"])
def test_what_is_new_takes_nothing_from_under_the_finger(
    page: playwright.Page, url: str, store: Path, where: str
) -> None:
    page.goto(url if where == "list" else f"{url}/machines/{key_of(MONITOR, 'PUMP 3')}")
    pressed = page.get_by_role("link", name="It is fine, learn this").first
    pressed.focus()
    pressed.hover()
    page.mouse.down()
    page.evaluate("document.querySelector('.heard').textContent = 'before'")
    writer = Store.open(store, MONITOR)
    now = datetime.now(UTC)
    writer.commit(
        Changes(
            states={"Fan <b>1</b>": {"state": AlarmState(out_of_service=True).to_json()}},
            history=[HistoryEntry("PUMP 3", now, "shelved", "Kim", "for a test")],
        )
    )
    page.get_by_text("before").wait_for(state="detached")
    assert page.evaluate("document.activeElement.textContent").startswith("It is fine, learn this")
    page.mouse.up()
    page.get_by_role("heading", name="is it fine?").wait_for()
    writer.commit(Changes(states={"Fan <b>1</b>": {"state": AlarmState().to_json()}}))
    writer.close()


@pytest.mark.parametrize("how", ["mouse", "keyboard"])
@pytest.mark.parametrize("where", ["list", "machine"])
def test_a_button_never_becomes_another_one_while_it_is_pressed(
    page: playwright.Page, url: str, store: Path, where: str, how: str
) -> None:
    machine = f"{url}/machines/{key_of(MONITOR, 'PUMP 3')}"
    page.goto(url if where == "list" else machine)
    sent: list[str | None] = []
    page.on("request", lambda request: sent.append(request.post_data) if request.method == "POST" else None)
    button = page.get_by_role("button", name="I have seen it")
    button.focus()
    button.hover()
    if how == "mouse":
        page.mouse.down()
    writer = Store.open(store, MONITOR)
    with writer.reading() as connection:
        stored = alarm_of_id(connection, "5f" * 16)
    assert stored is not None
    alarm = stored[1]
    entry = HistoryEntry("PUMP 3", datetime.now(UTC), "acknowledged", "Kim")
    writer.commit(Changes(alarms={alarm.id: replace(alarm, phase="acknowledged")}, history=[entry]))
    button.wait_for(state="detached")
    page.mouse.up() if how == "mouse" else page.keyboard.press("Enter")
    page.goto(machine)  # after whatever was sent
    assert sent == []
    writer.commit(Changes(alarms={alarm.id: alarm}, history=[entry]))
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
    for path in ("/", f"/machines/{key_of(MONITOR, 'PUMP 3')}", "/help", "/login", "/nothing"):
        page.goto(url + path)
        page.wait_for_load_state("load")
        assert violations(page) == [], path
        # Nothing is wider than the screen.
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path


def test_help_is_one_printed_page(chromium: playwright.Browser, url: str) -> None:
    for locale in ("en-GB", "de-DE"):
        context = chromium.new_context(locale=locale)
        page = context.new_page()
        page.goto(f"{url}/help")
        pdf = page.pdf(prefer_css_page_size=True)
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1
        assert page.get_by_role("row").count() == 8
        context.close()


def test_pictures_of_the_documents_can_be_taken_again(chromium: playwright.Browser, url: str, tmp_path: Path) -> None:
    from screenshots import IMAGES, MOST_BYTES, take

    for file in take(chromium, url, key_of(MONITOR, "PUMP 3"), tmp_path):
        assert 1000 < file.stat().st_size < MOST_BYTES
        assert (IMAGES / file.name).stat().st_size < MOST_BYTES


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


class DemoThread:
    """`harken monitor --demo` with its page, in threads."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        self._demo = demo.Demo(folder, self.lines.append, patience_s=300.0, started=self._start)
        self._thread = threading.Thread(target=self._demo.run)
        self._monitor: Monitor | None = None
        self._thread.start()

    def _start(self, monitor: Monitor) -> None:
        configuration = monitor.configuration
        self.page = PageServer(PageSettings(configuration.store, configuration.evidence_folder, port=0, replayed=True))
        self.page.start()
        self._monitor = monitor

    @property
    def url(self) -> str:
        wait_for(lambda: self._monitor, seconds=120)
        return self.page.url

    def hears(self, recordings: int) -> None:
        """Return when so many have been judged since its start."""
        wait_for(lambda: self._demo.heard >= recordings, seconds=120)

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def end(self) -> None:
        assert self._monitor is not None
        self._monitor.stop()
        self._thread.join(60)
        self.page.stop()


@pytest.fixture
def running_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DemoThread]:
    for name, value in {"EVERY_S": 0.05, "HEALTHY": 8, "DEVELOPS": 12}.items():
        monkeypatch.setattr(demo, name, value)
    running = DemoThread(tmp_path / "demo")
    yield running
    running.end()


def test_in_the_demo_an_alarm_is_learned_as_normal_and_that_is_undone(
    chromium: playwright.Browser, running_demo: DemoThread, page: playwright.Page
) -> None:
    """Seen, heard, learned, quiet, rolled back, acknowledged. Pictures go to the folder HARKEN_SCREENSHOTS, if set."""
    url = running_demo.url
    page.set_default_timeout(60_000)
    page.goto(url)
    page.get_by_text("sounds different since").wait_for(timeout=90_000)
    shoot(chromium, url, "1-alarm")
    page.get_by_role("link", name="pump", exact=True).click()
    player = page.get_by_label("Listen to the alarm").first
    player.evaluate("audio => { audio.muted = true; return audio.play() }")
    page.wait_for_function("audio => audio.currentTime > 0.1", arg=player.element_handle())
    machine = page.url
    shoot(chromium, machine, "2-machine")
    # What is learned is the alarm so far: here, enough of the leak at its worst, however fast this computer is.
    running_demo.hears(45)
    # By keyboard: what it is, why, and yes.
    page.get_by_role("link", name="It is fine, learn this").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="is it fine?").wait_for()
    assert violations(page) == []
    shoot(chromium, page.url, "3-question")
    page.get_by_label("Your name").fill("Jo Doe")
    page.get_by_label("Why").fill("new pipe")
    page.keyboard.press("Enter")
    page.get_by_text("Done: learned from").wait_for()
    page.get_by_role("cell", name="Jo Doe").first.wait_for()
    shoot(chromium, page.url, "4-learned")
    assert violations(page) == []
    # The pump leaks as before, and the machine sounds as usual.
    assert running_demo.said("has learned that this is normal")
    page.goto(url)
    page.get_by_text("as usual", exact=True).wait_for(timeout=90_000)
    shoot(chromium, url, "5-quiet")
    page.goto(machine)
    page.get_by_role("link", name="Go back to it (1)").click()
    page.get_by_role("heading", name="use an earlier version").wait_for()
    shoot(chromium, page.url, "6-back")
    page.get_by_role("button", name="Yes, use it").click()
    page.get_by_text("Done: as in version 1 again: version 3").wait_for()
    page.goto(url)
    page.get_by_text("sounds different since").wait_for(timeout=90_000)
    page.get_by_role("button", name="I have seen it").click()
    # The state may be over before a slow computer shows it; what was done stands.
    page.get_by_text("pump: Done: acknowledged").wait_for()
    shoot(chromium, machine, "7-after")
    assert running_demo.said("is repaired") or wait_for(lambda: running_demo.said("is repaired"), seconds=60)


def shoot(chromium: playwright.Browser, url: str, name: str) -> None:
    """The page on a desk, on a phone, in the dark and in German, to be looked at by people."""
    folder = os.environ.get("HARKEN_SCREENSHOTS")
    if not folder:
        return
    kinds: dict[str, dict[str, Any]] = {
        "desktop": {"viewport": {"width": 1280, "height": 900}},
        "phone": {"viewport": {"width": 390, "height": 844}},
        "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
        "german": {"viewport": {"width": 390, "height": 844}, "locale": "de-DE"},
    }
    for kind, options in kinds.items():
        context = chromium.new_context(**{"locale": "en-GB", **options})
        shown = context.new_page()
        shown.goto(url)
        shown.wait_for_load_state("load")
        shown.wait_for_timeout(300)
        shown.screenshot(path=Path(folder) / f"{name}-{kind}.png", full_page=True)
        context.close()
