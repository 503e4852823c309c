"""Fine-tuning of TangoFlux on clips and their captions; its steps are those of `training.steps`."""

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
from harken.generation.encoded_clips import EncodedClips
from harken.generation.flow import flow_loss, logit_normal, noisy_at, times_of
from harken.generation.sound_generator import SoundGenerator
from harken.generation.tangoflux import TangoFlux
from harken.generation.tangoflux_files import write_tangoflux
from harken.generation.tangoflux_settings import FinetuningSpec
from harken.training.arrays import Arrays, over, under
from harken.training.augment.random_state import rng_for
from harken.training.lora import add_lora_to, merge_lora
from harken.training.optimiser import adamw, parameter_groups
from harken.training.recordings import Batch, Order
from harken.training.steps import Progress, TrainingLoop

#: file of a generator after its last step
GENERATOR = "generator.safetensors"
#: linear layers of the attention that get adapters
ADAPTED = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
#: most clips that are held out
MOST_HELD_OUT = 64


@dataclass(frozen=True)
class FinetuningEvaluation:
    """One row of the history. loss: mean over the steps since the last one. held_out: loss of the clips that are held
    out, with noise that stays the same; None without any."""

    step: int
    learning_rate: float
    loss: float
    held_out: float | None


@dataclass(frozen=True)
class FinetunedGenerator:
    """file: of the generator, see `read_tangoflux`. quarantined: clips that could not be used, and why."""

    file: Path
    history: tuple[FinetuningEvaluation, ...]
    quarantined: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class LatentBatch(Batch):
    """latents_BTD, their noise, times and captions; wave_BS is empty."""

    latents_BTD: Tensor
    noise_BTD: Tensor
    time_B: Tensor
    states_BLD: Tensor
    mask_BL: Tensor
    seconds_B: Tensor


class VelocityStep(nn.Module):
    """The loss of a batch, as a module that devices can share."""

    def __init__(self, net: TangoFlux) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: LatentBatch, device: torch.device) -> Tensor:
        """Mean squared error of the velocities."""
        latents_BTD, noise_BTD, time_B = (x.to(device) for x in (batch.latents_BTD, batch.noise_BTD, batch.time_B))
        condition = self.net.condition(
            batch.states_BLD.to(device), batch.mask_BL.to(device), batch.seconds_B.to(device)
        )
        velocity_BTD = self.net(noisy_at(latents_BTD, noise_BTD, time_B), time_B, condition)
        return flow_loss(velocity_BTD.float(), latents_BTD, noise_BTD)


def finetune(
    generator: SoundGenerator,
    size: str,
    spec: FinetuningSpec,
    clips: Sequence[Clip],
    folder: Path,
    *,
    save_every: int = 500,
    logs: Path | None = None,
    progress: Progress = lambda step, steps, loss: None,
) -> FinetunedGenerator:
    """Fine-tune the network of a generator, in place; text encoder and autoencoder stay as they are.

    size: of a generator with random weights, see `create_tangoflux`. folder: gets `generator.safetensors`, latents of
    clips below `encoded`, and the files of `TrainingLoop`, from which the same training resumes to the same bits.

    Raises HarkenError for clips that are too few or cannot be read, a folder of another training, and a loss that is
    no longer a number; what is in the folder stays.
    """
    encoded = EncodedClips(generator, clips, folder / "encoded")
    usable = encoded.encode()
    return _Finetuning(generator, size, spec, encoded, usable, folder, save_every, logs).run(progress)


