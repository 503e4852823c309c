"""Recordings of the machine switched off, by which it is known to be off where its surroundings are loud."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.detection.neighbours import Bank, nearest
from harken.embeddings.embedder import ClipFeatures
from harken.monitor.normal_set import Training, listed

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: fewer recordings of the machine off do not show how much its surroundings vary
LEAST_OFF = 3
#: a recording is like those of the machine off up to so many times the largest distance between neighbours of these,
#: and up to so many dB beyond their levels
_REACH, _LEVEL_DB = 1.5, 6.0


@dataclass(frozen=True, eq=False)
class OffRecordings:
    """What is kept of recordings of the machine switched off.

    embeddings_MD: as of normal recordings. levels_db_M: dBFS; nan where unknown. names: of the files.
    """

    embeddings_MD: Float32
    levels_db_M: Float64
    names: tuple[str, ...]

    @classmethod
    def of(cls, features: Sequence[ClipFeatures], names: Sequence[str]) -> OffRecordings:
        """Raises HarkenError for fewer than `LEAST_OFF`."""
        if len(features) < LEAST_OFF:
            raise HarkenError(
                f"{len(features)} recordings of the machine switched off can be used, at least {LEAST_OFF} are needed",
                next_step="Record it switched off for longer, or leave out --off",
            )
        embeddings_MD = np.stack([clip.embedding for clip in features])
        return cls(embeddings_MD, np.array([clip.level_db for clip in features]), tuple(names))


class OffJudge:
    """Tells recordings of the machine switched off from those of it running.

    A recording is of the machine off where it is nearer to a recording of that, every dimension standardised, than to
    any normal one, not further from it than recordings of the machine off are from each other, and of their level. So
    a faulty machine that runs is not taken for one that is off unless it sounds like one.
    """

    def __init__(self, off: OffRecordings, training: Training) -> None:
        self._off, self._training = off, training
        mean_D, scale_D = training.scaling
        self._z_MD = (off.embeddings_MD - mean_D) / scale_D
        self._bank, self._normal = Bank(self._z_MD), Bank(training.standardised_ND)

    @cached_property
    def _reach(self) -> float:
        """Largest distance at which a recording is like those of the machine off."""
        itself = np.arange(len(self._z_MD))
        distances_M1 = nearest(self._z_MD, self._bank, 1, query_blocks_N=itself, bank_blocks_M=itself)[0]
        return _REACH * float(distances_M1.max())

    def is_off(self, embedding_D: Float32, level_db: float) -> bool:
        """Whether a recording with this embedding and level, dBFS, is of the machine switched off."""
        mean_D, scale_D = self._training.scaling
        z_1D = ((embedding_D - mean_D) / scale_D)[None]
        return bool(self._off_N(z_1D, np.array([level_db]), nearest(z_1D, self._normal, 1)[0][:, 0])[0])

    def _off_N(self, z_ND: Float64, levels_db_N: Float64, to_normal_N: Float64) -> NDArray[np.bool_]:
        """(N,) `is_off`; to_normal_N: distances to the nearest normal recordings."""
        distance_N = nearest(z_ND, self._bank, 1)[0][:, 0]
        off_N = (distance_N <= self._reach) & (distance_N < to_normal_N)
        levels = self._off.levels_db_M
        if np.isfinite(levels).all():
            # Of spectrograms the level is not known.
            off_N &= ~(levels_db_N < levels.min() - _LEVEL_DB) & ~(levels_db_N > levels.max() + _LEVEL_DB)
        return off_N

    def notes(self) -> list[str]:
        """What the maker of a model should know of both kinds of recordings."""
        training, names = self._training, self._off.names
        notes = [f"{len(names)} recordings of the machine switched off: what sounds like them is not judged"]
        to_normal_M = nearest(self._z_MD, self._normal, 1)[0][:, 0]
        alike = int((to_normal_M <= self._reach).sum())
        if alike:
            notes.append(
                f"{alike} of {len(names)} recordings of the machine switched off are as near to normal recordings as "
                "to each other: it can hardly be told whether the machine is on"
            )
        z_ND, itself = training.standardised_ND, np.arange(len(training.names))
        to_normal_N = nearest(z_ND, self._normal, 1, query_blocks_N=itself, bank_blocks_M=itself)[0][:, 0]
        off_N = self._off_N(z_ND, training.levels_db_N, to_normal_N)
        if off_N.any():
            odd = listed([training.names[row] for row in np.flatnonzero(off_N)])
            notes.append(f"{odd}, learned as normal, sounds like the machine switched off: is it running there?")
        return notes
