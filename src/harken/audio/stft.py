"""Short-time Fourier transform and mel filter banks in NumPy, for code that runs without torch."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Complex64 = NDArray[np.complex64]

#: frames that are transformed in one call: more would leave the processor's cache, and the heap of most processes
_FRAMES = 128


def frame_count(samples: int, n_fft: int, hop: int) -> int:
    """Frames of a waveform of `samples` without padding: 1 + floor((samples - n_fft) / hop)."""
    return 0 if samples < n_fft else 1 + (samples - n_fft) // hop


@lru_cache(maxsize=8)
def _hann(n_fft: int) -> Float32:
    # Periodic Hann window: the DFT-even form used for spectral analysis.
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


def power_spectrogram(samples_S: Float32, n_fft: int, hop: int) -> Float32:
    """|STFT|^2 of (samples,) -> (frames, n_fft // 2 + 1) float32; periodic Hann window, no centring, no padding.

    Raises ValueError for fewer samples than one frame.
    """
    if samples_S.shape[-1] < n_fft:
        raise ValueError(f"{samples_S.shape[-1]} samples are shorter than one frame of {n_fft}")
    frames_TN = sliding_window_view(samples_S, n_fft)[::hop]
    window_N = _hann(n_fft)
    power_TF = np.empty((len(frames_TN), n_fft // 2 + 1), dtype=np.float32)
    for first in range(0, len(frames_TN), _FRAMES):
        spectrum_TF = scipy.fft.rfft(frames_TN[first : first + _FRAMES] * window_N, axis=-1)
        parts_TF2 = spectrum_TF.view(spectrum_TF.real.dtype).reshape(len(spectrum_TF), -1, 2)
        parts_TF2 *= parts_TF2
        np.add(parts_TF2[..., 0], parts_TF2[..., 1], out=power_TF[first : first + _FRAMES], casting="same_kind")
    return power_TF


def overlapped_stft(samples_S: Float32, n_fft: int, hop: int) -> Complex64:
    """Complex STFT of (samples,) -> (frames, n_fft // 2 + 1) that `overlap_add` inverts.

    Square-root periodic Hann window, zeros before and after, so that every sample lies in n_fft / hop frames.
    Any number of samples is allowed. Raises ValueError unless n_fft is even and a multiple >= 2 of hop.
    """
    window_N = _synthesis(n_fft, hop)
    frames = -(-(len(samples_S) + n_fft - hop) // hop)
    padded_S = np.zeros((frames - 1) * hop + n_fft, dtype=np.float32)
    padded_S[n_fft - hop : n_fft - hop + len(samples_S)] = samples_S
    spectrum_TF = scipy.fft.rfft(sliding_window_view(padded_S, n_fft)[::hop] * window_N, axis=-1)
    return np.asarray(spectrum_TF, dtype=np.complex64)


def overlap_add(spectrum_TF: Complex64, n_fft: int, hop: int, samples: int) -> Float32:
    """Inverse of `overlapped_stft`, (samples,) float32; for a modified spectrum, the least-squares signal.

    Griffin and Lim (1984): windowed again, added, and divided by the sum of squared windows, n_fft / (2 hop).
    """
    frames_TN = scipy.fft.irfft(spectrum_TF, n_fft, axis=-1) * _synthesis(n_fft, hop)
    blocks, count = n_fft // hop, len(frames_TN)
    sum_BH = np.zeros((count + blocks - 1, hop), dtype=np.float32)
    for block in range(blocks):
        sum_BH[block : block + count] += frames_TN[:, block * hop : (block + 1) * hop]
    sum_BH *= np.float32(2 * hop / n_fft)
    return np.ascontiguousarray(sum_BH.ravel()[n_fft - hop : n_fft - hop + samples])


def _synthesis(n_fft: int, hop: int) -> Float32:
    if hop < 1 or n_fft % 2 or n_fft % hop or n_fft < 2 * hop:
        raise ValueError(f"frames of {n_fft} samples every {hop} do not add up: an even number, a multiple of the hop")
    return np.sqrt(np.maximum(_hann(n_fft), 0))


def hz_to_mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """HTK mel scale: 2595 log10(1 + f / 700)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz, dtype=np.float64) / 700.0)


def mel_to_hz(mel: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Inverse of `hz_to_mel`."""
    return np.asarray(700.0 * (10.0 ** (np.asarray(mel, dtype=np.float64) / 2595.0) - 1.0))


@lru_cache(maxsize=8)
def mel_bands(sample_rate: int, n_fft: int, bands: int, low_hz: float, high_hz: float) -> tuple[Float32, Float32]:
    """Triangular mel filters of unit area and their centres.

    Returns (bins, bands) float32 so that `power_TF @ filters_FM` is the mel spectrogram, and the
    (bands,) centre frequencies in Hz. A filter narrower than the bin spacing is widened to it:
    otherwise low bands would contain no bin. Raises ValueError for bands outside 0 to half the sampling rate.
    """
    if not 0 <= low_hz < high_hz <= sample_rate / 2:
        raise ValueError(f"bands {low_hz}-{high_hz} Hz do not fit below {sample_rate / 2} Hz")
    edges = mel_to_hz(np.linspace(hz_to_mel(low_hz), hz_to_mel(high_hz), bands + 2))
    centres = edges[1:-1]
    spacing = sample_rate / n_fft
    left = np.minimum(edges[:-2], centres - spacing)
    right = np.maximum(edges[2:], centres + spacing)
    bins = np.arange(n_fft // 2 + 1)[:, None] * spacing
    rising = (bins - left) / (centres - left)
    falling = (right - bins) / (right - centres)
    filters_FM = np.maximum(0.0, np.minimum(rising, falling))
    filters_FM /= filters_FM.sum(axis=0, keepdims=True)
    return filters_FM.astype(np.float32), centres.astype(np.float32)
