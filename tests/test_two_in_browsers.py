"""Two people, each with a browser, at one alarm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from test_page_browser import CHROMIUM, chromium
from test_two_people import KEY, Plant, plant_at

__all__ = ["chromium"]
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.xdist_group("browser"),
]
playwright = pytest.importorskip("playwright.sync_api")


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    with plant_at(tmp_path / "monitor.db", tmp_path) as plant:
        yield plant


def test_the_open_page_of_the_second_follows_the_first(chromium: playwright.Browser, plant: Plant) -> None:
    pages = []
    for locale in ("en-GB", "de-DE"):
        page = chromium.new_context(locale=locale).new_page()
        page.goto(f"{plant.server.url}/machines/{KEY}")
        pages.append(page)
    ada, bo = pages
    bo.get_by_label("Bemerkung").fill("Lager bestellt")
    ada.get_by_label("Your name").fill("Ada")
    ada.get_by_label("Comment").fill("I am on my way")
    ada.get_by_role("button", name="I have seen it").click()
    ada.get_by_text("Done: acknowledged").wait_for()
    # Bo's page follows by itself, in German, and leaves what is being written.
    bo.locator("#state").get_by_text("gesehen von Ada").wait_for(timeout=60_000)
    bo.get_by_role("cell", name="I am on my way").wait_for()
    assert bo.get_by_role("button", name="Ich habe es gesehen").count() == 0
    assert bo.get_by_label("Bemerkung").input_value() == "Lager bestellt"
    bo.get_by_label("Ihr Name").fill("Bo")
    bo.get_by_role("button", name="8 h stumm").click()
    bo.get_by_text("Ada hat den Alarm kurz zuvor gesehen").wait_for()
    # And Ada's.
    ada.get_by_role("cell", name="Lager bestellt").wait_for(timeout=60_000)
    ada.locator("#state").get_by_text("muted until").wait_for()
    for page in pages:
        page.context.close()
