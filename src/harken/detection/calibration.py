"""Scores to p-values and alarms at a promised rate, from held-out scores of the normal clips alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harken.core.errors import HarkenError

Float64 = NDArray[np.float64]

_PERIODS = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0, "month": 2_629_746.0, "year": 31_556_952.0}
#: share of the scores that the tail is learned from, and the least number of them
_TAIL_SHARE, _TAIL_LEAST = 0.1, 5


def parse_rate(text: str, clip_seconds: float) -> float:
    """Share of normal clips that may raise an alarm, from `0.1%`, `0.001`, `1/week` or `2/day`.

    A rate in time assumes that the machine is listened to without gaps, in clips of `clip_seconds`.
    Raises HarkenError for anything else, or a share outside (0, 0.5].
    """
    words = str(text).strip().lower()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*/\s*([a-z]+?)s?", words)
    try:
        if match and match[2] in _PERIODS:
            rate = float(match[1]) * clip_seconds / _PERIODS[match[2]]
        elif words.endswith("%"):
            rate = float(words[:-1]) / 100
        else:
            rate = float(words)
    except ValueError:
        rate = float("nan")
    if not 0 < rate <= 0.5:
        raise HarkenError(
            f"{text!r} is no rate of false alarms",
            next_step="Give a share of clips up to 50% (0.1%) or a number in a time (1/week, 2/day)",
        )
    return rate


def autocorrelation_time(values_N: ArrayLike) -> float:
    """Integrated autocorrelation time, >= 1: how many consecutive values carry the information of one.

    1 + 2 sum of autocorrelations, cut off by Geyer's (1992) initial positive sequence; on ranks, so that one
    outlier does not hide the correlation of the rest. N / this is the effective sample size.
    """
    _, inverse_N, counts = np.unique(np.asarray(values_N), return_inverse=True, return_counts=True)
    ranks_N = (np.cumsum(counts) - (counts - 1) / 2)[inverse_N]
    ranks_N -= ranks_N.mean()
    count = len(ranks_N)
    if count < 4 or not ranks_N.any():
        return 1.0
    spectrum = np.fft.rfft(ranks_N, 2 * count)
    covariance = np.fft.irfft(spectrum * spectrum.conj())[: count // 2]
    rho = covariance / covariance[0]
    # By chance alone a lag has a correlation of about 1 / sqrt(N): short sequences are taken for
    # independent unless the first lag says otherwise.
    if len(rho) < 2 or rho[1] < 2 / np.sqrt(count):
        return 1.0
    total = 0.0
    for lag in range(0, len(rho) - 1, 2):
        pair = rho[lag] + rho[lag + 1]
        if pair <= 0:
            break
        total += pair
    return float(np.clip(2 * total - 1, 1.0, count / 2))


@dataclass(frozen=True)
class Calibration:
    """Held-out scores of normal clips, and how many independent ones they are worth.

    scores: (N,) ascending. effective: N / autocorrelation time.
    """

    scores: Float64
    effective: float

    @classmethod
    def fit(cls, held_out_N: ArrayLike) -> Calibration:
        """held_out_N: one held-out score a normal clip, in recording order. Raises ValueError without any."""
        values_N = np.asarray(held_out_N, dtype=np.float64)
        if values_N.ndim != 1 or len(values_N) == 0 or not np.isfinite(values_N).all():
            raise ValueError("calibration needs finite held-out scores")
        return cls(np.sort(values_N), len(values_N) / autocorrelation_time(values_N))

    @property
    def finest(self) -> float:
        """The finest rate that the data supports: one in (effective clips + 1)."""
        return 1.0 / (self.effective + 1.0)

    def p_value(self, scores_N: ArrayLike) -> Float64:
        """Probability that a normal clip scores at least as high.

        Up to the highest held-out score, the conformal p-value (1 + #{held-out >= s}) / (N + 1) (Vovk et al. 2005),
        counted in effective clips. Beyond it an extrapolation, continuous with that: see `_tail`.
        """
        values_N = np.asarray(scores_N, dtype=np.float64)
        above_N = len(self.scores) - np.searchsorted(self.scores, values_N, side="left")
        weight = self.effective / len(self.scores)
        counted_N = (1.0 + weight * above_N) / (self.effective + 1.0)
        beyond_N = np.maximum(values_N - self.scores[-1], 0.0)
        return np.where(above_N > 0, counted_N, self.finest * self._survival(beyond_N))

    def threshold(self, rate: float) -> float:
        """The score above which p < = rate: alarms are scores strictly above it."""
        if rate >= self.finest:
            weight = self.effective / len(self.scores)
            # Alarm for p(s) <= rate, that is for at most this many held-out scores at or above s.
            allowed = int(np.floor((rate * (self.effective + 1.0) - 1.0) / weight + 1e-9))
            return float(self.scores[max(0, len(self.scores) - 1 - allowed)])
        shape, scale = self._tail()
        return float(self.scores[-1] + scale * shape * ((self.finest / rate) ** (1 / shape) - 1.0))

    def extrapolated(self, rate: float) -> bool:
        """Whether a promise of `rate` goes beyond what the data supports."""
        return rate < self.finest

    def _survival(self, beyond_N: Float64) -> Float64:
        shape, scale = self._tail()
        return (1.0 + beyond_N / (shape * scale)) ** -shape

    def _tail(self) -> tuple[float, float]:
        """Shape and scale of the tail beyond the highest held-out score.

        Excesses over a high threshold are taken for exponential; not knowing their mean, seen in k excesses, makes
        the prediction a Lomax (Pareto II) law of shape k: heavy for few clips, exponential for many.
        """
        count = len(self.scores)
        used = int(np.clip(round(_TAIL_SHARE * count), min(_TAIL_LEAST, count - 1), count - 1)) if count > 1 else 0
        if used == 0:
            return 1.0, float(abs(self.scores[-1])) or 1.0
        base = self.scores[count - used - 1]
        excess = self.scores[count - used :] - base
        shape = max(1.0, used * self.effective / count)
        # The highest score lies far out in its tail: the mean excess beyond it has grown along.
        scale = float(excess.mean()) + float(excess[-1]) / shape
        # Scores that are all equal tell nothing of their spread.
        return shape, scale or float(abs(self.scores[-1])) or 1.0
