"""Calibrates scores to p-values and thresholds at a given false-alarm rate, from held-out scores of normal clips."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harken.detection.tail import USUAL_TAIL, Tail, TailForm, fit_tail

Float64 = NDArray[np.float64]

#: fewer independent recordings than this, of many that are alike in time, hardly show how high normal scores get
FEW_INDEPENDENT = 20
#: a threshold has power up to this height (see `Calibration.height`)
POWERFUL_HEIGHT = 1.5


class AutocorrelationTime(NamedTuple):
    """Consecutive values per independent one: the estimate, and a bound that it is below with about 98 % confidence."""

    estimate: float
    bound: float


def autocorrelation_time(
    values_N: ArrayLike, sequences_N: ArrayLike | None = None, states_N: ArrayLike | None = None
) -> AutocorrelationTime:
    """Integrated autocorrelation time of (N,) values, >= 1.

    sequences_N, states_N: labels, see `find_blocks`: values are in chronological order within each sequence, and
    compared with those of their state only.

    1 + 2 sum of autocorrelations, truncated by Geyer's (1992) initial positive sequence; on ranks, so that one
    outlier does not mask the correlation. N divided by it is the effective sample size. With M lags in the sum, the
    estimate has a relative standard deviation of sqrt((4 M + 2) / N) (Madras and Sokal 1988, equation 2.19); two of
    them make the bound, which short sequences need, since their estimate is too low.
    """
    values = np.asarray(values_N)
    count = len(values)
    state_N = label_codes(count, states_N)
    place_N = label_codes(count, sequences_N) * (int(state_N.max(initial=0)) + 1) + state_N
    ranks_N = np.empty(count)
    for state in np.unique(state_N):
        ranks_N[state_N == state] = _centred_ranks(values[state_N == state])
    # Equal values have ranks of 0 but for rounding.
    if count < 4 or np.abs(ranks_N).max() < 1e-9:
        return AutocorrelationTime(1.0, 1.0)
    covariance = np.zeros(count // 2)
    for place in np.unique(place_N):
        of_place = ranks_N[place_N == place]
        spectrum = np.fft.rfft(of_place, 2 * len(of_place))
        lags = min(len(of_place), count // 2)
        covariance[:lags] += np.fft.irfft(spectrum * spectrum.conj(), 2 * len(of_place))[:lags]
    rho = covariance / covariance[0]
    # By chance a lag has a correlation of about 1 / sqrt(N): short sequences are assumed independent
    # unless the first lag is significant.
    if len(rho) < 2 or rho[1] < 2 / np.sqrt(count):
        return AutocorrelationTime(1.0, 1.0)
    total, lag = 0.0, 0
    for lag in range(0, len(rho) - 1, 2):
        pair = rho[lag] + rho[lag + 1]
        if pair <= 0:
            break
        total += pair
    estimate = float(np.clip(2 * total - 1, 1.0, count / 2))
    return AutocorrelationTime(estimate, min(float(count), estimate * (1 + 2 * np.sqrt((4 * lag + 2) / count))))


def label_codes(count: int, labels_N: ArrayLike | None) -> NDArray[np.int64]:
    """Labels as numbers from 0; all 0 for None."""
    if labels_N is None:
        return np.zeros(count, dtype=np.int64)
    return np.asarray(np.unique(np.asarray(labels_N), return_inverse=True)[1], dtype=np.int64)


def _centred_ranks(values_N: NDArray[Any]) -> Float64:
    """Ranks / N with mean 0; equal values share theirs."""
    _, inverse_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    ranks_N = ((np.cumsum(counts) - (counts - 1) / 2)[inverse_N]) / len(values_N)
    return np.asarray(ranks_N - ranks_N.mean())


@dataclass(frozen=True)
class Calibration:
    """Held-out scores of normal clips and their effective sample size.

    scores: (N,) ascending. effective: N / autocorrelation time. least_effective: the same with its bound. form: of the
    tail of such scores.
    """

    scores: Float64
    effective: float
    least_effective: float
    form: TailForm = USUAL_TAIL

    @classmethod
    def fit(
        cls,
        held_out_N: ArrayLike,
        sequences_N: ArrayLike | None = None,
        states_N: ArrayLike | None = None,
        form: TailForm = USUAL_TAIL,
    ) -> Calibration:
        """From held-out scores (N,) of normal clips, in chronological order within each sequence.

        sequences_N, states_N: see `autocorrelation_time`. Raises ValueError if there are none or not all are finite.
        """
        values_N = np.asarray(held_out_N, dtype=np.float64)
        if values_N.ndim != 1 or len(values_N) == 0 or not np.isfinite(values_N).all():
            raise ValueError("calibration needs finite held-out scores")
        time = autocorrelation_time(values_N, sequences_N, states_N)
        return cls(np.sort(values_N), len(values_N) / time.estimate, len(values_N) / time.bound, form)

    def worth(self, independent: float) -> Calibration:
        """The same of clips that are worth so many independent ones, where these are few: `FEW_INDEPENDENT`."""
        if independent >= FEW_INDEPENDENT:
            return self
        effective = min(self.effective, independent)
        return replace(self, effective=effective, least_effective=min(self.least_effective, effective))

    @classmethod
    def independent(cls, held_out_N: ArrayLike, form: TailForm = USUAL_TAIL) -> Calibration:
        """From held-out scores (N,) of normal clips that are independent of each other."""
        values_N = np.sort(np.asarray(held_out_N, dtype=np.float64))
        return cls(values_N, float(len(values_N)), float(len(values_N)), form)

    @property
    def finest(self) -> float:
        """Lowest false-alarm rate the data supports: 1 / (effective clips + 1)."""
        return 1.0 / (self.effective + 1.0)

    @cached_property
    def tail(self) -> Tail:
        """Law of the highest fifth of the scores."""
        return fit_tail(self.scores, self.effective, self.form)

    def p_value(self, scores_N: ArrayLike) -> Float64:
        """(N,) probability that a normal clip scores at least as high.

        Below the tail, the conformal p-value (1 + #{held-out >= s}) / (N + 1) (Vovk et al. 2005) with the effective
        number of clips. In the tail, among the highest held-out scores and above all, that of `tail`: a law fitted to
        many scores varies less than the number of the few that are higher.
        """
        values_N = np.asarray(scores_N, dtype=np.float64)
        above_N = len(self.scores) - np.searchsorted(self.scores, values_N, side="left")
        weight = self.effective / len(self.scores)
        counted_N = (1.0 + weight * above_N) / (self.effective + 1.0)
        return np.where(values_N <= self.tail.base, counted_N, self.tail.survival(values_N))

    def threshold(self, rate: float) -> float:
        """Score above which p <= rate: alarms are scores strictly above it. Inverse of `p_value` in the tail."""
        if rate < self.tail.share:
            return self.tail.quantile(rate)
        weight = self.effective / len(self.scores)
        # p(s) <= rate holds for at most this many held-out scores at or above s.
        allowed = int(np.floor((rate * (self.effective + 1.0) - 1.0) / weight + 1e-9))
        return float(self.scores[max(0, len(self.scores) - 1 - allowed)])

    def unsupported(self, rate: float) -> bool:
        """Whether clips that are alike in time are worth too few independent ones for `rate`: fewer than
        `FEW_INDEPENDENT`, of which less than two are expected above the threshold.

        The rate of new recordings may then be several times as high (`python benchmarks/calibration.py --few`).
        """
        few = self.effective < min(FEW_INDEPENDENT, 0.5 * len(self.scores))
        return few and rate * (self.effective + 1.0) < 2.0

    def extrapolated(self, rate: float) -> bool:
        """Whether `rate` is lower than the data supports (`finest`)."""
        return rate < self.finest

    def height(self, rate: float) -> float:
        """How far above the median the threshold of `rate` stands, in units of the highest normal score heard.

        1: at the highest held-out score. 2: twice as far above the median as that. inf where all scores are equal.
        """
        reach = self._reach
        return (self.threshold(rate) - self._median) / reach if reach > 0 else float("inf")

    @property
    def finest_with_power(self) -> float:
        """Lowest rate whose threshold stands at most at the height `POWERFUL_HEIGHT`.

        At lower rates, most faults that are louder than every normal clip heard are missed all the same. 1 where all
        scores are equal.
        """
        return float(self.p_value(self._median + POWERFUL_HEIGHT * self._reach))

    @property
    def _median(self) -> float:
        return float(np.median(self.scores))

    @property
    def _reach(self) -> float:
        """From the median to the highest score; of scores in steps at least one."""
        return max(float(self.scores[-1]) - self._median, self.form.step)
