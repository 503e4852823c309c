"""Many recordings to features: in parallel, streaming, resumable, and unharmed by any one of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from harken.audio.decode import DEFAULT_FORMATS, Limits, read_file
from harken.audio.listen import sha256_of
from harken.audio.segments import Segment, read_segment
from harken.core.errors import AudioError
from harken.core.plugins import is_custom
from harken.core.threads import one_thread
from harken.embeddings.embedder import ClipFeatures, Embedder, EmbeddingSpec
from harken.embeddings.isolated import Extracted, Together, isolated_together, start_method
from harken.embeddings.store import EmbeddingStore
from harken.encoders import encoder_class

Float32 = NDArray[np.float32]

#: what is made of a recording that is not in the store
Heard = TypeVar("Heard")


@dataclass(frozen=True)
class _Job:
    spec: EmbeddingSpec
    weights: Mapping[str, np.ndarray] | None
    limits: Limits
    formats: frozenset[str]
    store: Path | None
    spectrograms: frozenset[Path]
    segments: Mapping[Path, Segment]
    further: Callable[[ClipFeatures], Any] | None = None


def extract(
    paths: Iterable[str | Path],
    spec: EmbeddingSpec,
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    store: str | Path | None = None,
    workers: int | None = None,
    timeout: float = 120.0,
    limits: Limits = Limits(),
    formats: frozenset[str] = DEFAULT_FORMATS,
    embedder: Embedder | None = None,
    spectrograms: Collection[Path] = (),
    segments: Mapping[Path, Segment] | None = None,
) -> Iterator[Extracted]:
    """Features of each path, in the order given; memory does not grow with their number.

    store: folder of an `EmbeddingStore`; what it holds already is not computed again.
    workers: processes (default: one per core); 0 works in this process, without protection from a recording
        that crashes or hangs the decoder. embedder: of this spec and weights, if there is one already. timeout: seconds
        after which a recording is given up. spectrograms: which of the paths are those of spectrograms
        (`encoders.spectrogram_file`). segments: those that some of the paths stand for (`Segment.path`); each counts as
        a recording, and no more is read of its file.
    A recording that cannot be used comes back with its error; the others are not affected.
    """
    for results in extract_together(
        paths, spec, weights, Together(), store=store, workers=workers, timeout=timeout, limits=limits, formats=formats,
        embedder=embedder, spectrograms=spectrograms, segments=segments,
    ):  # fmt: skip
        yield from results


def extract_together(
    paths: Iterable[str | Path],
    spec: EmbeddingSpec,
    weights: Mapping[str, np.ndarray] | None,
    together: Together,
    *,
    store: str | Path | None = None,
    workers: int | None = None,
    timeout: float = 120.0,
    limits: Limits = Limits(),
    formats: frozenset[str] = DEFAULT_FORMATS,
    embedder: Embedder | None = None,
    spectrograms: Collection[Path] = (),
    segments: Mapping[Path, Segment] | None = None,
    further: Callable[[ClipFeatures], Any] | None = None,
) -> Iterator[list[Extracted]]:
    """As `extract`, in lists of consecutive results. further: applied to the features, in the worker processes."""
    folder = None if store is None else Path(store)
    job = _Job(spec, weights, limits, formats, folder, frozenset(spectrograms), segments or {}, further)
    if store is not None:
        EmbeddingStore(store, spec)
    names = [Path(path) for path in paths]
    if workers == 0:
        yield from isolated_together(_Worker(job, embedder), names, together, workers=0, timeout=timeout)
        return
    if start_method() != "fork":
        embedder = None
    elif not is_custom(spec.encoder):
        encoder_class(spec.encoder)  # what it imports, such as torch, is imported here once, not in each process
        if embedder is None and weights and names:
            # Built before processes fork, so that they share its weights.
            with one_thread():
                embedder = Embedder(spec, weights, limits=limits, formats=formats)
    yield from isolated_together(
        _run, names, together, workers=workers, timeout=timeout, initializer=_start, initargs=(job, embedder)
    )


class Listener(ABC, Generic[Heard]):
    """Reads recordings that are not in the store; one per worker process."""

    def __init__(
        self,
        spec: EmbeddingSpec,
        store: Path | None,
        limits: Limits,
        formats: frozenset[str],
        segments: Mapping[Path, Segment] | None = None,
    ) -> None:
        """segments: those that some of the paths stand for."""
        self.store = None if store is None else EmbeddingStore(store, spec)
        self.limits, self.formats = limits, formats
        self.segments = segments or {}

    def __call__(self, path: Path) -> Extracted | Heard:
        """What `heard` gives; the stored features, or an error that tells why there are none."""
        try:
            source, sample_rate = self._read(path)
            if self.store is not None:
                features = self.store.get(sha256_of(source, sample_rate))
                if features is not None:
                    return Extracted(path, features, cached=True)
            return self.heard(path, source, sample_rate)
        except AudioError as error:
            return Extracted(path, error=error)
        except MemoryError:
            too_large = AudioError("does not fit into memory", file=path, next_step="Cut it into shorter recordings")
            return Extracted(path, error=too_large)

    def _read(self, path: Path) -> tuple[bytes | Float32, int | None]:
        """Content of the file, or samples and rate of the segment."""
        segment = self.segments.get(path)
        if segment is None:
            return read_file(path, self.limits), None
        audio = read_segment(segment, self.limits, self.formats)
        return audio.samples_CS, audio.sample_rate

    @abstractmethod
    def heard(self, path: Path, source: bytes | Float32, sample_rate: int | None) -> Extracted | Heard:
        """What is made of the content of a file, or of (channels, samples) at `sample_rate` Hz of a segment.

        Raises AudioError for what cannot be used.
        """


class _Worker(Listener[Extracted]):
    """The encoder is built on the first recording that is not in the store."""

    def __init__(self, job: _Job, embedder: Embedder | None = None) -> None:
        super().__init__(job.spec, job.store, job.limits, job.formats, job.segments)
        self.job = job
        self.embedder = None if embedder is None else embedder.limited(job.limits, job.formats)

    def __call__(self, path: Path) -> Extracted:
        result = super().__call__(path)
        if self.job.further is None or result.features is None:
            return result
        return replace(result, further=self.job.further(result.features))

    def heard(self, path: Path, source: bytes | Float32, sample_rate: int | None) -> Extracted:
        job = self.job
        if self.embedder is None:
            self.embedder = Embedder(job.spec, job.weights, limits=job.limits, formats=job.formats)
        if path in job.spectrograms and isinstance(source, bytes):
            features = self.embedder.analyse_spectrogram(source, path)
        else:
            features = self.embedder.analyse(source, path, sample_rate=sample_rate)
        if self.store is not None:
            # A full disk costs the next run some time, not this one its result.
            with suppress(OSError):
                self.store.put(features)
        return Extracted(path, features)


_worker: _Worker | None = None


def _start(job: _Job, embedder: Embedder | None) -> None:
    global _worker
    _worker = _Worker(job, embedder)


def _run(path: Path) -> Extracted:
    assert _worker is not None
    return _worker(path)
