"""A person's first hour in a real browser: from an empty folder to a monitor that listens, with no terminal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import soundfile as sf

from conftest import hum
from harken.page.server import PageServer
from harken.page.settings import PageSettings
from harken.service.configuration.read import read_configuration
from harken.service.set_up.run import SetUpRun
from harken.service.set_up.set_up import SetUp
from test_page_browser import CHROMIUM, chromium, page, violations  # noqa: F401

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.xdist_group("browser"),
]
playwright = pytest.importorskip("playwright.sync_api")
#: something is in the picture
DRAWN = "() => Number(document.getElementById('spectrogram').dataset.columns) >= 10"
#: share of its pixels that are not black, of the last column
BRIGHT = """() => document.getElementById('spectrogram').getContext('2d').getImageData(599, 0, 1, 192).data
    .filter((value, row) => row % 4 == 1 && value > 30).length / 192"""


class Plant:
    """A folder that is set up, the page, and a recorder that writes files into `recordings/` of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "recordings").mkdir(parents=True)
        self.set_up = SetUp(folder)
        self.run = SetUpRun(self.set_up)
        place = self.set_up.place
        settings = PageSettings(place.store, place.evidence, port=0, live=self.run.live, set_up=self.set_up)
        self.server = PageServer(settings)
        self.server.start()
        self._thread = threading.Thread(target=self.run.run)
        self._thread.start()
        self._written, self._begin = 0, datetime.now(UTC) - timedelta(hours=1)

    def name(self, number: int) -> str:
        """Of a recording: of the last hour, since older scores are thinned."""
        return f"pump_{self._begin + timedelta(seconds=number):%Y%m%d_%H%M%S}Z.wav"

    def write(self, count: int, **options: object) -> None:
        """More recordings."""
        for number in range(self._written, self._written + count):
            aside = self.folder / "recordings" / f".{number}.wav"
            sf.write(aside, hum(number, **options), 16_000)  # type: ignore[arg-type]
            aside.rename(aside.with_name(self.name(number)))
        self._written += count

    def close(self) -> None:
        self.run.stop()
        self._thread.join(60)
        self.server.stop()
        self.set_up.close()


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path / "plant")
    yield made
    made.close()


def test_from_an_empty_folder_to_a_monitor_that_listens(plant: Plant, page: playwright.Page) -> None:  # noqa: F811
    plant.write(20)
    page.goto(plant.server.url)
    page.get_by_label("Name of the machine").fill("Pump 3")
    page.get_by_label("recordings", exact=True).check()
    assert violations(page) == []
    page.get_by_role("button", name="Listen to it").click()
    # It is heard, and seen.
    page.get_by_text("It can be heard well.").wait_for()
    page.wait_for_function("() => document.getElementById('level').value > -60")
    page.wait_for_function(DRAWN)
    assert page.evaluate(BRIGHT) > 0.5
    assert violations(page) == []
    page.get_by_label("Also the 20 that are in the folder already").check()
    page.get_by_role("button", name="Record normal sound").click()
    page.get_by_text("20 of at least 60 recordings").wait_for()
    plant.write(20)
    plant.write(1, fault=True)
    page.get_by_text("41 of at least 60 recordings").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Learn the normal sound").click()
    page.get_by_text("What was learned").wait_for(timeout=120_000)
    assert violations(page) == []
    # The fault stands out, and is heard.
    player = page.get_by_label(plant.name(40))
    player.evaluate("audio => { audio.muted = true; return audio.play() }")
    page.wait_for_function("audio => audio.currentTime > 0.1", arg=player.element_handle())
    page.get_by_role("button", name="Start listening").click()
    # The usual page, with the machine on it, which is judged from now on.
    page.get_by_role("link", name="Pump 3").wait_for(timeout=60_000)
    plant.write(1)
    page.get_by_text("last heard").first.wait_for(timeout=60_000)
    page.get_by_role("link", name="Pump 3").click()
    plant.write(3)
    page.wait_for_function(DRAWN, timeout=60_000)
    assert violations(page) == []
    configuration = read_configuration(plant.folder / "plant.yaml")
    assert configuration.machines["Pump 3"].false_alarms == "1/quarter"
