"""Log-mel spectrogram with the defaults of librosa, as in the DCASE baselines."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: lower limit of mel power, that of silence
FLOOR = float(np.finfo(np.float64).eps)
#: frames transformed at once, to limit memory
_BLOCK = 2048


def frame_count(samples: int, hop: int = 512) -> int:
    """Frames of a waveform of `samples` when frames are centred: 1 + floor(samples / hop)."""
    return 1 + samples // hop


def slaney_mel(hz: ArrayLike) -> Float64:
    """Slaney's mel scale (Auditory Toolbox, 1998): 3 mel every 200 Hz up to 1 kHz, then 27 mel per factor of 6.4."""
    hz = np.asarray(hz, dtype=np.float64)
    return np.where(hz < 1000.0, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000.0) / 1000.0) / np.log(6.4))


def slaney_hz(mel: ArrayLike) -> Float64:
    """Inverse of `slaney_mel`."""
    mel = np.asarray(mel, dtype=np.float64)
    return np.where(mel < 15.0, mel * 200 / 3, 1000.0 * 6.4 ** ((np.maximum(mel, 15.0) - 15) / 27))


@lru_cache(maxsize=8)
def slaney_bands(sample_rate: int, n_fft: int, n_mels: int) -> Float64:
    """(n_fft // 2 + 1, n_mels) triangular filters from 0 Hz to half the sampling rate, each of unit area over Hz.

    A filter between two bins is empty, as in librosa: its band reads `FLOOR`.
    """
    edges = slaney_hz(np.linspace(0.0, slaney_mel(sample_rate / 2), n_mels + 2))
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = np.arange(n_fft // 2 + 1)[:, None] * (sample_rate / n_fft)
    filters_FM = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    return np.asarray(np.maximum(filters_FM, 0.0) * 2.0 / (right - left))


def log_mel(
    waveform_S: NDArray[np.floating],
    sample_rate: int,
    n_fft: int = 1024,
    hop: int = 512,
    n_mels: int = 128,
    power: float = 2.0,
) -> Float32:
    """(samples,) -> (1 + samples // hop, n_mels) float32 in dB: 20 / power * log10(max(mel, FLOOR)).

    mel: the filters of `slaney_bands` on |STFT|^power; periodic Hann window, frames centred at multiples of `hop`,
    zeros before and after the waveform (librosa >= 0.10).
    Raises ValueError for a waveform that is empty or not one-dimensional.
    """
    if waveform_S.ndim != 1 or len(waveform_S) == 0:
        raise ValueError(f"expected (samples,), got {waveform_S.shape}")
    # Double precision, so that bands far below the loudest one are not lost in rounding.
    padded_S = np.pad(waveform_S.astype(np.float64), n_fft // 2)
    window_N = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    filters_FM = slaney_bands(sample_rate, n_fft, n_mels)
    frames_TN = sliding_window_view(padded_S, n_fft)[::hop]
    decibel_TM = np.empty((len(frames_TN), n_mels), dtype=np.float32)
    for start in range(0, len(frames_TN), _BLOCK):
        spectrum_TF = scipy.fft.rfft(frames_TN[start : start + _BLOCK] * window_N, axis=-1)
        magnitude_TF = spectrum_TF.real**2 + spectrum_TF.imag**2
        if power != 2.0:
            magnitude_TF **= power / 2
        mel_TM = magnitude_TF @ filters_FM
        decibel_TM[start : start + _BLOCK] = 20.0 / power * np.log10(np.maximum(mel_TM, FLOOR))
    return decibel_TM
