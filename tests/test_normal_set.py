"""What normal recordings are learned from, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from typer.testing import CliRunner

import harken
from conftest import hum
from harken.cli.main import app
from harken.core.errors import HarkenError
from harken.detection.calibration import Calibration
from harken.detection.crowd import apart
from harken.detection.outliers import far_scores, outliers
from harken.detection.states import silhouette
from harken.monitor.fit_report import write_fit_report
from harken.monitor.normal_set import Training, notes_on


def test_gains_and_copies_are_near_duplicates_and_other_recordings_are_not(make_clips: Callable[..., Path]) -> None:
    """However alike the recordings are among each other."""
    normal = make_clips("normal", 12)
    for number in range(3):
        sound, rate = sf.read(normal / f"clip_{number:03d}.wav", dtype="float32")
        sf.write(normal / f"copy_{number}.wav", 0.5 * sound, rate)
        sf.write(normal / f"ogg_{number}.flac", sound, rate, subtype="PCM_24")
    detector = harken.Detector.fit(normal, workers=0)
    assert len(detector.training.names) == 12
    assert {aside.reason for aside in detector.set_aside} == {
        f"is nearly the same as clip_{number:03d}.wav" for number in range(3)
    }


def test_a_door_among_the_normal_recordings_is_left_out_and_named(make_clips: Callable[..., Path]) -> None:
    normal = make_clips("normal", 40)
    clean = harken.Detector.fit(normal, workers=0)
    door = hum(3) + 0.8 * np.random.default_rng(0).normal(size=16_000).astype(np.float32) * np.linspace(1, 0, 16_000)
    sf.write(normal / "door.wav", door / 4, 16_000)
    detector = harken.Detector.fit(normal, workers=0)
    assert [aside.path.name for aside in detector.set_aside] == ["door.wav"]
    assert any("door.wav" in note and "--exclude" in note for note in detector.notes)
    assert detector.training.names == clean.training.names
    assert detector.threshold == clean.threshold
    kept = harken.Detector.fit(normal, workers=0, keep_outliers=True)
    assert "door.wav" in kept.training.names
    assert kept.threshold > 1.5 * clean.threshold


@pytest.mark.parametrize(
    ("patterns", "left"),
    [(["clip_00[0-4].wav"], 20), (["new/*"], 20), (["clip_001.wav", "*2.wav"], 25), (["normal/new"], 20)],
)
def test_recordings_are_excluded_by_name_pattern_and_folder(
    patterns: list[str], left: int, make_clips: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    normal = make_clips("normal", 20)
    make_clips("normal/new", 10, first_seed=100)
    monkeypatch.chdir(tmp_path)
    detector = harken.Detector.fit(normal, workers=0, exclude=patterns)
    assert len(detector.training.names) == left
    assert all("is excluded by" in aside.reason for aside in detector.set_aside)
    with pytest.raises(HarkenError, match="names none of the recordings"):
        harken.Detector.fit(normal, workers=0, exclude=["nothing*"])


def test_a_small_state_is_named_with_its_files(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    normal = make_clips("normal", 40)
    for index in range(4):
        sf.write(normal / f"fast_{index}.wav", hum(700 + index, speed=200), 16_000)
    detector = harken.Detector.fit(normal, workers=0)
    (note,) = [note for note in detector.notes if "sound alike and unlike the others" in note]
    assert note.startswith("fast_0.wav, fast_1.wav, fast_2.wav, fast_3.wav")
    assert "a fault, a rare state, another machine?" in note
    write_fit_report(tmp_path / "fit.html", "model", detector)
    page = (tmp_path / "fit.html").read_text()
    assert page.index("Few recordings that sound alike") < page.index("<h3>fast_0.wav")
    assert page.count("<audio") == 4 + 5


def test_a_recording_that_was_learned_from_gets_its_held_out_score(
    make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    normal = make_clips("normal", 20)
    harken.Detector.fit(normal, workers=0).save(tmp_path / "model")
    detector = harken.load(tmp_path / "model")
    verdict = detector.score(normal / "clip_007.wav")
    assert verdict.score == detector.training.scores_N[detector.training.names.index("clip_007.wav")] > 0
    assert "learned from" in verdict.warnings[0]
    sf.write(tmp_path / "other.wav", hum(400), 16_000)
    assert not detector.score(tmp_path / "other.wav").warnings


@pytest.mark.parametrize("count", [12, 60, 600])
def test_normal_scores_have_few_outliers(count: int) -> None:
    rng = np.random.default_rng(0)
    shares = [outliers(rng.gamma(4, size=count)).mean() for _ in range(200)]
    assert np.mean(shares) < 0.002


def test_a_far_score_is_an_outlier_and_many_are_a_state() -> None:
    scores = np.random.default_rng(0).gamma(20, size=100)
    scores[7] = 20 * scores.max()
    assert np.flatnonzero(outliers(scores)).tolist() == [7]
    scores[20:28] = 1e3
    assert far_scores(scores).sum() == 9
    assert not outliers(scores).any()
    assert not outliers(np.append(np.ones(50), 100)).any()
    assert not outliers(scores - 1e4).any()


def test_recordings_of_one_fault_are_apart_although_they_vouch_for_each_other() -> None:
    rng = np.random.default_rng(0)
    for size in (20, 60, 2_000):
        normal_ND = rng.normal(size=(size, 16))
        assert apart(normal_ND).mean() < 0.01
        alike = max(1, size // 20)
        fault_ND = 6 + 0.1 * rng.normal(size=(alike, 16))
        picked = apart(np.concatenate([normal_ND, fault_ND]))
        assert np.flatnonzero(picked).tolist() == [*range(size, size + alike)]
        # A quarter of them is a state.
        assert not apart(np.concatenate([normal_ND, 6 + rng.normal(size=(size // 3, 16))])).any()
    assert not apart(np.append(np.zeros((18, 3)), np.ones((1, 3)), axis=0)).any()
    assert not apart(np.ones((40, 3))).any()


def test_recordings_of_one_fault_are_named_once_with_a_question() -> None:
    """Their held-out scores are usual ones."""
    rng = np.random.default_rng(0)
    embeddings_ND = np.concatenate([rng.normal(size=(40, 16)), 6 + 0.1 * rng.normal(size=(4, 16))]).astype(np.float32)
    names = (*(f"{number}.wav" for number in range(40)), *(f"fault{number}.wav" for number in range(4)))
    scores_N = rng.uniform(1, 2, size=44)
    training = Training(
        names, ("state 0",) * 44, embeddings_ND, [np.zeros((1, 0), np.uint8)] * 44, scores_N, np.full(44, -30.0),
        np.ones(44),
    )  # fmt: skip
    notes = notes_on(training, Calibration.independent(scores_N))
    (named,) = [note for note in notes if "fault0" in note]
    assert named.startswith("fault0.wav, fault1.wav, fault2.wav, fault3.wav are apart from most recordings: a fault, a")
    of_few = replace(training, domains=("state 0",) * 40 + ("state 1",) * 4)
    (named,) = [note for note in notes_on(of_few, Calibration.independent(scores_N)) if "fault0" in note]
    assert "sound alike and unlike the others (state 1)" in named


def test_the_report_plays_what_is_unlike_the_others(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    normal = make_clips("normal", 40)
    door = hum(3) + 0.8 * np.random.default_rng(0).normal(size=16_000).astype(np.float32) * np.linspace(1, 0, 16_000)
    sf.write(normal / "door.wav", door / 4, 16_000)
    arguments = [
        "fit",
        str(normal),
        "-o",
        str(tmp_path / "m"),
        "--report",
        str(tmp_path / "fit.html"),
        "--workers",
        "1",
    ]
    result = CliRunner().invoke(app, [*arguments, "--exclude", "clip_039.wav"])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "fit.html").read_text()
    left_out, highest = page.index("Left out: unlike all"), page.index("The highest held-out scores")
    assert left_out < page.index("<h3>door.wav") < highest
    assert "is excluded by clip_039.wav" in page
    assert page.count("<audio") == page.count("is unlike all other recordings (score") + 5


def test_silhouettes_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import silhouette_score

    rng = np.random.default_rng(0)
    rows_ND = rng.normal(size=(60, 3))
    square_NN = np.linalg.norm(rows_ND[:, None] - rows_ND, axis=2)
    for clusters in (2, 5):
        labels_N = np.append(rng.integers(clusters, size=59), clusters)  # the last one is alone
        expected = silhouette_score(square_NN, labels_N, metric="precomputed")
        assert silhouette(square_NN, labels_N) == pytest.approx(expected, rel=1e-12)
