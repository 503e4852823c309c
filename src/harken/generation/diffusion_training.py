"""Training of small diffusion models: noise is predicted from noisy spectrograms, weights are averaged over steps."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harken.data.clips import Clip
from harken.generation.condition_classes import classes_of
from harken.generation.diffusion_settings import DiffusionConfig, DiffusionSpec, FrontEndSpec
from harken.generation.small_diffusion import write_small_diffusion
from harken.generation.spectrogram_training import SpectrogramEvaluation, SpectrogramTraining
from harken.generation.unet import SpectrogramUNet, diffusion_loss, noise_scheduler
from harken.training.arrays import Arrays, load_module, module_arrays, over, under
from harken.training.recordings import Batch
from harken.training.steps import Progress


@dataclass(frozen=True)
class TrainedDiffusion:
    """folder: of the generator (`load_generator`). clips: that were learned from. quarantined: those that could not be
    used, and why."""

    folder: Path
    clips: tuple[Clip, ...]
    history: tuple[SpectrogramEvaluation, ...]
    quarantined: dict[str, str]


def train_diffusion(
    config: DiffusionConfig,
    front_end: FrontEndSpec,
    spec: DiffusionSpec,
    clips: Sequence[Clip],
    folder: Path,
    *,
    save_every: int = 500,
    workers: int = 0,
    logs: Path | None = None,
    progress: Progress = lambda step, steps, loss: None,
) -> TrainedDiffusion:
    """Train a small diffusion model on the normal training clips, conditioned on their conditions (THUEE, DCASE 2025,
    section 3.2).

    folder: of the training, which resumes from it to the same bits; the generator is in its folder `generator`.
    Raises HarkenError without clips, for a folder of another training, and for a loss that is no longer a number.
    """
    training = _DiffusionTraining(config, front_end, spec, clips, folder, save_every, workers, logs)
    return training.run(progress)


class _DiffusionTraining(SpectrogramTraining):
    module: SpectrogramUNet
    spec: DiffusionSpec

    def __init__(
        self,
        config: DiffusionConfig,
        front_end: FrontEndSpec,
        spec: DiffusionSpec,
        clips: Sequence[Clip],
        folder: Path,
        save_every: int,
        workers: int,
        logs: Path | None,
    ) -> None:
        classes, chosen, class_N = classes_of(clips)
        super().__init__(
            front_end, spec, chosen, class_N, classes, folder, save_every=save_every, workers=workers, logs=logs
        )
        torch.manual_seed(spec.seed)
        net = SpectrogramUNet(config, len(classes))
        self.measure(net)
        #: the averaged weights, which generate
        self.average = copy.deepcopy(net).requires_grad_(False).to(self.accelerator.device)
        self.scheduler = noise_scheduler(config)
        self.begin(net, diffusion=config.model_dump(mode="json"))

    def run(self, progress: Progress) -> TrainedDiffusion:
        """All steps; the generator is written."""
        self.run_steps(progress)
        generator = self.folder / "generator"
        if self.accelerator.is_main_process:
            generator.mkdir(exist_ok=True)
            metadata = {"training": self.identity, "step": self.steps}
            write_small_diffusion(generator, self.average, self.classes, self.front_end.form, metadata)
        self.accelerator.wait_for_everyone()
        return TrainedDiffusion(generator, tuple(self.clips), tuple(self.history), self.quarantined)

    def losses(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        x_BFM, class_B = self.spectrograms(batch)
        with torch.no_grad():
            image_B1MF = self.average.image(x_BFM)
        return {"noise": diffusion_loss(network, self.scheduler, image_B1MF, class_B)}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        decay = min(self.spec.ema, (1 + step) / (10 + step))
        parameters = self.accelerator.unwrap_model(self.module).parameters()
        for averaged, current in zip(self.average.parameters(), parameters, strict=True):
            averaged.lerp_(current.detach(), 1 - decay)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {**over(module_arrays(self.module), "network"), **over(module_arrays(self.average), "average")}

    def load_arrays(self, arrays: Arrays) -> None:
        load_module(self.module, under(arrays, "network"))
        load_module(self.average, under(arrays, "average"))
