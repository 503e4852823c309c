"""FISHER: a transformer over sub-bands of a spectrogram, for sound and vibration of any sampling rate.

Fan, Jiang, Zhang et al., "FISHER: A Foundation Model for Multi-Modal Industrial Signal Comprehensive
Representation", arXiv:2507.16696, 2025. A higher sampling rate gives more sub-bands of the same width in Hz, each
of which passes through the same network on its own. Blocks and tensor names are those of EAT (see `eat`), with the
table of positions beside them; `read_checkpoint` reads the published files (jianganbai/FISHER).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from harken.audio.stft import frame_count as stft_frames
from harken.core.errors import WeightsError
from harken.encoders.patch_net import PatchNet, randomise
from harken.encoders.published import check_fixed, fitting_shapes, nested_value
from harken.encoders.registry import register_encoder
from harken.encoders.torch_encoder import TorchEncoder, state_shapes
from harken.encoders.without_values import without_values
from harken.weights.tensors import check_tensors

Float32 = NDArray[np.float32]

#: frequencies and times of the grid that the table of positions was made for
GRID = (50, 128)

#: configuration of a network that is small enough for tests
TINY: dict[str, Any] = {"width": 96, "depth": 3, "heads": 4}


class FISHERNet(PatchNet):
    """The trainable network, front end included; Sec. 3 of the paper.

    width, depth, heads: of the transformer. sample_rate: of the waveform, in Hz; it changes no weight.
    Raises ValueError for sizes that do not fit each other, or a rate below 100 Hz.
    """

    #: length and hop of a frame in ms
    FRAME_MS, HOP_MS = 25, 10
    #: frequency bins of a sub-band (of 40 Hz each); what is left above the last whole one is not heard
    BAND = 100
    #: patches above one another in a sub-band
    ROWS = BAND // PatchNet.PATCH
    patch_rows = ROWS
    #: most frames of one pass: 10.24 s
    FRAMES = 1024
    FLOOR = 1e-10
    #: mean and deviation of the training set's log magnitudes; the deviation counts twice
    MEAN, DEVIATION = -3.017344307886898, 2.1531635155379805

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12, sample_rate: int = 16_000) -> None:
        super().__init__(width, depth, heads)
        if sample_rate < 100:
            raise ValueError(f"{sample_rate} Hz is below 100 Hz, where a hop is one sample")
        self.frame, self.hop = self.FRAME_MS * sample_rate // 1000, self.HOP_MS * sample_rate // 1000
        self.bands = max(1, (self.frame // 2 + 1) // self.BAND)
        self.fixed_positional_encoder = _Table(width)

    def encode_spectrogram(
        self, spectrogram_BFM: Tensor, layers: Sequence[str] = (), frames_B: Tensor | None = None
    ) -> list[Tensor]:
        """(clips, frames, bins) -> (clips, 1 + tokens, bands * width) of each of `layers`.

        The first token is CLS, patches follow by time, then by frequency within their sub-band; see `FISHER` for
        the layers (default: the last block). Patches that reach beyond the valid frames are not attended to, but are
        part of the output.
        """
        # Sub-bands are sequences of their own; those of one clip follow each other, so G = clip * bands + band.
        x_GND = self.embed(spectrogram_BFM)
        visible_GN = None
        if frames_B is not None:
            # Patches are whole.
            steps_B = frames_B.to(x_GND.device).div(self.PATCH, rounding_mode="floor")
            steps_G = steps_B.repeat_interleave(self.bands)
            steps_N = torch.arange(x_GND.shape[1], device=x_GND.device) // self.ROWS
            visible_GN = steps_N < steps_G[:, None]
        return [
            output_GND.view(-1, self.bands, *output_GND.shape[1:]).transpose(1, 2).flatten(start_dim=2)
            for output_GND in self.encode_patches(x_GND, layers, visible_GN)
        ]

    def published_sizes(self) -> dict[str, int]:
        return {**super().published_sizes(), "band_width": self.BAND}

    def valid_frames(self, lengths_B: Tensor | None, samples: int) -> Tensor | None:
        """Those that lie within the clip."""
        return None if lengths_B is None else (lengths_B - self.frame).div(self.hop, rounding_mode="floor") + 1

    def check_samples(self, samples: int) -> None:
        if stft_frames(samples, self.frame, self.hop) < self.PATCH:
            raise ValueError(f"{samples} samples are too short for one patch of {self.PATCH} frames")

    def spectrogram(self, wave_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """(clips, samples) -> (clips, at most 1024 frames, bins), normalised as in training."""
        # Logarithms of silence are more than half precision holds.
        with torch.autocast(wave_BS.device.type, enabled=False):
            wave_BS = wave_BS.float()
            if lengths_B is None:
                mean_B1 = wave_BS.mean(dim=1, keepdim=True)
            else:
                lengths_B1 = lengths_B.to(wave_BS.device)[:, None]
                valid_BS = torch.arange(wave_BS.shape[1], device=wave_BS.device) < lengths_B1
                mean_B1 = torch.where(valid_BS, wave_BS, 0.0).sum(dim=1, keepdim=True) / lengths_B1.clamp_min(1)
            # The mean is that of the whole waveform, also where only its start is looked at.
            wave_BS = (wave_BS - mean_B1)[:, : self.frame + (self.FRAMES - 1) * self.hop]
            window = torch.hann_window(self.frame, device=wave_BS.device)
            stft_BKF = torch.stft(wave_BS, self.frame, self.hop, self.frame, window, center=False, return_complex=True)
            x_BFK = (stft_BKF.abs() + self.FLOOR).log().transpose(1, 2)
            return (x_BFK - self.MEAN) / (2 * self.DEVIATION)

    def embed(self, spectrogram_BFK: Tensor) -> Tensor:
        """(clips, frames, bins) -> (clips * bands, tokens, width) patches with their positions, frequency fastest."""
        # Rates below 7.92 kHz do not fill one band; the rest of it is the training set's mean.
        x_BFK = F.pad(spectrogram_BFK, (0, max(0, self.BAND - spectrogram_BFK.shape[2])))
        lows = range(0, self.bands * self.BAND, self.BAND)
        x_GFK = torch.stack([x_BFK[..., low : low + self.BAND] for low in lows], dim=1).flatten(end_dim=1)
        x_GDTF: Tensor = self.local_encoder["proj"](x_GFK[:, None])
        x_GND = x_GDTF.flatten(start_dim=2).transpose(1, 2)
        # The reference takes the table's first rows for the patches in their order, whatever their place in its
        # grid: patch 6, the second time's first, has the position of frequency 6. The weights expect it.
        table_1ND = self.fixed_positional_encoder.positions[:, : x_GND.shape[1]]
        return x_GND + table_1ND.to(x_GND.dtype)


@register_encoder("fisher")
class FISHER(TorchEncoder):
    """Frame-level features of every block; any sampling rate.

    Layers, all (1 + tokens, bands * width): `patches` (what enters the first block), `block_1`, `block_2`, ...
    (output of a block) and `target_1`, `target_2`, ... (output of a block's MLP before the residual). The dimensions of
    the lowest sub-band come first: 2 sub-bands at 16 kHz, 6 at 48 kHz, of 4 kHz each. The first frame is CLS; that of
    the last block is the published embedding. Then come `patch_bands` patches of 640 Hz, low first, for every whole
    160 ms.

    A clip of more than 10.24 s is cut into successive windows of that length, each with a CLS and a mean of its
    own; their patches follow each other, and the one CLS is the mean of the windows', weighted by their patches.
    Less than one patch beyond the last window is dropped. Neither padding nor the rest of a batch changes a clip's
    features.

    weights: arrays by published name, or None for a random network. seed: of that random network.
    width, depth, heads: of the transformer; published are 192, 12, 3 (tiny) and 384, 12, 6 (small), among others.
    sample_rate: in Hz, of the waveforms. The same weights serve every rate; dimensions grow with it.
    """

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": TINY,
        "fisher-tiny": {"width": 192, "depth": 12, "heads": 3},
        "fisher-mini": {"width": 256, "depth": 12, "heads": 4},
        "fisher-small": {"width": 384, "depth": 12, "heads": 6},
        "base": {},
    }
    any_rate: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = True
    adapter_targets: ClassVar[str | None] = r"blocks\.\d+\.attn\.(qkv|proj)"
    front_end_settings: ClassVar[tuple[str, ...]] = ()
    front_end_arrays: ClassVar[tuple[str, ...]] = ()
    default_pooling = "cls"
    cls_tokens = 1
    patch_bands = FISHERNet.ROWS

    module: FISHERNet

    def __init__(
        self,
        weights: Mapping[str, NDArray[Any]] | None = None,
        *,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        sample_rate: int = 16_000,
        seed: int = 0,
    ) -> None:
        """Raises WeightsError if a tensor is missing, of another shape, or not finite; ValueError as `FISHERNet`."""
        self.width = width
        self.depth = depth
        self.heads = heads
        self.sample_rate = sample_rate
        self.seed = seed
        # Without memory at first: what torch's layers draw for their first values is of no use here.
        with without_values():
            self.module = FISHERNet(width, depth, heads, sample_rate)
        if weights is None:
            self.module.to_empty(device="cpu")
            self.module.fixed_positional_encoder.positions.copy_(positions(width))
            randomise(self.module, seed)
        else:
            check_tensors(
                weights, state_shapes(self.module), architecture=f"fisher of width {width} and {depth} blocks"
            )
            state = {name: torch.tensor(array, dtype=torch.float32) for name, array in weights.items()}
            self.module.load_state_dict(state, assign=True)
        self.module.eval()
        #: one whole patch
        self.min_samples = self.module.frame + (self.module.PATCH - 1) * self.module.hop
        self.layers = self.module.layers
        self.default_layer = self.module.default_layer

    @classmethod
    def read_checkpoint(
        cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
        """Configuration and weights of a published file, or of a converted one; None if it is no FISHER.

        tensors: by the file's names. settings: other content, such as its `cfg`, or a configuration beside it;
        without either, its table of positions distinguishes a FISHER from an EAT, and heads are of 64 channels. The
        caller chooses the sampling rate. Raises WeightsError for a FISHER that is incomplete, misshapen, or computes
        otherwise.
        """
        weights = {_our_name(name): array for name, array in tensors.items()}
        blocks = {match[1] for name in weights if (match := re.match(r"blocks\.(\d+)\.attn\.qkv\.", name))}
        widths = [weights[name].shape[axis] for name, axis in _WIDTHS.items() if name in weights and weights[name].ndim]
        table = weights.get(_TABLE)
        tabled = table is not None and table.ndim == 3 and table.shape[1] == GRID[0] * GRID[1]
        if not blocks or not widths or not (tabled or nested_value(settings, "band_width") is not None):
            return None
        check_fixed(settings, _FIXED, "FISHER")
        width, depth = int(widths[0]), len(blocks)
        heads = nested_value(settings, "num_heads") or (width // 64 if width % 64 == 0 else None)
        shapes = fitting_shapes(FISHER.tensor_shapes, width=width, depth=depth, heads=heads)
        weights = {name: array for name, array in weights.items() if name.startswith(_PARTS)}
        check_tensors(weights, shapes, architecture=f"fisher of width {width} and {depth} blocks")
        # Other values would belong to patches in another order.
        if np.abs(weights[_TABLE] - positions(width).numpy()).max() > 1e-3:
            raise WeightsError(
                f"has positions that are not those of a grid of {GRID[1]} times by {GRID[0]} frequencies",
                next_step="Download it again",
            )
        config = {"width": width, "depth": depth, "heads": heads}
        return config, {name: np.array(array, dtype=np.float32, order="C") for name, array in weights.items()}

    @classmethod
    def tensor_shapes(cls, *, seed: int = 0, **sizes: Any) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight of the configuration, the fixed table of positions among them."""
        with without_values():
            return state_shapes(FISHERNet(**sizes))

    def config(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "depth": self.depth,
            "heads": self.heads,
            "sample_rate": self.sample_rate,
            "seed": self.seed,
        }

    def weights(self) -> Mapping[str, NDArray[Any]]:
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.module.state_dict().items()}

    def frame_count(self, samples: int, layer: str) -> int:
        """CLS and the whole patches of every window."""
        net = self.module
        steps = sum(self._frames(start, stop) // net.PATCH for start, stop in self.passes(samples))
        return self.cls_tokens + self.patch_bands * steps

    def dimensions(self, layer: str) -> int:
        return self.width * self.module.bands

    def passes(self, samples: int) -> list[tuple[int, int]]:
        net = self.module
        windows = max(1, -(-(self._frames(0, samples) - net.PATCH + 1) // net.FRAMES))
        starts = [index * net.FRAMES * net.hop for index in range(windows)]
        # Frames overlap: a window ends where its last frame does, a little into the next window.
        stops = [start + (net.FRAMES - 1) * net.hop + net.frame for start in starts]
        return [(start, min(stop, samples)) for start, stop in zip(starts, stops, strict=True)]

    def _frames(self, start: int, stop: int) -> int:
        return stft_frames(stop - start, self.module.frame, self.module.hop)


def positions(width: int) -> Tensor:
    """(1, 6400, width) fixed positions on a grid of 128 times by 50 frequencies, frequency fastest.

    First half of the channels frequency, second half time, each sines then cosines of wavelengths 2 pi to 20000 pi,
    as for the vision transformers.
    """
    frequencies, times = GRID
    rates_R = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))

    def axis(count: int) -> Tensor:
        angles_NR = torch.arange(count, dtype=torch.float64)[:, None] * rates_R
        return torch.cat([angles_NR.sin(), angles_NR.cos()], dim=1)

    frequency_TFD = axis(frequencies).expand(times, -1, -1)
    time_TFD = axis(times)[:, None].expand(-1, frequencies, -1)
    return torch.cat([frequency_TFD, time_TFD], dim=2).flatten(end_dim=1)[None].float()


class _Table(nn.Module):
    """Positions as they are published; a buffer, as training does not change them."""

    positions: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("positions", torch.empty(1, GRID[0] * GRID[1], width))


# ------------------------------------------------------------ official files


_TABLE = "fixed_positional_encoder.positions"

#: what takes part in the computation; with any other tensor under these names it would be another one
_PARTS = (
    "extra_tokens", "local_encoder.", "fixed_positional_encoder.", "pre_norm.", "context_encoder.", "blocks.",
    "norm.", "alibi",
)  # fmt: skip

#: tensors whose shape has the width of the network, and the axis
_WIDTHS = {"extra_tokens": -1, "pre_norm.weight": 0, "local_encoder.proj.weight": 0}

#: settings of the published files that decide what is computed, and that nothing else is written for
_FIXED = {"band_width": FISHERNet.BAND, "flatten": "freq"}


def _our_name(name: str) -> str:
    name = name.removeprefix("model.").removeprefix("modality_encoders.IMAGE.")
    return re.sub(r"^context_encoder\.norm\.", "pre_norm.", name)
