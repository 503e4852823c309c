"""A fitted detector whose networks are run by ONNX Runtime, so that scoring needs no torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.core.extras import need
from harken.detection.neighbours import nearest
from harken.embeddings.embedder import Embedder, EmbeddingSpec, weights_digest, weights_of
from harken.encoders import create_encoder
from harken.encoders.onnx import Card, read_onnx
from harken.monitor.detector import Detector

Float32 = NDArray[np.float32]
Arrays = Mapping[str, np.ndarray]

#: share of the distance between normal recordings from which a difference of vectors may move scores
NOTICEABLE = 0.1


@dataclass(frozen=True, eq=False)
class Exported:
    """detector: the model without torch. cards: of its networks. difference: largest distance between vectors of the
    same synthetic sound, before and after, as a share of the distance between neighbouring normal recordings."""

    detector: Detector
    cards: tuple[Card, ...]
    difference: float


@dataclass(frozen=True)
class ScoreGap:
    """Of recordings scored by two models: how many, largest difference of scores, how many decisions changed."""

    recordings: int
    largest: float
    decisions: int


def export_model(detector: Detector, *, int8: bool = False, seconds: float | None = None) -> Exported:
    """The same model with its networks as ONNX files.

    seconds: length of the clips that the files take at once; default: the median of the recordings learned from.
    What was learned of them (their vectors, held-out scores, the threshold) stays as it was, since there are no
    recordings here to embed again. `Exported.difference` says how much vectors change, `compare_scores` how much scores
    do.
    Raises HarkenError for a model without a network, and as `export_onnx`.
    """
    need("onnx", "ONNX files")
    seconds = seconds or float(np.median(detector.training.seconds_N))
    cards: list[Card] = []
    spec, weights = _exported(detector.spec, detector.weights, seconds, int8, cards)
    if not cards:
        raise HarkenError(
            f"the model has no network to export: {detector.spec.encoder} needs no torch", next_step="Use it as it is"
        )
    difference = _difference(detector, spec, weights, seconds)
    form = "ONNX, linear layers in 8 bits" if int8 else "ONNX"
    note = (
        f"exported as {form}: vectors of synthetic sound differ by up to {difference:.2g} of the distance between "
        "neighbouring normal recordings; held-out scores and the threshold are those from before the export"
    )
    made = Detector(replace(detector.fitted, spec=spec, weights=weights, notes=(*detector.notes, note)))
    return Exported(made, tuple(cards), difference)


def compare_scores(before: Detector, after: Detector, files: Iterable[Path], *, workers: int | None = None) -> ScoreGap:
    """Scores of recordings by two models. Raises HarkenError if none can be scored."""
    names = list(files)
    pairs = zip(before.score_many(names, workers=workers), after.score_many(names, workers=workers), strict=True)
    scored = [(a, b) for a, b in pairs if a.score is not None and b.score is not None]
    if not scored:
        raise HarkenError("no recording could be scored", next_step="Compare with recordings that the model takes")
    gaps = [abs(a.score - b.score) for a, b in scored if a.score is not None and b.score is not None]
    return ScoreGap(len(scored), max(gaps), sum(a.is_anomaly != b.is_anomaly for a, b in scored))


def _exported(
    spec: EmbeddingSpec, weights: Arrays | None, seconds: float, int8: bool, cards: list[Card]
) -> tuple[EmbeddingSpec, dict[str, np.ndarray] | None]:
    """Spec and weights with every network as ONNX, the further embeddings' too; encoders without torch as they are."""
    first = {name: array for name, array in (weights or {}).items() if not spec.more or "/" not in name} or None
    alone = spec.model_copy(update={"more": ()})
    made_spec, made = _exported_first(alone, first, seconds, int8, cards)
    arrays = dict(made or {})
    more = []
    for number, extra in enumerate(spec.more):
        extra_spec, extra_arrays = _exported(extra, weights_of(weights, number), seconds, int8, cards)
        more.append(extra_spec)
        arrays |= {f"{number}/{name}": array for name, array in (extra_arrays or {}).items()}
    digest = weights_digest(arrays) if arrays else None
    return made_spec.model_copy(update={"more": tuple(more), "weights_sha256": digest}), arrays or None


def _exported_first(
    spec: EmbeddingSpec, weights: Arrays | None, seconds: float, int8: bool, cards: list[Card]
) -> tuple[EmbeddingSpec, Arrays | None]:
    if not _is_network(spec, weights):
        return spec, weights
    from harken.export.onnx import export_onnx

    embedder = Embedder(spec, weights)
    silence_1T = np.zeros((1, round(seconds * spec.sample_rate)), dtype=np.float32)
    samples = embedder.waveform(silence_1T).shape[1]
    with tempfile.TemporaryDirectory(prefix="harken-export-") as folder:
        file = Path(folder) / "encoder.onnx"
        card = export_onnx(
            embedder.encoder,
            file,
            seconds=samples / embedder.encoder.sample_rate,
            layer=spec.layer,
            int8=int8,
            weights_sha256=spec.weights_sha256,
        )
        arrays = read_onnx(file)
    cards.append(card)
    changes = {"encoder": "onnx", "config": {"threads": 1}, "weights_sha256": weights_digest(arrays)}
    return spec.model_copy(update=changes), arrays


def _is_network(spec: EmbeddingSpec, weights: Arrays | None) -> bool:
    """Whether the encoder is one that torch runs."""
    from harken.encoders.torch_encoder import TorchEncoder
    from harken.training.trained_encoder import TrainedEncoder

    if spec.encoder == "onnx":
        return False
    return isinstance(create_encoder(spec.encoder, spec.config, weights), TorchEncoder | TrainedEncoder)


def _difference(detector: Detector, spec: EmbeddingSpec, weights: Arrays | None, seconds: float) -> float:
    """See `Exported`."""
    before, after = Embedder(detector.spec, detector.weights), Embedder(spec, weights)
    distances = []
    for wave_CS in _synthetic(spec, seconds):
        vectors = [each.analyse(wave_CS, sample_rate=spec.sample_rate).embedding for each in (before, after)]
        distances.append(float(np.linalg.norm(vectors[0].astype(np.float64) - vectors[1])))
    bank_ND = detector.training.embeddings_ND.astype(np.float64)
    between = float(np.median(nearest(bank_ND, bank_ND, 2)[0][:, 1]))
    return max(distances) / between if between > 0 else float("inf")


def _synthetic(spec: EmbeddingSpec, seconds: float) -> list[Float32]:
    """(channels, samples) of hum in noise, of three mixtures: what a network may be compared on without recordings."""
    rng = np.random.default_rng(0)
    samples = max(1, round(seconds * spec.sample_rate))
    time_S = np.arange(samples) / spec.sample_rate
    hum_S = sum(np.sin(2 * np.pi * 50 * order * time_S) / order for order in range(1, 20))
    return [
        np.asarray(0.03 * tone * hum_S + 0.02 * rng.normal(size=(spec.channels, samples)), dtype=np.float32)
        for tone in (0.0, 0.3, 1.0)
    ]
