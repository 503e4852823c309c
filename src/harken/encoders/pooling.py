"""Frame-level features of a clip -> one vector.

A pooling is spelled `part+part+...`, the parts' vectors one after the other. A part is a statistic over time, with
parameters behind colons:

    mean, std, max        of each dimension
    variation             mean |x(t + lag) - x(t)| for lags of 1, 2 and 4 frames
    gem:P                 generalised mean of power P (default 3)
    rdp:GAMMA             relative deviation pooling (default 19)
    rdpgem:GAMMA:P        generalised mean under the weights of relative deviation pooling (default 16, 3)
    cls                   the class tokens themselves, for encoders that have some

`bands:` in front of it all pools each frequency band of patch tokens on its own: `bands:rdp:19+max`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harken.core.numbers import read_number

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: lags of `variation`, in frames
LAGS = (1, 2, 4)

_BANDS = "bands:"
_CLS = "cls"
# Beside the mean deviation, so that a clip whose frames are all alike is no division by zero.
_EPS = 1e-12


def _mean(frames_TD: Float32) -> Float64:
    return np.asarray(frames_TD.mean(axis=0, dtype=np.float64))


def _std(frames_TD: Float32) -> Float64:
    return np.asarray(frames_TD.std(axis=0, dtype=np.float64))


def _max(frames_TD: Float32) -> Float32:
    return np.asarray(frames_TD.max(axis=0))


def _variation(frames_TD: Float32, patch_bands: int) -> Float64:
    """First-order structure function: mean |x(t + lag) - x(t)| for each lag.

    It depends on how fast a band fluctuates (roughness, rattle, modulation), which mean and deviation do not,
    and does not change with the recording level. A clip with fewer frames than a lag reads zero there.
    Of patch tokens, those of one frequency band are compared.
    """
    means = []
    for lag in LAGS:
        step = lag * patch_bands
        if len(frames_TD) > step:
            means.append(np.abs(frames_TD[step:] - frames_TD[:-step]).mean(axis=0, dtype=np.float64))
        else:
            means.append(np.zeros(frames_TD.shape[1]))
    return np.concatenate(means)


def _weighted(values_TD: Float64, weights_T: Float64) -> Float64:
    # No matrix product: its bits may depend on the number of threads.
    return np.asarray(np.sum(weights_T[:, None] * values_TD, axis=0))


def _power_mean(frames_TD: Float32, weights_T: Float64, power: float) -> Float64:
    """Generalised mean (GeM; Radenovic et al., TPAMI 2019, eq. 3): (sum_t w_t max(x_t, 0)^P)^(1/P).

    P = 1 is the mean of what is positive, P -> infinity its maximum.
    """
    positive_TD = np.maximum(frames_TD, 0).astype(np.float64)
    # The largest is taken out, so that no power over- or underflows.
    top_D = positive_TD.max(axis=0)
    share_TD = positive_TD / np.where(top_D > 0, top_D, 1.0)
    return np.asarray(top_D * _weighted(share_TD**power, weights_T) ** (1.0 / power))


def _deviation_weights(frames_TD: Float32, gamma: float) -> Float64:
    """Weights of relative deviation pooling (Wilkinghoff, Yadav and Tan, arXiv 2603.04605), which sum to one.

    d_t = |x_t - mean x|,  w = softmax_t(gamma d_t / (mean d + eps)): the more a frame deviates from the clip's mean,
    compared with the others, the more it counts. gamma = 0 weighs all alike. Best in that paper: 19 for BEATs, 20 for
    Dasheng, 10 for OpenL3, 1 for EAT; 16 for BEATs where it is combined with a generalised mean of power 3.
    """
    wide_TD = frames_TD.astype(np.float64)
    deviation_T = np.sqrt(np.sum((wide_TD - wide_TD.mean(axis=0)) ** 2, axis=1))
    exponent_T = gamma * deviation_T / (deviation_T.mean() + _EPS)
    weights_T = np.exp(exponent_T - exponent_T.max())
    return np.asarray(weights_T / weights_T.sum())


def _gem(frames_TD: Float32, power: float) -> Float64:
    return _power_mean(frames_TD, np.full(len(frames_TD), 1.0 / len(frames_TD)), power)


def _rdp(frames_TD: Float32, gamma: float) -> Float64:
    return _weighted(frames_TD.astype(np.float64), _deviation_weights(frames_TD, gamma))


def _rdpgem(frames_TD: Float32, gamma: float, power: float) -> Float64:
    return _power_mean(frames_TD, _deviation_weights(frames_TD, gamma), power)


@dataclass(frozen=True)
class _Statistic:
    """pool: of frames and one number a parameter. parameters: name, default and lowest value of each.

    in_order: `pool` gets the number of frequency bands too, as it looks at which frame follows which.
    """

    pool: Callable[..., Float32 | Float64]
    parameters: tuple[tuple[str, float, float], ...] = ()
    in_order: bool = False


_GAMMA, _POWER = ("gamma", 19.0, 0.0), ("power", 3.0, 1e-3)
_POOLINGS = {
    "mean": _Statistic(_mean),
    "std": _Statistic(_std),
    "max": _Statistic(_max),
    "variation": _Statistic(_variation, in_order=True),
    "gem": _Statistic(_gem, (_POWER,)),
    "rdp": _Statistic(_rdp, (_GAMMA,)),
    "rdpgem": _Statistic(_rdpgem, (("gamma", 16.0, 0.0), _POWER)),
}


def list_poolings() -> tuple[str, ...]:
    """Names of all statistics over time; see the module for how they are joined. `cls` is none of them."""
    return tuple(_POOLINGS)


def check_pooling(pooling: str, *, cls_tokens: int | None = None) -> None:
    """Raise ValueError, naming the part that is wrong, unless `pool` understands `pooling`.

    cls_tokens: class tokens of the encoder, where that is known.
    """
    terms = pooling.removeprefix(_BANDS).split("+")
    for term in terms:
        if term != _CLS:
            _arguments(term)
    if pooling.startswith(_BANDS) and _CLS in terms:
        raise ValueError(f"{pooling!r}: a class token has no frequency bands")
    if _CLS in terms and cls_tokens == 0:
        raise ValueError(f"{pooling!r}: there is no class token to pool")


def pool(frames_TD: Float32, pooling: str, *, cls_tokens: int = 0, patch_bands: int = 1) -> Float32:
    """(frames, dimensions) -> (P,) float32, the named statistics one after the other, each in order of D.

    cls_tokens: this many leading rows are class tokens, which only `cls` reads: they are no frames.
    patch_bands: tokens are patches of this many frequency bands, in order of time and within one time in order of
        frequency. `bands:` pools each band on its own and puts the bands' vectors one after the other, lowest first;
        otherwise patches of all bands are pooled together.
    Raises ValueError for an unknown pooling, and for rows that are not as `cls_tokens` and `patch_bands` say.
    """
    check_pooling(pooling, cls_tokens=cls_tokens)
    if cls_tokens < 0 or patch_bands < 1:
        raise ValueError("cls_tokens >= 0 and patch_bands >= 1")
    tokens_CD, patches_TD = frames_TD[:cls_tokens], frames_TD[cls_tokens:]
    if len(patches_TD) == 0:
        raise ValueError("no frames to pool")
    if len(patches_TD) % patch_bands:
        raise ValueError(f"{len(patches_TD)} patches are not whole columns of {patch_bands} frequency bands")
    terms = pooling.removeprefix(_BANDS).split("+")
    if pooling.startswith(_BANDS):
        vectors = [_statistic(patches_TD[band::patch_bands], term) for band in range(patch_bands) for term in terms]
    else:
        vectors = [tokens_CD.ravel() if term == _CLS else _statistic(patches_TD, term, patch_bands) for term in terms]
    return np.concatenate(vectors)


def _statistic(frames_TD: Float32, term: str, patch_bands: int = 1) -> Float32:
    name = term.split(":")[0]
    arguments: list[float] = _arguments(term)
    pooling = _POOLINGS[name]
    if pooling.in_order:
        arguments = [patch_bands]
    return np.asarray(pooling.pool(frames_TD, *arguments), dtype=np.float32)


def _arguments(term: str) -> list[float]:
    """The numbers of a part such as `gem:3`, defaults filled in; ValueError, naming the part, for anything else."""
    name, *words = term.split(":")
    if name not in _POOLINGS:
        raise ValueError(f"unknown pooling {term!r}; there are {', '.join([*_POOLINGS, _CLS])}")
    parameters = _POOLINGS[name].parameters
    if len(words) > len(parameters):
        taken = ":".join([name, *(parameter.upper() for parameter, _, _ in parameters)])
        raise ValueError(f"pooling {term!r} has too many parameters: it is {taken}")
    values = [default for _, default, _ in parameters]
    for place, word in enumerate(words):
        parameter, _, lowest = parameters[place]
        try:
            values[place] = read_number(word)
        except ValueError:
            raise ValueError(f"pooling {term!r}: {parameter} {word!r} is no number") from None
        if not lowest <= values[place] < np.inf:
            raise ValueError(f"pooling {term!r}: {parameter} is at least {lowest:g} and finite")
    return values
