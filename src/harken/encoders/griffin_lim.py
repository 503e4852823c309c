"""Sound for the ear from spectrograms that never were sound: front ends inverted as far as they can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harken.audio.kaldi_fbank import Window, kaldi_mel_filters
from harken.encoders import beats, eat
from harken.encoders.base import FrontEnd, Spectrogram
from harken.encoders.fisher import FISHERNet

Float32 = NDArray[np.float32]

#: iterations of Griffin and Lim, and of the non-negative fit to filter banks
ITERATIONS, FITTED = 32, 100
#: coefficient that Kaldi's filter bank emphasises high frequencies by
_EMPHASIS = 0.97


def can_be_heard(front_end: FrontEnd) -> bool:
    """Whether `sound_of_spectrogram` knows the front end."""
    return front_end.encoder in _MAGNITUDES


def sound_of_spectrogram(spectrogram: Spectrogram, front_end: FrontEnd, *, seed: int = 0) -> Float32:
    """(samples,) a waveform that has nearly this spectrogram, at the front end's sampling rate, of peak 0.7 at most;
    frames that the spectrogram lacks at its end are lacking in it.

    Magnitudes come from the bands by a non-negative least-squares fit (multiplicative updates of Lee and Seung, 2001),
    phases by the iteration of Griffin and Lim (1984), from random ones. For previews: what a filter bank has taken
    away is not brought back. Raises ValueError for a front end that it does not know.
    """
    if not can_be_heard(front_end):
        raise ValueError(f"there is no preview of spectrograms of {front_end.encoder}")
    # Windows follow each other.
    normalised_FM = torch.from_numpy(np.concatenate(spectrogram.windows))
    magnitude_FK, window_N, hop = _MAGNITUDES[front_end.encoder](normalised_FM, front_end.sample_rate)
    wave_S = _griffin_lim(magnitude_FK, window_N, hop, seed)[: spectrogram.samples].numpy()
    peak = float(np.abs(wave_S).max(initial=0.0))
    return np.asarray(wave_S * (0.7 / peak if peak > 0.7 else 1.0), dtype=np.float32)


def _griffin_lim(magnitude_FK: Tensor, window_N: Tensor, hop: int, seed: int) -> Tensor:
    """(samples,) of (frames, bins) magnitudes; windows longer than a hop, in frames of n_fft = 2 (bins - 1)."""
    n_fft = 2 * (magnitude_FK.shape[1] - 1)
    drawn = torch.rand(magnitude_FK.T.shape, generator=torch.Generator().manual_seed(seed))
    magnitude_KF = magnitude_FK.T.contiguous()
    spectrum_KF = torch.polar(magnitude_KF, 2 * torch.pi * drawn)
    padded = torch.nn.functional.pad(window_N, (0, n_fft - len(window_N)))
    samples = hop * (magnitude_KF.shape[1] - 1) + n_fft
    # Overlap-add divided by the sum of squared windows: the least-squares signal, whatever its edges are.
    weight_S = _overlapped((padded**2)[:, None].expand(-1, magnitude_KF.shape[1]), hop, samples).clamp_min(1e-4)
    wave_S = torch.zeros(samples)
    for _ in range(ITERATIONS):
        frames_NF = torch.fft.irfft(spectrum_KF, n_fft, dim=0) * padded[:, None]
        wave_S = _overlapped(frames_NF, hop, samples) / weight_S
        again_KF = torch.fft.rfft(wave_S.unfold(0, n_fft, hop) * padded, dim=1).T
        spectrum_KF = magnitude_KF * again_KF / again_KF.abs().clamp_min(1e-12)
    return wave_S


def _overlapped(frames_NF: Tensor, hop: int, samples: int) -> Tensor:
    return torch.nn.functional.fold(
        frames_NF[None], (1, samples), (1, len(frames_NF)), stride=(1, hop)
    ).flatten()  # fmt: skip


def _kaldi(
    normalised_FM: Tensor, rate: int, *, mean: float, deviation: float, scale: float, kind: Window
) -> tuple[Tensor, Tensor, int]:
    frame, hop = int(rate * 0.025), int(rate * 0.01)
    n_fft = 1 << (frame - 1).bit_length()
    energy_FM = (normalised_FM.double() * (2 * deviation) + mean).exp()
    filters_KM = torch.from_numpy(kaldi_mel_filters(normalised_FM.shape[1], n_fft, rate, 20.0, 0.0)).double()
    power_FK = _non_negative(energy_FM, filters_KM)
    turn_K = torch.arange(n_fft // 2 + 1) * (2 * torch.pi / n_fft)
    emphasis_K = (1 - 2 * _EMPHASIS * turn_K.cos() + _EMPHASIS**2).sqrt()
    hann_N = torch.hann_window(frame, periodic=False)
    window_N = hann_N**0.85 if kind == "povey" else hann_N
    return (power_FK.sqrt() / emphasis_K / scale).float(), window_N, hop


def _non_negative(energy_FM: Tensor, filters_KM: Tensor) -> Tensor:
    """(frames, bins) power whose bands are nearest to these."""
    power_FK = (energy_FM @ filters_KM.T).clamp_min(1e-20)
    target_FK = energy_FM @ filters_KM.T
    gram_KK = filters_KM @ filters_KM.T
    for _ in range(FITTED):
        power_FK = power_FK * target_FK / (power_FK @ gram_KK).clamp_min(1e-20)
    return power_FK


def _beats(normalised_FM: Tensor, rate: int) -> tuple[Tensor, Tensor, int]:
    return _kaldi(normalised_FM, rate, mean=beats.FBANK_MEAN, deviation=beats.FBANK_STD, scale=2.0**15, kind="povey")


def _eat(normalised_FM: Tensor, rate: int) -> tuple[Tensor, Tensor, int]:
    return _kaldi(normalised_FM, rate, mean=eat.MEAN, deviation=eat.DEVIATION, scale=1.0, kind="hanning")


def _fisher(normalised_FK: Tensor, rate: int) -> tuple[Tensor, Tensor, int]:
    frame, hop = FISHERNet.FRAME_MS * rate // 1000, FISHERNet.HOP_MS * rate // 1000
    magnitude_FK = (normalised_FK.double() * (2 * FISHERNet.DEVIATION) + FISHERNet.MEAN).exp() - FISHERNet.FLOOR
    return magnitude_FK.clamp_min(0.0).float(), torch.hann_window(frame), hop


#: by encoder: normalised (frames, bins), sampling rate -> (frames, bins) magnitudes, window, hop
_MAGNITUDES: Mapping[str, Callable[[Tensor, int], tuple[Tensor, Tensor, int]]] = {
    "beats": _beats,
    "eat": _eat,
    "fisher": _fisher,
}
