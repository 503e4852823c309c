"""Training of separators: guided by clean sound of machines, or by noise alone; its steps are those of
`training.steps`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harken.core.errors import HarkenError
from harken.core.json_text import json_text
from harken.data.clips import Clip
from harken.separation.config import SepReformerConfig
from harken.separation.initial import pass_mixture_on, passes_mixture_on
from harken.separation.losses import separation_loss, si_snr_db
from harken.separation.mixtures import MixtureBatch, Mixtures
from harken.separation.separator import Separator, load_separator
from harken.separation.sepreformer import Separated, SepReformer
from harken.separation.settings import SeparationSpec
from harken.separation.sounds import MachineSounds, Mode, sounds_of
from harken.training.arrays import Arrays, load_module, module_arrays, over, under
from harken.training.optimiser import adamw, parameter_groups
from harken.training.steps import Progress, TrainingLoop

#: file of a separator after its last step
SEPARATOR = "separator.safetensors"
#: machine, noise of the recording, noise that was added
INVARIANT_SOURCES = 3


@dataclass(frozen=True)
class SeparationEvaluation:
    """One row of a training's history.

    loss: mean over the steps since the last one. improvement_db: SI-SNR of the machine above that of the mixture, mean
    over mixtures of held-out clean clips; None without any.
    """

    step: int
    learning_rate: float
    loss: float
    improvement_db: float | None


@dataclass(frozen=True)
class TrainedSeparator:
    """separator: as it was at the last step. file: its weights. history: of each round. quarantined: clips that could
    not be used, and why."""

    separator: Separator
    file: Path
    history: tuple[tuple[SeparationEvaluation, ...], ...]
    quarantined: dict[str, str]


def train_separators(
    config: SepReformerConfig,
    spec: SeparationSpec,
    clips: Sequence[Clip],
    folder: Path,
    *,
    save_every: int = 500,
    logs: Path | None = None,
    progress: Progress = lambda step, steps, loss: None,
) -> dict[Mode, TrainedSeparator]:
    """Train a separator for all machines with clean clips (guided, two outputs: machine, noise), and another for those
    with noise clips only (invariant).

    Guided: mixtures of clean clips and noise, outputs in fixed order (Zhong et al., DCASE 2025 report of USTC, section
    2.1). Invariant, ours: mixture-invariant training (Wisdom et al., NeurIPS 2020, section 3.3) with three outputs:
    the first and one of the others add up to the recording, the remaining one is the noise that was added.
    folder: gets `guided` and `invariant`, one folder per round in each; a training that was killed resumes from them,
    to the same bits. Machines without supplemental clips are not learned.

    Raises HarkenError where no machine has supplemental clips, no noise is there to mix with, for a folder of another
    training, and for a loss that is no longer a number.
    """
    sounds = sounds_of(clips)
    modes: tuple[Mode, ...] = ("guided", "invariant")
    chosen = [mode for mode in modes if any(machine.mode == mode for machine in sounds.values())]
    if not chosen:
        raise HarkenError(
            "no machine has clean clips, nor noise clips, to learn from",
            next_step="Download supplemental clips (DCASE has them since 2025), or leave separation out",
        )
    rounds = {mode: spec.rounds if mode == "guided" else 1 for mode in chosen}
    total, done = spec.steps * sum(rounds.values()), 0

    def count(step: int, steps: int, loss: float) -> None:
        progress(done + step, total, loss)

    trained = {}
    for mode in chosen:
        separator, history, quarantined = None, [], dict[str, str]()
        for number in range(rounds[mode]):
            target = folder / mode / f"round-{number + 1}"
            training = _SeparationTraining(
                config, spec, sounds, mode, target, separator, save_every, logs and logs / mode / target.name
            )
            separator = training.run(count)
            done += spec.steps
            history.append(tuple(training.history))
            quarantined |= training.quarantined
        assert separator is not None
        trained[mode] = TrainedSeparator(separator, target / SEPARATOR, tuple(history), quarantined)
    return trained


class _SeparationTraining(TrainingLoop):
    """One round. before: the separator of the round before, from which this one begins."""

    module: SepReformer

    def __init__(
        self,
        config: SepReformerConfig,
        spec: SeparationSpec,
        sounds: Mapping[str, MachineSounds],
        mode: Mode,
        folder: Path,
        before: Separator | None,
        save_every: int,
        logs: Path | None,
    ) -> None:
        super().__init__(spec, folder, save_every, logs)
        self.spec, self.mode = spec, mode
        self.steps = spec.steps
        config = config.model_copy(update={"sources": INVARIANT_SOURCES if mode == "invariant" else 2})
        self.mixtures = Mixtures(sounds, mode, spec, config.sample_rate, before)
        torch.manual_seed(spec.seed)
        self.module = SepReformer(config)
        if before is not None:
            self.module.load_state_dict(before.net.state_dict())
        elif passes_mixture_on(self.module):
            pass_mixture_on(self.module)
        self.optimiser = adamw(
            parameter_groups(
                self.module, learning_rate=spec.learning_rate, weight_decay=spec.weight_decay, layer_decay=1.0
            )
        )
        listed = {key: [clip.clip_id for clip in _clips(machine)]
                  for key, machine in sounds.items()}  # fmt: skip
        self.record = {
            "training": {
                "separator": config.model_dump(mode="json"),
                "settings": spec.model_dump(mode="json"),
                "mode": mode,
                "machines": list(self.mixtures.keys),
                "clips_sha256": hashlib.sha256(json_text(listed).encode()).hexdigest(),
                "before_sha256": None if before is None else _digest(before.net),
                "devices": self.accelerator.num_processes,
            }
        }
        self.history: list[SeparationEvaluation] = []

    def run(self, progress: Progress) -> Separator:
        """All steps; the separator, whose file is written."""
        self.run_steps(progress)
        file = self.folder / SEPARATOR
        if self.accelerator.is_main_process:
            machines = tuple(self.mixtures.keys)
            metadata = {"mode": self.mode, "step": self.steps, "training": self.identity}
            Separator(self.module, machines=machines, metadata=metadata).write(file)
        self.accelerator.wait_for_everyone()
        return load_separator(file).to(str(self.accelerator.device))

    def batches(self, first: int, count: int) -> Iterator[MixtureBatch]:
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return self.mixtures.batches(first, count, rank=rank, world=world)

    def losses(self, network: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        device = self.accelerator.device
        outputs: Separated = network(batch.wave_BS.to(device), auxiliary=True)
        assert outputs.stages_LBKS is not None
        # Ratios of powers need the range and precision of float32.
        outputs = Separated(outputs.sources_BKS.float(), outputs.stages_LBKS.float())
        targets_BKS = batch.targets_BKS.to(device)
        with torch.autocast(device.type, enabled=False):
            loss = guided_loss if self.mode == "guided" else invariant_loss
            return {"separation": loss(outputs, targets_BKS, self.spec.alpha)}

    def evaluate(self, step: int, learning_rate: float) -> None:
        improvement_db = self._improvement_db()
        self.history.append(SeparationEvaluation(step, learning_rate, float(np.mean(self.recent)), improvement_db))
        self.recent = []
        if improvement_db is not None:
            self.log(step, {"held_out/improvement_db": improvement_db})

    def _improvement_db(self) -> float | None:
        self.module.eval()
        values = []
        with torch.inference_mode(), self.accelerator.autocast():
            for pair_KS in self.mixtures.held_out_pairs():
                machine_S, mixture_S = torch.from_numpy(pair_KS[0]), torch.from_numpy(pair_KS.sum(axis=0))
                outputs = self.module(mixture_S[None].to(self.accelerator.device))
                estimate_S = outputs.sources_BKS[0, 0].float().cpu()
                values.append(float(si_snr_db(estimate_S, machine_S) - si_snr_db(mixture_S, machine_S)))
        return float(np.mean(values)) if values else None

    def arrays(self) -> dict[str, NDArray[Any]]:
        return over(module_arrays(self.module), "separator")

    def load_arrays(self, arrays: Arrays) -> None:
        load_module(self.module, under(arrays, "separator"))

    def header(self) -> dict[str, Any]:
        return {"history": [asdict(row) for row in self.history]}

    def load_header(self, header: Mapping[str, Any]) -> None:
        self.history = [SeparationEvaluation(**row) for row in header["history"]]


def guided_loss(outputs: Separated, targets_BKS: Tensor, alpha: float) -> Tensor:
    """`separation_loss` of outputs in fixed order."""
    return separation_loss(outputs, targets_BKS, alpha=alpha)


def invariant_loss(outputs: Separated, targets_BKS: Tensor, alpha: float) -> Tensor:
    """`separation_loss` of two sums of outputs against (recording, added noise): the better of the two assignments of
    each clip. outputs: (machine, noise, noise); see `INVARIANT_SOURCES`."""
    assert outputs.stages_LBKS is not None
    losses = []
    for kept, added in ((1, 2), (2, 1)):
        sums = Separated(
            _sums(outputs.sources_BKS, kept, added), torch.stack([_sums(x, kept, added) for x in outputs.stages_LBKS])
        )
        losses.append(torch.stack([
            separation_loss(
                Separated(sums.sources_BKS[row : row + 1], sums.stages_LBKS[:, row : row + 1]),  # type: ignore[index]
                targets_BKS[row : row + 1], alpha=alpha,
            )
            for row in range(len(targets_BKS))
        ]))  # fmt: skip
    return torch.stack(losses).amin(dim=0).mean()


def _sums(sources_BKS: Tensor, kept: int, added: int) -> Tensor:
    return torch.stack([sources_BKS[:, 0] + sources_BKS[:, kept], sources_BKS[:, added]], dim=1)


def _clips(machine: MachineSounds) -> tuple[Clip, ...]:
    return (*machine.clean, *machine.noise, *machine.normal)


def _digest(net: SepReformer) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(module_arrays(net).items()):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
