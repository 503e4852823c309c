"""Windows of a stream: exact to the sample, whatever the blocks; none spans a gap, and each says where to go on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harken.service.records import Block, Window
from harken.service.windows import Windower

RATE = 100
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


def block(position: int, count: int, **fields: object) -> Block:
    """Samples that are their own positions."""
    samples = np.arange(position, position + count, dtype=np.float32)[None]
    start = BEGAN + timedelta(seconds=position / RATE)
    return Block(samples, RATE, position, start, **fields)  # type: ignore[arg-type]


@given(
    st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 25),
    st.integers(1, 60),
)
def test_every_sample_is_in_the_right_window(pieces: list[tuple[int, bool]], length: int, hop: int) -> None:
    """Pieces: (samples, whether sound is missing before them). Windows are those of each gapless stretch."""
    windower = Windower(length / RATE, hop / RATE)
    position, stretches, windows = 0, [], []
    for count, gap in pieces:
        position += 7 * gap
        if gap or not stretches:
            stretches.append((position, position))
        stretches[-1] = stretches[-1][0], position + count
        windows += list(windower.push(block(position, count)))
        position += count
    expected = [start for begin, end in stretches for start in range(begin, end - length + 1, hop)]
    assert [window.position for window in windows] == expected
    assert [window.number for window in windows] == list(range(len(expected)))
    for window in windows:
        assert np.array_equal(window.samples_CS[0], np.arange(window.position, window.position + length))
        assert abs((window.start - BEGAN).total_seconds() - window.position / RATE) < 1e-5


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(1, 30), st.integers(0, 200))
def test_a_window_says_where_to_go_on(sizes: list[int], length: int, kills: int) -> None:
    """Sound from files that continue each other, killed after any window: nothing twice, nothing left out."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    files = {f"{number}.wav": (int(starts[number]), size) for number, size in enumerate(sizes)}

    def run(stored: dict[str, dict[str, object]], most: int) -> list[Window]:
        windower, windows = Windower(length / RATE, name="pump"), list[Window]()
        first = None
        for name, (start, size) in files.items():
            state = stored.get(f"pump/{name}", {})
            skipped = size if state.get("done") else int(state.get("next", 0))  # type: ignore[call-overload]
            if skipped >= size:
                continue
            first = start + skipped if first is None else first
            piece = block(start + skipped, size - skipped, origin=name, origin_position=skipped, origin_state="1")
            windows += list(windower.push(piece))
        return windows[:most]

    stored: dict[str, dict[str, object]] = {}
    before = run(stored, kills)
    for window in before:
        stored |= {key: dict(value) for key, value in window.resume.items()}
    positions = [window.position for window in before + run(stored, 1000)]
    assert positions == list(range(0, sum(sizes) - length + 1, length))


def test_sound_of_another_form_begins_anew_and_overlapping_sound_is_refused() -> None:
    windower = Windower(0.1)
    assert len(list(windower.push(block(0, 15)))) == 1
    stereo = Block(np.zeros((2, 10), np.float32), RATE, 15, BEGAN)
    assert [len(window.samples_CS) for window in windower.push(stereo)] == [2]
    assert windower.dropped_s == pytest.approx(0.05)
    with pytest.raises(ValueError, match="overlap"):
        list(windower.push(block(20, 10)))
