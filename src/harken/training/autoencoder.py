"""Training of the DCASE Task 2 autoencoder (Harada et al., EUSIPCO 2023): bitwise repeatable and resumable.

All randomness comes from (seed, turn) pairs: the split is turn 0, epoch e is turn e. Resuming therefore needs weights,
optimiser and the number of the last epoch, but no state of a generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor
from torch.nn import functional as F

from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.core.threads import torch_threads
from harken.encoders.autoencoder import Autoencoder
from harken.training.arrays import load_module, load_optimiser, module_arrays, optimiser_arrays, over, under
from harken.training.settings import STACK, VALIDATION

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Ints = NDArray[np.int64]
#: called after each epoch with its number, the number of epochs, training loss and validation loss
Progress = Callable[[int, int, float, float], None]


@dataclass(frozen=True)
class AutoencoderSettings:
    """Hyper-parameters; the defaults are those of the baseline."""

    epochs: int = 100
    batch: int = 256
    learning_rate: float = 1e-3
    seed: int = 13711


@dataclass(frozen=True)
class TrainedAutoencoder:
    """A trained network in evaluation mode, and its losses.

    train_rows, valid_rows: indices of training and validation vectors. history: (epochs, 2) training and validation
    loss, means over batches. batch_losses: loss of each training batch during the last epoch, then of each validation
    batch after it.
    """

    network: Autoencoder
    train_rows: Ints
    valid_rows: Ints
    history: Float64
    batch_losses: Float64


def check_clips(clips: Sequence[NDArray[np.floating]] | NDArray[np.floating]) -> None:
    """Raise ValueError without clips, and for a clip that is not (frames, D), shorter than `STACK` or not finite."""
    if len(clips) == 0:
        raise ValueError("no clips")
    for number, clip in enumerate(clips):
        if clip.ndim != 2 or clip.shape[1] == 0 or clip.shape[1] != clips[0].shape[1]:
            raise ValueError(f"clip {number}: expected (frames, {clips[0].shape[-1]}), got {clip.shape}")
        if len(clip) < STACK:
            raise ValueError(f"clip {number} has {len(clip)} frames; {STACK} are needed")
        if not np.isfinite(clip).all():
            raise ValueError(f"clip {number} is not finite")


class StackedFrames:
    """Frames of clips as vectors of `STACK` consecutive frames, the earliest first.

    Vectors are ordered by clip and time, and do not cross clips. Frames are stored once; vectors are made on access.

    clips: (frames, D) each; see `check_clips`.
    """

    def __init__(self, clips: Sequence[NDArray[np.floating]] | NDArray[np.floating]) -> None:
        check_clips(clips)
        frames_FD = np.concatenate([np.asarray(clip, dtype=np.float32) for clip in clips])
        vectors_N = np.array([len(clip) - STACK + 1 for clip in clips])
        self.bands = frames_FD.shape[1]
        #: first vector of each clip, and the number of vectors
        self.bounds = np.concatenate([[0], np.cumsum(vectors_N)])
        #: clip of each vector
        self.clip_V = np.repeat(np.arange(len(clips)), vectors_N)
        # Each preceding clip has STACK - 1 more frames than vectors.
        self._start_V = torch.from_numpy(np.arange(self.bounds[-1]) + (STACK - 1) * self.clip_V)
        self._frames = torch.from_numpy(frames_FD)
        # A view whose row t is frames t .. t + STACK - 1.
        shape = (len(frames_FD) - STACK + 1, STACK * self.bands)
        self._view_FX = self._frames.view(-1).as_strided(shape, (self.bands, 1))

    def __len__(self) -> int:
        return len(self.clip_V)

    def vectors(self, rows: Ints) -> Tensor:
        """(rows, STACK * D) vectors."""
        return self._view_FX.index_select(0, self._start_V[torch.from_numpy(rows)])

    def clip(self, number: int) -> Tensor:
        """(vectors, STACK * D) vectors of a clip."""
        return self.vectors(np.arange(self.bounds[number], self.bounds[number + 1]))

    def digest(self) -> str:
        """SHA-256 of frames and clip boundaries."""
        digest = hashlib.sha256(self._frames.numpy().data)
        digest.update(self.bounds.astype("<i8").tobytes())
        return digest.hexdigest()


def batches(rows: Ints, size: int) -> list[Ints]:
    """`rows` in batches of `size`; the last may be smaller."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def shuffled(rows: Ints, seed: int, turn: int) -> Ints:
    """`rows` in an order that depends only on `seed` and `turn`."""
    return np.random.default_rng([seed, turn]).permutation(rows)


