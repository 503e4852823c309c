"""What decides a training, beside the model and the clips."""

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
from harken.training.augment.compose import Augmentation
from harken.training.losses import list_losses

_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


#: of the baseline's autoencoder: consecutive frames per vector
STACK = 5
#: of the baseline's autoencoder: share of the vectors that is held out
VALIDATION = 0.1
#: classes of fewer clips hold none out
FEWEST = 10


def held_out_clips(clips: int, share: float) -> int:
    """How many of a class's clips are held out: the share of at least `FEWEST` clips, one at least."""
    return max(1, round(share * clips)) if clips >= FEWEST and share > 0 else 0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LossSpec(_Frozen):
    """One term of the loss.

    name, parameters: of `training.losses`, or a custom loss, `file.py:Class`; dim and classes are filled in, and so are
    seed and attribute-free classes where it takes them.
    target: what is classified: `class`, the embedding; `exchanged`, the embedding after FeatEx, of three times the
    classes; `mixture`, whether a clip is clean, noise or a mixture (the policy unisound). weight: of the term.
    """

    name: str = "subcentre_arcface"
    parameters: dict[str, Any] = {}
    target: Literal["class", "exchanged", "mixture"] = "class"
    weight: _Positive = 1.0

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        check_name("loss", name, list_losses())
        return name


class TrainingSpec(_Frozen, LaterFields):
    """Everything about a training but the model, the clips and their classes.

    steps: of the optimiser; or epochs, of the clips that are trained on. batch: clips that pass at once (on each
    device); accumulation: batches a step. seconds, length: clips are cropped to it at a random place, or repeated
    (`repeat`); or truncated and padded with silence, at their end, in training and afterwards (`pad`).

    learning_rate: after warmup steps of linear rise; then `constant`, or along half a `cosine` to zero. layer_decay:
    factor from each block of an encoder to the one before it. weight_decay: of matrices only. clip_norm: largest norm
    of the gradient. frozen_epochs: at first, in which only what is new learns.

    held_out: share of each class's clips that is not trained on, from which the signals come. evaluate_every: steps
    between evaluations. keep: how many checkpoints stay. choose: which; those of lowest held-out `loss`, highest
    held-out `accuracy`, the `last`, or the highest `dev` score, which is tuned on test clips and named so.

    precision: of the matrix products of a step. tf32: of float32 on a GPU that has it, fp32 to the bit on a CPU; bf16
    and fp16: by autocast, where the device has them. Evaluations and embeddings are fp32. recompute: forget what is
    inside of the encoders' blocks and compute it again on the way back: less memory, a third more time.
    """

    later: ClassVar[tuple[str, ...]] = ("length",)

    seed: Annotated[int, Field(ge=0)] = 0
    steps: _Count | None = None
    epochs: _Count | None = None
    batch: _Count = 32
    accumulation: _Count = 1
    seconds: _Positive = 10.0
    length: Literal["repeat", "pad"] = "repeat"
    microphones: Microphones = "near"

    learning_rate: _Positive = 1e-4
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    clip_norm: _Positive | None = 5.0
    frozen_epochs: Annotated[int, Field(ge=0)] = 0

    losses: Annotated[tuple[LossSpec, ...], Field(min_length=1)] = (LossSpec(),)
    augmentation: Augmentation = Augmentation()

    held_out: _Share = 0.05
    evaluate_every: _Count = 500
    keep: _Count = 3
    choose: Literal["loss", "accuracy", "last", "dev"] = "loss"

    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    recompute: bool = False

    def steps_of(self, batches: int) -> int:
        """Steps of the optimiser; batches: in an epoch."""
        return self.steps or max(1, batches // self.accumulation) * (self.epochs or 1)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give steps or epochs, one of the two")
        if not any(loss.target == "class" for loss in self.losses):
            raise ValueError("one of the losses is on the class")
        if self.choose in ("loss", "accuracy") and self.held_out == 0:
            raise ValueError(f"to choose by {self.choose}, some clips are held out")
        return self
