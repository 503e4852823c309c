"""Many recordings to features: in parallel, streaming, resumable, and unharmed by any one of them."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool

from harken.audio.decode import DEFAULT_FORMATS, Limits, read_file
from harken.audio.listen import array_sha256
from harken.audio.segments import Segment, read_segment
from harken.core.errors import AudioError, HarkenError
from harken.core.plugins import is_custom
from harken.core.workers import begin_worker
from harken.embeddings.embedder import ClipFeatures, Embedder, EmbeddingSpec
from harken.embeddings.store import EmbeddingStore
from harken.encoders import encoder_class

Float32 = NDArray[np.float32]

#: what is made of a recording that is not in the store
Heard = TypeVar("Heard")


@dataclass(frozen=True)
class Extracted:
    """Outcome for one path: `features`, or the `error` for which it was set aside. cached: found in the store."""

    path: Path
    features: ClipFeatures | None = None
    error: HarkenError | None = None
    cached: bool = False


@dataclass(frozen=True)
class _Job:
    spec: EmbeddingSpec
    weights: Mapping[str, np.ndarray] | None
    limits: Limits
    formats: frozenset[str]
    store: Path | None
    spectrograms: frozenset[Path]
    segments: Mapping[Path, Segment]


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
        that crashes or hangs the decoder. embedder: of this spec and weights, if there is one already; used in this
        process. timeout: seconds after which a recording is given up. spectrograms: which of the paths are those of
        spectrograms (`encoders.spectrogram_file`). segments: those that some of the paths stand for (`Segment.path`);
        each counts as a recording, and no more is read of its file.
    A recording that cannot be used comes back with its error; the others are not affected.
    """
    folder = None if store is None else Path(store)
    job = _Job(spec, weights, limits, formats, folder, frozenset(spectrograms), segments or {})
    if store is not None:
        EmbeddingStore(store, spec)
    names = [Path(path) for path in paths]
    if workers == 0:
        worker = _Worker(job, embedder)
        for path in names:
            yield worker(path)
        return
    if _method() == "fork" and not is_custom(spec.encoder):
        encoder_class(spec.encoder)  # what it imports, such as torch, is imported here once, not in each process
    yield from isolated(_run, names, workers=workers, timeout=timeout, initializer=_start, initargs=(job,))


def isolated(
    function: Callable[[Path], Any],
    names: list[Path],
    *,
    workers: int | None,
    timeout: float,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Iterator[Any]:
    """function(name) of each name, in order, in processes that may crash or hang without harm to this one."""
    if workers == 0:
        for path in names:
            yield function(path)
        return
    if workers is not None and workers < 0:
        raise HarkenError(
            f"{workers} workers are too few", next_step="Give 0 for none, or leave it out for one per core"
        )
    count = min(workers or os.cpu_count() or 1, max(1, len(names)))
    with ProcessPool(
        max_workers=count,
        initializer=_worker_begins,
        initargs=(initializer, initargs),
        context=multiprocessing.get_context(_method()),
    ) as pool:
        waiting: deque[tuple[Path, Any]] = deque()
        try:
            for path in names:
                waiting.append((path, pool.schedule(function, args=[path], timeout=timeout)))
                if len(waiting) >= 16 * count:
                    yield _outcome(*waiting.popleft(), timeout)
            while waiting:
                yield _outcome(*waiting.popleft(), timeout)
        except BaseException:
            pool.stop()  # type: ignore[no-untyped-call]
            raise


def _method() -> str:
    """Fork shares weights and modules and starts in milliseconds; the parent has no torch threads to lose."""
    return "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"


def _worker_begins(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    begin_worker()
    if initializer is not None:
        initializer(*initargs)


def _outcome(path: Path, future: Any, timeout: float) -> Any:
    try:
        return future.result()
    except FutureTimeout:
        cause = f"took longer than {timeout:g} s and was given up"
    except ProcessExpired as expired:
        cause = f"crashed the decoder or encoder (exit code {expired.exitcode})"
    return Extracted(path, error=AudioError(cause, file=path, next_step="Remove it or record it again"))


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
            source, sample_rate, sha256 = self._read(path)
            if self.store is not None:
                features = self.store.get(sha256)
                if features is not None:
                    return Extracted(path, features, cached=True)
            return self.heard(path, source, sample_rate)
        except AudioError as error:
            return Extracted(path, error=error)
        except MemoryError:
            too_large = AudioError("does not fit into memory", file=path, next_step="Cut it into shorter recordings")
            return Extracted(path, error=too_large)

    def _read(self, path: Path) -> tuple[bytes | Float32, int | None, str]:
        """Content of the file, or samples and rate of the segment; and what names it in the store."""
        segment = self.segments.get(path)
        if segment is None:
            data = read_file(path, self.limits)
            return data, None, hashlib.sha256(data).hexdigest()
        audio = read_segment(segment, self.limits, self.formats)
        return audio.samples_CS, audio.sample_rate, array_sha256(audio.samples_CS, audio.sample_rate)

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


def _start(job: _Job) -> None:
    global _worker
    _worker = _Worker(job)


def _run(path: Path) -> Extracted:
    assert _worker is not None
    return _worker(path)
