"""What decides a network to be trained, in plain values; reading it needs no torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harken.core.errors import did_you_mean
from harken.core.later_fields import LaterFields
from harken.core.plugins import is_custom
from harken.encoders import list_encoders

#: in place of the name of weights: those that a stage of the recipe has made
PRETRAINED = "pretrained"

_Size = Annotated[int, Field(ge=1)]
_Dims = Annotated[tuple[_Size, ...], Field(max_length=2)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HeadSpec(_Frozen, LaterFields):
    """kind: a pooling of `PoolingHead`, or "adaptation" (`AdaptationModule`); the other fields are theirs."""

    later: ClassVar[tuple[str, ...]] = (
        "batch_norm",
        "context",
    )

    kind: Literal["mean", "cls", "attentive", "adaptation"] = "mean"
    join: Literal["mean", "concatenate"] = "concatenate"
    dims: _Dims = ()
    hidden: _Size = 128
    context: bool = True
    batch_norm: bool = False

    @model_validator(mode="after")
    def _attends(self) -> Self:
        for name, chosen in (("batch_norm", self.batch_norm), ("context", not self.context)):
            if chosen and self.kind != "attentive":
                raise ValueError(f"{name} is of attentive pooling: leave it out, or choose kind: attentive")
        return self


class LoraSpec(_Frozen):
    """Arguments of `add_lora`."""

    rank: _Size = 64
    alpha: Annotated[float, Field(gt=0)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class BranchSpec(_Frozen):
    """An encoder that is a network, and its head.

    size: of a random network; "full" is the published one, "tiny" one for tests. config: arguments of the encoder
    that differ. weights: name or path of a checkpoint, whose sizes then are taken; in recipes also `pretrained`: of the
    pretrain stage that the stage reads.
    layers: how many of the last blocks the head reads, or their names; None is the encoder's default layer. Where an
    encoder's layers are separate embeddings (`Encoder.separate_layers`), all of them by default, its head has no say
    but for its dense layers.
    adapter: all of the encoder but the adapters is kept. frozen: all of it is kept. With neither, all of it learns.
    """

    encoder: str
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
        if self.weights not in (None, PRETRAINED) and self.size == "tiny":
            raise ValueError("weights have a size of their own: leave out size, or weights")
        if not is_custom(self.encoder) and self.encoder not in list_encoders():
            hint = did_you_mean(self.encoder, list_encoders(), f"there are {', '.join(list_encoders())}")
            raise ValueError(f"there is no encoder {self.encoder!r}: {hint}")
        return self


class ModelSpec(_Frozen):
    """Everything that decides an `ASDModel` (see there) before training, but for the values of weights that are named.

    joint: dense layers after the concatenation of all embeddings; without any, it is the embedding itself.
    seed: of all that is random at first.
    """

    branches: Annotated[tuple[BranchSpec, ...], Field(min_length=1)]
    joint: _Dims = ()
    seed: Annotated[int, Field(ge=0)] = 0
