"""Operations of a network, bytes that it writes and peak memory, without building it in memory.

Networks are built on torch's meta device, whose tensors have shapes only, and pass forward and backward there. Of a
row of identical blocks, such as those of a transformer, the first two and the last are computed; the others cost as
much as the second.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree, flop_counter
from torch.utils._python_dispatch import TorchDispatchMode

from harken.bench.work import Counts, Work
from harken.core.errors import HarkenError
from harken.core.json_text import json_text
from harken.encoders import create_encoder
from harken.encoders.autoencoder import Autoencoder
from harken.encoders.patch_net import PatchNet
from harken.encoders.torch_encoder import TorchEncoder
from harken.separation.config import SepReformerConfig
from harken.separation.sepreformer import SepReformer
from harken.training.model_spec import ModelSpec
from harken.training.models import ASDModel, build_model
from harken.training.pretrain.settings import PretrainingSpec
from harken.training.pretrain.step import PretrainingStep
from harken.training.recompute import recompute_blocks
from harken.training.settings import TrainingSpec
from harken.training.step import TrainingStep

aten = torch.ops.aten

_COUNTED: dict[str, Counts] = {}
_BUILT: dict[str, ASDModel] = {}


def count_training(model: ModelSpec, training: TrainingSpec, classes: int, attribute_free: tuple[int, ...]) -> Counts:
    """Counts of a training of a model without named weights; equal networks are counted once per process. Of losses
    only the parameters are counted, as their operations are few.

    Raises HarkenError for models that cannot be built.
    """
    settings = training.model_dump_json(include={"batch", "seconds", "recompute", "precision"})
    key = f"{model.model_dump_json()} {settings} {training.accumulation > 1}"
    try:
        if key not in _COUNTED:
            built = _without_memory(model)
            _COUNTED[key] = _exact_or_whole(partial(_count_training, training=training), lambda: _without_memory(model))
            _BUILT[key] = built
        # With memory: losses are small, and look at their values.
        losses = TrainingStep(
            _BUILT[key], training.losses, classes=max(classes, 2), attribute_free=attribute_free,
            augmentation=training.augmentation,
        ).losses  # fmt: skip
    except ValueError as error:
        raise HarkenError(str(error), next_step="Correct the recipe") from error
    in_losses = sum(parameter.numel() for parameter in losses.parameters())
    network = _COUNTED[key]
    return replace(network, parameters=network.parameters + in_losses, trainable=network.trainable + in_losses)


def count_encoder(encoder: str, config: Mapping[str, Any], seconds: float = 10.0) -> Counts:
    """Counts of one clip through a frozen encoder. Raises HarkenError if it cannot be built without its weights."""
    key = f"{encoder} {json_text(dict(config), sort_keys=True)} {seconds}"
    if key not in _COUNTED:

        def build() -> TorchEncoder:
            try:
                with _shapes_only():
                    built = create_encoder(encoder, config)
            except (ValueError, TypeError) as error:
                raise HarkenError(f"{encoder} cannot be counted ({error})", next_step="Measure it") from error
            if not isinstance(built, TorchEncoder):
                raise HarkenError(f"{encoder} is not a network", next_step="Measure it")
            return built

        _COUNTED[key] = _exact_or_whole(partial(_count_encoder, seconds=seconds), build)
    return _COUNTED[key]


def count_pretraining(encoder: str, config: Mapping[str, Any], spec: PretrainingSpec) -> Counts:
    """Counts of a step of pre-training: the teacher's pass, and the student's and decoder's both ways.

    Raises HarkenError for settings that do not fit.
    """
    key = f"{encoder} {json_text(dict(config), sort_keys=True)} {spec.model_dump_json()}"
    if key not in _COUNTED:

        def build() -> PretrainingStep:
            try:
                with _shapes_only():
                    built = create_encoder(encoder, config)
                    assert isinstance(built, TorchEncoder)
                    if not isinstance(built.module, PatchNet):
                        raise ValueError(f"{encoder} is no network over patches")
                    return PretrainingStep(built.module, spec)
            except (ValueError, TypeError) as error:
                raise HarkenError(str(error), next_step="Correct the recipe") from error

        rate = int(config.get("sample_rate", 16_000))
        _COUNTED[key] = _exact_or_whole(partial(_count_pretraining, spec=spec, rate=rate), build)
    return _COUNTED[key]


def count_autoencoder(inputs: int, batch: int) -> Counts:
    """Counts of the network of the DCASE baseline. inputs: size of its vectors."""
    return count_both_ways(lambda: Autoencoder(inputs), lambda net, rows: net(torch.empty(rows, inputs)), batch)


def count_both_ways(build: Callable[[], nn.Module], call: Callable[[Any, int], Tensor], batch: int) -> Counts:
    """Counts of a network: of a batch both ways, of one clip forward. call: the network with made-up inputs of so many
    clips. Of losses nothing is counted, as their operations are few."""
    with _shapes_only():
        built = build()
        with _counted([]) as both_ways:
            call(built, batch).sum().backward()  # type: ignore[no-untyped-call]
        built.eval()
        with _counted([]) as forward, torch.no_grad():
            call(built, 1)
    parameters = sum(parameter.numel() for parameter in built.parameters())
    return Counts(parameters, parameters, forward.work(), both_ways.work(), both_ways.peak, forward.peak)


def count_separator(config: SepReformerConfig, seconds: float, batch: int) -> Counts:
    """Counts of a SepReformer: of a batch with its auxiliary outputs, of one recording without. Of losses nothing is
    counted, as their operations are few."""
    samples = round(seconds * config.sample_rate)
    with _shapes_only():
        built = SepReformer(config)
        with _counted([]) as both_ways:
            outputs = built(torch.empty(batch, samples), auxiliary=True)
            assert outputs.stages_LBKS is not None
            (outputs.sources_BKS.sum() + outputs.stages_LBKS.sum()).backward()
            del outputs
        built.eval()
        with _counted([]) as forward, torch.no_grad():
            built(torch.empty(1, samples))
    parameters = sum(parameter.numel() for parameter in built.parameters())
    return Counts(parameters, parameters, forward.work(), both_ways.work(), both_ways.peak, forward.peak)


def _without_memory(spec: ModelSpec) -> ASDModel:
    """The model on the meta device."""
    with _shapes_only():
        return build_model(spec)


class _Unlike(Exception):
    """Blocks that were assumed to be identical are not."""


def _exact_or_whole(count: Callable[[Any, bool], Counts], build: Callable[[], Any]) -> Counts:
    try:
        return count(build(), True)
    except _Unlike:
        return count(build(), False)


def _count_training(built: ASDModel, by_block: bool, *, training: TrainingSpec) -> Counts:
    samples = max(round(training.seconds * built.sample_rate), built.min_samples)
    clips = max(training.batch, 2)
    counts = built.parameter_counts()
    blocks = [encoder.module.blocks_in_order for encoder in built.encoders]
    rows = blocks if by_block else []
    with _shapes_only():
        built.train()
        if training.accumulation > 1:
            for parameter in built.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)

        def both_ways() -> tuple[_Tally, float]:
            """Forward and backward; and what is alive between the two."""
            with _counted(rows) as tally:
                embedding_BD = built(torch.empty(clips, samples))
                between = tally.alive
                if embedding_BD.requires_grad:
                    embedding_BD.sum().backward()
                del embedding_BD
            return tally, between

        batch, between = both_ways()
        built.eval()
        with _counted(rows) as forward, torch.no_grad():
            built(torch.empty(1, samples))
        peak = batch.peak
        gradients = 0 if training.accumulation > 1 else 4 * counts.trainable
        if training.recompute:
            for block in (block for row in blocks for block in row):
                block.forward = partial(_with_shapes_only, block.forward)  # type: ignore[method-assign]
            recompute_blocks(*(encoder.module for encoder in built.encoders))
            built.train()
            batch, kept = both_ways()
            # Recomputed activations are assumed to be freed block by block.
            peak = kept + (between - kept) / max(1, sum(map(len, blocks))) + (peak - between) + gradients
    # Batch norms want two clips; what does not grow with the batch are the gradients.
    scale = training.batch / clips
    live = gradients + (peak - gradients) * scale if peak > gradients else peak
    return Counts(counts.total, counts.trainable, forward.work(), batch.work() * scale, live, forward.peak)


def _count_pretraining(step: PretrainingStep, by_block: bool, *, spec: PretrainingSpec, rate: int) -> Counts:
    objective = step.objective
    rows = [objective.student.blocks_in_order, objective.teacher.blocks_in_order] if by_block else []
    learned = sum(parameter.numel() for parameter in objective.learned_parameters())
    total = learned + sum(parameter.numel() for parameter in objective.teacher.parameters())
    with _shapes_only():
        spectrogram_BFM = objective.student.spectrogram(torch.empty(spec.batch, round(spec.seconds * rate)))
        masks = step.masks(spectrogram_BFM, 0, "")
        if spec.accumulation > 1:
            for parameter in objective.learned_parameters():
                parameter.grad = torch.zeros_like(parameter)
        if spec.recompute:
            for block in objective.student.blocks_in_order:
                block.forward = partial(_with_shapes_only, block.forward)  # type: ignore[method-assign]
            recompute_blocks(objective.student)
        objective.train()
        with _counted([] if spec.recompute else rows) as batch:
            objective(spectrogram_BFM, masks).loss.backward()
        objective.eval()
        with _counted(rows[:1] if not spec.recompute else []) as forward, torch.no_grad():
            objective.student.encode_spectrogram(spectrogram_BFM[:1])
    return Counts(total, learned, forward.work(), batch.work(), batch.peak, forward.peak)


def _count_encoder(built: TorchEncoder, by_block: bool, *, seconds: float) -> Counts:
    with _shapes_only(), _counted([built.module.blocks_in_order] if by_block else []) as forward, torch.no_grad():
        built.module(torch.empty(1, round(seconds * built.sample_rate)), (built.default_layer,))
    parameters = sum(parameter.numel() for parameter in built.module.parameters())
    return Counts(parameters, 0, forward.work(), Work(0, 0), 0, forward.peak)


# ------------------------------------------------------------ shapes only


#: what sets initial values
_INITIAL = {nn.init.normal_, nn.init.uniform_, nn.init.trunc_normal_, nn.init.kaiming_uniform_, nn.init.kaiming_normal_,
            nn.init.xavier_uniform_, nn.init.xavier_normal_, nn.init.zeros_, nn.init.ones_, nn.init.constant_,
            Tensor.normal_, Tensor.uniform_, Tensor.zero_, Tensor.fill_}  # fmt: skip


_DEVICE = Tensor.device.__get__  # type: ignore[attr-defined]
_CPU, _META = torch.device("cpu"), torch.device("meta")


class _ShapesOnly(TorchFunctionMode):
    """Lets networks be built on the meta device although they allocate memory and use generators: values read from
    tensors are zero, constants of the CPU combine with tensors of the meta device, attention is the CPU's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.__bool__:
            return False
        if func == _DEVICE:
            # There is no autocast of the meta device.
            return _CPU
        args = (
            tuple(_META if value == _CPU else value for value in args)
            if any(isinstance(value, torch.device) for value in args)
            else args
        )
        if kwargs.get("device") == _CPU:
            kwargs["device"] = _META
        first = args[0] if args else kwargs.get("tensor")
        if func in _INITIAL and isinstance(first, Tensor) and first.is_meta:
            return first
        if func is Tensor.norm and isinstance(first, Tensor) and first.is_meta and not torch.is_grad_enabled():
            func, args = Tensor.sum, args[:1]
            kwargs = {name: kwargs[name] for name in ("dim", "keepdim") if name in kwargs}
        if func is F.scaled_dot_product_attention:
            mask = kwargs.get("attn_mask")
            if mask is None or not mask.requires_grad:
                inputs = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))
                return aten._scaled_dot_product_flash_attention_for_cpu(*inputs[:3], attn_mask=mask)[0]
        tensors = [leaf for leaf in _leaves(args, kwargs) if isinstance(leaf, Tensor)]
        if any(tensor.is_meta for tensor in tensors):
            kwargs.pop("generator", None)
            if func is torch.empty_like:
                kwargs.pop("device", None)
            if not all(tensor.is_meta for tensor in tensors):
                args, kwargs = _pytree.tree_map_only(Tensor, _on_meta, (args, kwargs))
        return func(*args, **kwargs)


