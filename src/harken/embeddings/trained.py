"""Embeddings of clips from networks that were trained here."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.audio.shape import fit_length
from harken.core.errors import HarkenError
from harken.data.clips import Clip
from harken.encoders.pooling import pool
from harken.training.checkpoints import read_checkpoint
from harken.training.models import ASDModel
from harken.training.recordings import Reader
from harken.training.settings import TrainingSpec
from harken.training.spectrograms import SpectrogramForm
from harken.training.trained_encoder import TrainedEncoder

Float32 = NDArray[np.float32]


class TrainedEmbedder:
    """Clips -> embeddings of unit length, heard as in training: the mean over the frames of a `TrainedEncoder`.

    layers, pooling: `read` and `read_pooling` of the encoder. One clip at a time, so that its embedding depends on no
    other.
    """

    def __init__(
        self, model: ASDModel, training: TrainingSpec, *, layers: str | None = None, pooling: str = "mean"
    ) -> None:
        """Raises ValueError for layers that an encoder has not, and for an unknown pooling."""
        self.encoder = TrainedEncoder.of(model, training.seconds, read=layers, read_pooling=pooling)
        self.reader = Reader(model.sample_rate, None, training.microphones)

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        training: TrainingSpec,
        *,
        layers: str | None = None,
        pooling: str = "mean",
        device: str = "cpu",
    ) -> TrainedEmbedder:
        """Raises HarkenError for a file that is no checkpoint."""
        model = read_checkpoint(checkpoint).model()
        model.to(device)
        return cls(model, training, layers=layers, pooling=pooling)

    def __call__(self, clip: Clip) -> Float32:
        """(D,).

        Raises AudioError for a clip that cannot be used, HarkenError for a spectrogram of another front end or length.
        """
        if clip.payload == "spectrogram":
            self._form.check([clip])
            return pool(self.encoder.frames_of_spectrogram(self._form.read(clip)), "mean")
        wave_S = self.reader(clip)
        if len(wave_S) < self.encoder.min_samples:
            wave_S = fit_length(wave_S, self.encoder.min_samples)
        return pool(self.encoder.frames(wave_S), "mean")

    @cached_property
    def _form(self) -> SpectrogramForm:
        try:
            return self.encoder.model.spectrogram_form(self.encoder.window)
        except ValueError as error:
            raise HarkenError(str(error), next_step="Leave the stage that makes spectrograms out of from") from error