def train(
    stacked: StackedFrames,
    settings: AutoencoderSettings,
    *,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    every: int = 10,
) -> TrainedAutoencoder:
    """Adam on the mean squared error over shuffled vectors; batches of one vector are skipped.

    checkpoint: file written every `every` epochs and at the end; if it exists, training resumes from it, with bitwise
        the same weights as without interruption. It is kept after training.
    Raises ValueError for fewer than three vectors, HarkenError for a checkpoint of another training.
    """
    if len(stacked) < 3:
        raise ValueError(f"{len(stacked)} vectors are too few to train on")
    order = shuffled(np.arange(len(stacked)), settings.seed, 0)
    held_out = int(np.ceil(VALIDATION * len(order)))
    valid_rows, train_rows = order[:held_out], order[held_out:]
    identity = f"{asdict(settings)} {stacked.digest()}" if checkpoint else ""
    with torch_threads(1):
        network = Autoencoder(STACK * stacked.bands, seed=settings.seed)
        optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, fused=True)
        history, losses = np.empty((0, 2)), np.empty(0)
        if checkpoint and checkpoint.exists():
            history, losses = _restore(checkpoint, identity, network, optimiser)
        for epoch in range(len(history) + 1, settings.epochs + 1):
            rows = shuffled(train_rows, settings.seed, epoch)
            train_losses = _one_epoch(network, optimiser, stacked, batches(rows, settings.batch))
            valid_losses = _losses(network, stacked, batches(valid_rows, settings.batch))
            losses = np.array(train_losses + valid_losses)
            history = np.vstack([history, [np.mean(train_losses), np.mean(valid_losses)]])
            if checkpoint and (epoch % every == 0 or epoch == settings.epochs):
                _store(checkpoint, identity, network, optimiser, history, losses)
            if progress:
                progress(epoch, settings.epochs, *history[-1].tolist())
    return TrainedAutoencoder(network.eval(), train_rows, valid_rows, history, losses)


def _one_epoch(
    network: Autoencoder, optimiser: torch.optim.Optimizer, stacked: StackedFrames, batch_rows: list[Ints]
) -> list[float]:
    network.train()
    losses = []
    for rows in batch_rows:
        if len(rows) == 1:  # batch normalisation needs a variance
            continue
        x_BX = stacked.vectors(rows)
        optimiser.zero_grad(set_to_none=True)
        loss = F.mse_loss(network(x_BX), x_BX)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    return losses


def _losses(network: Autoencoder, stacked: StackedFrames, batch_rows: list[Ints]) -> list[float]:
    network.eval()
    with torch.inference_mode():
        return [F.mse_loss(network(x_BX), x_BX).item() for x_BX in map(stacked.vectors, batch_rows)]


def _store(
    path: Path,
    identity: str,
    network: Autoencoder,
    optimiser: torch.optim.Optimizer,
    history: Float64,
    losses: Float64,
) -> None:
    arrays = {**over(module_arrays(network), "network"), **over(optimiser_arrays(optimiser), "optimiser")}
    arrays |= {"history": history, "losses": losses}
    write_atomically(path, save(arrays, metadata={"training": identity}))


def _restore(
    path: Path, identity: str, network: Autoencoder, optimiser: torch.optim.Optimizer
) -> tuple[Float64, Float64]:
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("training") != identity:
                raise HarkenError("checkpoint of another training", file=path, next_step="Delete it or use another")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise HarkenError(f"checkpoint cannot be read: {error}", file=path, next_step="Delete it") from error
    load_module(network, under(arrays, "network"))
    load_optimiser(optimiser, under(arrays, "optimiser"))
    return arrays["history"], arrays["losses"]
