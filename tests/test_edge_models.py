"""Models whose networks are ONNX files: scored, explained and kept without torch. Weights that models only name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from harken.core.errors import BundleError, HarkenError, WeightsError
from harken.detection import create_detector
from harken.detection.calibration import Calibration
from harken.embeddings.embedder import Embedder, EmbeddingSpec, make_spec, weights_digest
from harken.encoders import create_encoder
from harken.encoders.beats import TINY as TINY_BEATS
from harken.monitor import public_weights
from harken.monitor.detector import Detector
from harken.monitor.fitted import Fitted
from harken.monitor.normal_set import Training
from harken.training.model_spec import ModelSpec
from harken.training.models import build_model
from harken.training.trained_encoder import TrainedEncoder
from harken.weights.cache import Record, converted_file, keep

CLIPS = 6


def _recordings(folder: Path, seed: int) -> list[Path]:
    rng = np.random.default_rng(seed)
    for number in range(CLIPS):
        tone_S = np.sin(2 * np.pi * (100 + 7 * number) * np.arange(16_000) / 16_000)
        sf.write(folder / f"{number}.wav", 0.1 * tone_S + 0.02 * rng.normal(size=16_000), 16_000)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return _recordings(tmp_path_factory.mktemp("recordings"), seed=0)


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Recordings to learn from; those that a model knows have held-out scores, whatever its embeddings."""
    return _recordings(tmp_path_factory.mktemp("normal"), seed=1)


def model(spec: EmbeddingSpec, weights: dict[str, np.ndarray], recordings: list[Path]) -> Detector:
    """A model of these embeddings."""
    embedder = Embedder(spec, weights)
    features = [embedder.analyse(path) for path in recordings]
    embeddings_ND = np.stack([clip.embedding for clip in features])
    detector = create_detector("knn", {})
    detector.fit(embeddings_ND, ["source"] * len(features))
    training = Training(
        names=tuple(path.name for path in recordings),
        domains=("source",) * len(features),
        embeddings_ND=embeddings_ND,
        sketches_NBC=[clip.sketch_BC for clip in features],
        scores_N=detector.train_scores_,
        levels_db_N=np.array([clip.level_db for clip in features]),
        seconds_N=np.array([clip.seconds for clip in features]),
    )
    return Detector(Fitted(spec, weights, detector, Calibration.fit(detector.train_scores_), training, "1%"))


@pytest.fixture(scope="module")
def trained(normal: list[Path]) -> Detector:
    """A model of two networks, one of which was trained here."""
    branch = {"encoder": "dasheng", "size": "tiny", "head": {"dims": [8]}}
    network = TrainedEncoder.of(build_model(ModelSpec.model_validate({"branches": [branch], "seed": 1})), 0.5)
    beats = create_encoder("beats", {**TINY_BEATS, "depth": 1})
    specs = [
        make_spec(each.name, sample_rate=16_000, channels=1, config=each.config(), weights=each.weights())
        for each in (network, beats)
    ]
    weights = {**network.weights(), **{f"0/{name}": array for name, array in beats.weights().items()}}
    spec = specs[0].model_copy(update={"more": (specs[1],), "weights_sha256": weights_digest(weights)})
    return model(spec, weights, normal)


def test_an_exported_model_scores_without_torch(trained: Detector, recordings: list[Path], tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from harken.export.model import NOTICEABLE, compare_scores, export_model

    made = export_model(trained)
    assert [card.encoder for card in made.cards] == ["trained", "beats"]
    assert made.difference < NOTICEABLE
    assert "exported as ONNX" in made.detector.notes[-1]
    gap = compare_scores(trained, made.detector, recordings, workers=0)
    assert (gap.recordings, gap.decisions) == (CLIPS, 0)
    assert gap.largest < 1e-3
    made.detector.save(tmp_path / "edge.harken")
    scored = ["score", str(recordings[0].parent), "-m", str(tmp_path / "edge.harken"), "--json", "--workers", "1"]
    program = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxscript"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
from harken.cli.main import run
sys.argv = ["harken", *{scored!r}]
run()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()[:-1]]
    assert len(lines) == CLIPS, done.stderr
    for line, verdict in zip(lines, made.detector.score_many(recordings, workers=0), strict=True):
        assert line["score"] == verdict.score
        assert line["why"] == verdict.why
    with pytest.raises(HarkenError, match="no network to export"):
        export_model(made.detector)
    words = ["explain", str(recordings[0]), "-m", str(tmp_path / "edge.harken"), "-o", str(tmp_path / "clip.png")]
    done = subprocess.run(
        [sys.executable, "-c", program.replace(repr(scored), repr(words))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "clip.png").stat().st_size > 1_000


def test_large_weights_of_the_catalogue_are_named(
    normal: list[Path], recordings: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARKEN_WEIGHTS", raising=False)
    monkeypatch.setattr(public_weights, "LARGEST_COPIED", 1000)
    monkeypatch.setattr(public_weights, "entry_named", lambda name: name)
    beats = create_encoder("beats", {**TINY_BEATS, "depth": 1})
    weights = dict(beats.weights())
    spec = make_spec("beats", sample_rate=16_000, channels=1, config=beats.config(), weights=weights)
    detector = model(spec, weights, normal)
    detector.save(tmp_path / "private.harken")
    data = public_weights.save(weights)
    sha256 = public_weights.hashlib.sha256(data).hexdigest()
    record = Record(
        name="mine", encoder="beats", config=beats.config(), sha256=sha256, source_file="x.pt", source_sha256="0" * 64
    )
    keep(record, data)
    detector.save(tmp_path / "named.harken")
    detector.save(tmp_path / "whole.harken", embed_weights=True)
    assert not list((tmp_path / "named.harken").glob("encoder.*"))
    for name in ("private", "named", "whole"):
        loaded = Detector.load(tmp_path / f"{name}.harken")
        assert loaded.score(recordings[1]).score == detector.score(recordings[1]).score
    keep(record.model_copy(update={"sha256": public_weights.hashlib.sha256(data[:-4] + b"abcd").hexdigest()}),
         data[:-4] + b"abcd")  # fmt: skip
    with pytest.raises(BundleError, match="was made with other weights mine"):
        Detector.load(tmp_path / "named.harken")
    file = converted_file("mine")
    assert file is not None
    file.unlink()
    with pytest.raises(WeightsError, match="harken weights"):
        Detector.load(tmp_path / "named.harken")
    Detector.load(tmp_path / "whole.harken")
