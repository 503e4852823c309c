"""Sound that comes in the ways it comes, heard as `harken score` hears it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import harken
from harken.core.errors import HarkenError
from harken.service.feed import Feed, SourceStatus, State
from harken.service.judging import check_fits
from harken.service.records import Block, Recording
from harken.service.source_watch import SourceWatch
from harken.service.sources.base import SoundSource, SourceError, SourceForm
from harken.service.sources.clock import LiveClock
from harken.service.sources.pcm import unpacker
from harken.service.sources.pipe import PipeSource
from harken.service.tap import Tap
from listening import RATE, detector_in, heard_of, humming, scores_of_files


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> harken.Detector:
    return detector_in(tmp_path_factory.mktemp("normal"))


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return humming(5.5)


@pytest.fixture(scope="module")
def scores(detector: harken.Detector, sound: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return scores_of_files(detector, sound, tmp_path_factory.mktemp("scored"))


# ---- pipe ------------------------------------------------------------------------------------------------------


def piped(data: bytes, piece: int = 7_001) -> tuple[subprocess.Popen[bytes], int]:
    """A process that writes to a pipe in odd pieces; the end to read from."""
    program = (
        "import sys; data = sys.stdin.buffer.read()\n"
        f"for start in range(0, len(data), {piece}):\n"
        f"    sys.stdout.buffer.write(data[start:start + {piece}]); sys.stdout.flush()"
    )
    writer = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdin is not None
    assert writer.stdout is not None
    threading.Thread(target=lambda: (writer.stdin.write(data), writer.stdin.close()), daemon=True).start()
    return writer, writer.stdout.fileno()


@pytest.mark.parametrize("sample_format", ["S16_LE", "WAV"])
def test_a_pipe_is_scored_as_files_are(
    sample_format: str, detector: harken.Detector, sound: np.ndarray, scores: list[float]
) -> None:
    data = (sound * 2**15).astype("<i2").tobytes()
    if sample_format == "WAV":  # as arecord writes it: the length is a placeholder
        format_chunk = b"fmt \x10\0\0\0\1\0\1\0" + RATE.to_bytes(4, "little") + (2 * RATE).to_bytes(4, "little")
        data = b"RIFF\xff\xff\xff\x7fWAVE" + format_chunk + b"\2\0\x10\0" + b"data\xff\xff\xff\x7f" + data
    writer, descriptor = piped(data)
    source = PipeSource(
        sample_format, SourceForm(RATE, 1) if sample_format != "WAV" else SourceForm(), descriptor=descriptor
    )
    windows = heard_of(source, detector)
    writer.wait()
    assert [heard.verdict.score for heard in windows] == scores
    assert [heard.window.number for heard in windows] == [0, 1, 2, 3, 4]
    assert [heard.window.position for heard in windows] == [second * RATE for second in range(5)]


@pytest.mark.parametrize(
    ("sample_format", "subtype"),
    [("S16_LE", "PCM_16"), ("S24_3LE", "PCM_24"), ("S32_LE", "PCM_32"), ("FLOAT_LE", "FLOAT"), ("U8", "PCM_U8")],
)
def test_raw_samples_are_those_of_files(sample_format: str, subtype: str, sound: np.ndarray, tmp_path: Path) -> None:
    stereo = np.stack([sound[:999], -0.5 * sound[:999]], axis=1)
    sf.write(tmp_path / "raw", stereo, RATE, format="RAW", subtype=subtype)
    sf.write(tmp_path / "file.wav", stereo, RATE, subtype=subtype)
    data = (tmp_path / "raw").read_bytes()
    unpack = unpacker(sample_format, SourceForm(RATE, 2), "x")
    pieces = [unpack.unpack(data[start : start + 11]) for start in range(0, len(data), 11)]
    samples_CS = np.concatenate([piece for piece in pieces if piece is not None], axis=1)
    expected_SC, _ = sf.read(tmp_path / "file.wav", dtype="float32")
    assert np.array_equal(samples_CS.T, expected_SC)
    if sample_format == "S24_3LE":
        wide = unpacker("S24_LE", SourceForm(RATE, 1), "x")
        low = np.frombuffer(data, np.uint8).reshape(-1, 3)
        padded = np.concatenate([low, np.where(low[:, 2:] > 127, 255, 0).astype(np.uint8)], axis=1)
        assert np.array_equal(wide.unpack(padded.tobytes())[0], expected_SC.ravel())  # type: ignore[index]


def test_a_pipe_of_an_unknown_format_says_so() -> None:
    with pytest.raises(HarkenError, match=r"no sample format 'S16LE'.*S16_LE"):
        PipeSource("S16LE", SourceForm(RATE), descriptor=0)
    with pytest.raises(HarkenError, match="do not tell their rate"):
        PipeSource("S16_LE", descriptor=0)


def test_a_pipe_that_is_no_wav_fails_in_words(detector: harken.Detector) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"<html>not sound at all</html>")
    os.close(writer)
    feed = Feed(PipeSource(descriptor=reader), [tap := Tap("pump", 1.0)])
    feed.start()
    assert tap.get(5) is None
    os.close(reader)
    assert feed.status().state == "failed"
    assert "does not begin with a header of WAV" in feed.status().error


# ---- feed ------------------------------------------------------------------------------------------------------


class Numbers(SoundSource):
    """Blocks of a tenth of a second whose samples count; each attempt ends as its entry says: an error, or None."""

    def __init__(self, attempts: Sequence[tuple[int, Exception | None]], live: bool | None = None) -> None:
        self.attempts, self.live, self.count = list(attempts), live, 0
        self.patience_s = 0.2

    @property
    def place(self) -> str:
        return "numbers"

    def listen(self, stop: threading.Event) -> Generator[Block | Recording | None]:
        blocks, end = self.attempts.pop(0) if self.attempts else (0, None)
        for number in range(blocks):
            samples = np.arange(self.count, self.count + 10, dtype=np.float32)[None]
            self.count += 10
            yield Block(samples, 100, 10 * number, datetime.now(UTC))
        if isinstance(end, Exception):
            raise end
        while not stop.wait(0.05):
            yield None


def test_a_source_is_begun_again_with_a_gap_and_says_so() -> None:
    source = Numbers([(25, SourceError("was unplugged", file="numbers")), (0, SourceError("is gone")), (25, None)])
    told: list[SourceStatus] = []
    feed = Feed(source, [tap := Tap("pump", 1.0, capacity=50)], tell=told.append, soonest_s=0.02)
    feed.start()
    windows = [tap.get(10) for _ in range(4)]
    assert feed.stop()
    # No window holds sound of two attempts, and positions never fall.
    firsts = [window.samples_CS[0, 0] for window in windows]  # type: ignore[union-attr]
    assert firsts == [0, 100, 250, 350]
    positions = [window.position for window in windows]  # type: ignore[union-attr]
    assert positions[:2] == [0, 100]
    assert positions[2] > 250
    assert positions[3] == positions[2] + 100
    states = [status.state for status in told]
    assert states[:4] == ["running", "waiting", "waiting", "running"] or states[:3] == ["running", "waiting", "running"]
    assert feed.status().restarts >= 2
    assert "was unplugged" in told[1].error


def test_a_decoder_that_fails_again_and_again_is_tried_ever_more_rarely() -> None:
    """Also one that gives moments of sound in between; counted, until sound has come for long."""
    told: list[SourceStatus] = []
    source = Numbers([(5, RuntimeError("a decoder may raise anything"))] * 5 + [(5, None)])
    feed = Feed(source, [Tap("pump", 1.0)], tell=told.append, soonest_s=0.02, latest_s=0.2)
    feed.start()
    until = time.monotonic() + 60
    while feed.status().failures < 5 and time.monotonic() < until:
        time.sleep(0.01)
    feed.stop()
    waits = [status for status in told if status.state == "waiting"][:5]
    assert [status.failures for status in waits] == [1, 2, 3, 4, 5]
    assert "RuntimeError: a decoder may raise anything" in waits[0].error
    delays = [(status.next_try - status.since).total_seconds() for status in waits]  # type: ignore[operator]
    assert delays == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.2], abs=0.02)


def test_a_source_that_ends_in_order_has_not_failed() -> None:
    class File(Numbers):
        def listen(self, stop: threading.Event) -> Generator[Block | Recording | None]:
            yield Block(np.zeros((1, 10), np.float32), 100, 0, datetime.now(UTC))

    feed = Feed(File([]), [Tap("pump", 1.0)], soonest_s=0.01)
    feed.start()
    until = time.monotonic() + 60
    while feed.status().restarts < 5 and time.monotonic() < until:
        time.sleep(0.01)
    feed.stop()
    assert feed.status().failures == 0


def test_trouble_with_a_source_is_told_once_and_its_end_once() -> None:
    said: list[tuple[str, bool]] = []
    now = [0.0]
    watch = SourceWatch(lambda kind, **payload: said.append((payload["sentence"], payload["problem"])),
                        clock=lambda: now[0])  # fmt: skip

    def become(state: State, after_s: float, failures: int = 0) -> None:
        now[0] += after_s
        watch.changed("hall", SourceStatus("rtsp://hall", state, error="It was lost.", failures=failures))
        watch.tick()

    def wait(seconds: float) -> None:
        now[0] += seconds
        watch.tick()

    become("waiting", 0)
    become("running", 2)
    wait(100)
    assert said == [], "seconds without sound are nobody's business"
    for second in range(40):  # a moment of sound, and another failure
        become("waiting" if second % 2 == 0 else "running", 1, second)
    assert said == [("The source hall gives no sound. It was lost. It has failed 30 times in a row. It is tried again "
                     "and again.", True)]  # fmt: skip
    wait(31)
    assert said[1:] == [("The source hall (rtsp://hall) gives sound again.", False)]
    said.clear()
    for _ in range(10):  # a recording that a server gives again and again
        become("waiting", 20)
        become("starting", 1)
        become("running", 1)
    assert said == []
    become("waiting", 20)
    wait(31)
    assert [problem for _, problem in said] == [True], "nothing comes any more"


def test_a_source_that_gives_nothing_is_begun_again() -> None:
    feed = Feed(Numbers([(5, None), (5, None)]), [Tap("pump", 1.0)], soonest_s=0.01)
    feed.start()
    until = time.monotonic() + 60
    while feed.status().restarts < 1 and time.monotonic() < until:
        time.sleep(0.02)
    assert "has given no sound for 0.2 s" in feed.status().error
    assert feed.stop()
    assert feed.status().state == "stopped"


def test_whole_windows_are_lost_and_counted_where_sound_comes_too_fast() -> None:
    feed = Feed(Numbers([(100, None)], live=True), [tap := Tap("pump", 1.0, capacity=3)])
    feed.start()
    until = time.monotonic() + 60
    while tap.lost < 7 and time.monotonic() < until:
        time.sleep(0.01)
    windows = [tap.get(1) for _ in range(3)]
    feed.stop()
    assert [window.number for window in windows] == [7, 8, 9]  # type: ignore[union-attr]
    assert all(np.array_equal(np.diff(window.samples_CS[0]), np.ones(99)) for window in windows)  # type: ignore[union-attr]
    assert feed.status().lost_windows == (("pump", 7),)


def test_nothing_is_lost_of_what_is_read_faster_than_it_sounds() -> None:
    feed = Feed(Numbers([(100, None)], live=None), [tap := Tap("pump", 1.0, capacity=2)])
    feed.start()
    windows = []
    for _ in range(10):
        time.sleep(0.02)
        windows.append(tap.get(5))
    feed.stop()
    assert [window.number for window in windows] == list(range(10))  # type: ignore[union-attr]
    assert tap.lost == 0


def test_machines_share_a_source_by_its_channels() -> None:
    class Two(Numbers):
        def listen(self, stop: threading.Event) -> Generator[Block | Recording | None]:
            for block in super().listen(stop):
                if isinstance(block, Block):
                    both = np.concatenate([block.samples_CS, -block.samples_CS])
                    yield Block(both, 100, block.position, block.start)
                else:
                    yield None

    taps = [Tap("first", 1.0, channels=[0]), Tap("second", 0.5, channels=[1])]
    feed = Feed(Two([(10, None)]), taps)
    feed.start()
    first, second = taps[0].get(5), taps[1].get(5)
    feed.stop()
    assert first.samples_CS[0, -1] == 99  # type: ignore[union-attr]
    assert second.samples_CS[0, -1] == -49  # type: ignore[union-attr]
    missing = Feed(Two([(10, None)]), [tap := Tap("third", 1.0, channels=[2])])
    missing.start()
    assert tap.get(5) is None
    assert "third listens to channel 3 of 2" in missing.status().error


# ---- clock and form --------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_moves_times_and_nothing_else() -> None:
    now = {"wall": 1_700_000_000.0, "monotonic": 50.0}
    clock = LiveClock(live=True, wall=lambda: now["wall"], monotonic=lambda: now["monotonic"])
    starts = []
    for second in range(6):
        now["wall"] += 1
        now["monotonic"] += 1 + 0.3 * (second == 1) - 0.3 * (second == 2)  # a block that arrives late
        if second == 3:
            now["wall"] -= 3600
        if second == 5:
            now["wall"] += 3600
        starts.append(clock.start(second, 1.0).timestamp() - 1_700_000_000.0)
    assert starts[0] == pytest.approx(0, abs=1e-6)
    assert starts[3] == pytest.approx(3 - 3600, abs=0.5)
    assert starts[5] == pytest.approx(5, abs=0.5)


def test_a_sound_card_that_runs_slow_is_corrected() -> None:
    now = {"time": 0.0}
    clock = LiveClock(live=True, wall=lambda: now["time"], monotonic=lambda: now["time"])
    for block in range(200):
        now["time"] += 1.02
        start = clock.start(block, 1.0).timestamp()
        assert abs(start - (now["time"] - 1)) < 2.1


def test_a_source_that_does_not_fit_the_model_is_refused(detector: harken.Detector) -> None:
    check_fits(detector, SourceForm(48_000, 1), "hw:1")
    check_fits(detector, SourceForm(48_000, 8), "hw:1", chosen=1)
    with pytest.raises(HarkenError, match="gives sound of 8000 Hz: what the model listens to above 4000 Hz"):
        check_fits(detector, SourceForm(8_000, 1), "hw:1")
    with pytest.raises(HarkenError, match="gives 2 channels, and the model listens to 1"):
        check_fits(detector, SourceForm(16_000, 2), "hw:1")
