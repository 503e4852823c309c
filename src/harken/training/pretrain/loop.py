"""Pre-training of an encoder on clips without labels; its steps are those of `training.steps`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harken.core.errors import AudioError, HarkenError, did_you_mean
from harken.core.json_text import json_text
from harken.data.clips import Clip
from harken.encoders.checkpoints import weights_for
from harken.encoders.patch_net import PatchNet
from harken.encoders.registry import create_encoder, encoder_class
from harken.encoders.torch_encoder import TorchEncoder
from harken.training.arrays import Arrays, load_module, module_arrays, over, under
from harken.training.augment.random_state import rng_for
from harken.training.optimiser import adamw, correct_epsilon, parameter_groups
from harken.training.pretrain.files import decoder_arrays, write_encoder
from harken.training.pretrain.objective import teacher_decay
from harken.training.pretrain.settings import PretrainingSpec, StudentSpec
from harken.training.pretrain.step import Deviations, PretrainingStep
from harken.training.recompute import recompute_blocks
from harken.training.recordings import Batch, Order, Reader, batches
from harken.training.steps import Progress, TrainingLoop

#: most clips that are held out
MOST_HELD_OUT = 256
#: file of the encoder after the last step
ENCODER = "encoder.safetensors"


@dataclass(frozen=True)
class PretrainingEvaluation:
    """One row of a pre-training's history.

    loss: mean over the steps since the last one; regression, class_token: its terms. held_out: loss of the clips that
    are held out, with masks that stay the same; None without any. deviations: means over the steps.
    """

    step: int
    learning_rate: float
    loss: float
    regression: float
    class_token: float
    held_out: float | None
    deviations: Deviations


@dataclass(frozen=True)
class Pretrained:
    """encoder: as it was at the last step. file: its weights. quarantined: clips that could not be used, and why."""

    encoder: TorchEncoder
    file: Path
    history: tuple[PretrainingEvaluation, ...]
    quarantined: dict[str, str]


def pretrain(
    student: StudentSpec,
    spec: PretrainingSpec,
    clips: Sequence[Clip],
    folder: Path,
    *,
    save_every: int = 500,
    workers: int = 0,
    logs: Path | None = None,
    progress: Progress = lambda step, steps, loss: None,
) -> Pretrained:
    """Pre-train an encoder by EAT's objective (`PatchObjective`).

    clips: sounds of any kind, label and length, but not of a test split. folder: gets `encoder.safetensors`, which
    `encoders.checkpoints.load` reads, `encoder-<step>.safetensors` where the settings ask for it, and the files of
    `TrainingLoop`, from which the same training resumes to the same bits. Neither `save_every` nor `workers` changes
    them. logs: folder for TensorBoard.

    Raises HarkenError for clips that are too few, settings that do not fit, a folder of another training, a loss that
    is no longer a number, and targets or predictions that have become the same; what is in `folder` stays.
    """
    return _Pretraining(student, spec, clips, folder, save_every, workers, logs).run(progress)


class _Pretraining(TrainingLoop):
    module: PretrainingStep

    def __init__(
        self,
        student: StudentSpec,
        spec: PretrainingSpec,
        clips: Sequence[Clip],
        folder: Path,
        save_every: int,
        workers: int,
        logs: Path | None,
    ) -> None:
        super().__init__(spec, folder, save_every, logs)
        self.spec, self.workers = spec, workers
        world = self.accelerator.num_processes
        ordered = sorted(clips, key=lambda clip: clip.clip_id)
        held = min(MOST_HELD_OUT, int(spec.held_out * len(ordered)))
        shuffled_N = rng_for(spec.seed, 0, "held out").permutation(len(ordered))
        self.held_clips = [ordered[row] for row in sorted(shuffled_N[:held])]
        self.train_clips = [ordered[row] for row in sorted(shuffled_N[held:])]
        if len(self.train_clips) < 2 * world:
            raise HarkenError(
                f"{len(self.train_clips)} clips are too few to pre-train on", next_step="Add clips, years or folders"
            )
        self.order = Order(
            len(self.train_clips), min(spec.batch * world, len(self.train_clips) // world * world), spec.seed
        )
        self.steps = spec.steps
        self.encoder, weights_sha256 = _student(student, spec.seed)
        self.reader = Reader(self.encoder.sample_rate, spec.seconds, spec.microphones, pad=spec.length == "pad")
        net = self.encoder.module
        try:
            if not isinstance(net, PatchNet):
                raise ValueError(f"{student.encoder} is no network over patches: choose eat or fisher")
            net.check_samples(round(spec.seconds * self.encoder.sample_rate))
            self.module = PretrainingStep(net, spec)
            with torch.no_grad():
                silence_1FM = net.spectrogram(torch.zeros(1, round(spec.seconds * self.encoder.sample_rate)))
            self.module.masks(silence_1FM, 0, "")
        except ValueError as error:
            raise HarkenError(str(error), next_step="Correct the settings of the pre-training") from error
        decoder = self.module.objective.decoder
        if student.weights is not None and Path(student.weights).is_file():
            arrays = decoder_arrays(Path(student.weights))
            if {name: x.shape for name, x in module_arrays(decoder).items()} == {n: x.shape for n, x in arrays.items()}:
                load_module(decoder, arrays)
        if spec.recompute:
            recompute_blocks(net)
        self.optimiser = adamw(
            parameter_groups(
                self.module, learning_rate=spec.learning_rate, weight_decay=spec.weight_decay, layer_decay=1.0
            ),
            betas=spec.betas,
        )
        listed = hashlib.sha256(json_text([clip.clip_id for clip in ordered]).encode()).hexdigest()
        self.record = {
            "training": {
                "student": student.model_dump(mode="json", exclude={"weights"}),
                "weights_sha256": weights_sha256,
                "settings": spec.model_dump(mode="json"),
                "clips": len(ordered),
                "clips_sha256": listed,
                "devices": world,
            }
        }
        self.history: list[PretrainingEvaluation] = []
        #: terms of the loss, then deviations, of the batches since the last evaluation
        self.watched: list[tuple[float, ...]] = []

    def run(self, progress: Progress) -> Pretrained:
        self.run_steps(progress)
        file = self.folder / ENCODER
        if self.accelerator.is_main_process:
            self._write(file, self.steps)
        self.encoder.module.eval()
        return Pretrained(self.encoder, file, tuple(self.history), dict(sorted(self.quarantined.items())))

    # ------------------------------------------------------------ a step

    def batches(self, first: int, count: int) -> Iterator[Batch]:
        return batches(
            self.train_clips, self.reader, self.order, first=first, count=count, workers=self.workers,
            rank=self.accelerator.process_index, world=self.accelerator.num_processes,
        )  # fmt: skip

    def losses(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        wave_BS = batch.wave_BS.to(self.accelerator.device)
        terms: dict[str, Tensor] = network(wave_BS, batch.epoch, self.batch_place(batch))
        values = (float(terms["regression"].detach()), float(terms["class_token"].detach()))
        self.watched.append((*values, *astuple(self.module.last)))
        return terms

    def before_step(self, step: int) -> None:
        correct_epsilon(self.optimiser, step)

    def after_step(self, step: int) -> None:
        first, last = self.spec.teacher
        self.module.objective.follow(teacher_decay(step, first=first, last=last, steps=self.spec.teacher_steps))
        if self.spec.checkpoint_every and step % self.spec.checkpoint_every == 0 and self.accelerator.is_main_process:
            self._write(self.folder / f"encoder-{step:08d}.safetensors", step)

    # ------------------------------------------------------------ evaluation

    def evaluate(self, step: int, learning_rate: float) -> None:
        regression, class_token, *deviations = np.mean(self.watched, axis=0).tolist()
        row = PretrainingEvaluation(
            step, learning_rate, float(np.mean(self.recent)), regression, class_token, self._held_out_loss(),
            Deviations(*deviations),
        )  # fmt: skip
        self.recent, self.watched = [], []
        self.history.append(row)
        self.log(step, {"terms/regression": regression, "terms/class_token": class_token})
        self.log(step, {f"deviation/{name}": value for name, value in asdict(row.deviations).items()})
        if row.held_out is not None:
            self.log(step, {"held_out/loss": row.held_out})
        for name, value, lowest in (
            ("targets", row.deviations.target, self.spec.lowest_target),
            ("predictions", row.deviations.student, self.spec.lowest_student),
        ):
            if value < lowest:
                raise HarkenError(
                    f"at step {step} the {name} have become the same for all patches: their deviation is {value:.4f}, "
                    f"below {lowest:g}",
                    file=self.folder,
                    next_step="Train with a lower learning rate or a slower teacher, on clips that are not silent",
                )

    def _held_out_loss(self) -> float | None:
        """Mean loss per masked patch of the held-out clips; their masks stay the same."""
        self.module.eval()
        sums = []
        with torch.inference_mode(), self.accelerator.autocast(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            for number, clip in enumerate(self.held_clips):
                try:
                    wave_S = self.reader(clip)
                except AudioError as error:
                    self.quarantined[clip.clip_id] = str(error)
                    continue
                terms = self.module(torch.from_numpy(wave_S[None]).to(self.accelerator.device), 0, f"held out {number}")
                sums.append(float(terms["regression"]))
        return float(np.mean(sums)) if sums else None

    # ------------------------------------------------------------ files

    def _write(self, file: Path, step: int) -> None:
        metadata = {"step": step, "pretraining": self.identity}
        write_encoder(file, self.encoder, self.module.objective.decoder, metadata)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return over(module_arrays(self.module.objective), "objective")

    def load_arrays(self, arrays: Arrays) -> None:
        load_module(self.module.objective, under(arrays, "objective"))

    def header(self) -> dict[str, Any]:
        return {"history": [asdict(row) for row in self.history], "watched": self.watched}

    def load_header(self, header: Mapping[str, Any]) -> None:
        self.history = [
            PretrainingEvaluation(**{**row, "deviations": Deviations(**row["deviations"])}) for row in header["history"]
        ]
        self.watched = [tuple(values) for values in header["watched"]]


def _student(student: StudentSpec, seed: int) -> tuple[TorchEncoder, str | None]:
    """The encoder to begin with, and the digest of its weights. Raises HarkenError where it cannot be built."""
    cls = encoder_class(student.encoder)
    if student.size not in ("full", *cls.sizes):
        raise HarkenError(
            f"{student.encoder} has no size {student.size!r}",
            next_step=did_you_mean(student.size, ["full", *cls.sizes]),
        )
    config: dict[str, Any] = dict(cls.sizes.get(student.size, {}))
    weights, digest = None, None
    if student.weights is None:
        config["seed"] = seed
    else:
        config, weights = weights_for(student.encoder, student.weights)
        sha = hashlib.sha256()
        for name in sorted(weights):
            sha.update(name.encode() + np.ascontiguousarray(weights[name]).tobytes())
        digest = sha.hexdigest()
    encoder = create_encoder(student.encoder, {**config, **student.config}, weights)
    if not isinstance(encoder, TorchEncoder):
        raise HarkenError(f"{student.encoder} is no network", next_step="Choose eat or fisher")
    return encoder, digest