class _Finetuning(TrainingLoop):
    module: VelocityStep

    def __init__(
        self,
        generator: SoundGenerator,
        size: str,
        spec: FinetuningSpec,
        encoded: EncodedClips,
        usable: Sequence[Clip],
        folder: Path,
        save_every: int,
        logs: Path | None,
    ) -> None:
        super().__init__(spec, folder, save_every, logs)
        self.generator, self.size, self.spec, self.encoded = generator, size, spec, encoded
        world = self.accelerator.num_processes
        held = min(MOST_HELD_OUT, int(spec.held_out * len(usable)))
        shuffled_N = rng_for(spec.seed, 0, "held out").permutation(len(usable))
        self.held_clips = [usable[row] for row in sorted(shuffled_N[:held])]
        self.train_clips = [usable[row] for row in sorted(shuffled_N[held:])]
        if len(self.train_clips) < world:
            raise HarkenError(
                f"{len(self.train_clips)} clips are too few to fine-tune on",
                next_step=next(iter(encoded.quarantined.values()), "Add clips, years or folders"),
            )
        batch = min(spec.batch * world, len(self.train_clips) // world * world)
        self.order = Order(len(self.train_clips), batch, spec.seed)
        self.steps = spec.steps
        torch.manual_seed(spec.seed)
        net = generator.net.cpu().requires_grad_(True)
        if spec.adapter is not None:
            add_lora_to(net, ADAPTED, spec.adapter.rank, spec.adapter.alpha, spec.adapter.dropout)
            # What TangoFlux adds to the transformer is small, and learned too.
            net.duration_emebdder.requires_grad_(True)
            net.fc.requires_grad_(True)
        if spec.recompute:
            net.transformer.enable_gradient_checkpointing()
        self.module = VelocityStep(net)
        self.optimiser = adamw(
            parameter_groups(net, learning_rate=spec.learning_rate, weight_decay=spec.weight_decay, layer_decay=1.0)
        )
        listed = hashlib.sha256(json_text([clip.clip_id for clip in usable]).encode()).hexdigest()
        self.record = {
            "training": {
                "generator": generator.config.model_dump(mode="json"),
                "weights_sha256": generator.digest,
                "settings": spec.model_dump(mode="json"),
                "clips": len(usable),
                "clips_sha256": listed,
                "devices": world,
            }
        }
        self.history: list[FinetuningEvaluation] = []

    def run(self, progress: Progress) -> FinetunedGenerator:
        self.run_steps(progress)
        file = self.folder / GENERATOR
        self.generator.net.cpu()
        merge_lora(self.generator.net)
        if self.accelerator.is_main_process:
            write_tangoflux(file, self.generator, self.size, {"step": self.steps, "training": self.identity})
        self.accelerator.wait_for_everyone()
        return FinetunedGenerator(file, tuple(self.history), dict(sorted(self.encoded.quarantined.items())))

    # ------------------------------------------------------------ a step

    def batches(self, first: int, count: int) -> Iterator[LatentBatch]:
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        for number in range(first, first + count):
            rows = self.order.rows(number)[rank::world]
            clips = [self.train_clips[row] for row in rows]
            yield self._batch(clips, number, self.order.epoch(number), f"{number}.{rank}", self.spec.drop_caption)

    def _batch(self, clips: Sequence[Clip], number: int, epoch: int, place: str, drop: float) -> LatentBatch:
        rng = rng_for(self.spec.seed, epoch, place, "noise")
        rows = [self.encoded.read(clip) for clip in clips]
        latents_BTD = torch.from_numpy(np.stack([row.latents_TD for row in rows]))
        noise_BTD = torch.from_numpy(rng.standard_normal(latents_BTD.shape, dtype=np.float32))
        time_B = times_of(logit_normal(len(clips), torch.Generator().manual_seed(int(rng.integers(2**62)))))
        captions_B = [self.encoded.caption_of[clip.clip_id] for clip in clips]
        states_BLD, mask_BL = (tensor[captions_B] for tensor in self.encoded.states)
        dropped_B = torch.from_numpy(rng.random(len(clips)) < drop)
        states_BLD = torch.where(dropped_B[:, None, None], self.encoded.empty.states_BLD, states_BLD)
        mask_BL = torch.where(dropped_B[:, None], self.encoded.empty.mask_BL, mask_BL)
        return LatentBatch(
            number, epoch, np.arange(len(clips)), torch.zeros(len(clips), 0), {},
            latents_BTD=latents_BTD, noise_BTD=noise_BTD, time_B=time_B, states_BLD=states_BLD, mask_BL=mask_BL,
            seconds_B=torch.tensor([row.seconds for row in rows]),
        )  # fmt: skip

    def losses(self, network: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        return {"velocity": network(batch, self.accelerator.device)}

    def evaluate(self, step: int, learning_rate: float) -> None:
        held_out = self._held_out_loss()
        self.history.append(FinetuningEvaluation(step, learning_rate, float(np.mean(self.recent)), held_out))
        self.recent = []
        if held_out is not None:
            self.log(step, {"held_out/loss": held_out})

    def _held_out_loss(self) -> float | None:
        self.module.eval()
        values = []
        with torch.no_grad(), self.accelerator.autocast():
            for number, clip in enumerate(self.held_clips):
                batch = self._batch([clip], number, 0, f"held out {number}", 0.0)
                values.append(float(self.module(batch, self.accelerator.device)))
        return float(np.mean(values)) if values else None

    # ------------------------------------------------------------ files

    def _learned(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def arrays(self) -> dict[str, NDArray[Any]]:
        return over({name: p.detach().cpu().numpy() for name, p in self._learned().items()}, "learned")

    def load_arrays(self, arrays: Arrays) -> None:
        stored = under(arrays, "learned")
        with torch.no_grad():
            for name, parameter in self._learned().items():
                parameter.copy_(torch.from_numpy(np.array(stored[name])))

    def header(self) -> dict[str, Any]:
        return {"history": [asdict(row) for row in self.history]}

    def load_header(self, header: Mapping[str, Any]) -> None:
        self.history = [FinetuningEvaluation(**row) for row in header["history"]]