def _leaves(args: Any, kwargs: Mapping[str, Any]) -> Iterator[Any]:
    for value in (*args, *kwargs.values()):
        if isinstance(value, list | tuple):
            yield from value
        else:
            yield value


def _on_meta(tensor: Tensor) -> Tensor:
    return (
        tensor
        if tensor.is_meta
        else torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    )


@contextmanager
def _shapes_only() -> Iterator[None]:
    with _ShapesOnly(), _META:
        yield


def _with_shapes_only(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function in the backward pass, where torch has left the modes."""
    with _shapes_only():
        return function(*args, **kwargs)


# ------------------------------------------------------------ counting


@dataclass(frozen=True)
class _Segment:
    """kept: bytes alive at its end beside those of its begin; peak: most that were at any time within."""

    flops: float
    written: float
    kept: float
    peak: float


class _Tally:
    """flops of products and convolutions; written: bytes that all other operations write; alive, peak: bytes.

    What is computed between two marks counts several times where the first of them says so.
    """

    def __init__(self) -> None:
        self.flops = self.written = self.peak = 0.0
        #: bytes of live storages, and of those of repeated blocks
        self._computed = self._repeated = 0.0
        #: of the former, since the last mark
        self._peak = 0.0
        self._times = 1
        self._begun = (0.0, 0.0, 0.0)

    @property
    def alive(self) -> float:
        return self._computed + self._repeated

    def allocated(self, size: float) -> None:
        self._computed += size
        self._peak = max(self._peak, self._computed)

    def freed(self, size: float) -> None:
        self._computed -= size

    def mark(self, times: int = 1) -> _Segment:
        """Closes what was computed since the last mark, and returns it. times: how often what follows counts."""
        flops, written, alive = self._begun
        segment = _Segment(self.flops - flops, self.written - written, self._computed - alive, self._peak - alive)
        self.peak = max(self.peak, self._peak + self._repeated)
        self.repeat(segment, self._times - 1)
        self._times, self._peak = times, self._computed
        self._begun = (self.flops, self.written, self._computed)
        return segment

    def repeat(self, segment: _Segment, times: int = 1) -> None:
        """Count a segment so many more times."""
        if times > 0:
            self.flops += times * segment.flops
            self.written += times * segment.written
            # Memory is at its peak in the first or in the last.
            before = self.alive - segment.kept
            self.peak = max(self.peak, before + segment.peak + max(0.0, times * segment.kept))
            self._repeated += times * segment.kept

    def work(self) -> Work:
        return Work(self.flops, self.written)


def _attention_flops(q: Any, k: Any, v: Any, *more: Any, out_val: Any = None, **kwargs: Any) -> float:
    return float(flop_counter.sdpa_flop_count(q.shape, k.shape, v.shape))  # type: ignore[no-untyped-call]


def _attention_backward_flops(g: Any, q: Any, k: Any, v: Any, *more: Any, out_val: Any = None, **kwargs: Any) -> float:
    return float(flop_counter.sdpa_backward_flop_count(g.shape, q.shape, k.shape, v.shape))  # type: ignore[no-untyped-call]


def _convolution_backward_flops(
    g: Any, x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *more: Any,
    out_val: Any = None, **kwargs: Any,
) -> float:  # fmt: skip
    # torch's count ignores groups.
    wanted = more[-1]
    return float(flop_counter.conv_flop_count(x.shape, w.shape, g.shape, transposed=transposed)) * (
        wanted[0] + wanted[1]
    )


_FLOPS: dict[Any, Callable[..., float]] = {
    **flop_counter.flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    aten.convolution_backward: _convolution_backward_flops,
}


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts each operation, the bytes it writes, and storages from first use until they are freed."""

    def __init__(self, tally: _Tally) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tally = tally
        self.seen: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Loading torch's compiler takes longer than everything else here.
        return False

    def _freed(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.tally.freed(size)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten.linalg_vector_norm.default:
            # Its own shape function loads torch's compiler.
            out = aten.sum.dim_IntList(args[0], *args[2:4])
        else:
            out = func(*args, **kwargs)
        flops = _FLOPS.get(func._overloadpacket)
        if flops is not None:
            self.tally.flops += flops(*args, **kwargs, out_val=out)
        for tensor in out if isinstance(out, list | tuple) else (out,):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.seen:
                self.seen.add(key)
                weakref.finalize(storage, self._freed, key, size)
                self.tally.allocated(size)
                if flops is None:
                    self.tally.written += size
            elif func._schema.is_mutable:
                self.tally.written += tensor.numel() * tensor.element_size()
        return out


@contextmanager
def _counted(blocks: Sequence[Sequence[nn.Module]]) -> Iterator[_Tally]:
    """Counts the operations within it. blocks: rows of which three are computed, where they are identical; raises
    _Unlike where the input of one is not the output of the block before."""
    tally = _Tally()
    rows = [_Row(row, tally) for row in blocks if len(row) > 3 and _alike(row)]
    for row in rows:
        row.shorten()
    try:
        with _Live(tally):
            yield tally
            tally.mark()
    finally:
        for row in rows:
            row.restore()


def _alike(row: Sequence[nn.Module]) -> bool:
    """Whether all blocks but the first are of one class and have tensors of the same shapes that learn alike."""

    def form(block: nn.Module) -> Any:
        return type(block), [(name, x.shape, x.requires_grad) for name, x in block.named_parameters()]

    forms = [form(block) for block in row]
    return all(block_form == forms[1] for block_form in forms[2:])


class _Row:
    """Identical blocks of which the first two and the last are computed.

    The others return their input, and cost as much as the second.
    """

    def __init__(self, blocks: Sequence[nn.Module], tally: _Tally) -> None:
        self.blocks = list(blocks)
        self.tally = tally
        self.before = [vars(block).get("forward") for block in blocks]
        self.skipped = 0
        #: what the last block that was computed gave; how many values, 0 for a tensor alone; what the second cost
        self.last: Callable[[], Tensor | None]
        self.outputs: int
        self.second: _Segment

    def shorten(self) -> None:
        for number, block in enumerate(self.blocks):
            block.forward = partial(self._forward, number, block.forward)

    def restore(self) -> None:
        for block, forward in zip(self.blocks, self.before, strict=True):
            if forward is None:
                del block.forward
            else:
                block.forward = forward

    def _forward(self, number: int, forward: Any, *inputs: Any, **more: Any) -> Any:
        x = inputs[0]
        if number > 0 and x is not self.last():
            raise _Unlike
        segment = self.tally.mark()
        if 1 < number < len(self.blocks) - 1:
            if number == 2:
                self.second = segment
            self.tally.repeat(self.second)
            self.skipped += 1
            return (x,) * self.outputs if self.outputs else x
        if number == 0:
            self.skipped = 0
        out = forward(*inputs, **more)
        y = out[0] if isinstance(out, tuple) else out
        if y.shape != x.shape:
            raise _Unlike
        self.outputs = len(out) if isinstance(out, tuple) else 0
        # Holding it would be memory that the network does not take.
        self.last = weakref.ref(y)
        if y.requires_grad:
            # By then it is known how many there are.
            y.register_hook(lambda grad: self._backward(number))
        return out

    def _backward(self, number: int) -> None:
        self.tally.mark(1 + self.skipped if number == 1 else 1)
