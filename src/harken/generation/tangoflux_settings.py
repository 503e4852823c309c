"""What decides the fine-tuning of TangoFlux and its sampling, beside its weights and the clips."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from harken.core.errors import HarkenError
from harken.generation.generator import Sampling
from harken.training.model_spec import LoraSpec

Float64 = NDArray[np.float64]
_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, lt=1)]


class FinetuningSpec(BaseModel):
    """A fine-tuning of TangoFlux; steps and their settings as in `training.settings.TrainingSpec`.

    drop_caption: share of clips whose caption is replaced by an empty one, so that guidance works. adapter: of the
    projections of the transformer; None trains all of it. recompute: activation checkpointing. held_out: share of the
    clips, at most 64, whose loss is reported.

    batch, warmup, drop_caption: as published for TangoFlux, whose learning rate is 5e-4 for a training from scratch.
    THUEE states no settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Annotated[int, Field(ge=0)] = 0
    steps: _Count
    batch: _Count = 4
    accumulation: _Count = 1
    drop_caption: _Share = 0.1
    adapter: LoraSpec | None = None
    recompute: bool = False

    learning_rate: _Positive = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: Annotated[int, Field(ge=0)] = 1000
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: _Positive | None = 1.0

    held_out: _Share = 0.02
    evaluate_every: _Count = 500
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"


class TangoFluxSampling(Sampling):
    """How clips are sampled.

    s0: share of noise that a reference begins with, see `flow.sample`; 1 ignores it. The report that generates from
    references does not state it. guidance, steps: as published for TangoFlux (3 to 4.5, 50); fewer steps are taken from
    a reference.
    """

    s0: float = Field(0.7, gt=0, le=1, allow_inf_nan=False)
    guidance: float = Field(3.0, ge=1, le=30, allow_inf_nan=False)
    steps: int = Field(50, ge=1, le=1000)


def levels(steps: int, start: float) -> Float64:
    """Noise levels from which steps are made, `start` first, the last one to zero.

    start: s0 in (0, 1]; below 1 there are fewer steps in proportion, at least one. Raises HarkenError outside.
    """
    if not 0 < start <= 1:
        raise HarkenError(
            f"s0 is the share of noise that a reference begins with, in (0, 1], not {start:g}",
            next_step="Choose 1 to ignore the reference, and less the closer it is to be kept",
        )
    if steps < 1:
        raise HarkenError(f"sampling takes 1 step or more, not {steps}", next_step="Correct the steps")
    count = max(1, math.ceil(steps * start))
    return np.asarray(start * np.linspace(1.0, 1.0 / count, count))
