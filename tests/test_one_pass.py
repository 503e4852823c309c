"""Scoring does each thing once per clip, keeps its encoder, and leaves the caller's threads as they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from conftest import hum
from harken.core.errors import AudioError
from harken.detection import create_detector, local_density
from harken.detection.base import canonical_order
from harken.embeddings import embedder
from harken.embeddings.embedder import Embedder, make_spec, sketch_bands
from harken.embeddings.sketch import make_sketch
from harken.encoders.spectral import Spectral
from harken.monitor import clip_judge
from harken.monitor.detector import Detector

RATE = 16_000


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often functions are called that the test lets count."""
    count: Counter[str] = Counter()

    def counted(holder: Any, name: str) -> None:
        real = getattr(holder, name)

        def wrapper(*values: Any, **more: Any) -> Any:
            count[name] += 1
            return real(*values, **more)

        monkeypatch.setattr(holder, name, wrapper)

    counted(Spectral, "log_mel")
    counted(local_density, "nearest")
    counted(clip_judge, "nearest")
    counted(embedder, "create_encoder")
    return count


def test_one_log_mel_and_one_search_per_clip_and_one_encoder(
    make_clips: Callable[..., Path], calls: Counter[str]
) -> None:
    files = sorted(make_clips("normal", 8).iterdir())
    detector = Detector.fit(files[:6], workers=0)
    calls.clear()
    for file in files:
        assert detector.score(file).why
    # Of the sound as a whole and of short events.
    assert calls == {"log_mel": len(files), "nearest": 2 * len(files), "create_encoder": 1}
    again = [verdict.as_json() for verdict in detector.score_many(files, workers=0)]
    assert calls["create_encoder"] == 1
    alone = [detector.score(file).as_json() for file in files]
    assert again == alone
    # Compared with the normal recordings in the workers, and several at once.
    assert [verdict.as_json() for verdict in detector.score_many(files, workers=2)] == alone


def test_the_sketch_of_the_shared_log_mel_is_the_sketch() -> None:
    stereo_CS = np.stack([hum(1), hum(2)])
    spec = make_spec("spectral", sample_rate=RATE, channels=2)
    shared = Embedder(spec)
    assert shared.encodes_sketch
    log_mel_TM = np.mean([sketch_bands(spec).log_mel(x_S) for x_S in stereo_CS], axis=0, dtype=np.float32)
    listened = shared.listen(stereo_CS, sample_rate=RATE)
    recorded = Embedder(spec.model_copy(update={"level": "recorded"})).analyse(stereo_CS, sample_rate=RATE)
    np.testing.assert_array_equal(recorded.sketch_BC, make_sketch(log_mel_TM))
    np.testing.assert_array_equal(shared.features(listened).sketch_BC, make_sketch(shared.log_mel(listened.wave_CS)))
    # Another rate of the encoder has other bands: those of the sketch are computed at the recordings' rate.
    lower = Embedder(make_spec("spectral", sample_rate=RATE, channels=2, config={"sample_rate": 8_000}))
    assert not lower.encodes_sketch
    assert lower.bands.sample_rate == RATE


def test_samples_in_memory_are_judged_like_their_file(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    detector = Detector.fit(make_clips("normal", 8), workers=0)
    samples = hum(50, fault=True)
    sf.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    from_file, from_memory = detector.score(tmp_path / "a.wav"), detector.score(samples, RATE)
    assert (from_memory.score, from_memory.p_value, from_memory.why) == (
        from_file.score,
        from_file.p_value,
        from_file.why,
    )
    with pytest.raises(AudioError, match="above 4000 Hz is missing"):
        detector.score(samples, 8_000)
    with pytest.raises(ValueError, match="sample_rate"):
        detector.score(samples)


def test_a_clip_is_explained_by_the_recording_that_it_was_scored_by(make_clips: Callable[..., Path]) -> None:
    """A normal recording is its own neighbour, in whatever order recordings were given."""
    files = sorted(make_clips("normal", 10).iterdir())
    detector = Detector.fit(files[::-1], workers=0)
    for name in ("clip_000.wav", "clip_007.wav"):
        verdict = detector.score(files[0].with_name(name))
        assert verdict.explanation is not None
        assert verdict.explanation.nearest == name


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("local_density", {"exponent": 0.0}),
        ("knn", {}),
        ("knn", {"banks": "separate"}),
        ("ldn", {}),
        ("ldn", {"form": "difference", "domain_wise": True}),
        ("varmin", {"neighbours": 4}),
    ],
)
def test_the_neighbour_that_a_score_comes_from(name: str, parameters: dict[str, Any]) -> None:
    """Near one of two training clips, which are far from all others, it is that one; scores are those of `score`."""
    rng = np.random.default_rng(0)
    bank_ND = np.concatenate([rng.normal(size=(28, 6)), 40.0 + rng.normal(size=(2, 6))])
    queries_ND = np.concatenate([bank_ND[[3, 17]], bank_ND[28:] + 1e-3])
    detector = create_detector(name, {"space": "raw", **parameters}).fit(bank_ND, ["source", "target"] * 15)
    scores_N, rows_N = detector.score_with_nearest(queries_ND)
    np.testing.assert_array_equal(scores_N, detector.score(queries_ND))
    assert rows_N is not None
    np.testing.assert_array_equal(canonical_order(bank_ND)[rows_N], [3, 17, 28, 29])
    if name == "local_density":
        distance_N = np.linalg.norm(queries_ND - bank_ND[canonical_order(bank_ND)[rows_N]], axis=1)
        np.testing.assert_allclose(scores_N, distance_N)


@pytest.mark.parametrize(
    ("name", "parameters"), [("gmm", {}), ("knn", {"bank": "kmeans"}), ("ldn", {"bank": "kmeans"})]
)
def test_scores_that_come_from_no_training_clip(name: str, parameters: dict[str, Any]) -> None:
    bank_ND = np.random.default_rng(0).normal(size=(30, 6))
    detector = create_detector(name, {**parameters, **({"clusters": 4} if parameters else {})}).fit(bank_ND)
    assert detector.score_with_nearest(bank_ND)[1] is None


def test_fit_and_score_leave_torchs_threads_alone(make_clips: Callable[..., Path]) -> None:
    torch = pytest.importorskip("torch")
    from harken.encoders import create_encoder, tiny_config

    files = sorted(make_clips("normal", 3).iterdir())
    built = create_encoder("efficientat", {**tiny_config("efficientat"), "seed": 0})
    spec = make_spec("efficientat", sample_rate=RATE, channels=1, config=built.config(), weights=built.weights())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        seen = []
        one = Embedder(spec, built.weights())
        hook = one.encoder.module.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))  # type: ignore[attr-defined]
        one.analyse(files[0])
        hook.remove()
        assert seen == [1]
        Detector.fit(files, workers=0).score(files[0])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
