"""Sound as it is heard: where it is in the picture, how loud, and that nothing is drawn for nobody."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from harken.page.live import MOST_PAGES
from harken.page.machines import key_of
from harken.page.server import PageServer
from harken.page.settings import PageSettings
from harken.service.live_sound import BANDS, COLUMN_S, FLOOR_DB, KEPT, STEP_DB, LiveSound, centres_hz
from peers import wait_for
from stored_plant import MONITOR, fill

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def tone(hertz: float, rate: int, seconds: float = 1.0, height: float = 0.5) -> np.ndarray:
    return (height * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
def test_a_tone_is_at_its_frequency_and_level(rate: int) -> None:
    live = LiveSound()
    with live.watched():
        # In blocks as sound cards give them.
        for piece in np.array_split(tone(1000, rate), 37):
            live.hear(np.stack([piece, piece]), rate, NOW)
        columns = live.since(0)
    assert columns.levels_TM.shape == (10, BANDS)
    assert columns.level_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.1)
    assert columns.peak_db == pytest.approx(20 * np.log10(0.5), abs=0.1)
    assert abs(columns.strongest_hz - 1000) < 60
    level_M = FLOOR_DB + STEP_DB * columns.levels_TM[5]
    assert level_M.max() == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=3)
    assert level_M[np.argmin(abs(centres_hz(rate) - 3000))] < -60
    assert columns.clipped == 0


def test_columns_are_given_once_and_the_last_minute_is_kept() -> None:
    live = LiveSound()
    with live.watched():
        live.hear(tone(500, 16_000, 3.0)[None], 16_000, NOW)
        first = live.since(0)
        live.hear(tone(500, 16_000, 0.25)[None], 16_000, NOW + timedelta(seconds=3))
        second = live.since(first.next)
        assert (first.first, first.next, second.first, len(second.levels_TM)) == (0, 30, 30, 2)
        live.hear(tone(500, 16_000, 50.0)[None], 16_000, NOW)
        # An archive that is read faster than it passes is not drawn in full.
        live.hear(tone(500, 16_000, 600.0)[None], 16_000, NOW)
        drawn = live.since(0).next
        live.hear(tone(500, 16_000, 600.0)[None], 16_000, NOW)
        assert live.since(0).next == drawn
        assert len(live.since(0).levels_TM) == KEPT


def test_nothing_is_drawn_while_nobody_watches() -> None:
    live = LiveSound()
    live.hear(tone(500, 16_000)[None], 16_000, NOW)
    assert live.since(0).next == 0
    with live.watched(), live.watched():
        live.hear(tone(500, 16_000)[None], 16_000, NOW)
    live.hear(tone(500, 16_000)[None], 16_000, NOW)
    assert live.since(0).next == round(1 / COLUMN_S)
    assert not live.is_watched


def test_clipping_and_odd_values_are_seen() -> None:
    live = LiveSound()
    clipped = np.clip(tone(200, 16_000, height=3.0), -1, 1)
    clipped[:3] = np.nan, np.inf, -np.inf
    with live.watched():
        live.hear(clipped[None], 16_000, NOW)
        assert live.since(0).clipped > 0.5


# ---- on the page -----------------------------------------------------------------------------------------------


class Follower:
    """An open page that follows a machine."""

    def __init__(self, url: str, **headers: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request("GET", f"/machines/{key_of(MONITOR, 'PUMP 3')}/live", headers=names)
        self._answer = self._connection.getresponse()
        self.status = self._answer.status

    def message(self) -> dict[str, object]:
        while not (line := self._answer.readline().decode()).startswith("data: "):
            assert line, "the stream has ended"
        message: dict[str, object] = json.loads(line.removeprefix("data: "))
        return message

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[tuple[LiveSound, str]]:
    store, live = fill(tmp_path / "stored", days=0.05), LiveSound()
    server = PageServer(
        PageSettings(
            store, store.parent / "evidence", port=0, live=lambda monitor, name: live if name == "PUMP 3" else None
        )
    )
    server.start()
    yield live, server.url
    server.stop()


def test_a_page_draws_what_is_heard_while_it_is_open(followed: tuple[LiveSound, str]) -> None:
    live, url = followed
    follower = Follower(url, Accept_Language="de")
    # The last sound that was kept, until more comes.
    message = follower.message()
    assert message["texts"]["live-level"].endswith("am lautesten bei 2.9 kHz")  # type: ignore[index]
    assert live.is_watched
    live.hear(tone(1000, 16_000)[None], 16_000, NOW)
    message = follower.message()
    levels_TM = np.frombuffer(base64.b64decode(str(message["columns"])), np.uint8).reshape(-1, BANDS)
    # Two dark columns, since sound is missing between them.
    assert levels_TM.shape == (12, BANDS)
    assert not levels_TM[:2].any()
    assert message["texts"]["live-level"].startswith("Pegel −9 dBFS")  # type: ignore[index]
    # Columns come once.
    assert follower.message()["columns"] == ""
    follower.close()
    wait_for(lambda: not live.is_watched)


def test_few_pages_follow_at_once_and_none_of_another_site(followed: tuple[LiveSound, str]) -> None:
    live, url = followed
    assert Follower(url, Sec_Fetch_Site="cross-site").status == 403
    followers = [Follower(url) for _ in range(MOST_PAGES)]
    for follower in followers:
        follower.message()
    assert Follower(url).status == 503
    for follower in followers:
        follower.close()
    wait_for(lambda: not live.is_watched)
    assert Follower(url).status == 200
