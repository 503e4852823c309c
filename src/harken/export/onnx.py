"""Neural encoders as ONNX files: waveform in, features out, front end included.

The exported graph is the trained network itself: framing becomes slices or convolutions, the Fourier transform
stays one node (`DFT` or `STFT`), and fused attention is written out.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from harken.core.errors import HarkenError, writing
from harken.core.extras import need
from harken.encoders.base import Encoder
from harken.encoders.checks import pooled_difference
from harken.encoders.onnx import LARGEST, Card, OnnxEncoder, write_card
from harken.encoders.precision import SMALLEST
from harken.encoders.torch_encoder import TorchEncoder
from harken.training.trained_encoder import TrainedEncoder

Float32 = NDArray[np.float32]

OPSET = 20
#: largest difference of a feature to torch that is rounding
TOLERANCE = 1e-3
#: lowest cosine similarity of mean features to torch that 8 bits may cost
LOWEST_SIMILARITY = 0.99
#: stands for differences until they are measured; JSON has no infinity
_UNMEASURED = float(np.finfo(np.float64).max)
#: most windows of one clip that a graph is written out for
_MOST_PASSES = 8


def export_onnx(
    encoder: Encoder,
    file: str | Path,
    *,
    seconds: float | None = 10.0,
    layer: str | None = None,
    int8: bool = False,
    weights_sha256: str | None = None,
) -> Card:
    """Write an encoder to `file`: (clips, samples) `waveform` -> (clips, frames, dimensions) `features` of `layer`.

    encoder: a neural one, or a network that was trained here. seconds: length of the clips that the file takes; None
    for any length, which only some architectures allow. layer: default is the encoder's own; several, joined by `+`,
    stand one after the other in the dimensions. int8: round the weights of linear layers to 8 bits.
    Returns what the file says about itself. `OnnxEncoder` runs it.
    Raises HarkenError if the encoder has no network, torch cannot export it, its file would exceed 2 GiB, or features
    or pooled vectors differ from torch; ValueError for an unknown layer.
    """
    onnx, _ = need("onnx", "ONNX files"), need("onnxscript", "ONNX files")
    need("onnxruntime", "ONNX files")
    if not isinstance(encoder, TorchEncoder | TrainedEncoder):
        raise HarkenError(f"{encoder.name} has no network to export", next_step="It needs no torch: use it as it is")
    layer = layer or encoder.default_layer
    for name in layer.split("+"):
        if name not in encoder.layers:
            raise ValueError(f"{encoder.name} has no layer {name!r}; there are {', '.join(encoder.layers)}")
    network = encoder.model if isinstance(encoder, TrainedEncoder) else encoder.module
    precision = "fp32" if isinstance(encoder, TrainedEncoder) else encoder.precision
    if precision != "fp32" or next(network.parameters()).device.type != "cpu":
        raise HarkenError("only float32 on a CPU can be exported", next_step="Call set_precision and to before")
    if sum(tensor.nbytes for tensor in network.state_dict().values()) > LARGEST:
        raise HarkenError("its ONNX file would exceed 2 GiB", next_step="Export a smaller network")
    if isinstance(encoder, TrainedEncoder):
        samples = longest = encoder.window
        module: nn.Module = _TrainedWindow(encoder) if encoder.read is None else _PooledLayers(encoder)
        seconds = encoder.seconds
    else:
        samples, longest = _lengths(encoder, seconds)
        module = _Clip(encoder, tuple(layer.split("+")), None if seconds is None else samples)
    fields: dict[str, Any] = {
        "encoder": encoder.name, "config": encoder.config(), "layer": layer, "sample_rate": encoder.sample_rate,
        "samples": None if seconds is None else samples, "min_samples": encoder.min_samples, "max_samples": longest,
        "pooling": encoder.default_pooling, "cls_tokens": encoder.cls_tokens, "patch_bands": encoder.patch_bands,
        "weights_sha256": weights_sha256,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="harken-onnx-") as folder:
        model, clips = _to_onnx(module.eval(), samples, any_length=seconds is None)
        fields["clips"] = clips
        complete = Path(folder) / "whole.onnx"
        lengths = [samples] if seconds is not None else sorted({encoder.min_samples, samples + 777, longest})
        card = _save(onnx, model, complete, fields, int8=False)
        measured = _compare(encoder, OnnxEncoder.of_file(complete), lengths)
        hint = "Try another layer, or a newer torch" if seconds is not None else "Export it for clips of one length"
        if not measured.features <= TOLERANCE:
            gap = f"differs from torch by {measured.features:.2g}"
            gap = gap if measured.features < np.inf else "does not run as torch does"
            raise HarkenError(f"the exported {encoder.name} {gap}", next_step=hint)
        if not measured.pooled <= TOLERANCE:
            raise HarkenError(
                f"pooled vectors of the exported {encoder.name} differ from torch by {measured.pooled:.2g}",
                next_step=hint,
            )
        fields.update(max_abs_diff=measured.features, similarity=measured.similarity, pooled_diff=measured.pooled)
        if int8:
            model = _rounded(onnx, model, complete, Path(folder))
            card = _save(onnx, model, complete, fields, int8=True)
            rounded = _compare(encoder, OnnxEncoder.of_file(complete), lengths)
            if not rounded.similarity >= LOWEST_SIMILARITY:
                raise HarkenError(
                    f"in 8 bits, the features of {encoder.name} have a cosine similarity of only "
                    f"{rounded.similarity:.4f}",
                    next_step="Export without int8",
                )
            fields.update(similarity=rounded.similarity, pooled_diff=rounded.pooled)
        # The card holds measurements of the graph that it is written into.
        partial = Path(file).with_name(f".{Path(file).name}.{os.getpid()}")
        try:
            with writing(file, "Choose another"):
                card = _save(onnx, model, partial, fields, int8=int8)
                partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    return card


def _lengths(encoder: TorchEncoder, seconds: float | None) -> tuple[int, int]:
    """Samples of the example to export with, and the most that pass through the network at once."""
    shortest, rate = encoder.min_samples, encoder.sample_rate
    if seconds is None:
        # Some networks cut long clips themselves; half a minute is enough for one pass.
        longest = max(stop - start for start, stop in encoder.passes(30 * rate))
        return min(2 * shortest + rate, longest), longest
    samples = round(seconds * rate)
    if samples < shortest or len(encoder.passes(samples)) > _MOST_PASSES:
        raise HarkenError(
            f"{encoder.name} takes {shortest / rate:g} s or more, in up to {_MOST_PASSES} windows, not {seconds:g} s",
            next_step="Choose other --seconds; longer recordings pass in windows of that length",
        )
    return samples, samples


class _Clip(nn.Module):
    """What `encode` makes of clips: in its windows, frames that are all padding left out, spikes suppressed.

    samples: of the clips; None for any number that passes at once.
    """

    def __init__(self, encoder: TorchEncoder, layers: tuple[str, ...], samples: int | None) -> None:
        super().__init__()
        self.module, self.layers, self.cls = encoder.module, layers, encoder.cls_tokens
        self.clamp = bool(encoder.config().get("clamp"))
        passes = [(0, samples)] if samples is None else encoder.passes(samples)
        #: start, stop and frames of each window; None: all
        self.windows: list[tuple[int, int | None, int | None]] = [
            (start, stop, None if stop is None else encoder.frame_count(stop - start, layers[0]))
            for start, stop in passes
        ]
        #: of the whole clip, where the windows have more
        self.frames = None if samples is None else encoder.frame_count(samples, layers[0])

    def forward(self, waveform_BS: Tensor) -> Tensor:
        outputs = [self._window(waveform_BS, *window) for window in self.windows]
        if len(outputs) == 1:
            return outputs[0]
        # As `TorchEncoder._joined`: class tokens are the mean of the windows', weighted by their frames.
        frames = [output_BTD.shape[1] - self.cls for output_BTD in outputs]
        heads = [output_BTD[:, : self.cls] * (n / sum(frames)) for output_BTD, n in zip(outputs, frames, strict=True)]
        head_BCD = torch.stack(heads).sum(0)
        joined_BTD = torch.cat([head_BCD, *(output_BTD[:, self.cls :] for output_BTD in outputs)], dim=1)
        return joined_BTD[:, : self.frames]

    def _window(self, waveform_BS: Tensor, start: int, stop: int | None, frames: int | None) -> Tensor:
        if stop is not None and (start, stop) != (0, waveform_BS.shape[1]):
            waveform_BS = waveform_BS[:, start:stop]
        features_BTD = torch.cat([x_BTD[:, :frames] for x_BTD in self.module(waveform_BS, self.layers)], dim=2)
        if self.clamp:
            # As `harken.encoders.eat.suppress_spikes` with its own bounds.
            size_BTD = features_BTD.abs()
            bounded_BTD = torch.where(size_BTD > 0.5, 0.5 * (1 + torch.tanh(size_BTD / 0.5 - 1)), size_BTD)
            features_BTD = torch.where(size_BTD < 0.1, 0.0, features_BTD.sign() * bounded_BTD)
        return features_BTD


class _TrainedWindow(nn.Module):
    """What a `TrainedEncoder` makes of one window: (clips, samples) -> (clips, 1, D) of unit length."""

    def __init__(self, encoder: TrainedEncoder) -> None:
        super().__init__()
        self.model = encoder.model

    def forward(self, waveform_BS: Tensor) -> Tensor:
        embedding_BD: Tensor = self.model(waveform_BS)
        return F.normalize(embedding_BD, dim=1)[:, None]


class _PooledLayers(nn.Module):
    """As `_TrainedWindow`, of a `TrainedEncoder` with `read`: layers of its encoders, pooled over frames."""

    def __init__(self, encoder: TrainedEncoder) -> None:
        super().__init__()
        if encoder.read_pooling != "mean":
            raise HarkenError(
                f"layers of a trained network pooled by {encoder.read_pooling} cannot be exported",
                next_step="Package a system that pools its layers by mean, or takes the trained embedding",
            )
        self.layers = encoder.layers_read()
        self.clips = nn.ModuleList(
            _Clip(network, layers, encoder.window)
            for network, layers in zip(encoder.model.encoders, self.layers, strict=True)
        )
        self.cls_tokens = [network.cls_tokens for network in encoder.model.encoders]

    def forward(self, waveform_BS: Tensor) -> Tensor:
        vectors = []
        for clip, layers, cls_tokens in zip(self.clips, self.layers, self.cls_tokens, strict=True):
            mean_BD = clip(waveform_BS)[:, cls_tokens:].mean(dim=1)
            vectors += [F.normalize(layer_BD, dim=1) for layer_BD in mean_BD.chunk(len(layers), dim=1)]
        return F.normalize(torch.cat(vectors, dim=1), dim=1)[:, None]


class _Exportable(TorchFunctionMode):
    """Writes fused attention out: what the exporter makes of it has another memory layout than it expects."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)


