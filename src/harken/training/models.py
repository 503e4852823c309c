"""Networks to be trained: encoders with heads, alone or side by side, built from a few plain values.

The systems of the reports, each a `ModelSpec` (DCASE 2025 Task 2):

    THUEE, SJTU-AITHU   one branch: beats with attentive pooling; eat or fisher with cls
    NWPU FBEATs, LBEATs one branch: beats with mean pooling, without and with an adapter; FEAT, LEAT likewise with eat
    NWPU dual-branch    two branches, beats and eat, with adapters; `branches` gives FeatEx what it exchanges
    NWPU fusion         the same two, their concatenation the embedding
    Unisound CNN        one branch: dual_branch, whose two parts are embeddings of their own
    Unisound BEATs      one branch: beats with several layers and the adaptation head; `FreezeSchedule`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, NamedTuple, Self

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harken.core.errors import WeightsError
from harken.encoders import encoder_class
from harken.encoders.checkpoints import weights_for
from harken.encoders.precision import apply_precision
from harken.encoders.spectrogram_net import Augment
from harken.encoders.torch_encoder import TorchEncoder
from harken.training.adapters import AdaptationModule, add_lora
from harken.training.arrays import module_arrays
from harken.training.heads import PoolingHead, dense_layers
from harken.training.lora import merge_lora
from harken.training.model_spec import BranchSpec, HeadSpec, ModelSpec
from harken.training.spectrograms import SpectrogramForm, SpectrogramRows
from harken.weights.tensors import check_tensors


class ParameterCounts(NamedTuple):
    """trainable: of those, how many learn now."""

    total: int
    trainable: int


class ASDModel(nn.Module):
    """Waveforms -> embeddings, of which a loss of `training.losses` asks which class they are of.

    spectrogram_augment: what changes the normalised spectrogram of each network while training, such as SpecAugment;
    (clips, frames, bins) -> the same shape. Evaluation, and `encode` of `encoders`, never see it.
    """

    spectrogram_augment: Augment | None

    def __init__(self, spec: ModelSpec, branches: Sequence[_Branch]) -> None:
        super().__init__()
        rates = {branch.encoder.sample_rate for branch in branches}
        if len(rates) > 1:
            raise ValueError(f"branches hear different sampling rates: {', '.join(map(str, sorted(rates)))} Hz")
        self.spec = spec
        self.spectrogram_augment = None
        self.parts = nn.ModuleList(branches)
        #: dimensions of each of the embeddings that `branches` returns
        self.branch_dims = tuple(size for branch in branches for size in branch.dims)
        self.joint = dense_layers(sum(self.branch_dims), spec.joint)
        #: of the embedding that `forward` returns
        self.embedding_dim = spec.joint[-1] if spec.joint else sum(self.branch_dims)
        self.sample_rate = rates.pop()

    @property
    def encoders(self) -> tuple[TorchEncoder, ...]:
        """The encoders as they are trained, for features of any layer. Merge adapters before asking for weights."""
        return tuple(branch.encoder for branch in self._parts())

    @property
    def min_samples(self) -> int:
        """Shortest clip that every branch takes."""
        return max(encoder.min_samples for encoder in self.encoders)

    def spectrogram_form(self, samples: int) -> SpectrogramForm:
        """What spectrograms that stand for clips of `samples` must be.

        Raises ValueError where a branch takes none, or not in one window, and where front ends of branches differ.
        """
        forms = []
        for encoder in self.encoders:
            if not encoder.takes_spectrograms:
                raise ValueError(f"{encoder.name} takes no spectrograms")
            shapes = encoder.spectrogram_shapes(samples)
            if len(shapes) != 1:
                raise ValueError(f"clips of {samples} samples pass through {encoder.name} in {len(shapes)} windows")
            forms.append(SpectrogramForm(encoder.front_end(), samples, shapes[0]))
        different = next((form for form in forms if form != forms[0]), None)
        if different is not None:
            raise ValueError(
                f"a spectrogram is of one front end, and branches have {forms[0].front_end} and {different.front_end}"
            )
        return forms[0]

    def check_front_ends_stay(self) -> None:
        """Raise ValueError where something of a front end learns: spectrograms made for it would no longer be its."""
        for branch in self._parts():
            arrays = branch.encoder.front_end_arrays
            if branch.learns if arrays is None else branch.learns.intersection(arrays):
                raise ValueError(
                    f"the front end of {branch.encoder.name} learns, and spectrograms are made for one that stays: "
                    "freeze the encoder, or train adapters"
                )

    def forward(
        self, wave_BS: Tensor, lengths_B: Tensor | None = None, spectrograms: SpectrogramRows | None = None
    ) -> Tensor:
        """(clips, samples) at `sample_rate` -> (clips, embedding_dim).

        lengths_B: valid samples of each clip (default: all). The embedding of a padded clip is that of the clip
        alone, but for batch norms in training. EAT and FISHER hear the first 10.24 s of longer clips, the dual-branch
        CNN its own length. spectrograms: clips that enter every branch behind its front end, see `spectrogram_form`.
        Raises ValueError for clips shorter than `min_samples`, and for spectrograms where a branch takes none.
        """
        return self.join(self.branches(wave_BS, lengths_B, spectrograms))

    def branches(
        self, wave_BS: Tensor, lengths_B: Tensor | None = None, spectrograms: SpectrogramRows | None = None
    ) -> list[Tensor]:
        """The (clips, dimensions) embeddings before they are joined: `branch_dims`. FeatEx exchanges these."""
        lengths = [wave_BS.shape[1]] * len(wave_BS) if lengths_B is None else lengths_B.tolist()
        if not lengths or not self.min_samples <= min(lengths) or max(lengths) > wave_BS.shape[1]:
            raise ValueError(f"clips of {self.min_samples} samples or more, not {min(lengths, default=0)}")
        augment = self.spectrogram_augment if self.training else None
        if spectrograms is not None:
            refusing = [encoder.name for encoder in self.encoders if not encoder.takes_spectrograms]
            if refusing:
                raise ValueError(f"{', '.join(refusing)} takes no spectrograms")
            augment = partial(_placed, spectrograms, augment)
        padded = lengths_B is not None
        return [embedding_BD for branch in self._parts() for embedding_BD in branch(wave_BS, lengths, padded, augment)]

    def join(self, branches: Sequence[Tensor]) -> Tensor:
        """What `branches` returned, exchanged or not -> (clips, embedding_dim)."""
        embedding_BD: Tensor = self.joint(torch.cat(list(branches), dim=1))
        return embedding_BD

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`; but batch norms that do not learn keep their statistics too."""
        super().train(mode)
        for branch in self._parts():
            for module in branch.net.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and not module.weight.requires_grad:
                    module.eval()
        return self

    def set_encoders_learning(self, learning: bool) -> None:
        """Let what learns of the encoders (all, adapters or nothing, as the spec says) do so, or freeze it."""
        for branch in self._parts():
            for name, parameter in branch.net.named_parameters():
                parameter.requires_grad_(learning and name in branch.learns)
        self.train(self.training)

    def parameter_counts(self) -> ParameterCounts:
        """Numbers of parameters, in total and trainable."""
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in self.parameters()]
        return ParameterCounts(sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns))

    def set_precision(self, precision: Literal["fp32", "bf16"]) -> None:
        """What the encoders' networks compute in, for inference only: see `apply_precision`. Heads stay in fp32.

        Raises HarkenError where it is not available.
        """
        for branch in self._parts():
            branch.encoder.set_precision(precision)
            changed = apply_precision(branch.net, precision)
            # In a tuple, as it is no module of the branch: state and device are those of `net`.
            branch.changed = () if changed is branch.net else (changed,)

    def merge_adapters(self) -> None:
        """Add all adapters to their weights, in place: `spec`, `state` and `encoders` are then those of plain networks.

        The same embeddings but for rounding. An optimiser made before knows nothing of the merged weights.
        """
        branches = list(self.spec.branches)
        for index, branch in enumerate(self._parts()):
            if branches[index].adapter is not None:
                branch.merge()
                branches[index] = branches[index].model_copy(update={"adapter": None})
        self.spec = self.spec.model_copy(update={"branches": tuple(branches)})
        self.train(self.training)

    def standalone_spec(self) -> ModelSpec:
        """The spec of a network of the same shapes that names no weights: those are in `state(complete=True)`."""
        branches = []
        for branch, module in zip(self.spec.branches, self._parts(), strict=True):
            config = {name: value for name, value in module.encoder.config().items() if name != "seed"}
            branches.append(branch.model_copy(update={"weights": None, "size": "full", "config": config}))
        return self.spec.model_copy(update={"branches": tuple(branches)})

    def state(self, *, complete: bool = False) -> dict[str, NDArray[Any]]:
        """Arrays by name, for a safetensors file, that a model of the same spec gets by `load_state`.

        Of encoders with adapters and frozen ones, only what learns: the rest is what the spec names or draws.
        complete: these too.
        """
        return {name: array.copy() for name, array in self.shared_state(complete=complete).items()}

    def shared_state(self, *, complete: bool = False) -> dict[str, NDArray[Any]]:
        """`state`, to be written at once: on the CPU it shares the memory of the model."""
        kept = None if complete else self._learned_names()
        return {name: array for name, array in module_arrays(self).items() if kept is None or name in kept}

    def load_state(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Take over what `state` gave, complete or not. Returns the model.

        Raises WeightsError, and changes nothing, if a tensor is missing, unknown, of another shape or not finite.
        """
        current = self.state_dict()
        kept = self._learned_names()
        if set(arrays) - kept:
            kept = set(current)
        shapes = {name: tuple(tensor.shape) for name, tensor in current.items() if name in kept}
        check_tensors(arrays, shapes, architecture="a model of this spec")
        state = {name: torch.tensor(array).to(current[name].dtype) for name, array in arrays.items()}
        self.load_state_dict(state, strict=False)
        return self

    def _learned_names(self) -> set[str]:
        """Names in the state dict, but for those of encoders that keep them as the spec has them."""
        names = set(self.state_dict())
        for index, branch in enumerate(self._parts()):
            if branch.keeps:
                prefix = f"parts.{index}.net."
                learns = {prefix + name for name in branch.learns}
                names = {name for name in names if not name.startswith(prefix) or name in learns}
        return names

    def _parts(self) -> Iterator[_Branch]:
        for branch in self.parts:
            assert isinstance(branch, _Branch)
            yield branch


class _Branch(nn.Module):
    """An encoder's network and its heads, each of which reads some of its layers and gives one embedding.

    learns: names of the network's parameters that may learn. keeps: whether there are others. changed: what runs in
    place of the network in another precision, if anything does.
    """

    def __init__(self, encoder: TorchEncoder, reads: Sequence[tuple[str, ...]], heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.net = encoder.module
        self.changed: tuple[nn.Module, ...] = ()
        self.reads = tuple(reads)
        self.heads = nn.ModuleList(heads)
        self.dims: tuple[int, ...] = tuple(int(getattr(head, "output_dimensions")) for head in heads)  # noqa: B009
        learning = {name: parameter.requires_grad for name, parameter in self.net.named_parameters()}
        self.learns = frozenset(name for name, learns in learning.items() if learns)
        self.keeps = not all(learning.values())

    def forward(self, wave_BS: Tensor, lengths: list[int], padded: bool, augment: Augment | None) -> list[Tensor]:
        layers = tuple(dict.fromkeys(layer for read in self.reads for layer in read))
        frames = [self.encoder.frame_count(length, layers[0]) for length in lengths]
        lengths_B = None
        if padded:
            if not self.encoder.takes_lengths:
                raise ValueError(f"{self.encoder.name} takes clips of one length")
            masked = self.encoder.mask_lengths(lengths, wave_BS.shape[1])
            lengths_B = torch.tensor(masked, device=wave_BS.device)
        net = self.changed[0] if self.changed else self.net
        features = dict(zip(layers, net(wave_BS, layers, lengths_B, augment), strict=True))
        # Networks of a fixed length have fewer tokens than a longer clip would fill.
        tokens = features[layers[0]].shape[1]
        valid_B = torch.tensor([min(count, tokens) for count in frames], device=wave_BS.device)
        return [
            head([features[layer] for layer in read], valid_B)
            for head, read in zip(self.heads, self.reads, strict=True)
        ]

    def merge(self) -> None:
        merge_lora(self.net)
        device = next(self.net.parameters()).device
        # Built anew, so that what was split for the adapters is whole again.
        merged = type(self.encoder)(self.encoder.weights(), **self.encoder.config())  # type: ignore[call-arg]
        self.encoder = merged.to(device)
        self.net = merged.module
        self.learns = frozenset(name for name, _ in self.net.named_parameters())
        self.keeps = False


def _placed(spectrograms: SpectrogramRows, augment: Augment | None, spectrogram_BFM: Tensor) -> Tensor:
    """A batch with the clips that are spectrograms in their rows, then augmented like the others."""
    whole_BFM = spectrograms.placed(spectrogram_BFM)
    return whole_BFM if augment is None else augment(whole_BFM)


def build_model(
    spec: ModelSpec, start: ASDModel | None = None, arrays: Mapping[str, NDArray[Any]] | None = None
) -> ASDModel:
    """A model in evaluation mode, on the CPU; the same for the same spec and weights.

    start: a network without adapters, of the same encoders in the same order, whose encoders are taken over with their
    sizes, and whose heads and joint layers are where all of their shapes are the same. `state` is then complete.
    arrays: of `state`, which it gets as by `load_state`; encoders that are all in them draw nothing before.
    Raises WeightsError for weights and arrays that are missing or of another encoder, and ValueError for layers that
    are not there or do not fit the head, and for a start of other encoders.
    """
    # Heads and adapters draw from the global generator, which is not ours to move.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(spec.seed)
        begun = _begun(spec, start)
        branches = [
            _build_branch(branch, spec.seed + index, source, _under(f"parts.{index}.net.", arrays or {}))
            for index, (branch, source) in enumerate(zip(spec.branches, begun, strict=True))
        ]
        model = ASDModel(spec, branches)
        if start is not None:
            for branch, source in zip(branches, begun, strict=True):
                assert source is not None
                _take_over(branch.heads, source.heads)
            _take_over(model.joint, start.joint)
    return model.eval() if arrays is None else model.eval().load_state(arrays)


def _begun(spec: ModelSpec, start: ASDModel | None) -> list[_Branch] | list[None]:
    """The branch that each branch begins with. Raises ValueError where they are of other encoders."""
    if start is None:
        return [None] * len(spec.branches)
    wanted, begun = ([branch.encoder for branch in each.branches] for each in (spec, start.spec))
    if wanted != begun:
        raise ValueError(f"the network is of {', '.join(wanted)}, the one that it begins with of {', '.join(begun)}")
    return list(start._parts())


def _take_over(module: nn.Module, source: nn.Module) -> None:
    """Weights of a module of the same form; another keeps its own."""
    current, pretrained = module.state_dict(), source.state_dict()
    if {name: x.shape for name, x in current.items()} == {name: x.shape for name, x in pretrained.items()}:
        module.load_state_dict(pretrained)


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _build_branch(spec: BranchSpec, seed: int, start: _Branch | None, arrays: Mapping[str, NDArray[Any]]) -> _Branch:
    """arrays: of its network, from a checkpoint."""
    cls = encoder_class(spec.encoder)
    if not issubclass(cls, TorchEncoder):
        raise ValueError(f"{spec.encoder} has no network to train")
    config, weights = dict(cls.sizes.get(spec.size, {})), None
    if start is not None:
        config, weights = start.encoder.config(), dict(start.encoder.weights())
    elif spec.weights is None:
        config["seed"] = seed
    else:
        config, arrays = weights_for(spec.encoder, spec.weights)
        weights = dict(arrays)
    # A checkpoint of a network that learns as a whole has all of it.
    complete = arrays if spec.adapter is None and not spec.frozen else {}
    encoder = _encoder(cls, weights, complete, {**config, **spec.config})
    layers = _layers(encoder, spec.layers)
    unknown = [layer for layer in layers if layer not in encoder.layers]
    if unknown:
        raise ValueError(f"{spec.encoder} has no layer {', '.join(unknown)}; there are {', '.join(encoder.layers)}")
    if spec.adapter is not None:
        add_lora(encoder, spec.adapter.rank, spec.adapter.alpha, spec.adapter.dropout)
    elif spec.frozen:
        encoder.module.requires_grad_(False)
    if encoder.separate_layers and spec.head.kind != "mean":
        raise ValueError(f"the layers of {spec.encoder} are embeddings of one frame: its head is mean")
    reads = [(layer,) for layer in layers] if encoder.separate_layers else [layers]
    branch = _Branch(encoder, reads, [_build_head(encoder, read, spec.head) for read in reads])
    # What the spec says of the encoder's weights does not hold: checkpoints must have all of them.
    branch.keeps = branch.keeps and start is None
    return branch


def _encoder(
    cls: type[TorchEncoder],
    weights: Mapping[str, NDArray[Any]] | None,
    complete: Mapping[str, NDArray[Any]],
    config: Mapping[str, Any],
) -> TorchEncoder:
    """complete: all of its arrays, where a checkpoint has them; else they are `weights`, or drawn if that is None."""
    if complete:
        # Arrays of another network are refused by `load_state`, which knows whose they are; custom networks may name
        # theirs otherwise than their modules do.
        with suppress(WeightsError, RuntimeError):
            return cls(complete, **config)  # type: ignore[call-arg]
    return cls(weights, **config)  # type: ignore[call-arg]


def _layers(encoder: TorchEncoder, layers: int | tuple[str, ...] | None) -> tuple[str, ...]:
    if isinstance(layers, tuple):
        return layers
    if encoder.separate_layers:
        if layers is not None:
            raise ValueError(f"{encoder.name} has no last blocks: name its layers")
        # The last is all of them together.
        return tuple(layer for layer in encoder.layers if layer != encoder.default_layer)
    count = layers or 1
    if count > 1 and encoder.module.block_path is None:
        raise ValueError(f"blocks of {encoder.name} differ in shape: name its layers")
    blocks = [layer for layer in encoder.layers if layer.startswith("block_")]
    if count > len(blocks) and encoder.module.block_path is not None:
        raise ValueError(f"{encoder.name} has {len(blocks)} blocks, not {count}")
    # The last is read as the encoder means it to be, such as after a final norm.
    return (*blocks[len(blocks) - count : -1], encoder.default_layer)


def _build_head(encoder: TorchEncoder, layers: tuple[str, ...], spec: HeadSpec) -> nn.Module:
    width = encoder.dimensions(layers[0])
    if spec.kind == "adaptation":
        return AdaptationModule(
            width, layers=len(layers), dims=spec.dims, cls_tokens=encoder.cls_tokens, hidden=spec.hidden
        )
    return PoolingHead(
        width,
        layers=len(layers),
        pooling=spec.kind,
        join=spec.join,
        dims=spec.dims,
        cls_tokens=encoder.cls_tokens,
        hidden=spec.hidden,
        context=spec.context,
        batch_norm=spec.batch_norm,
    )
