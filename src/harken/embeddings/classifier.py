"""Classes of clips by networks that were trained to tell them apart: what their losses hold, beside the embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip
from harken.data.labels import ClassTable
from harken.embeddings.trained import TrainedEmbedder, embed_together
from harken.training.arrays import load_module, under
from harken.training.checkpoints import read_checkpoint
from harken.training.losses.base import ClassLoss
from harken.training.settings import TrainingSpec
from harken.training.step import TrainingStep

Float32 = NDArray[np.float32]


class TrainedClassifier:
    """Clips -> probabilities of the classes of a training, by the centres of its first loss on the class, no margin.

    A clip is heard as by `TrainedEmbedder`: one that is longer than those of the training by the mean of its windows.
    Probabilities are the softmax of `ClassLoss.logits`, whose scale is that of the loss.
    """

    def __init__(self, embedder: TrainedEmbedder, loss: ClassLoss) -> None:
        self.embedder = embedder
        self.loss = loss.eval()

    @classmethod
    def load(
        cls, checkpoint: Path, training: TrainingSpec, classes: ClassTable, *, device: str = "cpu"
    ) -> TrainedClassifier:
        """classes: those that the network was trained on.

        Raises HarkenError for a file that is no checkpoint, and for one of other classes.
        """
        stored = read_checkpoint(checkpoint)
        model = stored.model()
        step = TrainingStep(
            model, training.losses, classes=len(classes), attribute_free=classes.attribute_free_classes,
            augmentation=training.augmentation,
        )  # fmt: skip
        try:
            load_module(step.losses, under(stored.arrays, "losses"))
        except RuntimeError as error:
            raise HarkenError(
                f"was not trained on these {len(classes)} classes", file=checkpoint,
                next_step="Name the stage of its labels under from",
            ) from error  # fmt: skip
        model.to(device)
        return cls(TrainedEmbedder(model, training), step.class_loss())

    def probabilities(self, clips: Sequence[Clip]) -> list[Float32 | AudioError]:
        """(C,) probabilities of each clip, or the error for which it has none.

        Raises HarkenError for a spectrogram of another front end or length.
        """
        (rows,) = embed_together([self.embedder], clips)
        return [row if isinstance(row, AudioError) else self._probabilities(row) for row in rows]

    @torch.no_grad()
    def _probabilities(self, embedding_D: Float32) -> Float32:
        logits_1C = self.loss.logits(torch.from_numpy(np.asarray(embedding_D))[None])
        probabilities_C: Float32 = torch.softmax(logits_1C[0], dim=0).numpy()
        return probabilities_C
