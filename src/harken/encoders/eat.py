"""EAT: a transformer over spectrogram patches, pre-trained by predicting a teacher's features of masked patches.

Chen, Liang, Ma, Zheng, Chen, "EAT: Self-Supervised Pre-Training with Efficient Audio Transformer", IJCAI 2024.
Tensor names are those of the published transformers files without `model.`; `read_checkpoint` also reads the
fairseq files (cwx-worst-one/EAT).
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

from harken.audio.kaldi_fbank import eat_fbank, kaldi_frame_count
from harken.core.errors import WeightsError
from harken.encoders.patch_net import PatchNet, patch_layers, randomise
from harken.encoders.published import nested_value
from harken.encoders.registry import register_encoder
from harken.encoders.torch_encoder import TorchEncoder, state_shapes
from harken.encoders.transformer import SelfAttention
from harken.encoders.without_values import without_values
from harken.weights.tensors import check_tensors

Float32 = NDArray[np.float32]

SAMPLE_RATE = 16_000
MELS, FRAME, HOP = 128, 400, 160
PATCH = 16
#: patches of one time step, low frequencies first
BANDS = MELS // PATCH
#: frames that the published models were trained on: 10.24 s
FRAMES = 1024
#: mean and deviation of AudioSet's filter banks; the deviation counts twice
MEAN, DEVIATION = -4.268, 4.569

#: configuration of a network that is small enough for tests
TINY: dict[str, Any] = {"width": 96, "depth": 3, "heads": 4, "target_frames": 256}


class _Attention(SelfAttention):
    """Self-attention whose projection can be split into three, so that adapters can leave out keys."""

    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear

    def projections(self, x_BND: Tensor) -> tuple[Tensor, ...]:
        if self.qkv is not None:
            return super().projections(x_BND)
        return self.q_proj(x_BND), self.k_proj(x_BND), self.v_proj(x_BND)

    def split_qkv(self) -> None:
        if self.qkv is None:
            return
        fused, self.qkv = self.qkv, None
        for name, weight, bias in zip("qkv", fused.weight.chunk(3), fused.bias.chunk(3), strict=True):
            with without_values():
                linear = nn.Linear(weight.shape[1], weight.shape[0])
            for kind, tensor in (("weight", weight), ("bias", bias)):
                learned = nn.Parameter(tensor.detach().clone(), requires_grad=fused.weight.requires_grad)
                setattr(linear, kind, learned)
            setattr(self, f"{name}_proj", linear.train(self.training))


class EATNet(PatchNet):
    """The trainable network, front end included; Sec. 3 of the paper.

    width, depth, heads: of the transformer; 768, 12, 12 is base, 1024, 24, 16 is large.
    target_frames: to which the filter bank is padded or cropped, a multiple of 16; None rounds the waveform's own
        number of frames up to one.
    mask: hide patches that are all padding from attention.
    Raises ValueError for sizes that do not fit each other.
    """

    patch_rows = BANDS
    attention = _Attention

    def __init__(
        self,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        target_frames: int | None = FRAMES,
        mask: bool = False,
    ) -> None:
        super().__init__(width, depth, heads)
        if target_frames is not None and (target_frames < PATCH or target_frames % PATCH):
            raise ValueError(f"{target_frames} frames are not whole patches of {PATCH}")
        self.target_frames = target_frames
        self.mask = mask

    def encode_spectrogram(
        self, spectrogram_BFM: Tensor, layers: Sequence[str] = (), frames_B: Tensor | None = None
    ) -> list[Tensor]:
        """(clips, frames, 128), padded or cropped -> (clips, 1 + tokens, width) of each of `layers`.

        The first token is CLS, patches follow by time, then by frequency; see `EAT` for the layers (default: the
        last block). frames_B: with `mask`, patches beyond these are not attended to, but are part of the output.
        """
        visible_BN = None
        if self.mask and frames_B is not None:
            steps_B = -(-frames_B // PATCH)
            steps_N = torch.arange(spectrogram_BFM.shape[1] // PATCH * BANDS, device=spectrogram_BFM.device) // BANDS
            visible_BN = steps_N < steps_B.to(spectrogram_BFM.device)[:, None]
        return self.encode_patches(self.embed(spectrogram_BFM), layers, visible_BN)

    def valid_frames(self, lengths_B: Tensor | None, samples: int) -> Tensor | None:
        if not self.mask:
            return None
        # One length for all, where none is given: the spectrogram may have been padded.
        return _frames(torch.tensor([samples]) if lengths_B is None else lengths_B)

    def spectrogram(self, wave_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """(clips, samples) -> (clips, frames, 128), padded or cropped, then normalised as in training."""
        # Filter banks span more than half precision holds.
        with torch.autocast(wave_BS.device.type, enabled=False):
            wave_BS = wave_BS.float()
            if lengths_B is not None:
                # Padding takes the clip's mean, so that it does not move it.
                valid_BS = torch.arange(wave_BS.shape[1], device=wave_BS.device) < lengths_B[:, None]
                sum_B1 = torch.where(valid_BS, wave_BS, 0.0).sum(dim=1, keepdim=True)
                wave_BS = torch.where(valid_BS, wave_BS, sum_B1 / lengths_B[:, None].clamp_min(1))
            x_BFM = eat_fbank(wave_BS)
            frames = x_BFM.shape[1]
            if lengths_B is not None:
                valid_BF = torch.arange(frames, device=x_BFM.device) < _frames(lengths_B)[:, None]
                x_BFM = torch.where(valid_BF[:, :, None], x_BFM, 0.0)
            target = self.target_frames or -(-frames // PATCH) * PATCH
            return (F.pad(x_BFM, (0, 0, 0, target - frames)) - MEAN) / (2 * DEVIATION)

    def embed(self, spectrogram_BFM: Tensor) -> Tensor:
        """(clips, frames, 128) -> (clips, tokens, width) patches with their positions, frequency fastest."""
        x_BDTF: Tensor = self.local_encoder["proj"](spectrogram_BFM[:, None])
        x_BND = x_BDTF.flatten(start_dim=2).transpose(1, 2)
        return x_BND + positions(x_BDTF.shape[2], x_BND.shape[2], x_BND.device)

    def published_sizes(self) -> dict[str, int]:
        return {**super().published_sizes(), "target_length": self.target_frames or FRAMES}

    def split_qkv(self) -> None:
        """Replace the fused projection of every block by modules `q_proj`, `k_proj`, `v_proj` of the same output.

        For adapters on some of the three. Does nothing where it is done.
        """
        for block in self.blocks:
            block.attn.split_qkv()  # type: ignore[union-attr,operator]


@register_encoder("eat")
class EAT(TorchEncoder):
    """Frame-level features of every block; 16 kHz.

    Layers, all (1 + tokens, width): `patches` (what enters the first block), `block_1`, `block_2`, ... (output of
    a block), `target_1`, `target_2`, ... (output of a block's MLP before the residual: what pre-training predicts).
    The first frame is CLS; then come `patch_bands` patches of 8 bands, low first, for every 160 ms. Patches that
    are all padding are left out.

    A clip passes through the network padded to `target_frames`, with attention to the padding, as the published
    models were trained. A longer clip is cut into successive windows of that many frames, each with a CLS and a
    mean of its own; their patches follow each other, and the one CLS is the mean of the windows', weighted by their
    patches. Less than one patch beyond the last window is dropped. Neither padding nor the rest of a batch changes
    a clip's features.

    weights: arrays by published name, or None for a random network. seed: of that random network.
    width, depth, heads: 768, 12, 12 is base, 1024, 24, 16 is large.
    target_frames: a multiple of 16, or None for each clip's own number of frames up to 10.24 s, rounded up to one:
        faster for short clips, not how the published models were trained.
    mask: hide padding from attention; ours, not how the published models were trained.
    clamp: pass features through `suppress_spikes`.
    """

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": TINY,
        "base": {},
        "large": {"width": 1024, "depth": 24, "heads": 16},
    }
    needs_weights: ClassVar[bool] = True
    adapter_targets: ClassVar[str | None] = r"blocks\.\d+\.attn\.(q_proj|v_proj|proj)"
    front_end_settings: ClassVar[tuple[str, ...]] = ("target_frames",)
    front_end_arrays: ClassVar[tuple[str, ...]] = ()
    cls_tokens = 1
    patch_bands = BANDS

    module: EATNet

    def __init__(
        self,
        weights: Mapping[str, NDArray[Any]] | None = None,
        *,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        target_frames: int | None = FRAMES,
        mask: bool = False,
        clamp: bool = False,
        seed: int = 0,
    ) -> None:
        """Raises WeightsError if a tensor is missing, of another shape, or not finite; ValueError as `EATNet`."""
        self.width = width
        self.depth = depth
        self.heads = heads
        self.target_frames = target_frames
        self.mask = mask
        self.clamp = clamp
        self.seed = seed
        self.sample_rate = SAMPLE_RATE
        #: one whole patch
        self.min_samples = FRAME + (PATCH - 1) * HOP
        self.layers = patch_layers(depth)
        self.default_layer = f"block_{depth}"
        # Without memory at first: torch's own initial values take long for the large network.
        with without_values():
            self.module = EATNet(width, depth, heads, target_frames, mask)
        if weights is None:
            self.module.to_empty(device="cpu")
            randomise(self.module, seed)
        else:
            check_tensors(weights, state_shapes(self.module), architecture=f"eat of width {width} and {depth} blocks")
            state = {name: torch.tensor(array, dtype=torch.float32) for name, array in weights.items()}
            self.module.load_state_dict(state, assign=True)
        self.module.eval()

    @classmethod
    def read_checkpoint(
        cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
        """Configuration and weights of an official file, pre-trained or fine-tuned, or None if it is no EAT.

        tensors: by the file's names. settings: what else the file holds, such as its `cfg`, or a configuration beside
        it. The student is read; the teacher, the decoder and a classifier are not. Raises WeightsError for an EAT
        that is incomplete or misshapen.
        """
        weights = {_our_name(name): array for name, array in tensors.items()}
        blocks = {match[1] for name in weights if (match := re.match(r"blocks\.(\d+)\.attn\.qkv\.", name))}
        widths = [weights[name].shape[axis] for name, axis in _WIDTHS.items() if name in weights and weights[name].ndim]
        if not blocks or not widths:
            return None
        # FISHER has the same names, but other positions.
        table = weights.get("fixed_positional_encoder.positions")
        if nested_value(settings, "band_width") is not None or (table is not None and not _is_our_table(table)):
            return None
        width, depth = widths[0], len(blocks)
        # The published sizes all have heads of 64 channels.
        heads = nested_value(settings, "num_heads") or (width // 64 if width % 64 == 0 else None)
        image = nested_value(settings, "img_size")
        target = nested_value(settings, "target_length") or (
            image[0] if isinstance(image, Sequence) and image else FRAMES
        )
        try:
            if not isinstance(heads, int) or not isinstance(target, int):
                raise TypeError
            shapes = EAT.tensor_shapes(width=width, depth=depth, heads=heads, target_frames=target)
        except (TypeError, ValueError, RuntimeError):
            cause = f"names {heads!r} heads and {target!r} frames, which do not fit its width of {width}"
            raise WeightsError(cause, next_step="Download it again") from None
        weights = {name: array for name, array in weights.items() if name.startswith(_PARTS)}
        check_tensors(weights, shapes, architecture=f"eat of width {width} and {depth} blocks")
        config = {"width": width, "depth": depth, "heads": heads, "target_frames": target}
        return config, {name: np.array(array, dtype=np.float32, order="C") for name, array in weights.items()}

    @classmethod
    def tensor_shapes(
        cls, *, mask: bool = False, clamp: bool = False, seed: int = 0, **sizes: Any
    ) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight of the configuration."""
        with without_values():
            return state_shapes(EATNet(**sizes))

    def config(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "depth": self.depth,
            "heads": self.heads,
            "target_frames": self.target_frames,
            "mask": self.mask,
            "clamp": self.clamp,
            "seed": self.seed,
        }

    def weights(self) -> Mapping[str, NDArray[Any]]:
        """Every learned array by name, with q, k and v fused also where the module has them split."""
        state = {name: tensor.cpu().numpy().copy() for name, tensor in self.module.state_dict().items()}
        for name in [name for name in state if ".q_proj." in name]:
            tensors = [state.pop(name.replace(".q_proj.", f".{letter}_proj.")) for letter in "qkv"]
            state[name.replace(".q_proj.", ".qkv.")] = np.concatenate(tensors)
        return state

    def frame_count(self, samples: int, layer: str) -> int:
        """CLS and the patches that hold at least one frame of the clip."""
        steps = 0
        for start, stop in self.passes(samples):
            frames = kaldi_frame_count(stop - start, FRAME, HOP)
            steps += -(-min(frames, self.target_frames or frames) // PATCH)
        return self.cls_tokens + self.patch_bands * steps

    def dimensions(self, layer: str) -> int:
        return self.width

    def prepare_for_adapters(self) -> None:
        # Of the fused projection, keys would be adapted too.
        self.module.split_qkv()

    def passes(self, samples: int) -> list[tuple[int, int]]:
        frames = kaldi_frame_count(samples, FRAME, HOP)
        span = self.target_frames or FRAMES
        windows = max(1, -(-(frames - PATCH + 1) // span))
        starts = [index * span * HOP for index in range(windows)]
        # Frames overlap: a window ends where its last frame does, a little into the next window.
        return list(zip(starts, [start + FRAME - HOP for start in starts[1:]] + [samples], strict=True))

    def _joined(self, windows: list[Float32], sizes: list[int], layers: tuple[str, ...]) -> Float32:
        kept = []
        for window_BLTD, samples in zip(windows, sizes, strict=True):
            # Patches that are all padding are left out.
            valid_BLTD = window_BLTD[:, :, : self.frame_count(samples, layers[0])]
            kept.append(suppress_spikes(valid_BLTD) if self.clamp else valid_BLTD)
        return super()._joined(kept, sizes, layers)


def suppress_spikes(features: Float32, small: float = 0.1, large: float = 0.5) -> Float32:
    """Features of a frozen encoder, any shape -> the same with small values zero and large ones bounded.

    Zero where |x| < small; x up to large; beyond, sign(x) large (1 + tanh(|x| / large - 1)), which continues x with
    the same slope and stays within 2 large. To be applied before pooling. Published in 2025 as worth 2.76 points for
    frozen EAT-large; the exact form of its tanh is not published, and this one is our reading.
    Raises ValueError unless 0 <= small <= large and large > 0.
    """
    if not 0 <= small <= large or large == 0:
        raise ValueError(f"bounds {small:g} and {large:g} are not in order")
    size = np.abs(features)
    bounded = np.where(size > large, large * (1 + np.tanh(size / large - 1)), size)
    return np.where(size < small, 0, np.copysign(bounded, features)).astype(np.float32)


def positions(steps: int, width: int, device: torch.device | None = None) -> Tensor:
    """(steps * 8, width) fixed positions of patches, frequency fastest.

    First half of the channels frequency, second half time, each sines then cosines of wavelengths 2 pi to 20000 pi,
    as for the vision transformers.
    """
    rates_R = 10_000.0 ** -(torch.arange(width // 4, device=device, dtype=torch.float32) / (width // 4))

    def axis(count: int) -> Tensor:
        angles_NR = torch.arange(count, device=device, dtype=torch.float32)[:, None] * rates_R
        return torch.cat([angles_NR.sin(), angles_NR.cos()], dim=1)

    frequency_TFD = axis(BANDS).expand(steps, -1, -1)
    time_TFD = axis(steps)[:, None].expand(-1, BANDS, -1)
    return torch.cat([frequency_TFD, time_TFD], dim=2).flatten(end_dim=1)


def _frames(lengths_B: Tensor) -> Tensor:
    """Whole frames in each number of samples."""
    return ((lengths_B - FRAME).div(HOP, rounding_mode="floor") + 1).clamp_min(0)


# ------------------------------------------------------------ official files


#: what takes part in the computation; with any other tensor under these names it would be another one
_PARTS = ("extra_tokens", "local_encoder.", "pre_norm.", "context_encoder.", "blocks.", "norm.", "alibi")

#: tensors whose shape has the width of the network, and the axis
_WIDTHS = {"extra_tokens": -1, "pre_norm.weight": 0, "local_encoder.proj.weight": 0}


def _our_name(name: str) -> str:
    name = name.removeprefix("model.").removeprefix("modality_encoders.IMAGE.")
    return re.sub(r"^context_encoder\.norm\.", "pre_norm.", name)


def _is_our_table(table: NDArray[Any]) -> bool:
    if table.ndim != 3 or len(table) != 1 or table.shape[2] % 4:
        return False
    ours = positions(FRAMES // PATCH, table.shape[2]).numpy()
    rows = min(len(ours), table.shape[1])
    return bool((np.abs(table[0, :rows] - ours[:rows]) < 1e-3).all())
