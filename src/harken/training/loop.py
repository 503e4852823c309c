"""Fine-tuning: a model learns to classify clips, for every model, loss and number of devices; its steps are those of
`steps`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harken.core.errors import HarkenError
from harken.core.json_text import json_text
from harken.data.clips import Clip, origins
from harken.data.labels import UNUSED, ClassTable
from harken.training.adapters import FreezeSchedule
from harken.training.arrays import Arrays, load_module, module_arrays, over, under
from harken.training.augment.random_state import rng_for
from harken.training.checkpoints import PretrainedStart, Start, write_checkpoint
from harken.training.model_spec import ModelSpec
from harken.training.models import ASDModel, build_model
from harken.training.optimiser import adamw, parameter_groups
from harken.training.recompute import recompute_blocks
from harken.training.recordings import Batch, Order, Reader, WaveTransform, batches
from harken.training.settings import TrainingSpec
from harken.training.signals import Signals, hold_out, signals_of
from harken.training.spectrograms import SpectrogramForm
from harken.training.step import TrainingStep
from harken.training.steps import Progress, TrainingLoop

#: what a model scores on test clips whose labels are known: tuned on test, if used for choosing
DevScore = Callable[[ASDModel], Mapping[str, float]]

#: evaluations in a row that may find all embeddings alike
PATIENCE = 3


@dataclass(frozen=True)
class StepEvaluation:
    """One row of a training's history.

    loss: mean over the steps since the last one. signals: of held-out clips; None without any. dev: what the caller's
    function found on test clips; numbers that know their labels.
    """

    step: int
    loss: float
    learning_rate: float
    signals: Signals | None
    dev: dict[str, float]


@dataclass(frozen=True)
class TrainedModel:
    """model: as it was at the last step, in evaluation mode. checkpoints: files of those that were kept, the best
    first. quarantined: clips that could not be used, and why. tuned_on_test: whether `dev` chose the checkpoints."""

    model: ASDModel
    checkpoints: tuple[Path, ...]
    history: tuple[StepEvaluation, ...]
    quarantined: dict[str, str]
    tuned_on_test: bool


def train(
    model: ModelSpec,
    spec: TrainingSpec,
    clips: Sequence[Clip],
    table: ClassTable,
    folder: Path,
    *,
    start: Start | PretrainedStart | None = None,
    dev: DevScore | None = None,
    save_every: int = 500,
    workers: int = 0,
    transform: WaveTransform | None = None,
    logs: Path | None = None,
    progress: Progress = lambda step, steps, loss: None,
) -> TrainedModel:
    """Train a model to classify clips.

    clips: of which those are trained on that have a class in `table` (or a second label, where a loss is on that).
    folder: gets `checkpoint-<step>.safetensors`, `training.json` with all that shaped the training, `made_with.json`
    with versions and machine, on which no content may depend, and
    `state.safetensors` every `save_every` steps and at the end, from which the same training resumes,
    to the same bits as if it had never stopped. Neither `save_every` nor `workers` changes them.
    start: the network of another training, or pre-trained encoders, which are trained on. dev: called at every
    evaluation. transform: of waveforms, beside those of `spec`. logs: folder for TensorBoard.

    Raises HarkenError for clips or classes that are too few, settings that do not fit, a folder of another training, a
    loss that is no longer a number, and a network for which all clips have become the same; what is in `folder` stays.
    """
    if spec.choose == "dev" and dev is None:
        raise HarkenError("to choose by dev, labelled test clips are needed", next_step="Choose by loss or accuracy")
    return _Training(model, spec, clips, table, folder, start, dev, save_every, workers, transform, logs).run(progress)


class _Training(TrainingLoop):
    def __init__(
        self,
        model: ModelSpec,
        spec: TrainingSpec,
        clips: Sequence[Clip],
        table: ClassTable,
        folder: Path,
        start: Start | PretrainedStart | None,
        dev: DevScore | None,
        save_every: int,
        workers: int,
        transform: WaveTransform | None,
        logs: Path | None,
    ) -> None:
        super().__init__(spec, folder, save_every, logs)
        self.spec, self.dev, self.workers = spec, dev, workers
        world = self.accelerator.num_processes
        second = any(loss.target == "mixture" for loss in spec.losses)
        self.clips, class_N, mixture_N = _usable(clips, table, second)
        unlabelled = int((class_N == UNUSED).sum())
        if unlabelled and (spec.augmentation.mixup or spec.augmentation.featex):
            raise HarkenError(
                f"mixup and FeatEx need a class for every clip, which {unlabelled} have not",
                next_step="Leave them out, or choose a policy that classes supplemental clips too, such as nwpu",
            )
        train_N, held_N = _held_out(self.clips, class_N, spec)
        if len(train_N) < 2 * world or len(table) < 2:
            raise HarkenError(
                f"{len(train_N)} clips of {len(table)} classes are too little to train on",
                next_step="Add clips, or choose another policy of labels",
            )
        self.train_clips = [self.clips[row] for row in train_N]
        self.held_clips = [self.clips[row] for row in held_N]
        self.class_N, self.held_class_N = class_N[train_N], class_N[held_N]
        self.mixture_N = None if mixture_N is None else mixture_N[train_N]
        size = min(spec.batch * world, len(self.train_clips) // world * world)
        self.order = Order(len(self.train_clips), size, spec.seed)
        self.steps = spec.steps_of(self.order.batches)
        try:
            built = build_model(model) if start is None else build_model(model, start.model())
            self.module: TrainingStep = TrainingStep(
                built,
                spec.losses,
                classes=len(table),
                attribute_free=table.attribute_free_classes,
                augmentation=spec.augmentation,
                seed=spec.seed,
            )
            made = [clip for clip in self.train_clips if clip.payload == "spectrogram"]
            self.form = _form_of_spectrograms(built, spec.seconds) if made else None
        except ValueError as error:
            raise HarkenError(str(error), next_step="Correct the recipe") from error
        if self.form is not None:
            self.form.check(made)
        self.model = built
        self.reader = Reader(built.sample_rate, spec.seconds, spec.microphones, pad=spec.length == "pad")
        self.transform = transform or spec.augmentation.wave_transform(clips, self.reader)
        if spec.recompute:
            recompute_blocks(*(encoder.module for encoder in built.encoders))
        groups = parameter_groups(
            self.module,
            learning_rate=spec.learning_rate,
            weight_decay=spec.weight_decay,
            layer_decay=spec.layer_decay,
        )
        self.optimiser = adamw(groups)
        self.record = _record(model, spec, clips, table, world)
        if start is not None:
            self.record["training"]["start_sha256"] = start.digest()
            if start.labels_sha256 == self.record["training"]["labels_sha256"]:
                start.load_losses(self.module.losses)
        self.history: list[StepEvaluation] = []
        self.kept: list[tuple[float, int]] = []
        self.schedule = FreezeSchedule(spec.frozen_epochs)

    def run(self, progress: Progress) -> TrainedModel:
        self.run_steps(progress)
        return TrainedModel(
            self.model.eval(),
            tuple(self._checkpoint(step) for _, step in self.kept),
            tuple(self.history),
            dict(sorted(self.quarantined.items())),
            self.spec.choose == "dev",
        )

    # ------------------------------------------------------------ a step

    def batches(self, first: int, count: int) -> Iterator[Batch]:
        return batches(
            self.train_clips, self.reader, self.order, first=first, count=count, transform=self.transform,
            form=self.form, workers=self.workers,
            rank=self.accelerator.process_index, world=self.accelerator.num_processes,
        )  # fmt: skip

    def before_batch(self, batch: Batch) -> None:
        if self.spec.frozen_epochs:
            self.schedule.apply(self.model, batch.epoch + 1)

    def losses(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        device = self.accelerator.device
        class_B = torch.from_numpy(self.class_N[batch.rows]).to(device)
        mixture_B = None if self.mixture_N is None else torch.from_numpy(self.mixture_N[batch.rows]).to(device)
        spectrograms = None if batch.spectrograms is None else batch.spectrograms.to(device)
        terms: dict[str, Tensor] = network(
            batch.wave_BS.to(device), class_B, mixture_B, batch.epoch, self.batch_place(batch), spectrograms
        )
        return terms

    # ------------------------------------------------------------ evaluation

    def evaluate(self, step: int, learning_rate: float) -> None:
        self.module.eval()
        signals = self._signals() if self.held_clips else None
        dev: dict[str, float] = {}
        if self.dev is not None:
            with torch.inference_mode():
                dev = {name: float(value) for name, value in self.dev(self.model).items()}
        self.history.append(StepEvaluation(step, float(np.mean(self.recent)), learning_rate, signals, dev))
        self.recent = []
        if signals is not None:
            self.log(step, {f"held_out/{name}": value for name, value in asdict(signals).items()})
        self.log(step, {f"dev (tuned on test)/{name}": value for name, value in dev.items()})
        last = [row.signals for row in self.history[-PATIENCE:] if row.signals is not None]
        # What has not learned yet may begin there: it is lost if it does not move away.
        if len(last) == PATIENCE and all(item.collapsed for item in last) and last[-1].similarity >= last[0].similarity:
            raise self.lost(step, "all clips have had the same embedding for a while")
        self.kept.append((self._merit(self.history[-1]), step))
        # Of equal ones the later.
        self.kept = sorted(self.kept, key=lambda item: (-item[0], -item[1]))[: self.spec.keep]
        if self.accelerator.is_main_process and any(kept == step for _, kept in self.kept):
            header = {"step": step, "training": self.identity, "signals": asdict(signals) if signals else None,
                     "dev (tuned on test)": dev}  # fmt: skip
            write_checkpoint(self._checkpoint(step), self.model, self.module.losses, header)

    def _signals(self) -> Signals:
        losses, logits, embeddings = [], [], []
        size = max(1, min(self.spec.batch, 32))
        with torch.inference_mode(), self.accelerator.autocast():
            for start in range(0, len(self.held_clips), size):
                rows = []
                waves = []
                for row in range(start, min(start + size, len(self.held_clips))):
                    try:
                        waves.append(self.reader(self.held_clips[row]))
                        rows.append(row)
                    except HarkenError as error:
                        self.quarantined[self.held_clips[row].clip_id] = str(error)
                if not rows:
                    continue
                class_B = torch.from_numpy(self.held_class_N[rows]).to(self.accelerator.device)
                wave_BS = torch.from_numpy(np.stack(waves)).to(self.accelerator.device)
                loss, logits_BC, embedding_BD = self.module.classify(wave_BS, class_B)
                losses += [float(loss)] * len(rows)
                logits.append(logits_BC.float())
                embeddings.append(embedding_BD.float())
        if not losses:
            raise HarkenError("none of the held-out clips can be used", next_step="Check the training clips")
        usable = [row for row, clip in enumerate(self.held_clips) if clip.clip_id not in self.quarantined]
        return signals_of(losses, torch.cat(logits), torch.cat(embeddings), self.held_class_N[usable])

    def _merit(self, row: StepEvaluation) -> float:
        """By which checkpoints are chosen; higher is better."""
        choose = self.spec.choose
        if choose == "dev":
            return row.dev["official_score"]
        if choose == "last" or row.signals is None:
            return float(row.step)
        value = row.signals.accuracy if choose == "accuracy" else -row.signals.loss
        return value if np.isfinite(value) else -np.inf

    # ------------------------------------------------------------ files

    def _checkpoint(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step:08d}.safetensors"

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {**over(self.model.shared_state(), "model"), **over(module_arrays(self.module.losses), "losses")}

    def load_arrays(self, arrays: Arrays) -> None:
        self.model.load_state(under(arrays, "model"))
        load_module(self.module.losses, under(arrays, "losses"))

    def header(self) -> dict[str, Any]:
        return {"history": [asdict(row) for row in self.history], "kept": self.kept}

    def load_header(self, header: Mapping[str, Any]) -> None:
        self.history = [_history_of(row) for row in header["history"]]
        self.kept = [(float(merit), int(step)) for merit, step in header["kept"]]

    def tidy(self) -> None:
        keep = {self._checkpoint(kept) for _, kept in self.kept}
        # Only now: a state that was written before may still name them.
        for file in self.folder.glob("checkpoint-*.safetensors"):
            if file not in keep:
                file.unlink()


def _usable(
    clips: Sequence[Clip], table: ClassTable, second: bool
) -> tuple[list[Clip], NDArray[np.int64], NDArray[np.int64] | None]:
    """Clips with a class, or with a second label where that is learned too; in order of their ids."""
    ordered = sorted(clips, key=lambda clip: clip.clip_id)
    class_N = table.indices(ordered)
    mixture_N = table.mixture_indices(ordered) if second else None
    labelled_N = class_N != UNUSED if mixture_N is None else (class_N != UNUSED) | (mixture_N != UNUSED)
    rows = np.flatnonzero(labelled_N)
    return [ordered[row] for row in rows], class_N[rows], None if mixture_N is None else mixture_N[rows]


def _held_out(
    clips: Sequence[Clip], class_N: NDArray[np.int64], spec: TrainingSpec
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows held out: recordings only, and nothing made of them is trained on."""
    recorded_N = np.array([clip.recorded for clip in clips], dtype=bool)
    rng = rng_for(spec.seed, 0, "held out")
    if recorded_N.all():
        return hold_out(class_N, spec.held_out, rng)
    rows_N = np.flatnonzero(recorded_N)
    train_N, held_N = (rows_N[chosen] for chosen in hold_out(class_N[rows_N], spec.held_out, rng))
    origin_of, held = origins(clips), {clips[row].clip_id for row in held_N}
    made = [int(row) for row in np.flatnonzero(~recorded_N) if origin_of[clips[int(row)].clip_id] not in held]
    return np.sort(np.concatenate([train_N, np.array(made, dtype=np.int64)])), held_N


