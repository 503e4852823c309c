"""Separators: a network with what it needs to take recordings of any length, rate and level apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from harken.audio.resample import resample
from harken.core.errors import HarkenError, WeightsError
from harken.core.threads import one_thread
from harken.separation.config import SepReformerConfig, config_of
from harken.separation.sepreformer import SepReformer
from harken.training.arrays import load_module, module_arrays
from harken.training.checkpoints import read_arrays, write_arrays
from harken.weights.formats import read_contents

Float32 = NDArray[np.float32]

#: RMS to which trained separators have their input brought
LEVEL = 0.1
#: sampling rate of the published checkpoints, in Hz
PUBLISHED_RATE = 8000


@dataclass(frozen=True)
class Separator:
    """A network whose first output is the machine; all others are noise.

    level: RMS to which the input is brought; None leaves it, as the published networks do. machines: for which it was
    trained. chunk_seconds: longer recordings are cut into chunks of this length, which overlap by `overlap_seconds`
    and are faded into each other.
    """

    net: SepReformer
    level: float | None = LEVEL
    machines: tuple[str, ...] = ()
    chunk_seconds: float = 12.0
    overlap_seconds: float = 1.0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sample_rate(self) -> int:
        """At which it listens, in Hz: above half of it, it hears nothing."""
        return self.net.config.sample_rate

    def to(self, device: str) -> Separator:
        """Move the network to a device."""
        self.net.to(device)
        return self

    def separate(self, wave_CS: Float32, sample_rate: int) -> Float32:
        """The machine in a recording: (channels, samples) at `sample_rate` Hz, as the input; what is left is noise.

        The machine has the level that it has in the recording: outputs are scaled such that together they are as close
        to it as can be. Channels are separated by themselves. Silence gives silence.
        """
        samples = wave_CS.shape[1]
        heard_CS = resample(wave_CS, sample_rate, self.sample_rate)
        machine_CS = resample(self._in_chunks(heard_CS), self.sample_rate, sample_rate)
        if machine_CS.shape[1] < samples:
            machine_CS = np.pad(machine_CS, [(0, 0), (0, samples - machine_CS.shape[1])])
        return np.ascontiguousarray(machine_CS[:, :samples])

    def _in_chunks(self, wave_CS: Float32) -> Float32:
        samples = wave_CS.shape[1]
        starts, length, overlap = self._chunks(samples)
        if len(starts) == 1:
            return self._machine(wave_CS)
        sum_CS, weight_S = np.zeros_like(wave_CS), np.zeros(samples, dtype=np.float32)
        for start in starts:
            stop = min(start + length, samples)
            place_S = np.arange(stop - start, dtype=np.float32) + 0.5
            # The first fades in from nothing, and the last out to nothing, at the ends of the recording.
            fade_S = np.minimum(1, np.minimum(place_S, place_S[::-1]) / overlap)
            sum_CS[:, start:stop] += fade_S * self._machine(wave_CS[:, start:stop])
            weight_S[start:stop] += fade_S
        return sum_CS / weight_S

    def _chunks(self, samples: int) -> tuple[list[int], int, int]:
        """Starts, length and overlap in samples. Frames of all chunks are those of the whole."""
        config = self.net.config
        unit = config.stride * 2**config.stages
        length = max(2, round(self.chunk_seconds * config.sample_rate / unit)) * unit
        overlap = min(max(1, round(self.overlap_seconds * config.sample_rate / unit)) * unit, length // 2)
        if samples <= length:
            return [0], samples, overlap
        starts = list(range(0, samples - length, length - overlap))
        # The last one is as long as the others, to within a unit.
        starts.append((samples - length) // unit * unit + (unit if (samples - length) % unit else 0))
        return starts, length, overlap

    def _machine(self, wave_CS: Float32) -> Float32:
        """(channels, samples) of one chunk."""
        rms_C1 = np.sqrt(np.square(wave_CS, dtype=np.float64).mean(axis=1, keepdims=True))
        gain_C1 = np.ones_like(rms_C1) if self.level is None else self.level / np.maximum(rms_C1, 1e-9)
        mixture_CS = (wave_CS * gain_C1).astype(np.float32)
        device = next(self.net.parameters()).device
        with torch.inference_mode(), one_thread():
            sources_CKS = self.net(torch.from_numpy(mixture_CS).to(device)).sources_BKS.float().cpu().numpy()
        machines = [_scaled(sources_KS, wave_S)[0] for sources_KS, wave_S in zip(sources_CKS, wave_CS, strict=True)]
        return np.stack(machines).astype(np.float32)

    def write(self, file: Path) -> None:
        """Write it as one safetensors file."""
        header = {
            "separator": self.net.config.model_dump(mode="json"),
            "level": self.level,
            "machines": list(self.machines),
            **self.metadata,
        }
        write_arrays(file, module_arrays(self.net), header)


def _scaled(sources_KS: Float32, mixture_S: Float32) -> NDArray[np.float64]:
    """Sources times the factors with which they add up to the mixture best; the smallest of such factors."""
    sources_KS = sources_KS.astype(np.float64)
    products_KK = sources_KS @ sources_KS.T
    factor_K = np.linalg.pinv(products_KK, rcond=1e-9, hermitian=True) @ (sources_KS @ mixture_S.astype(np.float64))
    return np.asarray(factor_K[:, None] * sources_KS)


def load_separator(file: str | Path, *, sample_rate: int = PUBLISHED_RATE) -> Separator:
    """Read a separator that was trained here, or a published SepReformer (`model_state_dict`).

    sample_rate: of a published one, whose file does not say it. Raises HarkenError for anything else.
    """
    file = Path(file)
    if not file.is_file():
        raise HarkenError("there is no such file", file=file, next_step="Name a separator that a run has trained")
    if _made_here(file):
        arrays, header = read_arrays(file)
        try:
            config = SepReformerConfig.model_validate(header.pop("separator"))
            net = SepReformer(config)
            load_module(net, arrays)
        except (ValidationError, RuntimeError, KeyError) as error:
            raise HarkenError(f"is damaged ({error})", file=file, next_step="Train it again") from error
        level, machines = header.pop("level", LEVEL), tuple(header.pop("machines", ()))
        return Separator(net.eval(), level, machines, metadata=header)
    tensors = read_contents(file, None).tensors
    try:
        net = SepReformer(config_of(tensors, sample_rate=sample_rate))
        load_module(net, tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise WeightsError(
            "is not a SepReformer", file=file, next_step="Give a separator that was trained here, or a published one"
        ) from error
    return Separator(net.eval(), level=None)


def _made_here(file: Path) -> bool:
    try:
        with safe_open(file, framework="numpy") as opened:
            return "separator" in (opened.metadata() or {}).get("harken", "")
    except (SafetensorError, OSError):
        return False
