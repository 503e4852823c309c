"""Losses of separation, as in the reference of SepReformer (Shin et al., NeurIPS 2024, arXiv 2406.05983, section 3.4).

Signal-to-noise ratios are scale-invariant: of the target, only its shape counts. Outputs are compared in order, or in
the best order (permutation-invariant training, Yu et al., ICASSP 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

from harken.separation.sepreformer import Separated

#: share of the auxiliary outputs in the loss
ALPHA = 0.4
#: lowest loss of an output in time, in dB: what is better teaches nothing more
BEST_DB = -30.0
#: of the magnitudes that auxiliary outputs are compared by, in samples
FRAME, HOP = 512, 128
#: least scale of a target, so that an output of the wrong sign is not right with a negative one
LEAST_SCALE = 1e-2


def si_snr_db(estimate_S: Tensor, target_S: Tensor) -> Tensor:
    """Scale-invariant signal-to-noise ratio in dB over the last axis; of (.., samples), (..).

    Le Roux et al., ICASSP 2019, eq. 5, with means removed. Finite for silence, of which it means nothing.
    """
    estimate_S, scaled_S = _projected(estimate_S, target_S, 1e-8, None)
    return _ratio_db(scaled_S, estimate_S - scaled_S, 1e-8, dims=(-1,))


def time_loss(estimates_BKS: Tensor, targets_BKS: Tensor, *, permute: bool = False) -> Tensor:
    """- SI-SNR in dB, at least `BEST_DB` each, summed over the sources; mean over the clips. Silent targets count 0."""
    return _assigned(estimates_BKS, targets_BKS, _time_terms, permute)


def magnitude_loss(estimates_BKS: Tensor, targets_BKS: Tensor, *, permute: bool = False) -> Tensor:
    """As `time_loss`, without a bound, on magnitudes of spectrograms; of one stage's auxiliary outputs."""
    return _assigned(estimates_BKS, targets_BKS, _magnitude_terms, permute)


def separation_loss(outputs: Separated, targets_BKS: Tensor, *, alpha: float = ALPHA, permute: bool = False) -> Tensor:
    """((1 - alpha) time + alpha (mean of magnitude over the stages)) / sources; time / sources without stages."""
    sources = targets_BKS.shape[1]
    time = time_loss(outputs.sources_BKS, targets_BKS, permute=permute)
    if outputs.stages_LBKS is None:
        return time / sources
    stages = [magnitude_loss(stage_BKS, targets_BKS, permute=permute) for stage_BKS in outputs.stages_LBKS]
    return ((1 - alpha) * time + alpha * torch.stack(stages).mean()) / sources


def _assigned(
    estimates_BKS: Tensor, targets_BKS: Tensor, terms: Callable[[Tensor, Tensor], Tensor], permute: bool
) -> Tensor:
    sources = targets_BKS.shape[1]
    orders = list(permutations(range(sources))) if permute else [tuple(range(sources))]
    silent_BK = targets_BKS.square().sum(dim=-1) == 0
    sums = []
    for order in orders:
        value_BK = terms(estimates_BKS, targets_BKS[:, order])
        sums.append(value_BK.masked_fill(silent_BK[:, order], 0.0).sum(dim=1))
    return torch.stack(sums).amin(dim=0).mean()


def _time_terms(estimates_BKS: Tensor, targets_BKS: Tensor) -> Tensor:
    return (-si_snr_db(estimates_BKS, targets_BKS)).clamp(min=BEST_DB)


def _magnitude_terms(estimates_BKS: Tensor, targets_BKS: Tensor) -> Tensor:
    estimates_BKS, scaled_BKS = _projected(estimates_BKS, targets_BKS, 1e-12, LEAST_SCALE)
    estimated_BKFT, magnitude_BKFT = _magnitudes(estimates_BKS), _magnitudes(scaled_BKS)
    return -_ratio_db(magnitude_BKFT, estimated_BKFT - magnitude_BKFT, 1e-12, dims=(-2, -1))


def _projected(estimate_S: Tensor, target_S: Tensor, eps: float, least: float | None) -> tuple[Tensor, Tensor]:
    """Estimate without its mean, and the target scaled to it (at least by `least`)."""
    estimate_S = estimate_S - estimate_S.mean(dim=-1, keepdim=True)
    target_S = target_S - target_S.mean(dim=-1, keepdim=True)
    power = target_S.square().sum(dim=-1, keepdim=True) + eps
    scale = (estimate_S * target_S).sum(dim=-1, keepdim=True) / power
    return estimate_S, (scale if least is None else scale.clamp(min=least)) * target_S


def _ratio_db(signal: Tensor, error: Tensor, eps: float, dims: tuple[int, ...]) -> Tensor:
    # The gradient of a norm is zero at zero.
    signal_norm, error_norm = (torch.linalg.vector_norm(vector, dim=dims) for vector in (signal, error))
    return 20 * torch.log10(eps + signal_norm / (error_norm + eps))


def _magnitudes(wave_BKS: Tensor) -> Tensor:
    """(clips, sources, bins, frames): sqrt(re^2 + im^2 + 1e-10) of the reference's scaled STFT, without padding at the
    beginning."""
    missing = max(FRAME - wave_BKS.shape[-1], -wave_BKS.shape[-1] % HOP)
    window_N = torch.hann_window(FRAME, device=wave_BKS.device) * (2 / 3) ** 0.5
    spectrum_NFT = torch.stft(
        F.pad(wave_BKS, (0, missing)).flatten(0, 1), FRAME, HOP, window=window_N, center=False, return_complex=True
    ) / (0.5 * (FRAME**2 / HOP) ** 0.5)  # fmt: skip
    power_NFT = torch.view_as_real(spectrum_NFT).square().sum(dim=-1)
    return (power_NFT + 1e-10).sqrt().reshape(*wave_BKS.shape[:2], *power_NFT.shape[1:])
