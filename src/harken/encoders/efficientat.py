"""EfficientAT: MobileNetV3 distilled from transformers on AudioSet.

Schmid, Koutini, Widmer, "Efficient Large-Scale Audio Tagging Via Transformer-to-CNN Knowledge Distillation",
ICASSP 2023. Tensor names are those of the published files (fschmid56/EfficientAT, `mn*_as*.pt`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harken.audio.kaldi_fbank import kaldi_mel_filters
from harken.encoders.registry import register_encoder
from harken.encoders.spectrogram_net import SpectrogramNet
from harken.encoders.torch_encoder import TorchEncoder, state_shapes
from harken.encoders.without_values import without_values
from harken.weights.tensors import check_tensors

SAMPLE_RATE = 32_000
N_FFT, WINDOW, HOP, MELS = 1024, 800, 320, 128
TOP_HZ = 15_000.0
CLASSES = 527
#: samples under one frame of the deepest maps, whose stride is 32 spectrogram frames
UNIT = 32 * HOP
#: most samples that pass through the network at once: 20.48 s
LONGEST = 64 * UNIT


class _Bottleneck(NamedTuple):
    """One row of Table 1 of the MobileNetV3 paper (Howard et al., 2019), channels at width 1."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    hardswish: bool
    stride: int


_BOTTLENECKS = (
    _Bottleneck(3, 16, 16, False, False, 1),
    _Bottleneck(3, 64, 24, False, False, 2),
    _Bottleneck(3, 72, 24, False, False, 1),
    _Bottleneck(5, 72, 40, True, False, 2),
    _Bottleneck(5, 120, 40, True, False, 1),
    _Bottleneck(5, 120, 40, True, False, 1),
    _Bottleneck(3, 240, 80, False, True, 2),
    _Bottleneck(3, 200, 80, False, True, 1),
    _Bottleneck(3, 184, 80, False, True, 1),
    _Bottleneck(3, 184, 80, False, True, 1),
    _Bottleneck(3, 480, 112, True, True, 1),
    _Bottleneck(3, 672, 112, True, True, 1),
    _Bottleneck(5, 672, 160, True, True, 2),
    _Bottleneck(5, 960, 160, True, True, 1),
    _Bottleneck(5, 960, 160, True, True, 1),
)

MAPS = tuple(f"block_{index}" for index in range(len(_BOTTLENECKS) + 2))
LAYERS = (*MAPS, "pooled", "logits")
_STRIDES = tuple(int(s) for s in np.cumprod([2, *(row.stride for row in _BOTTLENECKS), 1]))


