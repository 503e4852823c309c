"""Scores of recordings, with those of the same recordings separated from the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.data.clips import Clip

Float64 = NDArray[np.float64]
#: `apart`: separated clips have no part. `added`: s(x) + s(separated x), plainly, as in the report of USTC, DCASE 2025
#: Task 2, section 2.3. `standardised`: both in deviations of their held-out scores of training recordings; ours.
Separated = Literal["apart", "added", "standardised"]


def separated_of(clips: Sequence[Clip]) -> dict[str, str]:
    """Id of the separated clip of each recording that has one. Raises HarkenError for two of one recording."""
    partner_of: dict[str, str] = {}
    for clip in clips:
        if clip.kind == "separated" and clip.parents:
            if clip.parents[0] in partner_of:
                raise HarkenError(
                    f"{clip.parents[0]} has two separated clips", next_step="Name one separate stage under from"
                )
            partner_of[clip.parents[0]] = clip.clip_id
    return partner_of


@dataclass(frozen=True, eq=False)
class BothScores:
    """Scores of recordings, (N,), and of their separated clips, (N,), NaN where there is none.

    A recording without a separated clip counts twice, so that all of a section are sums of two.
    """

    recorded_N: Float64
    separated_N: Float64

    @classmethod
    def of(cls, clip_ids: Sequence[str], score_of: Mapping[str, float], partner_of: Mapping[str, str]) -> BothScores:
        """score_of: of recordings and of separated clips, by id."""
        missing = float("nan")
        return cls(
            np.array([score_of[clip_id] for clip_id in clip_ids]),
            np.array([score_of.get(partner_of.get(clip_id, ""), missing) for clip_id in clip_ids]),
        )

    @property
    def lacking(self) -> int:
        """Recordings without a separated clip."""
        return int(np.isnan(self.separated_N).sum())

    def joined(self, how: Separated, held_out: BothScores) -> Float64:
        """(N,) sums; `held_out`: scores of training recordings, in whose deviations `standardised` counts."""
        recorded_N = self.recorded_N
        separated_N = self.separated_N
        if how == "standardised":
            recorded_N = _in_deviations(recorded_N, held_out.recorded_N)
            separated_N = _in_deviations(separated_N, held_out.separated_N)
        return recorded_N + np.where(np.isnan(separated_N), recorded_N, separated_N)


def _in_deviations(scores_N: Float64, held_out_S: Float64) -> Float64:
    finite_S = held_out_S[np.isfinite(held_out_S)]
    if not len(finite_S):
        return scores_N
    return np.asarray((scores_N - finite_S.mean()) / (finite_S.std() or 1.0))
