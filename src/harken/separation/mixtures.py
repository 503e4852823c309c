"""Mixtures to learn from, each by its number: the machine and its noise, or a recording and more noise."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harken.audio.listen import Listening, listen
from harken.audio.shape import fit_length
from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip
from harken.separation.separator import LEVEL, Separator
from harken.separation.settings import SeparationSpec
from harken.separation.sounds import MachineSounds, Mode
from harken.training.augment.random_state import rng_for
from harken.training.recordings import Batch
from harken.training.settings import held_out_clips

Float32 = NDArray[np.float32]

#: decoded clips that are kept
KEPT = 128
#: places of a clip that are tried for one that is not silent
TRIES = 8
#: mean square below which a place is silent
SILENCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class MixtureBatch(Batch):
    """wave_BS: mixtures. targets_BKS: what they are the sums of."""

    targets_BKS: Tensor


class Mixtures:
    """Mixtures of machines that can be learned in one mode.

    guided: clean clips, each mixed with supplemental noise that was recorded for another machine (for any, where there
    is no other) or with what `residual` leaves of a normal clip of the machine. invariant: normal clips, each mixed
    with noise that was recorded for the machine. sample_rate: in Hz.
    Raises HarkenError where there is nothing to learn from, or no noise to mix with.
    """

    def __init__(
        self,
        sounds: Mapping[str, MachineSounds],
        mode: Mode,
        spec: SeparationSpec,
        sample_rate: int,
        residual: Separator | None = None,
    ) -> None:
        self.sounds = {key: machine for key, machine in sounds.items() if machine.mode == mode}
        self.all_sounds, self.mode, self.spec, self.residual = sounds, mode, spec, residual
        self.listening = Listening(microphones="near", single_as_near=True, mono=True, sample_rate=sample_rate)
        self.samples = round(spec.seconds * sample_rate)
        self.keys = list(self.sounds)
        self.noise = [clip for machine in sounds.values() for clip in machine.noise]
        if not self.keys:
            raise HarkenError(
                "no machine has clean clips" if mode == "guided" else "no machine has noise clips only",
                next_step="Download supplemental clips: DCASE has them since 2025",
            )
        if not self.noise:
            raise HarkenError(
                "there are clean clips, but no noise to mix them with",
                next_step="Download the supplemental noise clips of other machines too",
            )
        held = {key: held_out_clips(len(machine.clean), spec.held_out) for key, machine in self.sounds.items()}
        #: clean clips of each machine that are learned from, and that are not
        self.learned = {key: machine.clean[held[key] :] for key, machine in self.sounds.items()}
        self.held_out = {key: machine.clean[: held[key]] for key, machine in self.sounds.items()}
        self._kept: OrderedDict[str, Float32] = OrderedDict()

    def batches(self, first: int, count: int, *, rank: int = 0, world: int = 1) -> Iterator[MixtureBatch]:
        """Batches number `first` to `first + count - 1`; what comes does not depend on where one begins."""
        for number in range(first, first + count):
            failed: dict[str, str] = {}
            rows = np.arange(rank, self.spec.batch * world, world)
            pairs = [self._pair(f"{number}.{row}", failed) for row in rows]
            targets_BKS = torch.from_numpy(np.stack(pairs))
            yield MixtureBatch(number, 0, rows, targets_BKS.sum(dim=1), failed, targets_BKS=targets_BKS)

    def held_out_pairs(self, most: int = 4) -> list[Float32]:
        """(2, samples) machine and noise, of held-out clean clips, at most so many of each machine; always the same."""
        failed: dict[str, str] = {}
        pairs = []
        for key, clips in self.held_out.items():
            for clip in clips[:most]:
                try:
                    self._read(clip)
                except AudioError:
                    continue
                rng = rng_for(self.spec.seed, 0, clip.clip_id, "held out")
                pairs.append(self._mixed(self._crop([clip], rng, failed), self._noise(key, rng, failed), rng))
        return pairs

    def _pair(self, item: str, failed: dict[str, str]) -> Float32:
        """(2, samples) targets of one mixture."""
        rng = rng_for(self.spec.seed, 0, item, "mixture")
        key = self.keys[int(rng.integers(len(self.keys)))]
        machine = self.sounds[key]
        if self.mode == "invariant":
            return self._mixed(self._crop(machine.normal, rng, failed), self._crop(machine.noise, rng, failed), rng)
        clean_S = self._crop(self.learned[key], rng, failed)
        if self.residual is not None and machine.normal and rng.random() < self.spec.residual_share:
            normal_S = self._crop(machine.normal, rng, failed)
            noise_S = normal_S - self.residual.separate(normal_S[None], self.residual.sample_rate)[0]
        else:
            noise_S = self._noise(key, rng, failed)
        return self._mixed(clean_S, noise_S, rng)

    def _noise(self, key: str, rng: np.random.Generator, failed: dict[str, str]) -> Float32:
        others = [clip for name, machine in self.all_sounds.items() if name != key for clip in machine.noise]
        return self._crop(others or self.noise, rng, failed)

    def _mixed(self, first_S: Float32, second_S: Float32, rng: np.random.Generator) -> Float32:
        """The two at a random ratio, their sum at `LEVEL`."""
        ratio = 10 ** (-rng.uniform(*self.spec.snr_db) / 20)
        power, noise_power = (float(np.square(wave_S, dtype=np.float64).mean()) for wave_S in (first_S, second_S))
        gain = ratio * (power / noise_power) ** 0.5 if min(power, noise_power) > 0 else 1.0
        pair_KS = np.stack([first_S, np.float32(gain) * second_S])
        rms = float(np.square(pair_KS.sum(axis=0), dtype=np.float64).mean()) ** 0.5
        return np.asarray(pair_KS * np.float32(LEVEL / rms if rms > 0 else 1.0), dtype=np.float32)

    def _crop(self, clips: Sequence[Clip], rng: np.random.Generator, failed: dict[str, str]) -> Float32:
        """(samples,) of a random place, not a silent one if there is another; shorter clips are repeated."""
        wave_S = self._any(clips, rng, failed)
        spare = len(wave_S) - self.samples
        if spare <= 0:
            return fit_length(wave_S, self.samples)
        for start in rng.integers(spare + 1, size=TRIES):
            crop_S = wave_S[start : start + self.samples]
            if np.square(crop_S).mean() > SILENCE:
                break
        return crop_S

    def _any(self, clips: Sequence[Clip], rng: np.random.Generator, failed: dict[str, str]) -> Float32:
        first = int(rng.integers(len(clips)))
        for step in range(len(clips)):
            clip = clips[(first + step) % len(clips)]
            try:
                return self._read(clip)
            except AudioError as error:
                failed[clip.clip_id] = str(error)
        raise HarkenError(f"none of {len(clips)} clips can be used", next_step=next(iter(failed.values())))

    def _read(self, clip: Clip) -> Float32:
        if clip.clip_id not in self._kept:
            self._kept[clip.clip_id] = listen(clip.path, self.listening).wave_CS[0]
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(clip.clip_id)
        return self._kept[clip.clip_id]