def _form_of_spectrograms(model: ASDModel, seconds: float) -> SpectrogramForm:
    """What clips that are spectrograms must be. Raises ValueError where the network cannot be trained on any."""
    form = model.spectrogram_form(round(seconds * model.sample_rate))
    model.check_front_ends_stay()
    return form


def _record(
    model: ModelSpec, spec: TrainingSpec, clips: Sequence[Clip], table: ClassTable, world: int
) -> dict[str, Any]:
    """All that shaped a training. `training`: what its weights depend on."""
    listed = hashlib.sha256(json_text(sorted(clip.clip_id for clip in clips)).encode()).hexdigest()
    labels = hashlib.sha256(table.model_dump_json(by_alias=True).encode()).hexdigest()
    return {
        "training": {
            "model": model.model_dump(mode="json"),
            "settings": spec.model_dump(mode="json"),
            "policy": table.policy,
            "labels_sha256": labels,
            "clips": len(clips),
            "clips_sha256": listed,
            "devices": world,
        },
    }


def _history_of(row: dict[str, Any]) -> StepEvaluation:
    signals = row.pop("signals")
    # JSON has no NaN.
    values = {name: float("nan") if value is None else value for name, value in (signals or {}).items()}
    return StepEvaluation(signals=Signals(**values) if values else None, **row)
