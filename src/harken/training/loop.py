"""One training loop, for every model, loss and number of devices.

All randomness comes from the seed and the number of the batch, so that a training which was killed needs no generator
restored: weights, moments and the number of the step are enough to end with the same bits (on one CPU, with the same
number of threads).
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harken.core.errors import HarkenError
from harken.core.extras import need
from harken.core.files import write_atomically
from harken.core.version import __version__
from harken.data.clips import Clip, origins
from harken.data.labels import UNUSED, ClassTable
from harken.training.adapters import FreezeSchedule
from harken.training.arrays import load_module, load_optimiser, module_arrays, optimiser_arrays, over, under
from harken.training.augment.random_state import rng_for
from harken.training.checkpoints import Start, read_arrays, write_arrays, write_checkpoint
from harken.training.model_spec import ModelSpec
from harken.training.models import ASDModel, build_model
from harken.training.optimiser import adamw, learning_rate_factor, parameter_groups, set_learning_rates
from harken.training.precision import tf32_products
from harken.training.recompute import recompute_blocks
from harken.training.recordings import Batch, Order, Reader, WaveTransform, batches
from harken.training.settings import TrainingSpec
from harken.training.signals import Signals, hold_out, signals_of
from harken.training.spectrograms import SpectrogramForm
from harken.training.step import TrainingStep

if TYPE_CHECKING:
    from accelerate import Accelerator

#: step, steps, loss of the step
Progress = Callable[[int, int, float], None]
#: what a model scores on test clips whose labels are known: tuned on test, if used for choosing
DevScore = Callable[[ASDModel], Mapping[str, float]]

STATE = "state.safetensors"
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
    start: Start | None = None,
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
    start: the network of another training, whose encoders are trained on. dev: called at every evaluation. transform:
    of waveforms, beside those of `spec`. logs: folder for TensorBoard.

    Raises HarkenError for clips or classes that are too few, settings that do not fit, a folder of another training, a
    loss that is no longer a number, and a network for which all clips have become the same; what is in `folder` stays.
    """
    if spec.choose == "dev" and dev is None:
        raise HarkenError("to choose by dev, labelled test clips are needed", next_step="Choose by loss or accuracy")
    return _Training(model, spec, clips, table, folder, start, dev, save_every, workers, transform, logs).run(progress)


