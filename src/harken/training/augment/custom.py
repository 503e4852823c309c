"""Augmentations from a user's file: `augmentation: {custom: [{name: file.py:Class, parameters: {...}}]}`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from harken.core.plugins import build, is_custom, load_class, located_errors

Float32 = NDArray[np.float32]


class WaveAugmentation(ABC):
    """A change of single waveforms that leaves their class as it is. Its constructor takes plain values."""

    @abstractmethod
    def apply(self, wave_S: Float32, rng: np.random.Generator) -> Float32:
        """(samples,) -> (samples,) float32, as many; `wave_S` stays as it is, and all that is random comes of `rng`."""


class CustomAugmentation(BaseModel):
    """name: `file.py:Class` or `package.module:Class`, a `WaveAugmentation`. parameters: of its constructor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    parameters: dict[str, Any] = {}

    @model_validator(mode="after")
    def _custom(self) -> Self:
        if not is_custom(self.name):
            raise ValueError(f"{self.name!r} is no custom augmentation: write file.py:Class")
        return self

    def build(self) -> WaveAugmentation:
        """The augmentation. Raises HarkenError for a class or parameters that are invalid."""
        return build(load_class(self.name, WaveAugmentation), self.name, self.parameters)  # type: ignore[type-abstract]

    def apply(self, built: WaveAugmentation, wave_S: Float32, rng: np.random.Generator) -> Float32:
        """Apply `built` to a waveform. Raises HarkenError if the result has another length or is not finite."""
        with located_errors(self.name):
            changed_S = np.asarray(built.apply(wave_S, rng), dtype=np.float32)
            if changed_S.shape != wave_S.shape or not np.isfinite(changed_S).all():
                raise ValueError(f"it makes {changed_S.shape} of {wave_S.shape}, or values that are not finite")
            return changed_S
