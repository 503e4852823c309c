"""Dual-branch CNN: one branch for the course in time, the other for the spectrum at full resolution.

Two networks, joined only by their loss: Wilkinghoff, "Self-supervised learning for anomalous sound detection", ICASSP
2024, whose sizes these are; Wang, "Fine-tuning pre-trained audio models for anomalous sound detection" (Unisound, DCASE
2025 Task 2), sec. 2.2, which keeps 200-8000 Hz of the spectrogram and names the multi-dimensional attention of Chen et
al., "MDAM", ICONIP 2023. There are no published weights: a network is trained on the machines it is for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from harken.encoders.registry import register_encoder
from harken.encoders.spectrogram_net import Augment, SpectrogramNet
from harken.encoders.torch_encoder import TorchEncoder, state_shapes
from harken.encoders.without_values import without_values
from harken.weights.tensors import check_tensors

SAMPLE_RATE = 16_000
N_FFT, HOP = 1024, 512
#: of the spectrogram in Unisound's system, bounds included, and the bins between them: 513 less those below 200 Hz
LOW_HZ, HIGH_HZ = 200.0, 8000.0
BINS = math.floor(HIGH_HZ * N_FFT / SAMPLE_RATE) - math.ceil(LOW_HZ * N_FFT / SAMPLE_RATE) + 1
#: seconds of a clip in Unisound's system, and points of its spectrum up to 8000 Hz, every 0.1 Hz
SECONDS = 10.0
POINTS = round(SECONDS * SAMPLE_RATE) // 2
LAYERS = ("stft", "spectrum", "both")
#: kernel and stride of the convolutions along the spectrum
_SPECTRUM_CONVOLUTIONS = ((256, 64), (64, 32), (16, 4))
#: stride of the spectrogram's last map along time and frequency
_STRIDE = 32
#: channels to one of a gate's bottleneck
_REDUCTION = 16

#: a network of a few milliseconds, for tests
TINY: dict[str, Any] = {"seconds": 1.0, "channels": 4, "spectrum_channels": 8, "embedding": 16}


class DualBranchNet(SpectrogramNet):
    """The trainable network, front end included.

    seconds: to which every clip is repeated or cropped; 10 in Unisound's system, 18 in Wilkinghoff's.
    low_hz, high_hz: of the spectrogram, bounds included. The spectrum is always whole.
    centre: take each clip's mean over time from its spectrogram, so that what never changes is left to the other
        branch, and normalise bins by a batch norm (Wilkinghoff). Without it, bins are normalised by their mean and
        deviation over all frames of the training set (Unisound's system, sec. 2.2), see `TrainingSetNorm`.
    attention: `MultiDimensionalAttention` on the first map.
    channels: of the first map; the last has 8 times as many. spectrum_channels: of the spectrum's convolutions.
    embedding: dimensions of either branch.
    Raises ValueError for sizes that make no network.
    """

    layers = LAYERS

    def __init__(
        self,
        seconds: float = SECONDS,
        low_hz: float = LOW_HZ,
        high_hz: float = HIGH_HZ,
        centre: bool = True,
        attention: bool = False,
        channels: int = 16,
        spectrum_channels: int = 128,
        embedding: int = 128,
    ) -> None:
        super().__init__()
        self.samples = round(seconds * SAMPLE_RATE)
        low, high = math.ceil(low_hz * N_FFT / SAMPLE_RATE), math.floor(high_hz * N_FFT / SAMPLE_RATE)
        if not 0 <= low <= high <= N_FFT // 2:
            raise ValueError(f"there is nothing between {low_hz:g} and {high_hz:g} Hz")
        if min(channels, spectrum_channels, embedding) < 1 or self.samples < 2 * N_FFT:
            raise ValueError("channels, dimensions >= 1 and seconds >= 0.128")
        self.band = slice(low, high + 1)
        self.centre = centre
        bins = high + 1 - low
        self.bin_norm = nn.BatchNorm1d(bins) if centre else TrainingSetNorm(bins)
        self.stft = _SpectrogramBranch(bins, channels, embedding, attention)
        self.spectrum = _SpectrumBranch(self.samples // 2, spectrum_channels, embedding)

    def forward(
        self,
        wave_BS: Tensor,
        layers: Sequence[str] = (),
        lengths_B: Tensor | None = None,
        augment: Augment | None = None,
    ) -> list[Tensor]:
        """(clips, samples) at 16 kHz -> (clips, 1, D) of each of `layers`, in one pass.

        One frame stands for the clip; D is `embedding` for "stft" and "spectrum", twice that for "both" (the default).
        lengths_B: valid samples of each clip, at least one (default: all); padding is ignored. augment: changes the
        spectrogram. Only the branches that are asked for run. Differentiable.
        Raises ValueError for an unknown layer or a waveform without samples.
        """
        layers = self.checked(layers)
        wave_BS = self.fit(wave_BS, lengths_B)
        outputs = {}
        if {"stft", "both"} & set(layers):
            x_BFK = self.spectrogram(wave_BS)
            outputs["stft"] = self.stft(x_BFK if augment is None else augment(x_BFK))
        if {"spectrum", "both"} & set(layers):
            outputs["spectrum"] = self.spectrum(full_spectrum(wave_BS))
        if "both" in layers:
            outputs["both"] = torch.cat([outputs["stft"], outputs["spectrum"]], dim=1)
        return [outputs[layer][:, None] for layer in layers]

    def encode_spectrogram(
        self, spectrogram_BFM: Tensor, layers: Sequence[str] = ("stft",), frames_B: Tensor | None = None
    ) -> list[Tensor]:
        """(clips, frames, bins) -> (clips, 1, embedding) of the layer `stft`; the others hear the waveform."""
        if tuple(layers) != ("stft",):
            raise ValueError("of a spectrogram, dual_branch has the layer stft")
        return [self.stft(spectrogram_BFM)[:, None]]

    def fit(self, wave_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Each clip, without its padding, repeated or cropped to `samples`."""
        if wave_BS.shape[1] == 0 or (lengths_B is not None and bool((lengths_B < 1).any())):
            raise ValueError("a clip without samples")
        place_S = torch.arange(self.samples, device=wave_BS.device)
        if lengths_B is None:
            return wave_BS[:, place_S % wave_BS.shape[1]]
        return wave_BS.gather(1, place_S % lengths_B.to(wave_BS.device)[:, None])

    def spectrogram(self, wave_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """(clips, samples) -> (clips, frames, bins): magnitudes, centred over time and normalised a bin."""
        with torch.autocast(wave_BS.device.type, enabled=False):
            window = torch.hann_window(N_FFT, device=wave_BS.device)
            stft_BKF = torch.stft(wave_BS.float(), N_FFT, HOP, window=window, center=False, return_complex=True)
            magnitude_BKF = stft_BKF[:, self.band].abs()
            if self.centre:
                magnitude_BKF = magnitude_BKF - magnitude_BKF.mean(dim=2, keepdim=True)
            normal_BKF: Tensor = self.bin_norm(magnitude_BKF)
            return normal_BKF.transpose(1, 2)


def full_spectrum(wave_BS: Tensor) -> Tensor:
    """(clips, samples) -> (clips, samples // 2) magnitudes from 0 Hz to just below half the sampling rate.

    Divided by the root of the number of samples, so that a clip's length does not set the scale.
    """
    with torch.autocast(wave_BS.device.type, enabled=False):
        return torch.fft.rfft(wave_BS.float(), norm="ortho").abs()[:, : wave_BS.shape[1] // 2]


class TrainingSetNorm(nn.Module):
    """(x - m) / s of each bin, its mean and deviation over the frames of all spectrograms it was trained on so far.

    After an epoch these are those of the training set. Combined batch by batch without cancellation (Chan et al. 1983).
    """

    frames: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.register_buffer("frames", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(bins, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(bins, dtype=torch.float64))

    def reset_parameters(self) -> None:
        """Nothing was seen: x stays as it is."""
        self.frames.zero_()
        self.mean.zero_()
        self.variance.fill_(1.0)

    def forward(self, x_BFK: Tensor) -> Tensor:
        """(clips, bins, frames) -> the same shape."""
        if self.training:
            with torch.no_grad():
                self._add(x_BFK.double())
        deviation_F = torch.sqrt(self.variance + 1e-5)
        return (x_BFK - self.mean.to(x_BFK.dtype)[:, None]) / deviation_F.to(x_BFK.dtype)[:, None]

    def _add(self, x_BFK: Tensor) -> None:
        count = x_BFK.shape[0] * x_BFK.shape[2]
        total = self.frames + count
        mean_F, variance_F = x_BFK.mean(dim=(0, 2)), x_BFK.var(dim=(0, 2), correction=0)
        moved_F = mean_F - self.mean
        squares_F = self.frames * self.variance + count * variance_F + moved_F**2 * self.frames * count / total
        self.mean.add_(moved_F * count / total)
        self.variance.copy_(squares_F / total)
        self.frames.copy_(total)


class _SpectrogramBranch(nn.Module):
    """A residual network over time and frequency; time ends in a maximum, frequency in a dense layer."""

    def __init__(self, bins: int, channels: int, embedding: int, attention: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.attention = MultiDimensionalAttention(channels, -(-bins // 4)) if attention else nn.Identity()
        blocks = []
        before = channels
        for stage in range(4):
            after = channels * 2**stage
            # The first stage keeps the map's size, the others halve it.
            blocks += [_Residual(before, after, stride=1 if stage == 0 else 2), _Residual(after, after, stride=1)]
            before = after
        self.blocks = nn.Sequential(*blocks)
        inputs = before * -(-bins // _STRIDE)
        self.head = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(inputs), nn.Linear(inputs, embedding, bias=False))

    def forward(self, x_BTF: Tensor) -> Tensor:
        x_BCTF = self.blocks(self.attention(self.stem(x_BTF[:, None])))
        embedding_BD: Tensor = self.head(x_BCTF.amax(dim=2))
        return embedding_BD


class _SpectrumBranch(nn.Module):
    """Convolutions along the whole spectrum, then dense layers: a tone's place is kept to a fraction of a Hz."""

    def __init__(self, bins: int, channels: int, embedding: int) -> None:
        super().__init__()
        before = 1
        stages: list[nn.Module] = []
        for kernel, stride in _SPECTRUM_CONVOLUTIONS:
            stages += [_SameConv1d(before, channels, kernel, stride), nn.ReLU(), _SqueezeExcitation(channels)]
            before, bins = channels, -(-bins // stride)
        self.convolutions = nn.Sequential(*stages)
        dense: list[nn.Module] = [nn.Flatten()]
        inputs = channels * bins
        for _ in range(4):
            dense += [nn.Linear(inputs, embedding, bias=False), nn.BatchNorm1d(embedding), nn.ReLU()]
            inputs = embedding
        self.dense = nn.Sequential(*dense, nn.Linear(embedding, embedding, bias=False))

    def forward(self, x_BF: Tensor) -> Tensor:
        embedding_BD: Tensor = self.dense(self.convolutions(x_BF[:, None]))
        return embedding_BD


class MultiDimensionalAttention(nn.Module):
    """Attention along time, frequency and channel, each on its own, for a shallow map.

        y = x (a_channel + a_frequency + a_time) / 3

    Each gate is a sigmoid of what the map is on average along the other two axes. A channel and a frequency are always
    the same ones, so theirs are dense bottlenecks; a time may be any, so its gate is a short convolution of mean and
    maximum, alike wherever a sound falls. The idea is that of Chen et al. ("MDAM", ICONIP 2023), of which only the
    abstract is public; this design is ours.
    """

    #: frames that a gate of time looks at
    REACH = 7

    def __init__(self, channels: int, frequencies: int) -> None:
        super().__init__()
        self.channel = _gate(channels)
        self.frequency = _gate(frequencies)
        self.time = nn.Conv1d(2, 1, self.REACH, padding=self.REACH // 2)

    def forward(self, x_BCTF: Tensor) -> Tensor:
        """(B, C, T, F) -> the same shape."""
        channel_BC11 = self.channel(x_BCTF.mean(dim=(2, 3)))[:, :, None, None]
        frequency_B11F = self.frequency(x_BCTF.mean(dim=(1, 2)))[:, None, None]
        over_time_B2T = torch.stack([x_BCTF.mean(dim=(1, 3)), x_BCTF.amax(dim=(1, 3))], dim=1)
        time_B1T1 = torch.sigmoid(self.time(over_time_B2T))[..., None]
        return x_BCTF * (channel_BC11 + frequency_B11F + time_B1T1) / 3


class _Residual(nn.Module):
    """Two convolutions, each of a normalised and rectified map, then squeeze-and-excitation, added to the input.

    He et al., "Identity mappings in deep residual networks", ECCV 2016, with Hu et al., CVPR 2018.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.gate = _SqueezeExcitation(after)
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x_BCTF: Tensor) -> Tensor:
        y_BCTF = self.conv1(F.relu(self.norm1(x_BCTF)))
        y_BCTF = self.gate(self.conv2(F.relu(self.norm2(y_BCTF))))
        sum_BCTF: Tensor = self.shortcut(x_BCTF) + y_BCTF
        return sum_BCTF


class _SqueezeExcitation(nn.Module):
    """Channels times a gate of their means over all else (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = _gate(channels)

    def forward(self, x_BCX: Tensor) -> Tensor:
        gate_BC: Tensor = self.gate(x_BCX.flatten(start_dim=2).mean(dim=2))
        return x_BCX * gate_BC.view(*gate_BC.shape, *[1] * (x_BCX.ndim - 2))


class _SameConv1d(nn.Conv1d):
    """Convolution without bias, zeros on both sides so that every started stride gives an output."""

    def __init__(self, before: int, after: int, kernel: int, stride: int) -> None:
        super().__init__(before, after, kernel, stride, bias=False)

    def forward(self, x_BCF: Tensor) -> Tensor:
        (kernel,), (stride,), bins = self.kernel_size, self.stride, x_BCF.shape[2]
        missing = max(0, (-(-bins // stride) - 1) * stride + kernel - bins)
        return super().forward(F.pad(x_BCF, (missing // 2, missing - missing // 2)))


def _gate(size: int) -> nn.Sequential:
    squeezed = max(1, size // _REDUCTION)
    return nn.Sequential(
        nn.Linear(size, squeezed, bias=False), nn.ReLU(), nn.Linear(squeezed, size, bias=False), nn.Sigmoid()
    )


@register_encoder("dual_branch")
class DualBranch(TorchEncoder):
    """One frame for every `seconds` of a clip; 16 kHz.

    Layers: `stft` and `spectrum`, the embeddings of the branches, and `both`, one after the other.

    A clip of up to `seconds` is repeated to that length. A longer one is cut into as few windows of that length as
    cover it, at equal distances, which pass one by one. Neither padding nor the rest of a batch changes a clip's
    features.

    weights: arrays by name, or None for a random network. seed: of that random network. The other arguments are
    those of `DualBranchNet`.
    """

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"tiny": TINY, "base": {}}
    needs_weights: ClassVar[bool] = True
    # One of its branches hears the whole spectrum, which no spectrogram has.
    takes_spectrograms: ClassVar[bool] = False
    separate_layers: ClassVar[bool] = True

    module: DualBranchNet

    def __init__(
        self,
        weights: Mapping[str, NDArray[Any]] | None = None,
        *,
        seconds: float = SECONDS,
        low_hz: float = LOW_HZ,
        high_hz: float = HIGH_HZ,
        centre: bool = True,
        attention: bool = False,
        channels: int = 16,
        spectrum_channels: int = 128,
        embedding: int = 128,
        seed: int = 0,
    ) -> None:
        """Raises WeightsError if a tensor is missing, of another shape or not finite; ValueError as `DualBranchNet`."""
        self._sizes: dict[str, Any] = {
            "seconds": seconds, "low_hz": low_hz, "high_hz": high_hz, "centre": centre, "attention": attention,
            "channels": channels, "spectrum_channels": spectrum_channels, "embedding": embedding,
        }  # fmt: skip
        self.seed = seed
        # Without memory at first: what torch's layers draw for their first values is of no use here.
        with without_values():
            self.module = DualBranchNet(**self._sizes)
        if weights is None:
            self.module.to_empty(device="cpu")
            _randomise(self.module, seed)
        else:
            check_tensors(weights, state_shapes(self.module), architecture="dual_branch of that configuration")
            types = {name: tensor.dtype for name, tensor in self.module.state_dict().items()}
            state = {name: torch.tensor(weights[name], dtype=dtype) for name, dtype in types.items()}
            self.module.load_state_dict(state, assign=True)
        self.module.eval()
        self.sample_rate = SAMPLE_RATE
        #: one frame of the spectrogram
        self.min_samples = N_FFT
        self.layers = LAYERS
        self.default_layer = LAYERS[-1]

    @classmethod
    def tensor_shapes(cls, *, seed: int = 0, **sizes: Any) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight of the configuration, the batch norms' statistics among them."""
        with without_values():
            return state_shapes(DualBranchNet(**sizes))

    def config(self) -> dict[str, Any]:
        return {**self._sizes, "seed": self.seed}

    def weights(self) -> Mapping[str, NDArray[Any]]:
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.module.state_dict().items()}

    def frame_count(self, samples: int, layer: str) -> int:
        return len(self.passes(samples))

    def dimensions(self, layer: str) -> int:
        return int(self._sizes["embedding"]) * (2 if layer == "both" else 1)

    def passes(self, samples: int) -> list[tuple[int, int]]:
        length = self.module.samples
        if samples <= length:
            return [(0, samples)]
        windows = -(-samples // length)
        starts = [(samples - length) * index // (windows - 1) for index in range(windows)]
        return [(start, start + length) for start in starts]


def _randomise(net: DualBranchNet, seed: int) -> None:
    """The network before training: He et al. (2015), as for any rectified network."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | TrainingSetNorm):
            module.reset_parameters()
        elif isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
