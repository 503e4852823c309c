"""Windows of many machines are judged together, and each as if it were alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from conftest import hum
from harken.core.errors import AudioError
from harken.monitor.detector import Detector
from harken.monitor.verdict import Verdict
from harken.service.judging_pool import JudgingPool
from harken.service.records import Window


@pytest.fixture(scope="module")
def detector(once: Callable[[str, Callable[[Path], object]], Path]) -> Detector:
    def make(folder: Path) -> None:
        (folder / "normal").mkdir()
        for index in range(20):
            sf.write(folder / "normal" / f"{index:03d}.wav", hum(index, seconds=0.5), 16_000)
        Detector.fit(folder / "normal", workers=0).save(folder / "pump.harken")

    return Detector.load(once("pooled_pump", make) / "pump.harken")


def window(samples_S: np.ndarray) -> Window:
    return Window(samples_S[None].astype(np.float32), 16_000, 0, 0, datetime.now(UTC))


def judged(pool: JudgingPool, detector: Detector, sounds: list[np.ndarray]) -> list[Verdict | None]:
    """Verdicts on windows that are all there at once; None for those that meet a bug."""
    verdicts: dict[int, Verdict | None] = {}

    def judge(row: int) -> None:
        try:
            verdicts[row] = pool.judge(detector, window(sounds[row]))
        except ZeroDivisionError:
            verdicts[row] = None

    threads = [threading.Thread(target=judge, args=(row,)) for row in range(len(sounds))]
    with pool.alone(detector):
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join(60)
    return [verdicts[row] for row in range(len(sounds))]


@pytest.mark.parametrize("shared", [False, True])
def test_each_window_is_judged_as_if_it_were_alone(
    detector: Detector, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shared:  # as a network, of which there is one in memory
        monkeypatch.setattr(Detector, "another", lambda self: None)
    sounds = [hum(100 + index, seconds=0.5) for index in range(40)]
    sounds[3] = np.full(8_000, np.nan)
    sounds[17] = np.concatenate([sounds[17]] * 4)  # judged by its worst segment
    verdicts = judged(JudgingPool(2), detector, sounds)
    for row, (sound, verdict) in enumerate(zip(sounds, verdicts, strict=True)):
        assert verdict is not None
        if row == 3:
            assert isinstance(verdict.error, AudioError)
            continue
        alone = detector.score(sound.astype(np.float32), 16_000)
        assert (verdict.score, verdict.event_score, verdict.p_value) == (alone.score, alone.event_score, alone.p_value)
        assert verdict.segment_scores == alone.segment_scores
        assert verdict.why == alone.why


def test_a_window_that_meets_a_bug_costs_no_other_its_verdict(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyse = type(detector._embedder).analyse

    def faulty(embedder: object, samples: np.ndarray, *arguments: object, **options: object) -> object:
        if samples.max() > 0.9:
            raise ZeroDivisionError
        return analyse(embedder, samples, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(type(detector._embedder), "analyse", faulty)
    pool, sounds = JudgingPool(1), [0.1 * hum(index, seconds=0.5) for index in range(8)]
    sounds[5] = np.ones(8_000)
    verdicts = judged(pool, detector, sounds)
    assert [row for row, verdict in enumerate(verdicts) if verdict is None] == [5]
    assert pool.waiting == 0
