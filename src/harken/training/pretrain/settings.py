"""What decides a pre-training, beside the clips; reading it needs no torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from harken.audio.channels import Microphones
from harken.core.later_fields import LaterFields
from harken.core.plugins import check_name
from harken.training.model_spec import PRETRAINED

_Share = Annotated[float, Field(ge=0, lt=1)]
_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

#: encoders whose networks are over patches, which pre-training masks
PATCH_ENCODERS = ("eat", "fisher")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StudentSpec(_Frozen):
    """The encoder that is pre-trained.

    encoder: eat, or fisher, whose sub-bands are sequences of their own; or a custom one whose network is a `PatchNet`.
    size: of a random network, by its name in the encoder's `sizes`, such as "large"; "full" is the default one, "tiny"
    one for tests. config: arguments of the encoder that
    differ. weights: name or path of a checkpoint that it begins with, whose sizes then are taken; the decoder is taken
    from a file that has one of the same sizes.
    """

    encoder: str = "eat"
    size: str = "full"
    config: dict[str, Any] = {}
    weights: str | None = None

    @field_validator("encoder")
    @classmethod
    def _known(cls, encoder: str) -> str:
        check_name("encoder", encoder, PATCH_ENCODERS)
        return encoder

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.weights not in (None, PRETRAINED) and self.size == "tiny":
            raise ValueError("weights have a size of their own: leave out size, or weights")
        return self


class DecoderSpec(_Frozen):
    """See `PatchDecoder`; EAT-base has 6 layers of kernel 3, EAT-large 3 of kernel 5."""

    layers: _Count = 6
    kernel: _Count = 3
    groups: _Count = 16


class PretrainingSpec(_Frozen, LaterFields):
    """Everything about a pre-training but the encoder and the clips. Defaults: EAT-base, where it is trained further
    (steps, batch, learning rate and schedule of USTC's report).

    steps, batch, accumulation, seconds, length, microphones, learning_rate, schedule, warmup, clip_norm,
    evaluate_every, precision, recompute: see `TrainingSpec`; unless clips are truncated (`length: pad`), a clip is
    cropped at another place whenever it passes.

    clones: masks per clip, which share one pass of the teacher. masked, adjust, block: see `inverse_block_mask`.
    class_weight: of the class token's loss. betas: decays of Adam's moments, whose weight decay is decoupled.
    teacher: decay of the teacher at the first step and from step `teacher_steps` on, rising linearly between the two.

    held_out: share of the clips that is not trained on, but 256 at most; their loss is in the history.
    checkpoint_every: steps between encoders that stay as files of their own; default: only the last.
    lowest_target, lowest_student: a mean deviation of targets or predictions over patches, since the last evaluation,
    below which training stops, as they have become the same for all clips (bounds of the reference).
    """

    later: ClassVar[tuple[str, ...]] = ("length",)

    seed: Annotated[int, Field(ge=0)] = 0
    steps: _Count = 10_000
    batch: _Count = 16
    accumulation: _Count = 1
    seconds: _Positive = 10.0
    length: Literal["repeat", "pad"] = "repeat"
    microphones: Microphones = "near"

    clones: _Count = 16
    masked: Annotated[float, Field(gt=0, lt=1)] = 0.8
    adjust: _Share = 0.07
    block: _Count = 5
    decoder: DecoderSpec = DecoderSpec()
    class_weight: Annotated[float, Field(ge=0)] = 1.0
    teacher: tuple[_Share, Annotated[float, Field(ge=0, le=1)]] = (0.9998, 0.99999)
    teacher_steps: _Count = 100_000

    learning_rate: _Positive = 5e-5
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    betas: tuple[_Share, _Share] = (0.9, 0.95)
    clip_norm: _Positive | None = 4.0

    held_out: _Share = 0.02
    evaluate_every: _Count = 500
    checkpoint_every: _Count | None = None
    lowest_target: Annotated[float, Field(ge=0)] = 0.1
    lowest_student: Annotated[float, Field(ge=0)] = 0.01

    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    recompute: bool = False

    @model_validator(mode="after")
    def _masks(self) -> Self:
        if self.adjust > self.masked or self.block % 2 == 0:
            raise ValueError("block is an odd number of patches, and adjust at most masked")
        return self
