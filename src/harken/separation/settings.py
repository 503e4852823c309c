"""What decides the training of a separator, beside its architecture and the clips."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from harken.audio.mix import SnrRange

_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class SeparationSpec(BaseModel):
    """A training of separators; steps and their settings as in `training.settings.TrainingSpec`.

    seconds: of a mixture. snr_db: 10 log10(power of the machine / power of the noise), drawn evenly between the two;
    ours. alpha: share of the auxiliary outputs in the loss. rounds: trainings of `steps` steps each; from the second
    on, `residual_share` of the noise is what the separator of the round before leaves of normal clips; ours. held_out:
    share of a machine's clean clips that improvements are measured on, of ten clips or more.

    learning_rate, warmup, weight_decay, clip_norm, batch, seconds, alpha: as published for Base; the schedule is ours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Annotated[int, Field(ge=0)] = 0
    steps: _Count
    rounds: Annotated[int, Field(ge=1, le=4)] = 1
    batch: _Count = 2
    accumulation: _Count = 1
    seconds: _Positive = 4.0
    snr_db: SnrRange = (-5.0, 10.0)
    residual_share: _Share = 0.5
    alpha: _Share = 0.4

    learning_rate: _Positive = 1e-3
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: Annotated[int, Field(ge=0)] = 1000
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: _Positive | None = 5.0

    held_out: _Share = 0.1
    evaluate_every: _Count = 500
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
