"""What decides a small diffusion model, its training and its sampling; reading it needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harken.audio.channels import Microphones
from harken.core.errors import did_you_mean
from harken.encoders import list_encoders
from harken.generation.generator import Sampling

_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FrontEndSpec(_Frozen):
    """The encoder whose spectrograms are learned and generated: those of its published network, which need not be here.

    config: settings of the front end that differ, such as `sample_rate`.
    """

    encoder: str = "beats"
    config: dict[str, Any] = {}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.encoder not in list_encoders():
            hint = did_you_mean(self.encoder, list_encoders(), f"there are {', '.join(list_encoders())}")
            raise ValueError(f"there is no encoder {self.encoder!r}: {hint}")
        return self


class DiffusionConfig(_Frozen):
    """A U-Net over spectrograms (Ho et al., NeurIPS 2020, appendix B) and the course of its noise.

    channels: of each level, of half the resolution of the one before. layers: residual blocks a level. attention:
    levels, counted from 0, with self-attention. head_width: channels of an attention head. groups: of normalisation.
    prediction: what the network says of a noisy spectrogram: its noise (epsilon), or the velocity of Salimans and Ho
    (ICLR 2022, appendix D). noise_steps, noise_schedule: of the training, see diffusers' `DDIMScheduler`.
    """

    channels: Annotated[tuple[_Count, ...], Field(min_length=1)] = (64, 64, 128, 128, 256, 256)
    layers: _Count = 2
    attention: tuple[int, ...] = (4,)
    head_width: _Count = 32
    groups: _Count = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    noise_steps: Annotated[int, Field(ge=2)] = 1000
    noise_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        odd = next((count for count in self.channels if count % self.groups), None)
        if odd is not None:
            raise ValueError(f"{odd} channels cannot be divided into {self.groups} groups")
        if any(not 0 <= level < len(self.channels) for level in self.attention):
            raise ValueError(f"attention is at levels 0 to {len(self.channels) - 1}")
        odd = next((self.channels[level] for level in self.attention if self.channels[level] % self.head_width), None)
        if odd is not None or self.channels[-1] % self.head_width:
            raise ValueError(f"{odd or self.channels[-1]} channels cannot be divided into heads of {self.head_width}")
        return self

    @property
    def unit(self) -> int:
        """Sizes of spectrograms are padded to multiples of it."""
        return int(2 ** (len(self.channels) - 1))


#: small: ours, since the report of THUEE states no sizes: the levels of the U-Net for 256 x 256 images of Ho et al.
#: with half its channels. compact: for one machine, and for processors. tiny: for tests
SIZES: Mapping[str, DiffusionConfig] = {
    "tiny": DiffusionConfig(
        channels=(8, 8, 16, 16), layers=1, attention=(), head_width=8, groups=4, prediction="v_prediction",
        noise_steps=100, noise_schedule="squaredcos_cap_v2",
    ),
    "compact": DiffusionConfig(
        channels=(16, 32, 64, 64), layers=1, attention=(), head_width=16, groups=8, prediction="v_prediction",
        noise_schedule="squaredcos_cap_v2",
    ),
    "small": DiffusionConfig(),
}  # fmt: skip


class SpectrogramSpec(_Frozen):
    """What trainings on spectrograms have in common; steps and their settings as in `training.settings.TrainingSpec`.

    seconds: of a clip; longer ones are cropped at a random place, shorter ones repeated. balance: clips of a condition
    are drawn in proportion to (their number)^(1 - balance): 0 is as they are, 1 makes all conditions alike; ours.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    steps: _Count
    batch: _Count = 16
    accumulation: _Count = 1
    seconds: _Positive = 10.0
    microphones: Microphones = "near"
    balance: Annotated[float, Field(ge=0, le=1)] = 0.5

    learning_rate: _Positive = 1e-4
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: Annotated[int, Field(ge=0)] = 500
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: _Positive | None = 1.0

    evaluate_every: _Count = 500
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"


class DiffusionSpec(SpectrogramSpec):
    """A training of a small diffusion model. ema: decay of the averaged weights that are used in the end; in the first
    steps it is (1 + step) / (10 + step) at most. The values are ours but for `ema` (Ho et al., NeurIPS 2020)."""

    ema: Annotated[float, Field(ge=0, lt=1)] = 0.9999


class XceptionSpec(SpectrogramSpec):
    """A training of an Xception. held_out: share of each condition of ten clips or more that is not trained on; what
    the network says of these clips is kept with it."""

    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
    learning_rate: _Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01


class DdimSampling(Sampling):
    """Song et al., ICLR 2021. steps: of the sampling, from noise to a spectrogram. eta: 0 draws no noise after the
    first, 1 as much as DDPM. spacing: of the steps, see diffusers' `DDIMScheduler`. limit: standard deviations from the
    mean at which the spectrogram is clipped in each step; None: it is not."""

    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    spacing: Literal["leading", "trailing", "linspace"] = "trailing"
    limit: _Positive | None = None
