"""Embeddings of clips from networks that were trained here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.audio.shape import fit_length
from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip
from harken.embeddings.batches import Precision
from harken.encoders.pooling import pool
from harken.training.checkpoints import read_checkpoint
from harken.training.models import ASDModel
from harken.training.precision import tf32_products
from harken.training.recordings import Reader
from harken.training.settings import TrainingSpec
from harken.training.spectrograms import SpectrogramForm
from harken.training.trained_encoder import TrainedEncoder

Float32 = NDArray[np.float32]

#: threads that decode for an accelerator
_READERS = 4


class TrainedEmbedder:
    """Clips -> embeddings of unit length, heard as in training: the mean over the frames of a `TrainedEncoder`.

    layers, pooling: `read` and `read_pooling` of the encoder. precision: of its networks; others than fp32 give
    slightly different embeddings. On a CPU one clip at a time, so that its embedding depends on no other.
    """

    def __init__(
        self,
        model: ASDModel,
        training: TrainingSpec,
        *,
        layers: str | None = None,
        pooling: str = "mean",
        precision: Precision = "fp32",
    ) -> None:
        """Raises ValueError for layers that an encoder has not, and for an unknown pooling; HarkenError for a precision
        that is not available."""
        self.encoder = TrainedEncoder.of(
            model, training.seconds, read=layers, read_pooling=pooling, length=training.length
        )
        if precision == "bf16":
            self.encoder.set_precision("bf16")
        self.precision = precision
        # Truncated as in training; of clips that are repeated, longer ones pass in windows.
        pad = training.length == "pad"
        self.reader = Reader(model.sample_rate, training.seconds if pad else None, training.microphones, pad=pad)

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        training: TrainingSpec,
        *,
        layers: str | None = None,
        pooling: str = "mean",
        device: str = "cpu",
        precision: Precision = "fp32",
    ) -> TrainedEmbedder:
        """Raises HarkenError for a file that is no checkpoint."""
        model = read_checkpoint(checkpoint).model()
        model.to(device)
        return cls(model, training, layers=layers, pooling=pooling, precision=precision)

    @property
    def accelerated(self) -> bool:
        """Whether its network is not on a CPU."""
        return next(self.encoder.model.parameters()).device.type != "cpu"

    def __call__(self, clip: Clip) -> Float32:
        """(D,).

        Raises AudioError for a clip that cannot be used, HarkenError for a spectrogram of another front end or length.
        """
        ((embedding,),) = embed_together([self], [clip])
        if isinstance(embedding, AudioError):
            raise embedding
        return embedding

    def of_spectrogram(self, clip: Clip) -> Float32:
        """(D,) of a clip that is a spectrogram. Raises as `__call__`."""
        self._form.check([clip])
        return pool(self.encoder.frames_of_spectrogram(self._form.read(clip)), "mean")

    def of_waves(self, waves: Sequence[Float32]) -> list[Float32]:
        """(D,) of each waveform (samples,) that its reader gave; on an accelerator, they pass together."""
        shortest = self.encoder.min_samples
        long_enough = [wave_S if len(wave_S) >= shortest else fit_length(wave_S, shortest) for wave_S in waves]
        with tf32_products(self.precision == "tf32"):
            return [pool(frames_TD, "mean") for frames_TD in self.encoder.frames_of_clips(long_enough)]

    @cached_property
    def _form(self) -> SpectrogramForm:
        try:
            return self.encoder.model.spectrogram_form(self.encoder.window)
        except ValueError as error:
            raise HarkenError(str(error), next_step="Leave the stage that makes spectrograms out of from") from error


def embed_together(embedders: Sequence[TrainedEmbedder], clips: Sequence[Clip]) -> list[list[Float32 | AudioError]]:
    """Embeddings of the clips, or the errors for which they have none, by each embedder.

    A recording is decoded once for all embedders that listen alike, such as checkpoints of one training. Waveforms of
    all clips are in memory at once. Raises HarkenError as `TrainedEmbedder.__call__`.
    """
    heard: dict[Reader, list[Float32 | AudioError | None]] = {}
    rows = []
    for embedder in embedders:
        if embedder.reader not in heard:
            heard[embedder.reader] = list(_listened(embedder.reader, clips, threads=embedder.accelerated))
        rows.append(_embedded(embedder, clips, heard[embedder.reader]))
    return rows


def _embedded(
    embedder: TrainedEmbedder, clips: Sequence[Clip], heard: Sequence[Float32 | AudioError | None]
) -> list[Float32 | AudioError]:
    vectors = iter(embedder.of_waves([wave_S for wave_S in heard if isinstance(wave_S, np.ndarray)]))
    embedded: list[Float32 | AudioError] = []
    for clip, sound in zip(clips, heard, strict=True):
        if sound is None:
            try:
                embedded.append(embedder.of_spectrogram(clip))
            except AudioError as error:
                embedded.append(error)
        else:
            embedded.append(next(vectors) if isinstance(sound, np.ndarray) else sound)
    return embedded


def _listened(reader: Reader, clips: Sequence[Clip], *, threads: bool) -> Iterator[Float32 | AudioError | None]:
    """Of each clip its waveform, the error for which it has none, or None for a spectrogram."""

    def listened(clip: Clip) -> Float32 | AudioError | None:
        if clip.payload == "spectrogram":
            return None
        try:
            return reader(clip)
        except AudioError as error:
            return error

    if not threads:
        yield from map(listened, clips)
        return
    with ThreadPoolExecutor(_READERS) as pool_of_threads:
        yield from pool_of_threads.map(listened, clips)
