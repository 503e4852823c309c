"""What decides the fine-tuning of a generator of sound, beside its weights and the clips."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from harken.training.model_spec import LoraSpec

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
