"""The steps of every training, whatever is learned: accumulated, clipped, scheduled, logged, saved and resumed.

All randomness comes from the seed and the number of the batch, so that a training which was killed needs no generator
restored: weights, moments and the number of the step are enough to end with the same bits (on one CPU, with the same
number of threads).
"""

from __future__ import annotations

import hashlib
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harken.core.errors import HarkenError
from harken.core.extras import need
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.core.version import __version__
from harken.training.arrays import Arrays, load_optimiser, optimiser_arrays, over, under
from harken.training.augment.random_state import rng_for
from harken.training.checkpoints import read_arrays, write_arrays
from harken.training.hyperparameters import hyperparameters_summary
from harken.training.optimiser import learning_rate_factor, set_learning_rates
from harken.training.precision import tf32_products
from harken.training.recordings import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator

#: step, steps, loss of the step
Progress = Callable[[int, int, float], None]

STATE = "state.safetensors"


class StepSettings(Protocol):
    """What the steps depend on, see `TrainingSpec`."""

    @property
    def seed(self) -> int:
        """Of all that is random."""

    @property
    def accumulation(self) -> int:
        """Batches a step."""

    @property
    def learning_rate(self) -> float:
        """The full one."""

    @property
    def schedule(self) -> Literal["constant", "cosine"]:
        """Of the learning rate after the warm-up."""

    @property
    def warmup(self) -> int:
        """Steps of linear rise."""

    @property
    def clip_norm(self) -> float | None:
        """Largest norm of the gradient."""

    @property
    def evaluate_every(self) -> int:
        """Steps between evaluations."""

    @property
    def precision(self) -> Literal["fp32", "tf32", "bf16", "fp16"]:
        """Of the matrix products of a step."""


