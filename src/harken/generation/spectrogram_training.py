"""Trainings on the spectrograms of normal clips and their conditions; steps are those of `training.steps`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harken.core.errors import AudioError, HarkenError
from harken.core.json_text import json_text
from harken.data.clips import Clip
from harken.generation.condition_classes import BalancedOrder, ConditionClasses
from harken.generation.diffusion_settings import FrontEndSpec, SpectrogramSpec
from harken.generation.front_end import SpectrogramFrontEnd
from harken.generation.standardised import StandardisedNet
from harken.training.optimiser import adamw, parameter_groups
from harken.training.recordings import Batch, Reader, batches
from harken.training.steps import TrainingLoop

#: clips whose spectrograms decide mean and deviation, at most
MEASURED = 256


@dataclass(frozen=True)
class SpectrogramEvaluation:
    """One row of a training's history. loss: mean over the steps since the last one."""

    step: int
    learning_rate: float
    loss: float


class SpectrogramTraining(TrainingLoop):
    """A training on clips, class_N being the class of each. A subclass sets `module` and `record` by `begin`.

    clips: recordings, in an order of which the training depends. workers: processes that read ahead.
    """

    def __init__(
        self,
        front_end: FrontEndSpec,
        spec: SpectrogramSpec,
        clips: Sequence[Clip],
        class_N: NDArray[np.int64],
        classes: ConditionClasses,
        folder: Path,
        *,
        save_every: int,
        workers: int,
        logs: Path | None,
    ) -> None:
        super().__init__(spec, folder, save_every, logs)
        self.spec, self.clips, self.class_N, self.classes = spec, list(clips), class_N, classes
        self.steps, self.workers = spec.steps, workers
        self.front_end_spec, self.front_end = front_end, SpectrogramFrontEnd(front_end, spec.seconds)
        self.front_end.to(self.accelerator.device)
        self.reader = Reader(self.front_end.sample_rate, spec.seconds, spec.microphones)
        size = min(spec.batch * self.accelerator.num_processes, len(self.clips))
        self.order = BalancedOrder(len(self.clips), size, spec.seed, tuple(class_N.tolist()), spec.balance)
        self.history: list[SpectrogramEvaluation] = []

    def begin(self, module: torch.nn.Module, **record: Any) -> None:
        """Set what is learned. record: JSON values that the weights depend on."""
        self.module = module
        self.optimiser = adamw(
            parameter_groups(
                module, learning_rate=self.spec.learning_rate, weight_decay=self.spec.weight_decay, layer_decay=1.0
            )
        )
        listed = [[clip.clip_id, int(label)] for clip, label in zip(self.clips, self.class_N, strict=True)]
        self.record = {
            "training": {
                **record,
                "front_end": self.front_end_spec.model_dump(mode="json"),
                "front_end_sha256": self.front_end.front_end.digest,
                "settings": self.spec.model_dump(mode="json"),
                "classes": len(self.classes),
                "clips": len(self.clips),
                "clips_sha256": hashlib.sha256(json_text([listed, self.classes.to_json()]).encode()).hexdigest(),
                "devices": self.accelerator.num_processes,
            }
        }

    def measure(self, net: StandardisedNet) -> None:
        """Set the mean and the standard deviation of the network, by the spectrograms of evenly chosen clips.

        Raises HarkenError where none can be used.
        """
        count = min(MEASURED, len(self.clips))
        rows = np.linspace(0, len(self.clips) - 1, count).round().astype(int)
        sums = np.zeros(3)
        reason = ""
        for row in rows:
            try:
                wave_S = self.reader(self.clips[row])
            except AudioError as error:
                reason = str(error)
                continue
            x_1FM = self.front_end.spectrograms(torch.from_numpy(wave_S[None]).to(self.accelerator.device)).double()
            sums += [x_1FM.numel(), float(x_1FM.sum()), float(x_1FM.square().sum())]
        if not sums[0]:
            raise HarkenError("none of the training clips can be used", next_step=reason)
        mean = sums[1] / sums[0]
        deviation = float(np.sqrt(max(sums[2] / sums[0] - mean**2, 0.0)))
        # Of silence alone.
        net.mean.fill_(float(mean))
        net.deviation.fill_(deviation if deviation > 1e-6 else 1.0)

    def batches(self, first: int, count: int) -> Iterator[Batch]:
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return batches(
            self.clips, self.reader, self.order, first=first, count=count, workers=self.workers, rank=rank, world=world
        )

    def spectrograms(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(clips, frames, bins) and (clips,) classes of a batch, in float32 on the device."""
        device = self.accelerator.device
        with torch.autocast(device.type, enabled=False):
            x_BFM = self.front_end.spectrograms(batch.wave_BS.to(device))
        return x_BFM, torch.from_numpy(self.class_N[batch.rows]).to(device)

    def evaluate(self, step: int, learning_rate: float) -> None:
        self.history.append(SpectrogramEvaluation(step, learning_rate, float(np.mean(self.recent))))
        self.recent = []

    def header(self) -> dict[str, Any]:
        return {"history": [asdict(row) for row in self.history]}

    def load_header(self, header: Mapping[str, Any]) -> None:
        self.history = [SpectrogramEvaluation(**row) for row in header["history"]]
