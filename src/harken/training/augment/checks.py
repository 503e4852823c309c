"""What every augmentation of waveforms does, as checks: of Harken's, and of custom ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harken.core.conformance import check_all, require
from harken.training.augment.custom import CustomAugmentation, WaveAugmentation

Float32 = NDArray[np.float32]


class Applies(Protocol):
    """What is checked: `WaveAugmentation`, and what comes with Harken."""

    def apply(self, wave_T: Float32, rng: np.random.Generator) -> Float32: ...


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


def its_waveforms_are_as_long(make: Make) -> None:
    """A waveform of any length gives float32 of the same length, finite."""
    for samples in (1, 160, 16_001):
        changed_T = make().apply(sound(samples), np.random.default_rng(0))
        require(isinstance(changed_T, np.ndarray), f"It gives a {type(changed_T).__name__}.")
        require(changed_T.dtype == np.float32, f"They are {changed_T.dtype}.")
        require(changed_T.shape == (samples,), f"{samples} samples give shape {changed_T.shape}.")
        require(bool(np.isfinite(changed_T).all()), "Some are not finite.")


def its_input_stays(make: Make) -> None:
    """The waveform that it is given is not written to."""
    wave_T = sound(16_000)
    for seed in range(5):
        make().apply(wave_T, np.random.default_rng(seed))
        require(np.array_equal(wave_T, sound(16_000)), "It is another afterwards.")


def its_random_numbers_are_given(make: Make) -> None:
    """The same generator gives the same to the last bit, whatever it was asked before; others, something else."""
    one, other = make(), make()
    found = [one.apply(sound(16_000), np.random.default_rng(seed)) for seed in range(8)]
    again = [other.apply(sound(16_000), np.random.default_rng(seed)) for seed in reversed(range(8))][::-1]
    require(all(map(np.array_equal, found, again)), "In another order they differ: it keeps a state, or draws itself.")
    require(len({wave_T.tobytes() for wave_T in found}) > 1, "Eight generators give the same waveform.")


CHECKS: tuple[Callable[[Make], None], ...] = (
    its_waveforms_are_as_long,
    its_input_stays,
    its_random_numbers_are_given,
)


def sound(samples: int) -> Float32:
    """(samples,) a tone in noise."""
    noise_T = np.random.default_rng(1).normal(size=samples)
    return np.asarray(0.1 * np.sin(0.1 * np.arange(samples)) + 0.02 * noise_T, dtype=np.float32)
