"""Training of Xception on the spectrograms of real clips, to tell their conditions apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip
from harken.generation.condition_classes import classes_of
from harken.generation.diffusion_settings import FrontEndSpec, XceptionSpec
from harken.generation.spectrogram_training import SpectrogramEvaluation, SpectrogramTraining
from harken.generation.xception_classifier import HeldOut, SpectrogramXception, XceptionClassifier
from harken.generation.xception_settings import XceptionConfig
from harken.training.arrays import Arrays, load_module, module_arrays, over, under
from harken.training.augment.random_state import rng_for
from harken.training.recordings import Batch
from harken.training.signals import hold_out
from harken.training.steps import Progress


@dataclass(frozen=True)
class TrainedXception:
    """folder: of the classifier (`XceptionClassifier.load`). clips: that were learned from. quarantined: those that
    could not be used, and why."""

    folder: Path
    classifier: XceptionClassifier
    clips: tuple[Clip, ...]
    history: tuple[SpectrogramEvaluation, ...]
    quarantined: dict[str, str]


def train_xception(
    config: XceptionConfig,
    front_end: FrontEndSpec,
    spec: XceptionSpec,
    clips: Sequence[Clip],
    folder: Path,
    *,
    save_every: int = 500,
    workers: int = 0,
    logs: Path | None = None,
    progress: Progress = lambda step, steps, loss: None,
) -> TrainedXception:
    """Train an Xception on the normal training clips by their conditions (THUEE, DCASE 2025, section 3.2).

    folder: as of `train_diffusion`; the classifier is in its folder `classifier`. Raises HarkenError without clips of
    two conditions, for a folder of another training, and for a loss that is no longer a number.
    """
    training = _XceptionTraining(config, front_end, spec, clips, folder, save_every, workers, logs)
    return training.run(progress)


class _XceptionTraining(SpectrogramTraining):
    module: SpectrogramXception
    spec: XceptionSpec

    def __init__(
        self,
        config: XceptionConfig,
        front_end: FrontEndSpec,
        spec: XceptionSpec,
        clips: Sequence[Clip],
        folder: Path,
        save_every: int,
        workers: int,
        logs: Path | None,
    ) -> None:
        classes, chosen, class_N = classes_of(clips)
        if len(classes) < 2:
            raise HarkenError(
                f"there is nothing to tell apart: all clips are of {classes.keys[0]}",
                next_step="Add machines, or leave screening out",
            )
        rows_N, held_N = hold_out(class_N, spec.held_out, rng_for(spec.seed, 0, "held out"))
        self.held_out = [(chosen[row], int(class_N[row])) for row in held_N]
        super().__init__(
            front_end, spec, [chosen[row] for row in rows_N], class_N[rows_N], classes, folder, save_every=save_every,
            workers=workers, logs=logs,
        )  # fmt: skip
        torch.manual_seed(spec.seed)
        net = SpectrogramXception(config, len(classes))
        self.measure(net)
        self.begin(net, xception=config.model_dump(mode="json"))

    def run(self, progress: Progress) -> TrainedXception:
        """All steps; the classifier is written."""
        self.run_steps(progress)
        self.module.eval()
        classifier = XceptionClassifier(self.module, self.classes, self.front_end, self.reader, HeldOut(None, ()))
        classifier.held_out = self._held_out(classifier)
        target = self.folder / "classifier"
        if self.accelerator.is_main_process:
            target.mkdir(exist_ok=True)
            classifier.write(target, self.front_end_spec, {"training": self.identity, "step": self.steps})
        self.accelerator.wait_for_everyone()
        return TrainedXception(target, classifier, tuple(self.clips), tuple(self.history), self.quarantined)

    def _held_out(self, classifier: XceptionClassifier) -> HeldOut:
        rows = classifier.probabilities([clip for clip, _ in self.held_out])
        usable = [
            (row_K, label)
            for row_K, (_, label) in zip(rows, self.held_out, strict=True)
            if not isinstance(row_K, AudioError)
        ]
        confidences = [float(row_K[label]) for row_K, label in usable if int(np.argmax(row_K)) == label]
        return HeldOut(len(confidences) / len(usable) if usable else None, tuple(confidences))

    def losses(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        x_BFM, class_B = self.spectrograms(batch)
        return {"cross_entropy": F.cross_entropy(network(x_BFM).float(), class_B)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        return over(module_arrays(self.module), "network")

    def load_arrays(self, arrays: Arrays) -> None:
        load_module(self.module, under(arrays, "network"))