def frame_count(samples: int, layer: str) -> int:
    """Frames of `layer` for a clip of `samples` at 32 kHz.

    Maps have one frame per started `stride` spectrogram frames of 10 ms; `pooled` and `logits` have one per
    pass through the network.
    """
    if layer not in MAPS:
        return len(_passes(samples))
    # The centred STFT has a frame at every started hop, pre-emphasis having taken one sample.
    spectrogram_frames = 1 + (samples - 1) // HOP
    return -(-spectrogram_frames // _STRIDES[MAPS.index(layer)])


class EfficientATNet(SpectrogramNet):
    """The trainable network, front end included."""

    layers = LAYERS
    frequency_first = True
    window: Tensor
    filters_MF: Tensor

    def __init__(self, width: float = 0.4) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return _multiple_of_8(channels * width)

        channels = scaled(16)
        stages: list[nn.Module] = [_conv(1, channels, kernel=3, stride=2, activation=nn.Hardswish)]
        for row in _BOTTLENECKS:
            stages.append(_InvertedResidual(channels, scaled(row.expanded), scaled(row.out), row))
            channels = scaled(row.out)
        stages.append(_conv(channels, 6 * channels, kernel=1, activation=nn.Hardswish))
        self.features = nn.Sequential(*stages)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(start_dim=1),
            nn.Linear(6 * channels, scaled(1280)),
            nn.Hardswish(),
            nn.Dropout(p=0.2),
            nn.Linear(scaled(1280), CLASSES),
        )
        filters_FM = kaldi_mel_filters(MELS, N_FFT, SAMPLE_RATE, 0.0, TOP_HZ)
        # No weights: they are computed where weights are on the meta device, too.
        self.register_buffer("filters_MF", torch.tensor(filters_FM.T.copy(), device="cpu"), persistent=False)
        window_S = torch.hann_window(WINDOW, periodic=False, device="cpu")
        self.register_buffer("window", window_S, persistent=False)

    def spectrogram(self, wave_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """(clips, samples) -> (clips, 128, frames), normalised as in training. Clips are of one length."""
        if lengths_B is not None:
            raise ValueError("efficientat takes clips of one length")
        emphasised_BS = wave_BS[:, 1:] - 0.97 * wave_BS[:, :-1]
        # Centred frames, the edges reflected.
        stft_BFT = torch.stft(emphasised_BS, N_FFT, HOP, WINDOW, self.window, return_complex=True)
        power_BFT = torch.view_as_real(stft_BFT).square().sum(dim=-1)
        log_BMT = torch.log(self.filters_MF @ power_BFT + 1e-5)
        return (log_BMT + 4.5) / 5.0

    def encode_spectrogram(
        self, spectrogram_BFM: Tensor, layers: Sequence[str] = (), frames_B: Tensor | None = None
    ) -> list[Tensor]:
        """(clips, 128, frames) -> (clips, frames, dimensions) of each of `layers` (default: `logits`)."""
        layers = self.checked(layers)
        deepest = max(MAPS.index(layer) if layer in MAPS else len(MAPS) - 1 for layer in layers)
        outputs = {}
        x_BCFT = spectrogram_BFM[:, None]
        for name, stage in zip(MAPS[: deepest + 1], self.features, strict=False):
            x_BCFT = stage(x_BCFT)
            if name in layers:
                # Channel-major, so that dimension = channel * frequencies + frequency.
                outputs[name] = x_BCFT.permute(0, 3, 1, 2).flatten(start_dim=2)
        if "pooled" in layers:
            outputs["pooled"] = x_BCFT.mean(dim=(2, 3))[:, None]
        if "logits" in layers:
            outputs["logits"] = self.classifier(x_BCFT)[:, None]
        return [outputs[layer] for layer in layers]


@register_encoder("efficientat")
class EfficientAT(TorchEncoder):
    """Frame-level features of every block; 32 kHz.

    Layers `block_0` ... `block_16` are maps with the frequency axis kept: block 13 of mn04_as has
    D = 64 channels x 4 frequencies every 320 ms. `pooled` (mean of the last map) and `logits` (527 AudioSet
    classes) have one frame per pass. Layers of different shape need one call each.

    A clip of more than 20.48 s is cut into windows, as few and as equal as whole frames of 320 ms allow,
    which pass one by one: memory stays bounded, and squeeze-and-excitation, which averages over a whole pass,
    sees about as much time as the 10 s it was trained with. Neither padding nor the rest of a batch changes a
    clip's features.

    weights: arrays by published name, or None for a random network. seed: of that random network.
    width: channel multiplier, the `04` of mn04 being 0.4.
    """

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"tiny": {"width": 0.1}, "mn04": {}}
    needs_weights: ClassVar[bool] = True
    front_end_settings: ClassVar[tuple[str, ...]] = ()
    front_end_arrays: ClassVar[tuple[str, ...]] = ()
    takes_lengths: ClassVar[bool] = False

    def __init__(self, weights: Mapping[str, NDArray[Any]] | None = None, *, width: float = 0.4, seed: int = 0) -> None:
        """Raises WeightsError if a tensor is missing, of another shape, or not finite."""
        self.width = width
        self.seed = seed
        self.sample_rate = SAMPLE_RATE
        self.min_samples = UNIT
        self.layers = LAYERS
        self.default_layer = "block_13"
        if weights is None:
            self.module = _build(width)
            _randomise(self.module, seed)
        else:
            with without_values():
                self.module = EfficientATNet(width)
            state = self.module.state_dict()
            check_tensors(weights, state_shapes(self.module), architecture=f"efficientat of width {width:g}")
            tensors = {name: torch.tensor(weights[name], dtype=tensor.dtype) for name, tensor in state.items()}
            self.module.load_state_dict(tensors, assign=True)
        self.module.eval()

    @classmethod
    def tensor_shapes(cls, *, width: float = 0.4, **config: Any) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight of the configuration."""
        with without_values():
            net = EfficientATNet(width)
        return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}

    def config(self) -> dict[str, Any]:
        return {"width": self.width, "seed": self.seed}

    def weights(self) -> Mapping[str, NDArray[Any]]:
        state = self.module.state_dict()
        return {name: tensor.cpu().numpy().copy() for name, tensor in state.items()}

    def frame_count(self, samples: int, layer: str) -> int:
        return frame_count(samples, layer)

    def passes(self, samples: int) -> list[tuple[int, int]]:
        return _passes(samples)


def _passes(samples: int) -> list[tuple[int, int]]:
    """Start and stop of the windows of at most `LONGEST` samples in which a clip passes through the network.

    All but the last hold whole frames of every map, so that frames of successive windows follow each other at
    one rate.
    """
    units = -(-samples // UNIT)
    windows = -(-units // (LONGEST // UNIT))
    bounds = [UNIT * (units * index // windows) for index in range(windows)] + [samples]
    return list(pairwise(bounds))


def _multiple_of_8(channels: float) -> int:
    """Nearest multiple of 8 that is not more than a tenth below (MobileNet's rounding of scaled channels)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def _conv(
    channels: int,
    out: int,
    *,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = None,
) -> nn.Sequential:
    modules: list[nn.Module] = [
        nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out, eps=0.001, momentum=0.01),
    ]
    if activation is not None:
        modules.append(activation())
    return nn.Sequential(*modules)