class TrainingLoop(ABC):
    """A training in a folder, which gets `training.json` with all that shaped it, `made_with.json` with versions and
    machine, on which no content may depend, and `state.safetensors` every `save_every` steps and at the end.

    A subclass sets module (what is learned, called as `losses` does), optimiser, record (all that shaped the training:
    `training` is what its weights depend on) and steps before `run_steps`.
    """

    module: nn.Module
    optimiser: torch.optim.Optimizer
    record: dict[str, Any]
    steps: int

    def __init__(self, spec: StepSettings, folder: Path, save_every: int, logs: Path | None) -> None:
        self.step_settings, self.folder, self.save_every = spec, folder, save_every
        self.accelerator = _accelerator(spec)
        self.quarantined: dict[str, str] = {}
        #: losses of the steps since the last evaluation
        self.recent: list[float] = []
        self.writer = _writer(logs) if logs is not None and self.accelerator.is_main_process else None

    # ------------------------------------------------------------ what is learned

    @abstractmethod
    def batches(self, first: int, count: int) -> Iterator[Batch]:
        """Batches number `first` to `first + count - 1` of this device."""

    @abstractmethod
    def losses(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Terms of the loss of a batch; network: `module`, as it was prepared for the devices."""

    @abstractmethod
    def evaluate(self, step: int, learning_rate: float) -> None:
        """Called every `evaluate_every` steps and at the end."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a state holds beside the optimiser's moments."""

    @abstractmethod
    def load_arrays(self, arrays: Arrays) -> None:
        """Take over what `arrays` gave."""

    @abstractmethod
    def header(self) -> dict[str, Any]:
        """JSON values of a state."""

    @abstractmethod
    def load_header(self, header: Mapping[str, Any]) -> None:
        """Take over what `header` gave."""

    def before_batch(self, batch: Batch) -> None:
        """Called before each batch passes."""

    def before_step(self, step: int) -> None:
        """Called before the optimiser's step."""

    def after_step(self, step: int) -> None:
        """Called after the optimiser's step."""

    def tidy(self) -> None:
        """Called when a state was written."""

    # ------------------------------------------------------------ steps

    @property
    def identity(self) -> str:
        """Digest of all that the weights depend on."""
        return hashlib.sha256(json_text(self.record["training"], sort_keys=True).encode()).hexdigest()

    def run_steps(self, progress: Progress) -> None:
        """All steps that are not done. Raises HarkenError for a folder of another training, and a loss or gradient that
        is no longer a number; what is in the folder stays."""
        spec = self.step_settings
        self.folder.mkdir(parents=True, exist_ok=True)
        done = self._resume()
        if self.writer is not None:
            settings = {key: value for key, value in self.record["training"].items() if not key.endswith("sha256")}
            self.writer.file_writer.add_summary(hyperparameters_summary(settings, self.identity[:8]))
        network, optimiser = self.accelerator.prepare(self.module, self.optimiser)
        loader = self.batches(done * spec.accumulation, (self.steps - done) * spec.accumulation)
        with _deterministic():
            for step in range(done + 1, self.steps + 1):
                self.module.train()
                loss = 0.0
                for micro_step in range(spec.accumulation):
                    batch = next(loader)
                    self.quarantined |= batch.failed
                    self.before_batch(batch)
                    last = micro_step == spec.accumulation - 1
                    # Gradients are exchanged between devices once a step.
                    together = nullcontext() if last else self.accelerator.no_sync(network)
                    with together, tf32_products(spec.precision == "tf32"):
                        loss += self._backward(network, batch) / spec.accumulation
                if not np.isfinite(loss):
                    raise self.lost(step, "the loss is no longer a number")
                norm = self._gradient_norm()
                if not np.isfinite(norm) and spec.precision != "fp16":
                    raise self.lost(step, "the gradient is no longer finite")
                factor = learning_rate_factor(step, steps=self.steps, warmup=spec.warmup, schedule=spec.schedule)
                set_learning_rates(self.optimiser, factor)
                self.before_step(step)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                self.after_step(step)
                self.recent.append(loss)
                self.log(step, {"loss": loss, "gradient_norm": norm, "learning_rate": spec.learning_rate * factor})
                if step % spec.evaluate_every == 0 or step == self.steps:
                    self.evaluate(step, spec.learning_rate * factor)
                if step % self.save_every == 0 or step == self.steps:
                    self._save(step)
                progress(step, self.steps, loss)
        self.accelerator.unwrap_model(network, keep_fp32_wrapper=False)
        if self.writer is not None:
            self.writer.close()

    def batch_place(self, batch: Batch) -> str:
        """Which batch of which device this is, for random numbers."""
        return f"{batch.number}.{self.accelerator.process_index}"

    def lost(self, step: int, event: str) -> HarkenError:
        """What is raised where a training cannot go on."""
        return HarkenError(
            f"at step {step} {event}",
            file=self.folder,
            next_step="Train with a lower learning rate, more warm-up steps, or in fp32",
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers for TensorBoard."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def _backward(self, network: nn.Module, batch: Batch) -> float:
        """Gradients of one batch, added up; its loss."""
        spec, place = self.step_settings, self.batch_place(batch)
        # Dropout and the like are drawn from the global generators.
        torch.manual_seed(int(rng_for(spec.seed, batch.epoch, place, "torch").integers(2**62)))
        with self.accelerator.autocast():
            terms = self.losses(network, batch)
        loss = torch.stack(list(terms.values())).sum()
        self.accelerator.backward(loss / spec.accumulation)
        return float(loss.detach())

    def _gradient_norm(self) -> float:
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        limit = float("inf") if self.step_settings.clip_norm is None else self.step_settings.clip_norm
        norm = self.accelerator.clip_grad_norm_(parameters, limit)
        return 0.0 if norm is None else float(norm)

    # ------------------------------------------------------------ files

    def _save(self, step: int) -> None:
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        header = {
            "identity": self.identity,
            "step": step,
            "recent": self.recent,
            "quarantined": self.quarantined,
            "scaler": scaler.state_dict() if scaler is not None else None,
            **self.header(),
        }
        write_arrays(
            self.folder / STATE, {**self.arrays(), **over(optimiser_arrays(self.optimiser), "optimiser")}, header
        )
        self.tidy()

    def _resume(self) -> int:
        """Steps that are done."""
        file = self.folder / STATE
        if self.accelerator.is_main_process:
            for name, content in (("training.json", self.record), ("made_with.json", _made_with())):
                text = json_text(content, indent=1, sort_keys=True) + "\n"
                write_atomically(self.folder / name, text.encode())
        if not file.is_file():
            return 0
        arrays, header = read_arrays(file)
        if header.get("identity") != self.identity:
            raise HarkenError(
                "is the state of another training", file=file, next_step="Delete it, or name another folder"
            )
        self.load_arrays(arrays)
        load_optimiser(self.optimiser, under(arrays, "optimiser"))
        self.load_header(header)
        self.recent = list(header["recent"])
        self.quarantined = dict(header["quarantined"])
        if header["scaler"] and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(header["scaler"])
        return int(header["step"])


def _accelerator(spec: StepSettings) -> Accelerator:
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


@contextmanager
def _deterministic() -> Iterator[None]:
    """Within it, torch takes only kernels that repeat themselves, where there is a choice."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # Every new tensor would be filled with NaN first, to find kernels that read what nobody wrote.
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled
