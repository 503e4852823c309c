"""What decides a network to be trained, in plain values; reading it needs no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Size = Annotated[int, Field(ge=1)]
_Dims = Annotated[tuple[_Size, ...], Field(max_length=2)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HeadSpec(_Frozen):
    """kind: a pooling of `PoolingHead`, or "adaptation" (`AdaptationModule`); the other fields are theirs."""

    kind: Literal["mean", "cls", "attentive", "adaptation"] = "mean"
    join: Literal["mean", "concatenate"] = "concatenate"
    dims: _Dims = ()
    hidden: _Size = 128


class LoraSpec(_Frozen):
    """Arguments of `add_lora`."""

    rank: _Size = 64
    alpha: Annotated[float, Field(gt=0)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class BranchSpec(_Frozen):
    """An encoder and its head.

    size: of a random network; "full" is the published one, "tiny" one for tests. config: arguments of the encoder
    that differ. weights: name or path of a checkpoint, whose sizes then are taken.
    layers: how many of the last blocks the head reads, or their names; None is the encoder's default layer. Of the
    dual-branch CNN each layer is an embedding of its own, by default `stft` and `spectrum`, and its head has no say
    but for its dense layers.
    adapter: all of the encoder but the adapters is kept. frozen: all of it is kept. With neither, all of it learns.
    """

    encoder: Literal["beats", "dasheng", "dual_branch", "eat", "efficientat", "fisher"]
    size: Literal["tiny", "full"] = "full"
    config: dict[str, Any] = {}
    weights: str | None = None
    layers: _Size | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    head: HeadSpec = HeadSpec()
    adapter: LoraSpec | None = None
    frozen: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.adapter is not None and self.frozen:
            raise ValueError("an encoder with adapters is not frozen: leave one of the two out")
        if self.weights is not None and self.size == "tiny":
            raise ValueError("weights have a size of their own: leave out size, or weights")
        if self.encoder == "dual_branch" and (self.head.kind != "mean" or self.adapter is not None):
            raise ValueError("dual_branch has one frame and no attention: its head is mean, and it takes no adapter")
        return self


class ModelSpec(_Frozen):
    """Everything that decides an `ASDModel` (see there) before training, but for the values of weights that are named.

    joint: dense layers after the concatenation of all embeddings; without any, it is the embedding itself.
    seed: of all that is random at first.
    """

    branches: Annotated[tuple[BranchSpec, ...], Field(min_length=1)]
    joint: _Dims = ()
    seed: Annotated[int, Field(ge=0)] = 0
