"""Alarms from several clips together: an e-detector on the ranks of their scores among those of normal clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harken.detection.calibration import Calibration

Float64 = NDArray[np.float64]

#: exponent of the bet against p-values; with `CONFIDENCE` chosen on splits of twelve machines (`benchmarks/alarms.py`)
BET = 0.3
#: share of sets of normal clips for which the rate of episodes holds
CONFIDENCE = 0.99
#: evidence is kept below this during an episode, so that it ends soon after the machine is normal again
HELD_EVIDENCE = 20.0
#: the test is supported by so many effective normal clips, if it needs at most so many clips until an alarm
LEAST_EFFECTIVE, MOST_CLIPS = 4.0, 1000
_DRAWS, _CHUNK = 2000, 50


@dataclass(frozen=True)
class Evidence:
    """State between two clips; serialisable, so that a later call can go on.

    value: Shiryaev-Roberts statistic. alarm: an episode is on. clips: judged so far. onset: number of the clip, from 0,
    at which the change most likely began. ratio: evidence since the onset. pending, pending_clips: e-values of the
    present block, summed, and their number.
    """

    value: float = 0.0
    alarm: bool = False
    clips: int = 0
    onset: int = 0
    ratio: float = 0.0
    pending: float = 0.0
    pending_clips: int = 0

    def to_json(self) -> dict[str, float | int | bool]:
        """Fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Evidence:
        """Inverse of `to_json`. Raises ValueError for missing, unknown, negative and non-numeric fields."""
        if set(values) != {field.name for field in fields(cls)}:
            raise ValueError(f"expected the fields {', '.join(field.name for field in fields(cls))}")
        for name, value in values.items():
            wanted = type(getattr(cls(), name))
            accepted = (int, float) if wanted is float else (wanted,)
            if type(value) not in accepted or not 0 <= float(value) < np.inf:  # type: ignore[arg-type]
                raise ValueError(f"{name} is {value!r}, not a {wanted.__name__} of at least 0")
        return cls(**values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class EDetector:
    """Sequential test whose rate is one of alarm *episodes*, without a law of the tail.

    Each clip has an e-value e >= 0 with mean at most 1 while the machine is normal. The Shiryaev-Roberts e-detector
    (Shin, Ramdas and Rinaldo, arXiv 2203.03532, section 2.3)

        R_t = (1 + R_{t-1}) e_t,    alarm at R_t >= 1 / rate,

    has R_t - t a supermartingale, so that the mean number of clips until a false alarm is at least 1 / rate.

    e-values: e(p) = k p^(k-1) of the conformal p-value (Vovk and Wang 2021, calibrator of section 2), a function e_j of
    the rank j = 1 .. N + 1 of the score among the N held-out scores. Marginally, E[e] <= 1; with one set of normal
    clips for all clips to come, what counts is E[e | set] = sum_j e_j D_j, where D, the probabilities between the
    ordered scores, is uniform on the simplex, Dirichlet(1, ..., 1), for any continuous law of the scores. So the e_j
    are divided by the quantile `confidence` of that sum: for that share of sets of normal clips, the bound on false
    episodes holds for the set. This is calibration-conditional as in Bates et al. (2023), for the one
    sum that is needed instead of all p-values at once. With at least n < N effective clips, D is
    Dirichlet(a, ..., a) with a = (n + 1) / (N + 1).

    block: number of consecutive clips that may be correlated. The mean of their e-values is an e-value however they
    depend on each other; it enters R once per block, and the alarm level is 1 / (rate block).

    After an alarm the statistic is kept at most `HELD_EVIDENCE`; the episode ends where it falls below 1 and the test
    begins anew.

    rate: false episodes per clip. Raises ValueError unless 0 < rate < 1, 0 < bet < 1, 0 <= confidence < 1 (0: the
    bound holds on average over sets only), block >= 1.
    """

    calibration: Calibration
    rate: float
    block: int = 1
    bet: float = BET
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        if not (0 < self.rate < 1 and 0 < self.bet < 1 and 0 <= self.confidence < 1 and self.block >= 1):
            raise ValueError("0 < rate < 1, 0 < bet < 1, 0 <= confidence < 1 and block >= 1 are needed")

    @property
    def level(self) -> float:
        """Statistic at which an alarm is raised."""
        return max(1.0, 1.0 / (self.rate * self.block))

    @cached_property
    def rank_values(self) -> Float64:
        """(N + 1,) e-value of a clip with 0, 1, ..., N held-out scores at or above its own."""
        cells = len(self.calibration.scores) + 1
        values = self.bet * (np.arange(1, cells + 1) / cells) ** (self.bet - 1.0)
        values /= values.mean()
        if self.confidence == 0:
            return values
        rng = np.random.default_rng(0)
        concentration = (self.calibration.least_effective + 1.0) / cells
        means = []
        for _ in range(_DRAWS // _CHUNK):
            weights = rng.standard_gamma(concentration, size=(_CHUNK, cells))
            means.append((weights @ values) / np.maximum(weights.sum(axis=1), 1e-300))
        return np.asarray(values / max(1.0, float(np.quantile(np.concatenate(means), self.confidence))))

    def e_values(self, scores_N: ArrayLike) -> Float64:
        """(N,) e-values of the scores of clips."""
        scores = self.calibration.scores
        return self.rank_values[len(scores) - np.searchsorted(scores, np.asarray(scores_N), side="left")]

    @property
    def supported(self) -> bool:
        """Whether the normal clips are enough for the rate: of `LEAST_EFFECTIVE`, with an alarm in `MOST_CLIPS`."""
        return self.calibration.least_effective >= LEAST_EFFECTIVE and self.fewest_clips <= MOST_CLIPS

    @property
    def fewest_clips(self) -> int:
        """Clips until an alarm when each scores above every normal clip; the shortest delay there is."""
        value, highest, blocks = 0.0, float(self.rank_values[0]), 0
        if highest <= 1.0:
            return int(np.ceil(self.level)) * self.block
        while value < self.level:
            value, blocks = (1.0 + value) * highest, blocks + 1
        return blocks * self.block

    def update(self, evidence: Evidence, *scores: float) -> Evidence:
        """State after one more clip, or several that count as one: the mean of e-values is one, however they depend.

        Raises ValueError without a score, and for one that is not finite.
        """
        if not scores or not np.isfinite(scores).all():
            raise ValueError("the score of a clip must be finite")
        return self.advance(evidence, float(self.e_values(scores).mean()))

    def advance(self, evidence: Evidence, e_value: float) -> Evidence:
        """State after one more clip of this e-value."""
        clips, total = evidence.clips + 1, evidence.pending + e_value
        if evidence.pending_clips + 1 < self.block:
            return replace(evidence, clips=clips, pending=total, pending_clips=evidence.pending_clips + 1)
        e_value = total / self.block  # of the block
        # As in CUSUM: the change most likely began after the last block up to which nothing spoke for one.
        onset, ratio = (evidence.onset, evidence.ratio) if evidence.ratio > 1 else (clips - self.block, 1.0)
        value, ratio = (1.0 + evidence.value) * e_value, min(ratio * e_value, 1e300)
        if not evidence.alarm:
            alarm = value >= self.level
            return Evidence(min(value, HELD_EVIDENCE) if alarm else value, alarm, clips, onset, ratio)
        if value < 1:
            return Evidence(clips=clips, onset=clips)
        # The onset stays that of the episode.
        return Evidence(min(value, HELD_EVIDENCE), True, clips, evidence.onset, ratio)

    def run(self, scores_N: ArrayLike, evidence: Evidence = Evidence()) -> Iterator[Evidence]:
        """States after each of the clips, in order of time."""
        for score in np.asarray(scores_N, dtype=np.float64):
            evidence = self.update(evidence, float(score))
            yield evidence
