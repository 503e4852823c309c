"""Kaldi's log-mel filter bank in torch: batched, differentiable, on any device.

BEATs and EAT were trained on features of this implementation, including its empty lowest filters, its window and the
floor of its logarithm; a textbook mel spectrogram would silently reduce accuracy.
Follows `compute-fbank-feats` (Povey et al., "The Kaldi Speech Recognition Toolkit", ASRU 2011) with dither 0,
no energy column and HTK compatibility off.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Window = Literal["povey", "hanning"]

#: smallest band energy before the logarithm: the float32 epsilon, as in Kaldi
ENERGY_FLOOR = 1.1920929e-07


def kaldi_fbank(
    waveform_BS: Tensor,
    *,
    sample_rate: int = 16_000,
    num_mels: int = 128,
    frame_length_ms: float = 25.0,
    frame_shift_ms: float = 10.0,
    window: Window = "povey",
    preemphasis: float = 0.97,
    low_hz: float = 20.0,
    high_hz: float = 0.0,
    remove_dc: bool = True,
    snip_edges: bool = True,
    scale: float = 1.0,
) -> Tensor:
    """(clips, samples) -> (clips, frames, num_mels) natural logarithm of the mel band energies.

    high_hz: upper edge of the highest band; zero or less counts from half the sampling rate.
    snip_edges: only frames that lie within the waveform; otherwise one frame per shift, the edges mirrored.
    scale: factor on the waveform, 2^15 for models trained on 16-bit integers.
    Raises ValueError if the waveform is too short for one frame or the bands do not fit the sampling rate.
    """
    if waveform_BS.ndim != 2:
        raise ValueError(f"expected (clips, samples), not a tensor of shape {tuple(waveform_BS.shape)}")
    length = int(sample_rate * frame_length_ms * 0.001)
    shift = int(sample_rate * frame_shift_ms * 0.001)
    samples = waveform_BS.shape[1]
    frames = kaldi_frame_count(samples, length, shift, snip_edges=snip_edges)
    if frames == 0:
        raise ValueError(f"{samples} samples are too short for one frame of {length}")
    n_fft = 1 << (length - 1).bit_length()
    filters_FM = kaldi_mel_filters(num_mels, n_fft, sample_rate, low_hz, high_hz)

    if scale != 1.0:
        waveform_BS = waveform_BS * scale
    if not snip_edges:
        waveform_BS = _mirror_edges(waveform_BS, frames, length, shift)
    frame_BFN = waveform_BS.unfold(1, length, shift)
    if remove_dc:
        frame_BFN = frame_BFN - frame_BFN.mean(dim=-1, keepdim=True)
    if preemphasis:
        # Within each frame; the first sample has no predecessor and is used instead.
        previous_BFN = F.pad(frame_BFN, (1, 0), mode="replicate")[..., :-1]
        frame_BFN = frame_BFN - preemphasis * previous_BFN
    frame_BFN = frame_BFN * torch.from_numpy(_window(window, length)).to(frame_BFN)
    spectrum_BFK = torch.view_as_real(torch.fft.rfft(frame_BFN, n=n_fft))
    power_BFK = spectrum_BFK.square().sum(dim=-1)
    energy_BFM = power_BFK @ torch.from_numpy(filters_FM).to(power_BFK)
    return energy_BFM.clamp_min(ENERGY_FLOOR).log()


def beats_fbank(waveform_BS: Tensor) -> Tensor:
    """16 kHz waveform in [-1, 1] -> (clips, frames, 128) as in the training of BEATs, before normalisation.

    Chen et al., "BEATs: Audio Pre-Training with Acoustic Tokenizers", ICML 2023: 16-bit scale, Povey window.
    """
    return kaldi_fbank(waveform_BS, window="povey", scale=2.0**15)


def eat_fbank(waveform_BS: Tensor) -> Tensor:
    """16 kHz waveform in [-1, 1] -> (clips, frames, 128) as in the training of EAT, before normalisation.

    Chen et al., "EAT: Self-Supervised Pre-Training with Efficient Audio Transformer", IJCAI 2024: each clip's
    mean removed, Hann window. Clips must be given without padding, which would shift the mean.
    """
    return kaldi_fbank(waveform_BS - waveform_BS.mean(dim=1, keepdim=True), window="hanning")


def kaldi_frame_count(samples: int, length: int, shift: int, *, snip_edges: bool = True) -> int:
    """Frames of `samples`: 1 + floor((samples - length) / shift), or round(samples / shift) if mirrored."""
    if snip_edges:
        return 0 if samples < length else 1 + (samples - length) // shift
    return (samples + shift // 2) // shift


@lru_cache(maxsize=16)
def kaldi_mel_filters(
    num_mels: int, n_fft: int, sample_rate: int, low_hz: float, high_hz: float
) -> NDArray[np.float32]:
    """(n_fft // 2 + 1, num_mels) triangles of unit height, linear on the mel scale 1127 ln(1 + f / 700).

    As in Kaldi, the bin at half the sampling rate belongs to no filter, and a filter narrower than the bin
    spacing may be empty. high_hz: zero or less counts from half the sampling rate.
    Raises ValueError for bands outside 0 to half the sampling rate.
    """
    nyquist = sample_rate / 2
    top = high_hz if high_hz > 0 else nyquist + high_hz
    if not 0 <= low_hz < top <= nyquist:
        raise ValueError(f"bands {low_hz:g}-{top:g} Hz do not fit below {nyquist:g} Hz")
    low, high = 1127.0 * np.log1p(np.array([low_hz, top]) / 700.0)
    edges = low + np.arange(num_mels + 2) * (high - low) / (num_mels + 1)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = 1127.0 * np.log1p(np.arange(n_fft // 2)[:, None] * (sample_rate / n_fft) / 700.0)
    triangles = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    filters_FM = np.zeros((n_fft // 2 + 1, num_mels), dtype=np.float32)
    filters_FM[:-1] = np.maximum(triangles, 0.0)
    return filters_FM


@lru_cache(maxsize=8)
def _window(kind: Window, length: int) -> NDArray[np.float32]:
    # Symmetric, as in Kaldi; "povey" resembles Hamming but goes to zero at the edges.
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))
    if kind == "hanning":
        return hann.astype(np.float32)
    if kind == "povey":
        return np.asarray(hann**0.85, dtype=np.float32)
    raise ValueError(f"unknown window {kind!r}; choose povey or hanning")


def _mirror_edges(waveform_BS: Tensor, frames: int, length: int, shift: int) -> Tensor:
    # Frame f is centred on sample (f + 1/2) * shift; samples outside are mirrored at the edges,
    # including the edge sample (which the reflect padding of torch excludes).
    before = length // 2 - shift // 2
    samples = waveform_BS.shape[1]
    index = torch.arange(-before, (frames - 1) * shift - before + length, device=waveform_BS.device)
    index = torch.remainder(index, 2 * samples)
    return waveform_BS[:, torch.where(index < samples, index, 2 * samples - 1 - index)]
