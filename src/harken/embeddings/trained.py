"""Embeddings from networks that were trained here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harken.data.clips import Clip
from harken.training.checkpoints import read_checkpoint
from harken.training.models import ASDModel
from harken.training.recordings import Reader
from harken.training.settings import TrainingSpec

Float32 = NDArray[np.float32]


class TrainedEmbedder:
    """Clips -> embeddings of unit length, heard as in training.

    A clip longer than those of the training passes in windows of that length, of which the last ends with the clip;
    its embedding is the mean of theirs. One clip at a time, so that its embedding depends on no other.
    """

    def __init__(self, model: ASDModel, training: TrainingSpec) -> None:
        self.model = model.eval()
        self.reader = Reader(model.sample_rate, None, training.microphones)
        self.samples = max(round(training.seconds * model.sample_rate), model.min_samples)

    @classmethod
    def load(cls, checkpoint: Path, training: TrainingSpec, device: str = "cpu") -> TrainedEmbedder:
        """Raises HarkenError for a file that is no checkpoint."""
        model = read_checkpoint(checkpoint).model()
        model.to(device)
        return cls(model, training)

    def __call__(self, clip: Clip) -> Float32:
        """(D,). Raises AudioError for a recording that cannot be used."""
        wave_T = self.reader(clip)
        if len(wave_T) < self.samples:
            wave_T = np.resize(wave_T, self.samples)
        starts = list(range(0, len(wave_T) - self.samples + 1, self.samples))
        if starts[-1] + self.samples < len(wave_T):
            starts.append(len(wave_T) - self.samples)
        device = next(self.model.parameters()).device
        found = []
        with torch.inference_mode():
            for start in starts:
                part_BT = torch.from_numpy(wave_T[None, start : start + self.samples]).to(device)
                embedding_D = self.model(part_BT)[0].float().cpu()
                found.append(torch.nn.functional.normalize(embedding_D, dim=0).numpy())
        return np.mean(found, axis=0, dtype=np.float32)
