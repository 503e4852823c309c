"""Conformance checks of augmentations of waveforms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harken.core.conformance import check_all, require
from harken.training.augment.custom import CustomAugmentation, WaveAugmentation

Float32 = NDArray[np.float32]


class Applies(Protocol):
    """An augmentation of waveforms, custom or built in."""

    def apply(self, wave_S: Float32, rng: np.random.Generator) -> Float32:
        """(samples,) -> (samples,) augmented waveform."""
        ...


Make = Callable[[], Applies]


def check_augmentation(
    augmentation: str | type[WaveAugmentation] | Make, parameters: Mapping[str, Any] | None = None
) -> None:
    """Raise AssertionError, saying which check fails and how, unless the augmentation passes all of `CHECKS`.

    augmentation: `file.py:Class`, or a class or function that makes one. parameters: of its constructor.
    """

    def make() -> Applies:
        if isinstance(augmentation, str):
            return CustomAugmentation(name=augmentation, parameters=dict(parameters or {})).build()
        return augmentation(**(parameters or {}))

    check_all(augmentation if isinstance(augmentation, str) else augmentation.__name__, CHECKS, make)


def keeps_length(make: Make) -> None:
    """Waveforms of any length become finite float32 waveforms of the same length."""
    for samples in (1, 160, 16_001):
        changed_S = make().apply(sound(samples), np.random.default_rng(0))
        require(isinstance(changed_S, np.ndarray), f"It returns a {type(changed_S).__name__}.")
        require(changed_S.dtype == np.float32, f"Samples are {changed_S.dtype}.")
        require(changed_S.shape == (samples,), f"{samples} samples give shape {changed_S.shape}.")
        require(bool(np.isfinite(changed_S).all()), "Samples are not finite.")


def keeps_its_input(make: Make) -> None:
    """The input waveform is not changed."""
    wave_S = sound(16_000)
    for seed in range(5):
        make().apply(wave_S, np.random.default_rng(seed))
        require(np.array_equal(wave_S, sound(16_000)), "It was changed in place.")


def uses_the_given_generator(make: Make) -> None:
    """Results depend bitwise on the given generator only, not on earlier calls."""
    first, second = make(), make()
    waves = [first.apply(sound(16_000), np.random.default_rng(seed)) for seed in range(8)]
    again = [second.apply(sound(16_000), np.random.default_rng(seed)) for seed in reversed(range(8))][::-1]
    require(
        all(map(np.array_equal, waves, again)),
        "In another order they differ: it has a state, or another generator.",
    )
    require(len({wave_S.tobytes() for wave_S in waves}) > 1, "Eight generators give the same waveform.")


CHECKS: tuple[Callable[[Make], None], ...] = (
    keeps_length,
    keeps_its_input,
    uses_the_given_generator,
)


def sound(samples: int) -> Float32:
    """(samples,) tone in noise."""
    noise_S = np.random.default_rng(1).normal(size=samples)
    return np.asarray(0.1 * np.sin(0.1 * np.arange(samples)) + 0.02 * noise_S, dtype=np.float32)
