"""YAMNet: MobileNet v1 on AudioSet (Plakal and Ellis, 2019; tensorflow/models, research/audioset/yamnet).

Depthwise-separable convolutions after Howard et al., "MobileNets", 2017. Weights are named `NN.part`, where
NN counts convolutions, normalisations and the classifier in order of the network, in TensorFlow's layouts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from harken.audio.kaldi_fbank import kaldi_mel_filters
from harken.encoders.registry import register_encoder
from harken.encoders.spectrogram_net import SpectrogramNet
from harken.encoders.torch_encoder import TorchEncoder
from harken.encoders.without_values import without_values
from harken.weights.tensors import check_tensors

SAMPLE_RATE = 16_000
FRAME, SHIFT, N_FFT, MELS = 400, 160, 512, 64
LOW_HZ, HIGH_HZ = 125.0, 7_500.0
CLASSES = 521
#: spectrogram frames of one patch, and from one patch to the next: 0.96 s and 0.48 s
PATCH, PATCH_SHIFT = 96, 48
#: samples of one patch (0.975 s), and from one patch to the next
PATCH_SAMPLES = (PATCH - 1) * SHIFT + FRAME
PATCH_SHIFT_SAMPLES = PATCH_SHIFT * SHIFT
#: most patches that pass through the network at once: 31 s
LONGEST = 64

#: output channels and stride of the 14 convolutions; all but the first are depthwise-separable
_CONVOLUTIONS = (
    (32, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip

MAPS = tuple(f"layer_{index + 1}" for index in range(len(_CONVOLUTIONS)))
LAYERS = (*MAPS, "embedding", "scores")
_STRIDES = tuple(int(s) for s in np.cumprod([stride for _, stride in _CONVOLUTIONS]))


def patch_count(samples: int) -> int:
    """Patches of a clip of `samples` at 16 kHz, the last filled up with silence; at least one."""
    return 1 + max(0, -(-(samples - PATCH_SAMPLES) // PATCH_SHIFT_SAMPLES))


def frame_count(samples: int, layer: str) -> int:
    """Frames of `layer`: those of each patch in turn; `embedding` and `scores` have one per patch."""
    per_patch = PATCH // _STRIDES[MAPS.index(layer)] if layer in MAPS else 1
    return per_patch * patch_count(samples)


class YAMNetNet(SpectrogramNet):
    """The trainable network, front end included; parameters are named as the weights."""

    layers = LAYERS
    window: Tensor
    filters_FM: Tensor

    def __init__(self) -> None:
        super().__init__()
        channels = 1
        for index, (out, stride) in enumerate(_CONVOLUTIONS):
            if index == 0:
                self._append(_Convolution(channels, out, kernel=3, stride=stride), _Normalisation(out))
            else:
                self._append(_DepthwiseConvolution(channels, stride), _Normalisation(channels))
                self._append(_Convolution(channels, out, kernel=1), _Normalisation(out))
            channels = out
        self._append(_Classifier(channels, CLASSES))
        filters_FM = kaldi_mel_filters(MELS, N_FFT, SAMPLE_RATE, LOW_HZ, HIGH_HZ)
        self.register_buffer("filters_FM", torch.tensor(filters_FM), persistent=False)
        self.register_buffer("window", torch.hann_window(FRAME, periodic=True), persistent=False)

    def _append(self, *modules: nn.Module) -> None:
        for module in modules:
            self.add_module(f"{len(self._modules):02d}", module)

    def _stages(self) -> Iterator[list[nn.Module]]:
        modules = list(self.children())[:-1]
        yield modules[:2]
        for start in range(2, len(modules), 4):
            yield modules[start : start + 4]

    def spectrogram(self, wave_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """(clips, samples) -> (clips, frames, 64) log-mel magnitudes of whole patches; silence ends the last one."""
        if lengths_B is not None:
            raise ValueError("yamnet takes clips of one length")
        samples = wave_BS.shape[1]
        wanted = PATCH_SAMPLES + (patch_count(samples) - 1) * PATCH_SHIFT_SAMPLES
        frame_BFN = F.pad(wave_BS, (0, wanted - samples)).unfold(1, FRAME, SHIFT) * self.window
        magnitude_BFK = torch.fft.rfft(frame_BFN, n=N_FFT).abs()
        return torch.log(magnitude_BFK @ self.filters_FM + 0.001)

    def patches(self, wave_BS: Tensor) -> Tensor:
        """(clips, samples) -> (clips, patches, 96, 64) log-mel magnitudes."""
        return _cut(self.spectrogram(wave_BS))

    def encode_spectrogram(
        self, spectrogram_BFM: Tensor, layers: Sequence[str] = (), frames_B: Tensor | None = None
    ) -> list[Tensor]:
        """(clips, frames, 64) -> (clips, frames, dimensions) of each of `layers` (default: `scores`)."""
        layers = self.checked(layers)
        deepest = max(MAPS.index(layer) if layer in MAPS else len(MAPS) - 1 for layer in layers)
        clips = len(spectrogram_BFM)
        outputs = {}
        x_PCTF = _cut(spectrogram_BFM).flatten(end_dim=1)[:, None]
        for name, stage in zip(MAPS[: deepest + 1], self._stages(), strict=False):
            for module in stage:
                x_PCTF = module(x_PCTF)
            if name in layers:
                # Channel-major, so that dimension = channel * frequencies + frequency.
                map_PTD = x_PCTF.permute(0, 2, 1, 3).flatten(start_dim=2)
                outputs[name] = map_PTD.reshape(clips, -1, map_PTD.shape[2])
        if "embedding" in layers or "scores" in layers:
            embedding_PD = x_PCTF.mean(dim=(2, 3))
            outputs["embedding"] = embedding_PD.reshape(clips, -1, embedding_PD.shape[1])
            *_, classifier = self.children()
            outputs["scores"] = torch.sigmoid(classifier(outputs["embedding"]))
        return [outputs[layer] for layer in layers]


def _cut(spectrogram_BFM: Tensor) -> Tensor:
    """(clips, frames, 64) -> (clips, patches, 96, 64)."""
    return spectrogram_BFM.unfold(1, PATCH, PATCH_SHIFT).transpose(2, 3)


@register_encoder("yamnet")
class YAMNet(TorchEncoder):
    """Frame-level features of every convolution; 16 kHz.

    Patches of 0.96 s every 0.48 s pass through the network separately. Layers `layer_1` ... `layer_14` are
    maps with the frequency axis kept, the frames of one patch after those of the one before, so that the
    overlap of neighbouring patches is counted twice; layer 9 has D = 512 channels x 4 frequencies, 6 frames a
    patch. `embedding` (1024, mean of the last map) and `scores` (521 AudioSet classes, each in [0, 1]) have
    one frame a patch. Layers of different shape need one call each.

    Long clips pass in groups of 64 patches, so that memory stays bounded. Neither padding nor the rest of a
    batch changes a clip's features.

    weights: arrays by name, or None for a random network. seed: of that random network.
    """

    needs_weights: ClassVar[bool] = True
    front_end_settings: ClassVar[tuple[str, ...]] = ()
    front_end_arrays: ClassVar[tuple[str, ...]] = ()
    takes_lengths: ClassVar[bool] = False

    def __init__(self, weights: Mapping[str, NDArray[Any]] | None = None, *, seed: int = 0) -> None:
        """Raises WeightsError if a tensor is missing, of another shape, or not finite."""
        self.seed = seed
        self.sample_rate = SAMPLE_RATE
        self.min_samples = PATCH_SAMPLES
        self.layers = LAYERS
        self.default_layer = "layer_9"
        self.module = YAMNetNet()
        if weights is None:
            _randomise(self.module, seed)
        else:
            check_tensors(weights, self.tensor_shapes(), architecture="yamnet")
            self.module.load_state_dict({name: _to_torch(name, array) for name, array in weights.items()})
        self.module.eval()

    @classmethod
    def tensor_shapes(cls, **config: Any) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight."""
        with without_values():
            net = YAMNetNet()
        return {name: tuple(_to_tensorflow(name, value).shape) for name, value in net.state_dict().items()}

    def config(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def weights(self) -> Mapping[str, NDArray[Any]]:
        state = self.module.state_dict()
        return {name: _to_tensorflow(name, value).cpu().contiguous().numpy() for name, value in state.items()}

    def frame_count(self, samples: int, layer: str) -> int:
        return frame_count(samples, layer)

    def passes(self, samples: int) -> list[tuple[int, int]]:
        patches = patch_count(samples)
        return [
            (
                first * PATCH_SHIFT_SAMPLES,
                (min(first + LONGEST, patches) - 1) * PATCH_SHIFT_SAMPLES + PATCH_SAMPLES,
            )
            for first in range(0, patches, LONGEST)
        ]


class _Convolution(nn.Module):
    """Without bias, with TensorFlow's SAME padding."""

    def __init__(self, channels: int, out: int, *, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(out, channels, kernel, kernel))
        self.stride = stride

    def forward(self, x_BCTF: Tensor) -> Tensor:
        return _conv_same(x_BCTF, self.kernel, self.stride)


class _DepthwiseConvolution(nn.Module):
    """3 x 3 on each channel by itself."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise_kernel = nn.Parameter(torch.empty(channels, 1, 3, 3))
        self.stride = stride

    def forward(self, x_BCTF: Tensor) -> Tensor:
        return _conv_same(x_BCTF, self.depthwise_kernel, self.stride, groups=x_BCTF.shape[1])


class _Normalisation(nn.Module):
    """Batch normalisation without scale, then ReLU, which both follow every convolution."""

    moving_mean: Tensor
    moving_variance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(channels))
        self.register_buffer("moving_mean", torch.zeros(channels))
        self.register_buffer("moving_variance", torch.ones(channels))

    def forward(self, x_BCTF: Tensor) -> Tensor:
        normal_BCTF = F.batch_norm(
            x_BCTF,
            self.moving_mean,
            self.moving_variance,
            bias=self.beta,
            training=self.training,
            momentum=0.01,
            eps=1e-4,
        )
        return torch.relu(normal_BCTF)


class _Classifier(nn.Module):
    def __init__(self, dimensions: int, classes: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(classes, dimensions))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.linear(x_BTD, self.kernel, self.bias)


def _conv_same(x_BCTF: Tensor, kernel: Tensor, stride: int, groups: int = 1) -> Tensor:
    """Convolution to ceil(size / stride), TensorFlow's SAME: of odd padding the end gets the larger half."""
    size = kernel.shape[2]
    total_t, total_f = (max(0, (-(-n // stride) - 1) * stride + size - n) for n in x_BCTF.shape[2:])
    if total_t % 2 or total_f % 2:
        ends = (total_f // 2, total_f - total_f // 2, total_t // 2, total_t - total_t // 2)
        return F.conv2d(F.pad(x_BCTF, ends), kernel, stride=stride, groups=groups)
    return F.conv2d(x_BCTF, kernel, stride=stride, padding=(total_t // 2, total_f // 2), groups=groups)


# TensorFlow keeps kernels as (height, width, in, out), depthwise ones as (height, width, channels, 1) and the
# classifier's as (in, out).
def _to_tensorflow(name: str, value: Tensor) -> Tensor:
    if value.ndim == 4:
        return value.permute(2, 3, 0, 1) if "depthwise" in name else value.permute(2, 3, 1, 0)
    return value.T if value.ndim == 2 else value.clone()


def _to_torch(name: str, array: NDArray[Any]) -> Tensor:
    value = torch.tensor(array)
    if value.ndim == 4:
        return value.permute(2, 3, 0, 1) if "depthwise" in name else value.permute(3, 2, 0, 1)
    return value.T if value.ndim == 2 else value


def _randomise(net: YAMNetNet, seed: int) -> None:
    # He initialisation, which keeps the variance through ReLUs; the global generator is left alone.
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        if name.endswith("kernel"):
            nn.init.kaiming_normal_(parameter, mode="fan_in", generator=generator)
