"""The main job, end to end, from Python."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from sklearn.metrics import roc_auc_score

import harken
from conftest import hum
from harken.core.errors import AudioError, HarkenError
from ready_process import Started, command


@pytest.fixture
def plant(make_clips: Callable[..., Path]) -> tuple[Path, Path]:
    """Forty normal recordings, and a folder of ten normal and ten faulty new ones."""
    normal = make_clips("normal", 40)
    new = make_clips("new", 10, first_seed=500)
    for index in range(10):
        sf.write(new / f"fault_{index}.wav", hum(900 + index, fault=True), 16_000)
    return normal, new


def test_faults_are_found_and_explained(plant: tuple[Path, Path]) -> None:
    normal, new = plant
    detector = harken.Detector.fit(normal, false_alarms="3%", workers=0)
    verdicts = list(detector.score_many(sorted(new.iterdir()), workers=0))
    faulty = ["fault" in verdict.path.name for verdict in verdicts]
    assert roc_auc_score(faulty, [verdict.score for verdict in verdicts]) == 1.0
    assert all(verdict.is_anomaly for verdict, bad in zip(verdicts, faulty, strict=True) if bad)
    assert sum(verdict.is_anomaly for verdict, bad in zip(verdicts, faulty, strict=True) if not bad) <= 2
    assert "learned from 40 recordings of 16000 Hz" in repr(detector)
    for verdict, bad in zip(verdicts, faulty, strict=True):
        assert 0 < verdict.p_value <= 1
        assert verdict.rank.endswith("above all 40") if bad else verdict.kind in ("normal", "alarm")
        assert verdict.heatmap.shape[0] == 128
        if bad:
            assert verdict.explanation.low_hz < 3000 < verdict.explanation.high_hz
            assert verdict.explanation.change_db > 3
            assert verdict.why.startswith("new tone near 3.0 kHz from ")


def test_a_saved_model_gives_bitwise_the_same_scores(plant: tuple[Path, Path], tmp_path: Path) -> None:
    normal, new = plant
    fitted = harken.Detector.fit(normal, workers=0)
    fitted.save(tmp_path / "m.harken")
    loaded = harken.load(tmp_path / "m.harken")
    files = sorted(new.iterdir())
    one = [verdict.score for verdict in fitted.score_many(files, workers=0)]
    two = [verdict.score for verdict in loaded.score_many(files[::-1], workers=2)][::-1]
    three = [loaded.score(file).score for file in files]
    assert one == two == three
    assert loaded.threshold == fitted.threshold
    assert loaded.score(files[0]).why == fitted.score(files[0]).why


@pytest.mark.parametrize("name", harken.list_detectors())
def test_every_detector_can_be_fitted_saved_and_loaded(name: str, plant: tuple[Path, Path], tmp_path: Path) -> None:
    normal, new = plant
    fitted = harken.Detector.fit(normal, detector=name, workers=0, store=tmp_path / "store")
    fitted.save(tmp_path / "m.harken")
    loaded = harken.load(tmp_path / "m.harken")
    file = new / "fault_0.wav"
    assert loaded.score(file).score == fitted.score(file).score


def test_fitting_twice_gives_the_same_bytes(plant: tuple[Path, Path], tmp_path: Path) -> None:
    for name, workers in (("a", 0), ("b", 2)):
        harken.Detector.fit(plant[0], workers=workers).save(tmp_path / name)
    one, other = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert one == other


def test_one_bad_clip_among_many_is_set_aside(plant: tuple[Path, Path], tmp_path: Path) -> None:
    normal, _ = plant
    (normal / "broken.wav").write_bytes(b"RIFF")
    (normal / "twin.wav").write_bytes((normal / "clip_000.wav").read_bytes())
    sf.write(normal / "loud.wav", np.clip(hum(3) * 30, -1, 1), 16_000)
    sf.write(normal / "other_rate.wav", hum(3, rate=8_000), 8_000)
    sf.write(normal / "anomaly_id_00_00000001.wav", hum(3), 16_000)
    detector = harken.Detector.fit(normal, workers=2)
    assert len(detector.training.names) == 40
    reasons = {aside.path.name: aside.reason for aside in detector.set_aside}
    assert set(reasons) == {
        "broken.wav",
        "twin.wav",
        "loud.wav",
        "other_rate.wav",
        "anomaly_id_00_00000001.wav",
    }
    assert "clipped" in reasons["loud.wav"]
    assert "8000 Hz" in reasons["other_rate.wav"]
    assert "same file" in reasons["twin.wav"]


def test_what_cannot_be_scored_raises_and_what_is_marred_is_scored_with_a_warning(
    plant: tuple[Path, Path], tmp_path: Path
) -> None:
    detector = harken.Detector.fit(plant[0], workers=0)
    sf.write(tmp_path / "stereo.wav", np.stack([hum(1), hum(2)], axis=1), 16_000)
    sf.write(tmp_path / "silent.wav", np.zeros(16_000, np.float32), 16_000)
    for name, message in [
        ("stereo.wav", "2 channels"),
        ("silent.wav", "silent"),
        ("none.wav", "no such file"),
    ]:
        with pytest.raises(AudioError, match=message):
            detector.score(tmp_path / name)
    squeal = 3 * np.sin(2 * np.pi * 3_000 * np.arange(2_000) / 16_000)
    for name, sound, kind in (
        ("loud.wav", hum(3) + np.pad(squeal, (5_000, 9_000)), "alarm"),
        ("gain.wav", hum(3) * 30, "not judged"),
    ):
        sf.write(tmp_path / name, np.clip(sound, -1, 1), 16_000)
        verdict = detector.score(tmp_path / name)
        assert verdict.kind == kind
        assert "clipped" in verdict.warnings[0]


def test_too_little_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(HarkenError, match="no audio in this folder"):
        harken.Detector.fit(tmp_path)
    sf.write(tmp_path / "a.wav", hum(1), 16_000)
    (tmp_path / "b.wav").touch()
    with pytest.raises(HarkenError, match="1 of 2 recordings can be learned from"):
        harken.Detector.fit(tmp_path, workers=0)


def test_alike_neighbours_in_time_do_not_fake_confidence(tmp_path: Path) -> None:
    """Ten recordings, each written six times with other noise: worth about ten, and held out together."""
    rng = np.random.default_rng(0)
    for index in range(60):
        sound = hum(index // 6) + 0.01 * rng.normal(size=16_000).astype(np.float32)
        sf.write(tmp_path / f"{index:02d}.wav", sound, 16_000)
    detector = harken.Detector.fit(tmp_path, workers=0, false_alarms="10%")
    assert detector.calibration.effective < 35
    tmp = tmp_path / "new"
    tmp.mkdir()
    for index in range(20):
        sf.write(tmp / f"{index}.wav", hum(1000 + index), 16_000)
    alarms = sum(verdict.is_anomaly for verdict in detector.score_many(tmp.iterdir(), workers=0))
    assert alarms <= 10


def test_two_states_are_found_and_named(tmp_path: Path) -> None:
    for index in range(30):
        sound = hum(index, speed=90 if index % 3 == 0 else 50)
        sf.write(tmp_path / f"{index:02d}.wav", sound, 16_000)
    detector = harken.Detector.fit(tmp_path, workers=0)
    fast = {domain for index, domain in enumerate(detector.training.domains) if index % 3 == 0}
    slow = {domain for index, domain in enumerate(detector.training.domains) if index % 3}
    assert not fast & slow
    assert any("operating states found" in note for note in detector.notes)


def test_states_named_by_the_files(tmp_path: Path) -> None:
    for index in range(12):
        sf.write(tmp_path / f"{index:02d}_{1400 + 50 * (index % 3)}rpm.wav", hum(index), 16_000)
    detector = harken.Detector.fit(tmp_path, workers=0, states=r"_(\d+)rpm")
    assert detector.training.domains[:4] == ("1400", "1450", "1500", "1400")
    for pattern, message in (("(", "no regular expression"), ("bar", "matches no file name")):
        with pytest.raises(HarkenError, match=message):
            harken.Detector.fit(tmp_path, workers=0, states=pattern)


@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_resumes_to_the_same_bytes(
    kills: int, make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    """kill -9 during embedding, fitting and saving: no unreadable bundle or store, same bytes in the end."""
    normal = make_clips("normal", 12)

    def start(store: Path, model: Path) -> Started:
        return command("fit", normal, "-o", model, "--store", store, "--workers", 1)

    def contents(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".tmp"))
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    assert command("--version").wait() == 0
    begun = time.monotonic()
    assert start(tmp_path / "store", tmp_path / "model").wait() == 0
    duration = time.monotonic() - begun
    rng = np.random.default_rng(0)
    for attempt in range(kills):
        store, model = tmp_path / "killed_store", tmp_path / f"killed_model_{attempt // 4}"
        process = start(store, model)
        time.sleep(float(rng.uniform(0.3, 1.05)) * duration)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if model.exists():
            harken.load(model)
        if attempt % 4 == 3:
            assert start(store, model).wait() == 0
            assert contents(model) == contents(tmp_path / "model")
            assert contents(store) == contents(tmp_path / "store")


@pytest.mark.parametrize(
    ("train", "test", "least"),
    [
        ("dcase2020/slider/train/*id_00*", "dcase2020/slider/test/*id_00*", 0.95),
        ("mimii_fan_0dB/fan/train/*", "mimii_fan_0dB/fan/test/*", 0.98),
    ],
)
@pytest.mark.parametrize("level", ["normalised", "recorded"])
def test_real_machines(shared: Path, train: str, test: str, least: float, level: str) -> None:
    corpus = shared / "corpus"
    detector = harken.Detector.fit(sorted(corpus.glob(train)), level=level)
    verdicts = list(detector.score_many(sorted(corpus.glob(test))))
    truth = ["anomaly" in verdict.path.name for verdict in verdicts]
    assert roc_auc_score(truth, [verdict.score for verdict in verdicts]) >= least


def test_two_models_can_be_used_at_once(plant: tuple[Path, Path]) -> None:
    normal, new = plant
    files = sorted(new.iterdir())[:4]
    one = harken.Detector.fit(normal, workers=0)
    other = harken.Detector.fit(normal, workers=0, level="recorded", pooling="mean")
    expected = [(one.score(file).score, other.score(file).score) for file in files]
    together = zip(one.score_many(files, workers=0), other.score_many(files, workers=0), strict=True)
    assert [(a.score, b.score) for a, b in together] == expected


def test_test_clips_are_not_learned_from(plant: tuple[Path, Path]) -> None:
    normal, _ = plant
    for name in ("section_00_source_test_normal_0000_a", "section_00_0000"):
        sf.write(normal / f"{name}.wav", hum(7_000), 16_000)
    detector = harken.Detector.fit(normal, workers=0)
    assert len(detector.set_aside) == 2
    assert all("test or evaluation clip" in aside.reason for aside in detector.set_aside)


def test_names_that_would_break_a_picture_or_an_order_do_not(plant: tuple[Path, Path], tmp_path: Path) -> None:
    from harken.monitor.plot import save_png, why_figure

    sf.write(plant[0] / "m1\u00b23 a$_^$.wav", hum(3), 16_000)
    sf.write(tmp_path / "b$_^$.wav", hum(3, fault=True), 16_000)
    detector = harken.Detector.fit(plant[0], workers=0)
    verdict = detector.score(tmp_path / "b$_^$.wav")
    save_png(why_figure(detector, verdict), tmp_path / "why.png")
    with pytest.raises(HarkenError, match=r"ends in \.png"):
        save_png(why_figure(detector, verdict), tmp_path)


def test_mistakes_are_reported_before_anything_is_embedded(plant: tuple[Path, Path], tmp_path: Path) -> None:
    for mistake in ({"false_alarms": "1/fortnight"}, {"states": "("}, {"level": "loud"}, {"workers": -1}):
        with pytest.raises(HarkenError):
            harken.Detector.fit(plant[0], store=tmp_path / "store", **mistake)
    assert not (tmp_path / "store").exists() or not any((tmp_path / "store").rglob("*.safetensors"))
    (tmp_path / "file").touch()
    with pytest.raises(HarkenError, match="cannot keep embeddings there"):
        harken.Detector.fit(plant[0], store=tmp_path / "file", workers=0)
