"""Many recordings through a network on an accelerator: listened to in worker processes, encoded in batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from harken.audio.decode import DEFAULT_FORMATS, Limits
from harken.audio.listen import listen
from harken.core.errors import AudioError, HarkenError
from harken.core.threads import one_thread
from harken.embeddings.embedder import (
    ClipFeatures,
    Embedder,
    EmbeddingSpec,
    check_finite,
    kept_features,
    listening_of,
    mean_log_mel,
    sketch_bands,
    waveform,
)
from harken.embeddings.extract import Listener
from harken.embeddings.isolated import Extracted, isolated
from harken.embeddings.store import EmbeddingStore
from harken.encoders.torch_encoder import TorchEncoder
from harken.training.precision import tf32_products

Float32 = NDArray[np.float32]
#: tf32: products of float32 on a GPU with 10 bits of mantissa; bf16: see `encoders.precision`
Precision = Literal["fp32", "tf32", "bf16"]

#: recordings that are looked through for equal lengths
CHUNK = 128


@dataclass(frozen=True)
class _Job:
    """What a worker listens for. encoder_rate, min_samples: of the encoder."""

    spec: EmbeddingSpec
    encoder_rate: int
    min_samples: int
    limits: Limits
    formats: frozenset[str]
    store: Path | None
    spectrograms: frozenset[Path]


@dataclass(frozen=True, eq=False)
class _Heard:
    """wave_CS: for the encoder. features: with an empty embedding."""

    wave_CS: Float32
    features: ClipFeatures


def extract_batched(
    paths: Iterable[str | Path],
    spec: EmbeddingSpec,
    weights: Mapping[str, np.ndarray] | None,
    *,
    device: str,
    precision: Precision = "fp32",
    store: Path | None = None,
    workers: int | None = None,
    timeout: float = 120.0,
    limits: Limits = Limits(),
    formats: frozenset[str] = DEFAULT_FORMATS,
    spectrograms: Collection[Path] = (),
) -> Iterator[Extracted]:
    """As `extract`, by a network on `device` in `precision`; recordings of equal length pass it together.

    The last bits depend on the kind of device, and there on what passes together; on a CPU in fp32 they are those of
    `extract`. What is kept in `store` is named by device and precision too.
    Raises HarkenError for an encoder that torch does not run, and where device or precision are not available.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"there is no precision {precision!r}; there are {', '.join(get_args(Precision))}")
    embedder = Embedder(spec, weights, limits=limits, formats=formats)
    encoder = embedder.encoder
    if not isinstance(encoder, TorchEncoder):
        raise HarkenError(f"{spec.encoder} runs on processors only", next_step="Set device: cpu, and precision: fp32")
    encoder.to(device).set_precision("bf16" if precision == "bf16" else "fp32")
    folder = None if store is None else store / f"{torch.device(device).type}-{precision}"
    kept = None if folder is None else EmbeddingStore(folder, spec)
    job = _Job(
        spec, encoder.sample_rate, encoder.min_samples, limits, formats, folder, frozenset(map(Path, spectrograms))
    )
    names = [Path(path) for path in paths]
    listening = isolated(
        _run, names, workers=workers, timeout=timeout, initializer=_start, initargs=(job,)
    ) if workers != 0 else map(_Listener(job), names)  # fmt: skip
    pairs = zip(names, listening, strict=True)
    with tf32_products(precision == "tf32"):
        while chunk := list(islice(pairs, CHUNK)):
            for result in _encoded(embedder, encoder, chunk):
                if kept is not None and result.features is not None and not result.cached:
                    with suppress(OSError):
                        kept.put(result.features)
                yield result


def _encoded(
    embedder: Embedder, encoder: TorchEncoder, chunk: Sequence[tuple[Path, Extracted | bytes | _Heard]]
) -> Iterator[Extracted]:
    """Outcomes of a chunk, in order."""
    frames_of = _frames(
        embedder, encoder, {row: x.wave_CS for row, (_, x) in enumerate(chunk) if isinstance(x, _Heard)}
    )
    for row, (path, heard) in enumerate(chunk):
        if isinstance(heard, Extracted):
            yield heard
            continue
        try:
            if isinstance(heard, bytes):
                yield Extracted(path, embedder.analyse_spectrogram(heard, path))
                continue
            with one_thread():
                embedding = embedder.pool(frames_of[row])
            check_finite(embedding, path)
            yield Extracted(path, replace(heard.features, embedding=embedding))
        except AudioError as error:
            yield Extracted(path, error=error)


def _frames(embedder: Embedder, encoder: TorchEncoder, waves: Mapping[int, Float32]) -> dict[int, list[Float32]]:
    """What `Embedder.encode` gives of each waveform (channels, samples), by its key."""
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, wave_CS in waves.items():
        rows_of[wave_CS.shape[1]].append(row)
    frames: dict[int, list[Float32]] = {}
    for rows in rows_of.values():
        with one_thread():
            encoded = encoder.encode(np.concatenate([waves[row] for row in rows]), layers=embedder.layers)
        valid = int(encoded.lengths_B[0])
        channels_BLTD = iter(encoded.features_BLTD[:, :, :valid])
        for row in rows:
            frames[row] = [layer_TD for _ in waves[row] for layer_TD in next(channels_BLTD)]
    return frames


class _Listener(Listener[bytes | _Heard]):
    """Needs no encoder."""

    def __init__(self, job: _Job) -> None:
        super().__init__(job.spec, job.store, job.limits, job.formats)
        self.job = job
        self.listening = listening_of(job.spec, job.limits, job.formats)
        self.bands = sketch_bands(job.spec)

    def heard(self, path: Path, source: bytes | Float32, sample_rate: int | None) -> bytes | _Heard:
        job = self.job
        if path in job.spectrograms and isinstance(source, bytes):
            return source
        with one_thread():
            sound = listen(source, self.listening, sample_rate=sample_rate, name=path)
            wave_CS = waveform(sound.wave_CS, job.spec.sample_rate, job.encoder_rate, job.min_samples)
            log_mel_TM = mean_log_mel(sound.wave_CS, self.bands)
        return _Heard(wave_CS, kept_features(job.spec, sound, np.empty(0, np.float32), log_mel_TM, self.bands))


_listener: _Listener | None = None


def _start(job: _Job) -> None:
    global _listener
    _listener = _Listener(job)


def _run(path: Path) -> Any:
    assert _listener is not None
    return _listener(path)
