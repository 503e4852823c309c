"""BEATs: a transformer that learnt the labels of its own acoustic tokenizer on AudioSet.

Chen et al., "BEATs: Audio Pre-Training with Acoustic Tokenizers", ICML 2023. The gated relative position bias is
that of WavLM (Chen et al., 2022), its buckets those of T5 (Raffel et al., 2020); residuals follow DeepNorm (Wang
et al., "DeepNet", 2022). Tensor names are those of the published files (microsoft/unilm, `BEATs_iter3*.pt`), but
for the table of position biases, which those repeat in every layer and which stands here once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from harken.audio.kaldi_fbank import beats_fbank, kaldi_frame_count
from harken.core.errors import WeightsError
from harken.encoders.registry import register_encoder
from harken.encoders.spectrogram_net import SpectrogramNet
from harken.encoders.torch_encoder import TorchEncoder, state_shapes
from harken.encoders.without_values import without_values
from harken.weights.tensors import check_tensors

Attention = Literal["sdpa", "eager"]

SAMPLE_RATE = 16_000
FRAME, HOP, MELS = 400, 160, 128
#: mean and standard deviation of the training set's filter bank; the authors divide by twice the latter
FBANK_MEAN, FBANK_STD = 15.41663, 6.55582
#: frames and bands on a side of a patch, and patches above one another
PATCH = 16
BANDS = MELS // PATCH
#: samples from one column of patches to the next (160 ms), and beyond the last column's multiple of that
STEP, TAIL = PATCH * HOP, FRAME - HOP
#: most columns that pass through the network at once: 30.72 s
LONGEST = 192

#: a network of a few milliseconds, for tests
TINY: dict[str, Any] = {"depth": 3, "width": 96, "heads": 4, "ffn": 192, "patch_width": 64}


def token_count(samples: int) -> int:
    """Patches of a clip of `samples` at 16 kHz: 8 for every 16 whole frames; frames left over belong to none."""
    return kaldi_frame_count(samples, FRAME, HOP) // PATCH * BANDS


class BEATsNet(SpectrogramNet):
    """The trainable network, front end included.

    Defaults are those of the published base networks (iterations 3 and 3+). The authors scale the gradient of
    every layer by 0.6 towards the input while they pre-train, and skip layers at random; neither is done here.

    attention: "sdpa" (fused where torch can) or "eager" (written out); they agree but for rounding, and
    `net.attention` may be set at any time. Raises ValueError for sizes that do not divide.
    """

    block_path = "encoder.layers"

    def __init__(
        self,
        depth: int = 12,
        width: int = 768,
        heads: int = 12,
        ffn: int = 3072,
        patch_width: int = 512,
        buckets: int = 320,
        max_distance: int = 800,
        conv_kernel: int = 128,
        conv_groups: int = 16,
        attention: Attention = "sdpa",
    ) -> None:
        super().__init__()
        if width % heads or width % conv_groups or buckets % 4:
            raise ValueError(f"width {width}, {heads} heads, {conv_groups} groups and {buckets} buckets do not fit")
        if attention not in ("sdpa", "eager"):
            raise ValueError(f"attention is 'sdpa' or 'eager', not {attention!r}")
        self.attention: Attention = attention
        self.layers = ("patches", *(f"block_{index + 1}" for index in range(depth)))
        self.patch_embedding = nn.Conv2d(1, patch_width, kernel_size=PATCH, stride=PATCH, bias=False)
        self.layer_norm = nn.LayerNorm(patch_width)
        self.post_extract_proj = nn.Linear(patch_width, width)
        self.encoder = _Encoder(depth, width, heads, ffn, buckets, max_distance, conv_kernel, conv_groups)

    def spectrogram(self, wave_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """(clips, samples) in [-1, 1] -> (clips, frames, 128), normalised as in training; always float32."""
        with torch.autocast(wave_BS.device.type, enabled=False):
            return (beats_fbank(wave_BS.float()) - FBANK_MEAN) / (2 * FBANK_STD)

    def patches(self, fbank_BFM: Tensor) -> Tensor:
        """(clips, frames, 128) -> (clips, tokens, width), column by column: token = 8 * column + band."""
        # The map lies time by frequency, so its flattened order is the published one.
        x_BDTF = self.patch_embedding(fbank_BFM[:, None])
        x_BLD: Tensor = self.post_extract_proj(self.layer_norm(x_BDTF.flatten(start_dim=2).transpose(1, 2)))
        return x_BLD

    def valid_tokens(self, lengths_B: Tensor, samples: int) -> Tensor:
        """How many leading tokens hold any of a clip's own samples, where clips were padded to `samples`.

        The reference's rule: samples are split evenly among frames and frames among tokens *in flattened order*,
        a remainder being dropped, and a group counts as padding if all of it is. So a clip may end within a
        column: its upper bands are masked earlier than its lower ones.
        """
        frames = kaldi_frame_count(samples, FRAME, HOP)
        return _valid_tokens(self._frames_started(lengths_B, samples), frames)

    def valid_frames(self, lengths_B: Tensor | None, samples: int) -> Tensor | None:
        """By the same rule."""
        return None if lengths_B is None else self._frames_started(lengths_B, samples)

    @staticmethod
    def _frames_started(lengths_B: Tensor, samples: int) -> Tensor:
        frames = kaldi_frame_count(samples, FRAME, HOP)
        return _groups_started(lengths_B, samples // frames, frames)

    def check_samples(self, samples: int) -> None:
        if token_count(samples) == 0:
            raise ValueError(f"{samples} samples are too short for one patch of {STEP + TAIL}")

    def encode_spectrogram(
        self, spectrogram_BFM: Tensor, layers: Sequence[str] = (), frames_B: Tensor | None = None
    ) -> list[Tensor]:
        """(clips, frames, 128) -> (clips, tokens, width) of each of `layers` (default: the last block).

        frames_B: valid frames of clips that were padded; tokens beyond them neither enter the position convolution nor
        are attended to, but they are returned, so pool without them.
        """
        layers = self.checked(layers)
        x_BLD = self.patches(spectrogram_BFM)
        deepest = max(self.layers.index(layer) for layer in layers)
        padding_BL = None
        if frames_B is not None:
            valid_B1 = _valid_tokens(frames_B.to(x_BLD.device), spectrogram_BFM.shape[1])[:, None]
            padding_BL = torch.arange(x_BLD.shape[1], device=x_BLD.device) >= valid_B1
        outputs = dict(zip(self.layers, self.encoder(x_BLD, padding_BL, deepest, self.attention), strict=False))
        return [outputs[layer] for layer in layers]


class _Encoder(nn.Module):
    def __init__(
        self, depth: int, width: int, heads: int, ffn: int, buckets: int, max_distance: int, kernel: int, groups: int
    ) -> None:
        super().__init__()
        self.buckets, self.max_distance = buckets, max_distance
        # The list of one keeps the published tensor names.
        self.pos_conv = nn.ModuleList([_PositionConv(width, kernel, groups)])
        self.layer_norm = nn.LayerNorm(width)
        self.relative_attention_bias = nn.Embedding(buckets, heads)
        self.layers = nn.ModuleList([_Block(width, heads, ffn, (2 * depth) ** 0.25) for _ in range(depth)])

    def forward(self, x_BLD: Tensor, padding_BL: Tensor | None, depth: int, attention: Attention) -> list[Tensor]:
        """What enters the first block, and the output of each of the first `depth` blocks."""
        if padding_BL is not None:
            x_BLD = x_BLD.masked_fill(padding_BL[:, :, None], 0.0)
        x_BLD = self.layer_norm(x_BLD + F.gelu(self.pos_conv[0](x_BLD)))
        outputs = [x_BLD]
        if not depth:
            return outputs
        bias_HLL = self._position_bias(x_BLD.shape[1])
        for block in self.layers[:depth]:
            x_BLD = block(x_BLD, bias_HLL, padding_BL, attention)
            outputs.append(x_BLD)
        return outputs

    def _position_bias(self, length: int) -> Tensor:
        """(heads, query, key) learned bias of the distance from query to key along the flattened tokens."""
        bucket_R = _buckets(length, self.buckets, self.max_distance)
        bias_HR = self.relative_attention_bias(bucket_R.to(self.relative_attention_bias.weight.device)).T
        # Row q needs distances -q ... length - 1 - q: windows of the bias along distance, from last to first.
        return bias_HR.unfold(1, length, 1).flip(1)


class _PositionConv(nn.Module):
    """Convolution along the tokens, its weight a direction and a length per tap (Salimans and Kingma, 2016)."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight_g = nn.Parameter(torch.ones(1, 1, kernel))
        self.weight_v = nn.Parameter(torch.ones(width, width // groups, kernel))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_BLD: Tensor) -> Tensor:
        weight_DGK = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        kernel = weight_DGK.shape[2]
        y_BDL = F.conv1d(x_BLD.transpose(1, 2), weight_DGK, self.bias, padding=kernel // 2, groups=self.groups)
        # An even kernel gives one token too many, at the end.
        return y_BDL[:, :, : x_BLD.shape[1]].transpose(1, 2)


class _Block(nn.Module):
    """Attention and feed-forward net, each added to `alpha` times its input and normalised after (DeepNorm)."""

    def __init__(self, width: int, heads: int, ffn: int, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.self_attn = _Attention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, ffn)
        self.fc2 = nn.Linear(ffn, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x_BLD: Tensor, bias_HLL: Tensor, padding_BL: Tensor | None, attention: Attention) -> Tensor:
        attended_BLD = self.self_attn(x_BLD, bias_HLL, padding_BL, attention)
        x_BLD = self.self_attn_layer_norm(torch.add(attended_BLD, x_BLD, alpha=self.alpha))
        y_BLD: Tensor = self.final_layer_norm(torch.add(self.fc2(F.gelu(self.fc1(x_BLD))), x_BLD, alpha=self.alpha))
        return y_BLD


class _Attention(nn.Module):
    """Multi-head attention whose position bias is gated by the query."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.grep_linear = nn.Linear(width // heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(self, x_BLD: Tensor, bias_HLL: Tensor, padding_BL: Tensor | None, attention: Attention) -> Tensor:
        clips, length, width = x_BLD.shape
        q_BHLE, k_BHLE, v_BHLE = (
            projection(x_BLD).view(clips, length, self.heads, -1).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        # The gate sees the query before it is scaled; each of its two values is a sum of four, taken of the weights.
        weight_2E = self.grep_linear.weight.view(2, 4, -1).sum(dim=1)
        bias_2 = self.grep_linear.bias.view(2, 4).sum(dim=1)
        gates_BHL2 = torch.sigmoid(F.linear(q_BHLE, weight_2E, bias_2))
        update_BHL1, reset_BHL1 = gates_BHL2.chunk(2, dim=-1)
        mask_BHLL = (update_BHL1 * (reset_BHL1 * self.grep_a - 1) + 2) * bias_HLL
        if padding_BL is not None:
            mask_BHLL = mask_BHLL.masked_fill(padding_BL[:, None, None, :], -math.inf)
        mask_BHLL = mask_BHLL.to(q_BHLE.dtype)
        if attention == "sdpa":
            y_BHLE = F.scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE, attn_mask=mask_BHLL)
        else:
            logits_BHLL = (q_BHLE * q_BHLE.shape[-1] ** -0.5) @ k_BHLE.transpose(2, 3) + mask_BHLL
            y_BHLE = logits_BHLL.softmax(dim=-1) @ v_BHLE
        y_BLD: Tensor = self.out_proj(y_BHLE.transpose(1, 2).reshape(clips, length, width))
        return y_BLD


@register_encoder("beats")
class BEATs(TorchEncoder):
    """Tokens of every block; 16 kHz.

    Layers `patches` (what enters the first block: with positions, normalised) and `block_1` ... `block_12` have D = 768
    and one frame for each patch of 160 ms by 16 mel bands: 10 s give 62 columns x 8 bands = 496 frames, the band
    running fastest.

    A clip of more than 30.72 s is cut into windows, as few and as equal as whole columns allow, which pass one by
    one: attention costs the square of a window, and the networks were trained on 10 s. Windows overlap by 15 ms,
    so that no frame of the filter bank is lost between them. Neither padding nor the rest of a batch changes a
    clip's features.

    weights: arrays by name as `read_checkpoint` gives them, or None for a random network. seed: of that random
    network. The other arguments are those of `BEATsNet`.
    """

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"tiny": TINY, "base": {}}
    needs_weights: ClassVar[bool] = True
    adapter_targets: ClassVar[str | None] = r"encoder\.layers\.\d+\.self_attn\.(q_proj|v_proj|out_proj)"
    front_end_settings: ClassVar[tuple[str, ...]] = ()
    front_end_arrays: ClassVar[tuple[str, ...]] = ()
    patch_bands = BANDS

    module: BEATsNet

    def __init__(
        self,
        weights: Mapping[str, NDArray[Any]] | None = None,
        *,
        depth: int = 12,
        width: int = 768,
        heads: int = 12,
        ffn: int = 3072,
        patch_width: int = 512,
        buckets: int = 320,
        max_distance: int = 800,
        conv_kernel: int = 128,
        conv_groups: int = 16,
        attention: Attention = "sdpa",
        seed: int = 0,
    ) -> None:
        """Raises WeightsError if a tensor is missing, of another shape, or not finite."""
        self._sizes: dict[str, Any] = {
            "depth": depth, "width": width, "heads": heads, "ffn": ffn, "patch_width": patch_width,
            "buckets": buckets, "max_distance": max_distance, "conv_kernel": conv_kernel,
            "conv_groups": conv_groups, "attention": attention,
        }  # fmt: skip
        self.seed = seed
        # Without memory at first: torch's initial values are not used.
        with without_values():
            self.module = BEATsNet(**self._sizes)
        if weights is None:
            self.module.to_empty(device="cpu")
            _randomise(self.module, seed)
        else:
            check_tensors(weights, state_shapes(self.module), architecture=f"beats of {depth} layers, width {width}")
            state = {name: torch.tensor(array, dtype=torch.float32) for name, array in weights.items()}
            self.module.load_state_dict(state, assign=True)
        self.module.eval()
        self.sample_rate = SAMPLE_RATE
        self.min_samples = STEP + TAIL
        self.layers = self.module.layers
        self.default_layer = self.layers[-1]

    @classmethod
    def read_checkpoint(
        cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
        """Configuration and weights of a published file, fine-tuned or not, or of a converted one; None if of neither.

        settings: other content of the file; its `cfg`, if any, gives the depth and the farthest distance. A classifier
        (`predictor.*`) is left out. Raises WeightsError if tensors are missing, unknown or of wrong shape, or for a
        variant with another computation.
        """
        cfg = settings.get("cfg")
        cfg = cfg if isinstance(cfg, Mapping) else {}
        gates = [name for name in tensors if re.fullmatch(r"encoder\.layers\.\d{1,3}\.self_attn\.grep_a", name)]
        if not gates or not ("patch_embedding.weight" in tensors or "input_patch_size" in cfg):
            return None
        for key, fixed in _FIXED.items():
            if cfg.get(key, fixed) != fixed:
                raise WeightsError(
                    f"is a BEATs with {key} {cfg[key]!r}, which no published one has",
                    next_step=f"Use one with {key} {fixed!r}",
                )
        weights = {_RENAMED.get(name, name): tensors[name] for name in tensors if not name.startswith("predictor.")}
        tables = [name for name in weights if name.endswith(".self_attn.relative_attention_bias.weight")]
        shared = [weights.pop(name) for name in tables]
        if shared:
            if any(not np.array_equal(shared[0], table) for table in shared):
                raise WeightsError(
                    "is a BEATs whose layers differ in their position biases",
                    next_step="Use one whose layers share them, as published",
                )
            weights["encoder.relative_attention_bias.weight"] = shared[0]

        def size(name: str, axis: int, otherwise: int) -> int:
            shape = weights[name].shape if name in weights else ()
            return int(shape[axis]) if len(shape) > axis and shape[axis] else otherwise

        depth, distance = cfg.get("encoder_layers"), cfg.get("max_distance", 800)
        width = size("post_extract_proj.weight", 0, 768)
        config = {
            "depth": depth
            if isinstance(depth, int) and 0 < depth < 1000
            else 1 + max(int(n.split(".")[2]) for n in gates),
            "width": width,
            "heads": size(gates[0], 1, 12),
            "ffn": size("encoder.layers.0.fc1.weight", 0, 4 * width),
            "patch_width": size("patch_embedding.weight", 0, 512),
            "buckets": size("encoder.relative_attention_bias.weight", 0, 320),
            "max_distance": distance,
            "conv_kernel": size("encoder.pos_conv.0.weight_v", 2, 128),
            "conv_groups": max(1, width // size("encoder.pos_conv.0.weight_v", 1, width // 16 or 1)),
        }
        try:
            shapes = BEATs.tensor_shapes(**config)
            if not isinstance(distance, int) or distance <= config["buckets"] // 4:
                raise ValueError(f"max_distance {distance!r} is within the exact buckets")
        except ValueError as error:
            raise WeightsError(
                f"is a BEATs of impossible sizes ({error})", next_step="Get it from its publisher again"
            ) from None
        check_tensors(weights, shapes, architecture="beats")
        return config, weights

    @classmethod
    def tensor_shapes(cls, *, seed: int = 0, **sizes: Any) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight of the configuration."""
        with without_values():
            return state_shapes(BEATsNet(**sizes))

    def config(self) -> dict[str, Any]:
        return {**self._sizes, "seed": self.seed}

    def weights(self) -> Mapping[str, NDArray[Any]]:
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.module.state_dict().items()}

    def frame_count(self, samples: int, layer: str) -> int:
        return token_count(samples)

    def dimensions(self, layer: str) -> int:
        return int(self._sizes["width"])

    def mask_lengths(self, lengths: list[int], samples: int) -> list[int]:
        # By the reference's rule (`BEATsNet.valid_tokens`), of the clips' lengths it would also take tokens for valid
        # that only begin within a clip.
        frames = kaldi_frame_count(samples, FRAME, HOP)
        token_samples = samples // frames * (frames // token_count(samples))
        return [token_count(length) * token_samples for length in lengths]

    def passes(self, samples: int) -> list[tuple[int, int]]:
        columns = token_count(samples) // BANDS
        windows = -(-columns // LONGEST)
        bounds = [columns * index // windows for index in range(windows + 1)]
        return [(STEP * start, STEP * stop + TAIL) for start, stop in pairwise(bounds)]


#: settings of the published files that decide what is computed, and that nothing else is written for
_FIXED = {
    "layer_norm_first": False,
    "deep_norm": True,
    "conv_bias": False,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "activation_fn": "gelu",
    "input_patch_size": PATCH,
}
#: names under which newer versions of torch save a weight-normalised convolution
_RENAMED = {
    "encoder.pos_conv.0.parametrizations.weight.original0": "encoder.pos_conv.0.weight_g",
    "encoder.pos_conv.0.parametrizations.weight.original1": "encoder.pos_conv.0.weight_v",
}


def _valid_tokens(frames_B: Tensor, frames: int) -> Tensor:
    """Tokens with any of the valid frames, of `frames` in all."""
    tokens = frames // PATCH * BANDS
    return _groups_started(frames_B, frames // tokens, tokens)


def _groups_started(count_B: Tensor, size: int, groups: int) -> Tensor:
    """Groups of `size` that the first `count_B` items reach into, `groups` at most."""
    return ((count_B + size - 1) // size).clamp(max=groups)


def _buckets(length: int, buckets: int, max_distance: int) -> Tensor:
    """(2 * length - 1,) bucket of every distance from 1 - length to length - 1, as in T5.

    Half of the buckets are for keys after the query. Of each half, half are for one distance each and the rest
    grow logarithmically up to `max_distance`.
    """
    half = buckets // 2
    exact = half // 2
    # In float32 and on the CPU whatever the device: a distance at a bucket's edge must not fall to either side.
    distance_R = torch.arange(1 - length, length, device="cpu")
    far_R = torch.log(distance_R.abs().clamp(min=1).float() / exact) / math.log(max_distance / exact) * (half - exact)
    far_R = (exact + far_R.long()).clamp(max=half - 1)
    return torch.where(distance_R.abs() < exact, distance_R.abs(), far_R) + half * (distance_R > 0)


def _randomise(net: BEATsNet, seed: int) -> None:
    """The network before training, much as its authors initialise it: Xavier, branches damped as DeepNorm asks."""
    generator = torch.Generator().manual_seed(seed)
    damping = (8 * len(net.encoder.layers)) ** -0.25
    for name, module in net.named_modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            damped = name.rpartition(".")[2] in ("v_proj", "out_proj", "fc1", "fc2")
            nn.init.xavier_normal_(module.weight, gain=damping if damped else 1.0, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | nn.Embedding):
            nn.init.xavier_normal_(module.weight, generator=generator)
        elif isinstance(module, _Attention):
            nn.init.ones_(module.grep_a)
        elif isinstance(module, _PositionConv):
            width, _, kernel = module.weight_v.shape
            nn.init.normal_(module.weight_v, std=math.sqrt(4 / (kernel * width)), generator=generator)
            nn.init.zeros_(module.bias)
            with torch.no_grad():
                module.weight_g.copy_(module.weight_v.norm(dim=(0, 1), keepdim=True))