def _attention(q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    logits_BHLL = (q_BHLE * q_BHLE.shape[-1] ** -0.5) @ k_BHLE.transpose(-2, -1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        logits_BHLL = logits_BHLL.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        logits_BHLL = logits_BHLL + attn_mask
    return (logits_BHLL.softmax(dim=-1) @ v_BHLE).clone(memory_format=torch.contiguous_format)


def _to_onnx(module: nn.Module, samples: int, *, any_length: bool) -> tuple[Any, int | None]:
    """The graph, and how many clips it takes: None for any number, 1 where the network's code fixes it."""
    example_BS = torch.zeros(2, samples)
    any_size = torch.export.Dim.DYNAMIC
    clips = None
    try:
        with _Exportable(), torch.no_grad(), _quiet():
            sizes = {1: any_size} if any_length else {}
            try:
                program = torch.export.export(
                    module, (example_BS,), dynamic_shapes=({0: any_size, **sizes},), strict=False
                )
            except RuntimeError:
                # Networks that count clips with len() fix their number.
                clips = 1
                program = torch.export.export(module, (example_BS[:1],), dynamic_shapes=(sizes,), strict=False)
            exported = torch.onnx.export(
                program,
                (example_BS[:1],),
                dynamo=True,
                opset_version=OPSET,
                input_names=["waveform"],
                output_names=["features"],
                verbose=False,
            )
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        # Torch's errors run to pages, of which the first line says what was not supported.
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise HarkenError(
            f"torch cannot export it: {reason[:200]}", next_step="Try another layer, or a newer torch"
        ) from error
    assert exported is not None
    return exported.model_proto, clips


def _rounded(onnx: Any, model: Any, complete: Path, folder: Path) -> Any:
    """The graph with weights of linear layers in 8 bits, one scale a channel; activations are rounded as it runs."""
    quantization = need("onnxruntime.quantization", "ONNX files")
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    # Fourier transforms and mel filters are matrices too, but need all their bits.
    nodes = [
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul"
        and any("torch.nn.modules.linear.Linear" in prop.value for prop in node.metadata_props)
        and min(shapes.get(node.input[1], (0,))) >= SMALLEST
    ]
    if not nodes:
        raise HarkenError("it has no linear layers that 8 bits could make smaller", next_step="Export without int8")
    bare, small = folder / "bare.onnx", folder / "small.onnx"
    graph = onnx.load(complete)
    # The quantiser refuses outdated shapes of values that an optimiser has replaced, and infers those that it needs.
    del graph.graph.value_info[:]
    onnx.save(graph, bare)
    with _quiet():
        quantization.quantize_dynamic(
            bare,
            small,
            nodes_to_quantize=nodes,
            per_channel=True,
            # Without newer instructions, sums of products of full 8 bits do not fit.
            reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
        )
    return onnx.load(small)


def _save(onnx: Any, model: Any, file: Path, fields: dict[str, Any], *, int8: bool) -> Card:
    card = Card(**{"max_abs_diff": _UNMEASURED, "similarity": -1.0, **fields, "int8": int8})
    write_card(model, card)
    onnx.save_model(model, file)
    return card


class _Measured(NamedTuple):
    """Largest difference to torch of a feature, lowest cosine similarity of mean features, and largest difference of a
    pooled vector; for noise."""

    features: float
    similarity: float
    pooled: float


def _compare(encoder: Encoder, runtime: OnnxEncoder, lengths: Sequence[int]) -> _Measured:
    rng = np.random.default_rng(0)
    differences, similarities, pooled = [], [], []
    for samples in lengths:
        # Levels 40 dB apart reveal errors of scale.
        clips = runtime.card.clips or 3
        level_B1 = np.geomspace(0.001, 0.1, 3)[-clips:, None]
        wave_BS = (level_B1 * rng.normal(size=(clips, samples))).astype(np.float32)
        try:
            theirs_BTD = np.concatenate(
                [encoder.encode(wave_BS, layers=(layer,)).features_BLTD[:, 0] for layer in runtime.layers], axis=2
            )
            ours_BTD = runtime.run(wave_BS)
        except Exception:
            # ONNX Runtime has no common class of exception; a graph that cannot run is no better than a wrong one.
            return _Measured(np.inf, -1.0, np.inf)
        if ours_BTD.shape != theirs_BTD.shape:
            return _Measured(np.inf, -1.0, np.inf)
        differences.append(float(np.abs(ours_BTD - theirs_BTD).max()))
        ours_BD, theirs_BD = ours_BTD.mean(axis=1, dtype=np.float64), theirs_BTD.mean(axis=1, dtype=np.float64)
        norms_B = np.linalg.norm(ours_BD, axis=1) * np.linalg.norm(theirs_BD, axis=1)
        similarities.append(float(((ours_BD * theirs_BD).sum(axis=1) / np.maximum(norms_B, 1e-300)).min()))
        pooled.append(pooled_difference(runtime, encoder, wave_BS[-1:], runtime.layers))
    return _Measured(max(differences), min(similarities), max(pooled))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings, which are about optional packages and their own code."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
