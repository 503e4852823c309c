"""What is kept of normal recordings and known faults so that a model can learn again, without their sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from harken.data.chronology import Chronology
from harken.embeddings.embedder import ClipFeatures

Float32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: where the states of the normal recordings are from: named by files, domains of DCASE names, or found in their sound
Stating = Literal["named", "domains", "found"]


@dataclass(frozen=True, eq=False)
class Basis:
    """Of (N,) normal recordings, in the order of `Training`: what learning needs beyond that.

    short_time_NE: see `ClipFeatures`. when: their order; rows are in it. stating: see `Stating`. strata_N: labels of
    those among which correlation in time is measured. keep_outliers: see `learn`. usual: kinds of defects that count as
    usual. version_N: the version that brought each one; base: that of the last fit or rebaseline. picked_N: those that
    were alarms, or suspect, when they were learned: they were chosen for their scores.
    """

    short_time_NE: Float32
    when: Chronology
    stating: Stating
    strata_N: NDArray[np.str_]
    keep_outliers: bool
    version_N: Ints
    picked_N: Bools
    base: int = 1
    usual: tuple[str, ...] = ()

    @classmethod
    def of_fit(
        cls,
        short_time_NE: Float32,
        when: Chronology,
        stating: Stating,
        strata_N: NDArray[np.str_],
        *,
        keep_outliers: bool,
        base: int = 1,
    ) -> Self:
        """Of recordings that are all learned from at once."""
        count = len(short_time_NE)
        none_N = np.zeros(count, dtype=bool)
        return cls(short_time_NE, when, stating, strata_N, keep_outliers, np.full(count, base), none_N, base)

    def of(self, rows: Sequence[int] | Ints) -> Basis:
        """That of some of the recordings."""
        kept = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            short_time_NE=self.short_time_NE[kept],
            when=self.when.of(kept),
            strata_N=self.strata_N[kept],
            version_N=self.version_N[kept],
            picked_N=self.picked_N[kept],
        )


@dataclass(frozen=True)
class Heard:
    """A recording, or window of a machine's sound, whose features are there.

    time_s: when it was recorded, in seconds since 1970; None where that is not known. recording: what it is a segment
    of; segments of one are given in order.
    """

    name: str
    features: ClipFeatures
    time_s: float | None = None
    recording: str = ""


@dataclass(frozen=True, eq=False)
class KnownFaults:
    """What is kept of recordings of faults, (F,).

    embeddings_FD, short_time_FE, steady_FB, seconds_F: as of normal ones; steady levels that are not known are nan.
    sha256s: of their files. version_F: the version that brought each one. old_F: from before the last maintenance.
    """

    names: tuple[str, ...]
    embeddings_FD: Float32
    short_time_FE: Float32
    steady_FB: Float32
    seconds_F: NDArray[np.float64]
    sha256s: tuple[str, ...]
    version_F: Ints
    old_F: Bools = field(default_factory=lambda: np.zeros(0, dtype=bool))

    @classmethod
    def of(cls, heard: Sequence[Heard], version: int) -> Self:
        """Faults that were heard."""
        features = [clip.features for clip in heard]
        return cls(
            names=tuple(clip.name for clip in heard),
            embeddings_FD=np.stack([clip.embedding for clip in features]),
            short_time_FE=np.stack([clip.short_time_D for clip in features]),
            steady_FB=np.stack([clip.steady_B for clip in features]),
            seconds_F=np.array([clip.seconds for clip in features]),
            sha256s=tuple(clip.sha256 for clip in features),
            version_F=np.full(len(features), version),
            old_F=np.zeros(len(features), dtype=bool),
        )

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, kept: Sequence[int] | Ints) -> KnownFaults:
        """Some of them."""
        chosen = np.asarray(kept, dtype=np.int64)
        return KnownFaults(
            tuple(self.names[row] for row in chosen),
            self.embeddings_FD[chosen],
            self.short_time_FE[chosen],
            self.steady_FB[chosen],
            self.seconds_F[chosen],
            tuple(self.sha256s[row] for row in chosen),
            self.version_F[chosen],
            self.old_F[chosen],
        )

    def joined(self, others: KnownFaults) -> KnownFaults:
        """These and others."""
        return KnownFaults(
            (*self.names, *others.names),
            np.concatenate([self.embeddings_FD, others.embeddings_FD]),
            np.concatenate([self.short_time_FE, others.short_time_FE]),
            np.concatenate([self.steady_FB, others.steady_FB]),
            np.concatenate([self.seconds_F, others.seconds_F]),
            (*self.sha256s, *others.sha256s),
            np.concatenate([self.version_F, others.version_F]),
            np.concatenate([self.old_F, others.old_F]),
        )

    def features(self) -> list[ClipFeatures]:
        """As of recordings, without what is not kept."""
        return [
            ClipFeatures(
                self.embeddings_FD[row],
                np.zeros((0, 0), np.uint8),
                self.short_time_FE[row],
                self.steady_FB[row] if np.isfinite(self.steady_FB[row]).all() else np.zeros(0, np.float32),
                float("nan"),
                float(self.seconds_F[row]),
                self.sha256s[row],
                (),
            )
            for row in range(len(self))
        ]