class _SqueezeExcitation(nn.Module):
    """Channel attention from the mean over frequency and time."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, x_BCFT: Tensor) -> Tensor:
        gate_BC = torch.sigmoid(self.fc2(torch.relu(self.fc1(x_BCFT.mean(dim=(2, 3))))))
        return x_BCFT * gate_BC[:, :, None, None]


class _ConcurrentSqueezeExcitation(nn.Module):
    # The published networks could attend over several axes at once; those on AudioSet attend over channels
    # only. The list of one keeps their tensor names.
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([_SqueezeExcitation(channels, _multiple_of_8(channels // 4))])

    def forward(self, x_BCFT: Tensor) -> Tensor:
        gated_BCFT: Tensor = self.conc_se_layers[0](x_BCFT)
        return gated_BCFT


class _InvertedResidual(nn.Module):
    """Expand, filter each channel, squeeze-and-excite, project; plus the input where shapes allow."""

    def __init__(self, channels: int, expanded: int, out: int, row: _Bottleneck) -> None:
        super().__init__()
        activation = nn.Hardswish if row.hardswish else nn.ReLU
        modules: list[nn.Module] = []
        if expanded != channels:
            modules.append(_conv(channels, expanded, kernel=1, activation=activation))
        depthwise = {"kernel": row.kernel, "stride": row.stride, "groups": expanded}
        modules.append(_conv(expanded, expanded, activation=activation, **depthwise))
        if row.squeeze:
            modules.append(_ConcurrentSqueezeExcitation(expanded))
        modules.append(_conv(expanded, out, kernel=1))
        self.block = nn.Sequential(*modules)
        self.residual = row.stride == 1 and channels == out

    def forward(self, x_BCFT: Tensor) -> Tensor:
        y_BCFT: Tensor = self.block(x_BCFT)
        return y_BCFT + x_BCFT if self.residual else y_BCFT


def _build(width: float) -> EfficientATNet:
    # Torch's layers draw their first values from the global generator, which is not ours to move.
    with torch.random.fork_rng(devices=[]):
        return EfficientATNet(width)


def _randomise(net: EfficientATNet, seed: int) -> None:
    """The network before training, as its authors initialise it."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01, generator=generator)
            nn.init.zeros_(module.bias)
