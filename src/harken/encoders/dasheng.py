"""Dasheng: a transformer over 40 ms slices of a mel spectrogram, trained as a masked autoencoder.

Dinkel, Yan, Wang, Zhang, Wang, Wang, "Scaling up masked audio encoder learning for general audio classification",
Interspeech 2024. Tensor names are those of the published files (RicherMans/Dasheng, `dasheng_*.pt`) without the
front end's, which is computed here; `read_checkpoint` also reads the transformers files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from harken.audio.stft import hz_to_mel, mel_to_hz
from harken.encoders.published import check_fixed, fitting_shapes, nested_value
from harken.encoders.registry import register_encoder
from harken.encoders.spectrogram_net import SpectrogramNet
from harken.encoders.torch_encoder import TorchEncoder, state_shapes
from harken.encoders.transformer import MLP, SelfAttention
from harken.encoders.without_values import without_values
from harken.weights.tensors import check_tensors

Float32 = NDArray[np.float32]

EPSILON = 1e-6

#: configuration of a network that is small enough for tests
TINY: dict[str, Any] = {"width": 96, "depth": 3, "heads": 4}


class DashengNet(SpectrogramNet):
    """The trainable network, front end included; Sec. 2 of the paper.

    width, depth, heads: of the transformer; 768, 12, 12 is base.
    Raises ValueError for sizes that do not fit each other.
    """

    block_path = "blocks"
    frequency_first = True
    SAMPLE_RATE = 16_000
    N_FFT, HOP, MELS, TOP_HZ = 512, 160, 64, 8000.0
    #: lowest power, and range below a clip's highest in dB
    FLOOR, RANGE_DB = 1e-10, 120.0
    #: frames of a token, which spans all mel bands: 40 ms
    PATCH = 4
    #: tokens that attend to each other, as many as have positions: 10.08 s
    CHUNK = 252

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        if depth < 1 or heads < 1 or width < 1 or width % heads:
            raise ValueError(f"{depth} blocks of width {width} with {heads} heads are no Dasheng")
        self.layers = _layers(depth)
        self.time_pos_embed = nn.Parameter(torch.empty(1, width, 1, self.CHUNK))
        self.freq_pos_embed = nn.Parameter(torch.empty(1, width, 1, 1))
        # The published module has reshapes before and after.
        self.init_bn = nn.ModuleDict({"1": nn.BatchNorm2d(self.MELS, momentum=0.01)})
        size = (self.MELS, self.PATCH)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, width, size, stride=size)})
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def encode_spectrogram(
        self, spectrogram_BFM: Tensor, layers: Sequence[str] = (), frames_B: Tensor | None = None
    ) -> list[Tensor]:
        """(clips, 64, frames) -> (clips, tokens, width) of each of `layers`.

        See `Dasheng` for the layers (default: `norm`). Tokens that reach beyond the valid frames are not attended to,
        but are part of the output.
        """
        layers = self.checked(layers)
        x_BD1N: Tensor = self.patch_embed["proj"](spectrogram_BFM[:, None])
        visible_BN = None
        if frames_B is not None:
            tokens_B = frames_B.to(x_BD1N.device).div(self.PATCH, rounding_mode="floor")
            visible_BN = torch.arange(x_BD1N.shape[3], device=x_BD1N.device) < tokens_B[:, None]
        chunks = []
        for start in range(0, x_BD1N.shape[3], self.CHUNK):
            chunk = slice(start, start + self.CHUNK)
            chunks.append(
                self._encode(x_BD1N[..., chunk], layers, None if visible_BN is None else visible_BN[:, chunk])
            )
        return [torch.cat(layer_chunks, dim=1) for layer_chunks in zip(*chunks, strict=True)]

    def valid_frames(self, lengths_B: Tensor | None, samples: int) -> Tensor | None:
        """Frames are centred: those whose centre lies within the clip."""
        return None if lengths_B is None else _frames(lengths_B)

    def check_samples(self, samples: int) -> None:
        if token_count(samples) == 0:
            raise ValueError(f"{samples} samples are too short for one token of {self.PATCH} frames")

    def spectrogram(self, wave_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """(clips, samples) -> (clips, 64, frames): mel powers in dB, normalised by the batch norm.

        Each clip's range ends 120 dB below its own highest value, so that the others of a batch do not change it.
        """
        # Powers span more than half precision holds.
        with torch.autocast(wave_BS.device.type, enabled=False):
            wave_BS = wave_BS.float()
            frames = 1 + wave_BS.shape[1] // self.HOP
            db_BMF = 10 * self._mel(_mirror(wave_BS, self.N_FFT // 2, lengths_B)).clamp_min(self.FLOOR).log10()
            heard_BMF = db_BMF
            if lengths_B is not None:
                valid_BF = torch.arange(frames, device=db_BMF.device) < _frames(lengths_B.to(db_BMF.device))[:, None]
                heard_BMF = db_BMF.masked_fill(~valid_BF[:, None], -torch.inf)
            db_BMF = torch.maximum(db_BMF, heard_BMF.amax(dim=(1, 2), keepdim=True) - self.RANGE_DB)
            normal_BMF: Tensor = self.init_bn["1"](db_BMF[:, :, None])[:, :, 0]
            return normal_BMF

    def _mel(self, padded_BS: Tensor) -> Tensor:
        """(clips, padded samples) -> (clips, 64, frames) mel powers."""
        window = torch.hann_window(self.N_FFT, device=padded_BS.device)
        filters_MK = torch.from_numpy(mel_filters()).to(padded_BS.device)
        mel_chunks = []
        # In stretches: the spectra of an hour at once would be many times its tokens.
        stretch = self.CHUNK * self.PATCH * self.HOP
        for start in range(0, padded_BS.shape[1] - self.N_FFT + 1, stretch):
            piece_BS = padded_BS[:, start : start + stretch - self.HOP + self.N_FFT]
            stft_BKF = torch.stft(piece_BS, self.N_FFT, self.HOP, window=window, center=False, return_complex=True)
            mel_chunks.append(filters_MK @ torch.view_as_real(stft_BKF).square().sum(dim=-1))
        return torch.cat(mel_chunks, dim=2)

    def _encode(self, x_BD1N: Tensor, layers: Sequence[str], visible_BN: Tensor | None) -> list[Tensor]:
        """One chunk of patches -> (clips, tokens, width) of each of `layers`."""
        x_BD1N = x_BD1N + self.time_pos_embed[..., : x_BD1N.shape[3]] + self.freq_pos_embed
        x_BND = x_BD1N[:, :, 0].transpose(1, 2)
        mask_B11N = None
        if visible_BN is not None:
            # Without a visible token, a chunk of padding would give NaN.
            mask_B11N = (visible_BN | ~visible_BN.any(dim=1, keepdim=True))[:, None, None]
        outputs = {"patches": x_BND}
        deepest = max(self.layers.index(layer) for layer in layers)
        for name, block in zip(self.layers[1 : deepest + 1], self.blocks, strict=False):
            x_BND = block(x_BND, mask_B11N)
            if name in layers:
                outputs[name] = x_BND
        if "norm" in layers:
            outputs["norm"] = self.norm(x_BND)
        return [outputs[layer] for layer in layers]


@register_encoder("dasheng")
class Dasheng(TorchEncoder):
    """Frame-level features of every block; 16 kHz, a token every 40 ms.

    Layers, all (tokens, width): `patches` (what enters the first block), `block_1`, `block_2`, ... and `norm` (the
    last block normalised: the published features). There is no class token.

    The spectrogram, its range of 120 dB included, is that of the whole clip. Tokens attend to each other within
    chunks of 10.08 s, of which the last is shorter, as in the reference. Frames that are no whole token at the end
    are dropped. Neither padding nor the rest of a batch changes a clip's features.

    weights: arrays by published name, or None for a random network. seed: of that random network.
    width, depth, heads: 768, 12, 12 is base; 1280, 32, 16 is 0.6B; 1536, 40, 24 is 1.2B.
    """

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": TINY,
        "base": {},
        "0.6B": {"width": 1280, "depth": 32, "heads": 16},
        "1.2B": {"width": 1536, "depth": 40, "heads": 24},
    }
    needs_weights: ClassVar[bool] = True
    adapter_targets: ClassVar[str | None] = r"blocks\.\d+\.attn\.(qkv|proj)"
    front_end_settings: ClassVar[tuple[str, ...]] = ()
    front_end_arrays: ClassVar[tuple[str, ...]] = tuple(
        f"init_bn.1.{name}" for name in ("weight", "bias", "running_mean", "running_var")
    )

    module: DashengNet

    def __init__(
        self,
        weights: Mapping[str, NDArray[Any]] | None = None,
        *,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        seed: int = 0,
    ) -> None:
        """Raises WeightsError if a tensor is missing, of another shape, or not finite; ValueError as `DashengNet`."""
        self.width = width
        self.depth = depth
        self.heads = heads
        self.seed = seed
        self.sample_rate = DashengNet.SAMPLE_RATE
        #: one whole token
        self.min_samples = (DashengNet.PATCH - 1) * DashengNet.HOP
        # Without memory at first: torch's own initial values take long for the large networks.
        with without_values():
            self.module = DashengNet(width, depth, heads)
        if weights is None:
            self.module.to_empty(device="cpu")
            _randomise(self.module, seed)
        else:
            check_tensors(
                weights, state_shapes(self.module), architecture=f"dasheng of width {width} and {depth} blocks"
            )
            types = {name: tensor.dtype for name, tensor in self.module.state_dict().items()}
            state = {name: torch.tensor(weights[name], dtype=dtype) for name, dtype in types.items()}
            self.module.load_state_dict(state, assign=True)
        self.module.eval()
        self.layers = self.module.layers
        self.default_layer = self.layers[-1]

    @classmethod
    def read_checkpoint(
        cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
        """Configuration and weights of a published file, of its transformers form, or of a converted one, else None.

        tensors: by the file's names. settings: other content, such as its `config`; without one, heads are
        those of the published size of the same width, or of 64 channels. Positions of another number of tokens are cut
        to the first 252 or stretched to them, as the reference does. A decoder, a classifier and the front end's tables
        are not read. Raises WeightsError for a Dasheng that is incomplete, misshapen, or has another front end.
        """
        prefix = "encoder." if any(name.startswith("encoder.") for name in tensors) else ""
        weights = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
        blocks = {match[1] for name in weights if (match := re.match(r"blocks\.(\d+)\.attn\.qkv\.", name))}
        tables = [weights[name] for name in _TABLES if name in weights and weights[name].ndim == 4]
        # CED, of the same authors, has the same names, but several patches above one another.
        if not blocks or not tables or any(table.shape[2] > 1 for table in tables):
            return None
        check_fixed(settings, _FRONT_END, "Dasheng")
        width, depth = int(tables[0].shape[1]), len(blocks)
        heads = nested_value(settings, "num_heads") or _HEADS.get(width) or (width // 64 if width % 64 == 0 else None)
        shapes = fitting_shapes(Dasheng.tensor_shapes, width=width, depth=depth, heads=heads)
        weights = {name: array for name, array in weights.items() if name.startswith(_PARTS)}
        # The number of updates of the statistics has no effect, and not every file has it.
        weights.setdefault(_COUNT, np.zeros((), dtype=np.int64))
        if "time_pos_embed" in weights:
            weights["time_pos_embed"] = _resized(weights["time_pos_embed"])
        check_tensors(weights, shapes, architecture=f"dasheng of width {width} and {depth} blocks")
        config = {"width": width, "depth": depth, "heads": heads}
        types = {name: np.int64 if name == _COUNT else np.float32 for name in weights}
        return config, {name: np.array(array, dtype=types[name], order="C") for name, array in weights.items()}

    @classmethod
    def tensor_shapes(cls, *, seed: int = 0, **sizes: Any) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight of the configuration, the batch norm's statistics among them."""
        with without_values():
            return state_shapes(DashengNet(**sizes))

    def config(self) -> dict[str, Any]:
        return {"width": self.width, "depth": self.depth, "heads": self.heads, "seed": self.seed}

    def weights(self) -> Mapping[str, NDArray[Any]]:
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.module.state_dict().items()}

    def frame_count(self, samples: int, layer: str) -> int:
        return token_count(samples)

    def dimensions(self, layer: str) -> int:
        return self.width

    def passes(self, samples: int) -> list[tuple[int, int]]:
        # The network cuts a clip itself, where its tokens are.
        return [(0, samples)]


