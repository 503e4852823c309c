"""Recordings judged as a whole: few normal recordings show that all are different before they show which."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from scipy.stats import mannwhitneyu

from command_line import called
from conftest import hum
from harken.detection.rank_test import higher_p
from harken.monitor.as_a_whole import AsAWhole
from harken.monitor.detector import Detector
from harken.monitor.verdict import LEARNED, Verdict
from listening import RATE


@pytest.mark.parametrize(("new", "normal"), [(5, 6), (20, 10), (30, 60), (100, 100)])
def test_the_p_value_is_that_of_mann_and_whitney(new: int, normal: int) -> None:
    rng = np.random.default_rng(0)
    for shift in (-1.0, 0.0, 0.5, 1.5):
        scores_M, held_out_N = rng.normal(shift, size=new), rng.normal(size=normal)
        method = "exact" if new * normal <= 2000 else "asymptotic"
        expected = mannwhitneyu(scores_M, held_out_N, alternative="greater", method=method).pvalue
        assert higher_p(scores_M, held_out_N) == pytest.approx(expected, rel=1e-6)


def test_equal_scores_are_no_evidence() -> None:
    assert higher_p(np.ones(20), np.ones(10)) > 0.4
    tied_N, above_M = np.repeat([1.0, 2.0], 10), np.full(20, 2.0)
    assert higher_p(above_M, tied_N) >= mannwhitneyu(above_M + 1e-9, tied_N, alternative="greater").pvalue


def test_sets_of_normal_scores_differ_as_rarely_as_is_said() -> None:
    rng = np.random.default_rng(1)
    p_values = np.array([higher_p(rng.normal(size=8), rng.normal(size=10)) for _ in range(500)])
    for level in (0.05, 0.01):
        assert (p_values <= level).mean() <= level + 3 * np.sqrt(level / 500)


def clips(folder: Path, seeds: range, **kind: bool) -> Path:
    """Recordings of a machine."""
    folder.mkdir()
    for seed in seeds:
        sf.write(folder / f"{seed}.wav", hum(seed, **kind), RATE)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of ten recordings."""
    place = tmp_path_factory.mktemp("few")
    Detector.fit(clips(place / "normal", range(10)), workers=0).save(place / "few.harken")
    return place / "few.harken"


def test_each_recording_counts_once_and_those_learned_from_do_not(model: Path) -> None:
    detector = Detector.load(model)
    whole, highest = AsAWhole(detector.alarm, ["source"]), detector.calibration.scores[-1]
    high = [Verdict(Path(f"{n}.wav"), "suspect", float(highest) + 1, sha256=str(n)) for n in range(12)]
    for verdict in high[:4] * 5:
        whole.add(verdict)
    whole.add(Verdict(Path("a.wav"), "normal", float(highest) + 1, warnings=(LEARNED,)))
    whole.add(Verdict(Path("b.wav"), "not judged", float(highest) + 1))
    whole.add(Verdict(Path("c.wav"), "suspect", float(highest) + 1, start_s=0.0, end_s=3.0))
    assert whole.p_value is None
    for verdict in high:
        whole.add(verdict)
    assert whole.differ
    assert "these 12 recordings score higher than the 10 normal ones: fewer than 1 in 100,000 sets" in whole.sentence
    of_states = AsAWhole(detector.alarm, ["state 0", "state 1"])
    for verdict in high:
        of_states.add(verdict)
    assert not of_states.differ


def test_score_says_that_a_folder_differs_as_a_whole(model: Path, tmp_path: Path) -> None:
    """Faults, none of which is an alarm at this rate."""
    common = ("-m", model, "--workers", 1, "--json", "--fail-on-anomaly", "--false-alarms", "1/year")
    differing = called("score", clips(tmp_path / "faults", range(300, 312), fault=True), *common)
    records = [json.loads(line) for line in differing.stdout.splitlines()]
    assert differing.returncode == 1
    assert not {"alarm"} & {record.get("verdict") for record in records}
    assert [record["recordings"] for record in records if record["record"] == "as a whole"] == [12]
    usual = called("score", clips(tmp_path / "usual", range(400, 412)), *common)
    assert usual.returncode == 0, usual.stdout
    assert '"as a whole"' not in usual.stdout
    assert not json.loads(usual.stdout.splitlines()[-1])["differ_as_a_whole"]
