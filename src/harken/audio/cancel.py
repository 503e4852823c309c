"""Noise cancellation with a second microphone: noise picked up by the far one is subtracted from the near one.

The near microphone records N = M + A V, a machine M and noise V; the far one, away from the machine, records
F = B V + C M with little of the machine. In each frequency bin the gain A / B from far to near is estimated by least
squares over the recording, and the noise it predicts at the near microphone is subtracted. Recordings are processed
independently.

Three limitations: noise that is incoherent between the microphones (many sources, wind, self-noise) and the part of
impulse responses beyond the analysis window remain in the residual; machine sound that reaches the far microphone is
partly cancelled.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from harken.audio.stft import overlap_add, overlapped_stft

Float32 = NDArray[np.float32]
Complex64 = NDArray[np.complex64]
Complex128 = NDArray[np.complex128]

#: minimum number of windows per recording: a gain estimated from k windows removes 1/k of the near sound
LEAST_WINDOWS = 4
#: shortest window in samples; recordings too short for it are returned unchanged
SHORTEST = 16
#: far power in a bin relative to the strongest bin, below which it is rounding noise
SILENCE = 1e-12


def cancel(
    samples_CS: Float32,
    sample_rate: int,
    *,
    window_seconds: float = 0.512,
    taps: int = 1,
    ridge: float = 1e-3,
    limit_db: float | None = 6.0,
) -> Float32:
    """Least-squares cancellation: (2, samples) near and far -> (1, samples) float32.

    With one tap, bin by bin (sums over the frames t of the whole recording)
        H(f) = sum_t N(t, f) conj F(t, f) / ((1 + ridge) sum_t |F(t, f)|^2),   residual = N - H F;
    with more, H(f) is a filter over `taps` neighbouring far frames (as many before as after), from the normal
    equations regularised by `ridge` times their mean diagonal. Subband form of the two-microphone canceller of Widrow
    et al. (1975), solved in closed form instead of adaptively.

    window_seconds: length of the square-root Hann frames, half overlapping; longer impulse responses between the
        microphones are cancelled partly. Shortened until the recording has `LEAST_WINDOWS` of them per tap.
    limit_db: largest gain (norm over the taps). Background noise is about as loud at both microphones, the machine is
        louder at the near one: a larger gain would cancel the machine. Assumes microphones of about equal gain; None:
        no limit.

    A silent far channel leaves the near one bitwise unchanged. Identical channels leave about `ridge` of the amplitude:
    -60 dB, with several taps -45 dB and less. Scaling both channels scales the result; scaling the far one only has no
    effect unless a gain is limited. Raises ValueError for another number of channels or invalid parameters.
    """
    near_S, far_S = _two_channels(samples_CS)
    if taps < 1 or ridge <= 0 or not window_seconds > 0:
        raise ValueError("taps, ridge and window_seconds must be positive")
    n_fft = _window(window_seconds, sample_rate, len(near_S), taps)
    if n_fft is None or not far_S.any():
        return near_S[None].copy()
    hop = n_fft // 2
    far_TFK = _neighbours(overlapped_stft(far_S, n_fft, hop), taps)
    gain_FK = _gains(overlapped_stft(near_S, n_fft, hop), far_TFK, ridge)
    if limit_db is not None:
        norm_F = np.sqrt((np.abs(gain_FK) ** 2).sum(axis=1))
        gain_FK = gain_FK / np.maximum(1.0, norm_F / 10 ** (limit_db / 20))[:, None]
    noise_TF = np.einsum("tfk,fk->tf", far_TFK, gain_FK.astype(np.complex64))
    # Subtracted in the time domain: without an estimate the near channel is returned unchanged.
    return (near_S - overlap_add(noise_TF, n_fft, hop, len(near_S)))[None]


def subtract(
    samples_CS: Float32,
    sample_rate: int,
    *,
    window_seconds: float = 0.064,
    factor: float = 1.0,
    floor: float = 0.1,
) -> Float32:
    """Spectral subtraction: (2, samples) near and far -> (1, samples) float32.

    Magnitude max(|N| - factor |F|, floor |N|), phase of the near microphone (Boll 1979; over-subtraction and floor of
    Berouti et al. 1979), with the far microphone's frame at the same time as the estimate of the noise. It needs no
    coherence, but noise of equal level at both microphones; the residual fluctuates ("musical noise").

    A silent far channel leaves the near one unchanged up to rounding; identical channels leave `floor` of it.
    Raises ValueError as `cancel` does.
    """
    near_S, far_S = _two_channels(samples_CS)
    if factor < 0 or not 0 <= floor <= 1 or not window_seconds > 0:
        raise ValueError("factor must be >= 0, floor in 0..1, window_seconds positive")
    n_fft = _window(window_seconds, sample_rate, len(near_S), 1)
    if n_fft is None or not far_S.any():
        return near_S[None].copy()
    hop = n_fft // 2
    near_TF = overlapped_stft(near_S, n_fft, hop)
    level_TF = np.abs(near_TF)
    wanted_TF = np.maximum(level_TF - np.float32(factor) * np.abs(overlapped_stft(far_S, n_fft, hop)), floor * level_TF)
    near_TF *= wanted_TF / np.maximum(level_TF, np.finfo(np.float32).tiny)
    return overlap_add(near_TF, n_fft, hop, len(near_S))[None]


def _two_channels(samples_CS: Float32) -> tuple[Float32, Float32]:
    if samples_CS.ndim != 2 or len(samples_CS) != 2:
        raise ValueError(f"a near and a far channel are needed, (2, samples), not {samples_CS.shape}")
    near_S, far_S = np.asarray(samples_CS, dtype=np.float32)
    return near_S, far_S


def _window(seconds: float, sample_rate: int, samples: int, taps: int) -> int | None:
    """Even length of a frame in samples: `seconds`, or less for short recordings; None if too short."""
    longest = samples // (LEAST_WINDOWS * taps)
    if longest < SHORTEST:
        return None
    # Here: it takes a third of a second, and few recordings have two channels.
    from scipy.fft import prev_fast_len

    wanted = min(max(round(seconds * sample_rate), SHORTEST), longest)
    return 2 * int(prev_fast_len(wanted // 2, real=True))


def _neighbours(far_TF: Complex64, taps: int) -> Complex64:
    """(frames, bins) -> (frames, bins, taps): each frame with its neighbours, zeros beyond the ends."""
    after = (taps - 1) // 2
    padded_TF = np.pad(far_TF, ((taps - 1 - after, after), (0, 0)))
    return sliding_window_view(padded_TF, taps, axis=0)


def _gains(near_TF: Complex64, far_TFK: Complex64, ridge: float) -> Complex128:
    """(bins, taps) least-squares gains from far to near; 0 in bins without far sound."""
    conjugate_TFK = far_TFK.conj()
    normal_FKL = np.einsum("tfk,tfl->fkl", conjugate_TFK, far_TFK).astype(np.complex128)
    cross_FK = np.einsum("tfk,tf->fk", conjugate_TFK, near_TF).astype(np.complex128)
    power_F = np.trace(normal_FKL, axis1=1, axis2=2).real / normal_FKL.shape[1]
    active_F = power_F > SILENCE * power_F.max()
    load_F = np.where(active_F, ridge * power_F, 1.0)
    normal_FKL += load_F[:, None, None] * np.eye(normal_FKL.shape[1])
    gain_FK = np.linalg.solve(normal_FKL, cross_FK[..., None])[..., 0]
    return np.where(active_F[:, None], gain_FK, 0.0)