def token_count(samples: int) -> int:
    """Tokens of a clip of `samples` at 16 kHz: one for every 4 whole frames, which are centred on every 160th."""
    return (1 + samples // DashengNet.HOP) // DashengNet.PATCH


@lru_cache(maxsize=1)
def mel_filters() -> Float32:
    """(64, 257) triangles of unit height, straight in Hz, at equal distances on the HTK mel scale up to 8 kHz."""
    edges = mel_to_hz(np.linspace(hz_to_mel(0.0), hz_to_mel(DashengNet.TOP_HZ), DashengNet.MELS + 2))[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = np.arange(DashengNet.N_FFT // 2 + 1) * (DashengNet.SAMPLE_RATE / DashengNet.N_FFT)
    triangles = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    return np.maximum(triangles, 0.0).astype(np.float32)


def _mirror(wave_BS: Tensor, margin: int, lengths_B: Tensor | None) -> Tensor:
    """`margin` samples more on both sides, mirrored at each clip's edges without the edge itself."""
    if lengths_B is None:
        return F.pad(wave_BS[:, None], (margin, margin), mode="reflect")[:, 0]
    place_S = torch.arange(-margin, wave_BS.shape[1] + margin, device=wave_BS.device).abs()
    last_B1 = lengths_B.to(wave_BS.device)[:, None] - 1
    # Far beyond a clip's end there is nothing to mirror; those values are masked later.
    place_BS = torch.minimum(place_S, 2 * last_B1 - place_S).clamp_min(0)
    return wave_BS.gather(1, place_BS)


def _frames(lengths_B: Tensor) -> Tensor:
    """Frames of each number of samples."""
    return 1 + lengths_B.div(DashengNet.HOP, rounding_mode="floor")


class _Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = MLP(width)

    def forward(self, x_BND: Tensor, mask_B11N: Tensor | None = None) -> Tensor:
        x_BND = x_BND + self.attn(self.norm1(x_BND), mask_B11N)
        y_BND: Tensor = x_BND + self.mlp(self.norm2(x_BND))
        return y_BND


def _layers(depth: int) -> tuple[str, ...]:
    return ("patches", *(f"block_{number}" for number in range(1, depth + 1)), "norm")


def _randomise(net: DashengNet, seed: int) -> None:
    """The network before pre-training, as its authors initialise it."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            assert module.bias is not None
            bound = module.weight[0].numel() ** -0.5
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)
    for table in (net.time_pos_embed, net.freq_pos_embed):
        nn.init.normal_(table, 0.0, 0.02, generator=generator)


# ------------------------------------------------------------ official files


_TABLES = ("time_pos_embed", "freq_pos_embed")
_COUNT = "init_bn.1.num_batches_tracked"

#: what takes part in the computation; with any other tensor under these names it would be another one
_PARTS = (*_TABLES, "init_bn.", "patch_embed.", "blocks.", "norm.", "cls_token", "token_pos_embed")

#: heads of the published widths that are not of 64 channels
_HEADS = {1280: 16}

#: settings of the reference that decide what is computed before the first tensor, and that nothing else is
#: written for
_FRONT_END = {
    "n_fft": DashengNet.N_FFT, "win_size": DashengNet.N_FFT, "hop_size": DashengNet.HOP, "n_mels": DashengNet.MELS,
    "f_min": 0, "f_max": DashengNet.TOP_HZ, "center": True, "top_db": DashengNet.RANGE_DB,
}  # fmt: skip


def _resized(table_1D1N: NDArray[Any]) -> NDArray[Any]:
    """Positions in time, as many as a chunk has tokens."""
    if table_1D1N.ndim != 4 or table_1D1N.shape[2] != 1 or not table_1D1N.size:
        return table_1D1N  # of an unknown shape: refused with the others
    if table_1D1N.shape[3] < DashengNet.CHUNK:
        table = torch.tensor(table_1D1N, dtype=torch.float32)
        return np.asarray(F.interpolate(table, size=(1, DashengNet.CHUNK), mode="bilinear").numpy())
    return table_1D1N[..., : DashengNet.CHUNK]