class _Training:
    def __init__(
        self,
        model: ModelSpec,
        spec: TrainingSpec,
        clips: Sequence[Clip],
        table: ClassTable,
        folder: Path,
        start: Start | None,
        dev: DevScore | None,
        save_every: int,
        workers: int,
        transform: WaveTransform | None,
        logs: Path | None,
    ) -> None:
        self.spec, self.folder, self.dev = spec, folder, dev
        self.save_every, self.workers = save_every, workers
        self.accelerator = _accelerator(spec)
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
            self.step = TrainingStep(
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
        self.reader = Reader(built.sample_rate, spec.seconds, spec.microphones)
        self.transform = transform or spec.augmentation.wave_transform(clips, self.reader)
        if spec.recompute:
            recompute_blocks(built)
        groups = parameter_groups(
            self.step,
            learning_rate=spec.learning_rate,
            weight_decay=spec.weight_decay,
            layer_decay=spec.layer_decay,
        )
        self.optimiser = adamw(groups)
        self.record = _record(model, spec, clips, table, world)
        if start is not None:
            self.record["training"]["start_sha256"] = start.digest()
            if start.labels_sha256 == self.record["training"]["labels_sha256"]:
                start.load_losses(self.step.losses)
        self.identity = hashlib.sha256(json.dumps(self.record["training"], sort_keys=True).encode()).hexdigest()
        self.history: list[StepEvaluation] = []
        self.kept: list[tuple[float, int]] = []
        self.quarantined: dict[str, str] = {}
        self.recent: list[float] = []
        self.writer = _writer(logs) if logs is not None and self.accelerator.is_main_process else None

    def run(self, progress: Progress) -> TrainedModel:
        spec = self.spec
        self.folder.mkdir(parents=True, exist_ok=True)
        done = self._resume()
        network, optimiser = self.accelerator.prepare(self.step, self.optimiser)
        schedule = FreezeSchedule(spec.frozen_epochs)
        loader = batches(
            self.train_clips, self.reader, self.order, first=done * spec.accumulation,
            count=(self.steps - done) * spec.accumulation, transform=self.transform, form=self.form,
            workers=self.workers,
            rank=self.accelerator.process_index, world=self.accelerator.num_processes,
        )  # fmt: skip
        with _deterministic():
            for step in range(done + 1, self.steps + 1):
                self.step.train()
                loss = 0.0
                for micro_step in range(spec.accumulation):
                    batch = next(loader)
                    self.quarantined |= batch.failed
                    if spec.frozen_epochs:
                        schedule.apply(self.model, batch.epoch + 1)
                    last = micro_step == spec.accumulation - 1
                    # Gradients are exchanged between devices once a step.
                    together = nullcontext() if last else self.accelerator.no_sync(network)
                    with together, tf32_products(spec.precision == "tf32"):
                        loss += self._backward(network, batch) / spec.accumulation
                if not np.isfinite(loss):
                    raise self._lost(step, "the loss is no longer a number")
                norm = self._gradient_norm()
                if not np.isfinite(norm) and spec.precision != "fp16":
                    raise self._lost(step, "the gradient is no longer finite")
                factor = learning_rate_factor(step, steps=self.steps, warmup=spec.warmup, schedule=spec.schedule)
                set_learning_rates(self.optimiser, factor)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                self.recent.append(loss)
                self._log(step, {"loss": loss, "gradient_norm": norm, "learning_rate": spec.learning_rate * factor})
                if step % spec.evaluate_every == 0 or step == self.steps:
                    self._evaluate(step, spec.learning_rate * factor)
                if step % self.save_every == 0 or step == self.steps:
                    self._save(step)
                progress(step, self.steps, loss)
        self.accelerator.unwrap_model(network, keep_fp32_wrapper=False)
        if self.writer is not None:
            self.writer.close()
        return TrainedModel(
            self.model.eval(),
            tuple(self._checkpoint(step) for _, step in self.kept),
            tuple(self.history),
            dict(sorted(self.quarantined.items())),
            spec.choose == "dev",
        )

    # ------------------------------------------------------------ a step

    def _backward(self, network: nn.Module, batch: Batch) -> float:
        """Gradients of one batch, added up; its loss."""
        device = self.accelerator.device
        # Dropout and the like are drawn from the global generators.
        rank = self.accelerator.process_index
        torch.manual_seed(int(rng_for(self.spec.seed, batch.epoch, f"{batch.number}.{rank}", "torch").integers(2**62)))
        class_B = torch.from_numpy(self.class_N[batch.rows]).to(device)
        mixture_B = None if self.mixture_N is None else torch.from_numpy(self.mixture_N[batch.rows]).to(device)
        place = f"{batch.number}.{rank}"
        with self.accelerator.autocast():
            spectrograms = None if batch.spectrograms is None else batch.spectrograms.to(device)
            terms = network(batch.wave_BS.to(device), class_B, mixture_B, batch.epoch, place, spectrograms)
        loss = torch.stack(list(terms.values())).sum()
        self.accelerator.backward(loss / self.spec.accumulation)
        return float(loss.detach())

    def _gradient_norm(self) -> float:
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        limit = float("inf") if self.spec.clip_norm is None else self.spec.clip_norm
        norm = self.accelerator.clip_grad_norm_(parameters, limit)
        return 0.0 if norm is None else float(norm)

    def _lost(self, step: int, event: str) -> HarkenError:
        return HarkenError(
            f"at step {step} {event}",
            file=self.folder,
            next_step="Train with a lower learning rate, more warm-up steps, or in fp32",
        )

    # ------------------------------------------------------------ evaluation

    def _evaluate(self, step: int, learning_rate: float) -> None:
        self.step.eval()
        signals = self._signals() if self.held_clips else None
        dev: dict[str, float] = {}
        if self.dev is not None:
            with torch.inference_mode():
                dev = {name: float(value) for name, value in self.dev(self.model).items()}
        self.history.append(StepEvaluation(step, float(np.mean(self.recent)), learning_rate, signals, dev))
        self.recent = []
        if signals is not None:
            self._log(step, {f"held_out/{name}": value for name, value in asdict(signals).items()})
        self._log(step, {f"dev (tuned on test)/{name}": value for name, value in dev.items()})
        last = [row.signals for row in self.history[-PATIENCE:] if row.signals is not None]
        # What has not learned yet may begin there: it is lost if it does not move away.
        if len(last) == PATIENCE and all(item.collapsed for item in last) and last[-1].similarity >= last[0].similarity:
            raise self._lost(step, "all clips have had the same embedding for a while")
        self.kept.append((self._merit(self.history[-1]), step))
        # Of equal ones the later.
        self.kept = sorted(self.kept, key=lambda item: (-item[0], -item[1]))[: self.spec.keep]
        if self.accelerator.is_main_process and any(kept == step for _, kept in self.kept):
            header = {"step": step, "training": self.identity, "signals": asdict(signals) if signals else None,
                     "dev (tuned on test)": dev}  # fmt: skip
            write_checkpoint(self._checkpoint(step), self.model, self.step.losses, header)

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
                loss, logits_BC, embedding_BD = self.step.classify(wave_BS, class_B)
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

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    # ------------------------------------------------------------ files

    def _checkpoint(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step:08d}.safetensors"

    def _save(self, step: int) -> None:
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        header = {
            "identity": self.identity,
            "step": step,
            "history": [asdict(row) for row in self.history],
            "kept": self.kept,
            "recent": self.recent,
            "quarantined": self.quarantined,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        arrays = {
            **over(self.model.state(), "model"),
            **over(module_arrays(self.step.losses), "losses"),
            **over(optimiser_arrays(self.optimiser), "optimiser"),
        }
        write_arrays(self.folder / STATE, arrays, header)
        keep = {self._checkpoint(kept) for _, kept in self.kept}
        # Only now: a state that was written before may still name them.
        for file in self.folder.glob("checkpoint-*.safetensors"):
            if file not in keep:
                file.unlink()

    def _resume(self) -> int:
        """Steps that are done."""
        file = self.folder / STATE
        if self.accelerator.is_main_process:
            for name, content in (("training.json", self.record), ("made_with.json", _made_with())):
                text = json.dumps(content, indent=1, sort_keys=True) + "\n"
                write_atomically(self.folder / name, text.encode())
        if not file.is_file():
            return 0
        arrays, header = read_arrays(file)
        if header.get("identity") != self.identity:
            raise HarkenError(
                "is the state of another training", file=file, next_step="Delete it, or name another folder"
            )
        self.model.load_state(under(arrays, "model"))
        load_module(self.step.losses, under(arrays, "losses"))
        load_optimiser(self.optimiser, under(arrays, "optimiser"))
        self.history = [_history_of(row) for row in header["history"]]
        self.kept = [(float(merit), int(step)) for merit, step in header["kept"]]
        self.recent = list(header["recent"])
        self.quarantined = dict(header["quarantined"])
        if header["scaler"] and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(header["scaler"])
        return int(header["step"])


def _accelerator(spec: TrainingSpec) -> Accelerator:
    need("accelerate", "trainings")
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    # One process may train several times, in different precisions.
    AcceleratorState._reset_state()
    precision = "no" if spec.precision in ("fp32", "tf32") else spec.precision
    # Frozen encoders and unlabelled clips leave parameters without gradient.
    kwargs = DistributedDataParallelKwargs(find_unused_parameters=True)
    try:
        return Accelerator(mixed_precision=precision, kwargs_handlers=[kwargs])
    except ValueError as error:
        raise HarkenError(f"{spec.precision} is not available here ({error})", next_step="Train in fp32") from None


def _writer(logs: Path) -> Any:
    need("tensorboard", "logs")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(logs))


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
    listed = hashlib.sha256(json.dumps(sorted(clip.clip_id for clip in clips)).encode()).hexdigest()
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


def _made_with() -> dict[str, Any]:
    """Where a training runs; for people."""
    return {
        "harken": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def _history_of(row: dict[str, Any]) -> StepEvaluation:
    signals = row.pop("signals")
    return StepEvaluation(signals=Signals(**signals) if signals else None, **row)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Within it, torch takes only kernels that repeat themselves, where there is a choice."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
