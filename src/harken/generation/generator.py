"""The contract of generators: conditions in, clips out, each from (condition, number, seed) and nothing else."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from harken.core.errors import HarkenError, did_you_mean
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.data.clips import Clip, Payload
from harken.encoders.base import FrontEnd, Spectrogram
from harken.generation.captions import caption
from harken.generation.conditions import Condition, ConditionKey, normal_clips
from harken.generation.references import nearest_condition
from harken.training.augment.random_state import rng_for

Float32 = NDArray[np.float32]


class _Entry(NamedTuple):
    """Module and class of a generator, and of the settings of its sampling, which import no torch. payload: of its
    clips."""

    generator: tuple[str, str]
    sampling: tuple[str, str]
    payload: Payload


#: imported on use
_GENERATORS = {
    "small_diffusion": _Entry(
        ("harken.generation.small_diffusion", "SmallDiffusion"),
        ("harken.generation.diffusion_settings", "DdimSampling"),
        "spectrogram",
    ),
    "tangoflux": _Entry(
        ("harken.generation.tangoflux_generator", "TangoFluxGenerator"),
        ("harken.generation.tangoflux_settings", "TangoFluxSampling"),
        "sound",
    ),
}
#: in the folder of a trained generator
GENERATOR_FILE = "generator.json"


@dataclass(frozen=True)
class ClipRequest:
    """A clip to be generated.

    condition: of which it is to be. reference: a normal training clip of the condition or, if it has none, of the
    nearest one, which becomes its first parent; generators that need none only take its length. caption: of the
    condition. number: within the condition, from 0. seed: of all that is drawn for this clip.
    """

    condition: ConditionKey
    reference: Clip
    caption: str
    number: int
    seed: int


@dataclass(frozen=True)
class GeneratedSound:
    """wave_CS: (channels, samples) in [-1, 1]. sample_rate: in Hz. details: JSON values that are kept with the clip."""

    wave_CS: Float32
    sample_rate: int
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GeneratedSpectrogram:
    """spectrogram: normalised as encoders with the front end expect it. details: see `GeneratedSound`."""

    spectrogram: Spectrogram
    front_end: FrontEnd
    details: Mapping[str, Any] = field(default_factory=dict)


class Sampling(BaseModel):
    """Base of the settings of a generator's sampling."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Generator(ABC):
    """A trained generator with its sampling; a clip depends on its request, the weights and the sampling alone.

    together: requests that are best given at once; on a CPU they pass one by one, so that the bits of a clip depend on
    no other. digest: of the weights, and all else that shaped it.
    """

    name: ClassVar[str]
    together: int = 1
    digest: str

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, sampling: Any, *, device: str = "cpu") -> Self:
        """The generator that a training has written to a folder. sampling: its settings, see `sampling_of`.

        Raises HarkenError for a folder of anything else.
        """

    @abstractmethod
    def generate(self, requests: Sequence[ClipRequest]) -> list[GeneratedSound | GeneratedSpectrogram]:
        """A clip for each request.

        Raises HarkenError for a condition that it has not learned, AudioError for a reference that cannot be read.
        """


def list_generators() -> tuple[str, ...]:
    """Names of all generators."""
    return tuple(sorted(_GENERATORS))


def check_generator(name: str) -> None:
    """Raise HarkenError, naming the nearest, for a generator that there is not."""
    if name not in _GENERATORS:
        raise HarkenError(f"there is no generator {name!r}", next_step=did_you_mean(name, list_generators()))


def payload_of(name: str) -> Payload:
    """Of the clips of a generator. Raises HarkenError as `check_generator`."""
    check_generator(name)
    return _GENERATORS[name].payload


def generator_class(name: str) -> type[Generator]:
    """The class of a generator. Raises HarkenError as `check_generator`."""
    check_generator(name)
    cls: type[Generator] = _imported(_GENERATORS[name].generator)
    return cls


def sampling_of(name: str, settings: Mapping[str, Any]) -> Any:
    """Settings of a generator's sampling, checked. Raises HarkenError for unknown or impossible ones."""
    check_generator(name)
    cls: type[Sampling] = _imported(_GENERATORS[name].sampling)
    try:
        return cls.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        field_name = ".".join(map(str, first["loc"]))
        next_step = f"{name} has {', '.join(cls.model_fields)}"
        if field_name not in cls.model_fields:
            next_step = did_you_mean(field_name, cls.model_fields, next_step)
        raise HarkenError(f"{name}: {field_name}: {first['msg']}", next_step=next_step) from error


def _imported(place: tuple[str, str]) -> Any:
    return getattr(import_module(place[0]), place[1])


def write_generator(folder: Path, name: str, **more: Any) -> None:
    """Write `generator.json`, which says of which generator the folder is. more: JSON values for people."""
    text = json_text({"generator": name, **more}, indent=1, sort_keys=True) + "\n"
    write_atomically(folder / GENERATOR_FILE, text.encode())


def load_generator(folder: Path, sampling: Mapping[str, Any], *, device: str = "cpu") -> Generator:
    """The generator of a folder, whichever it is. sampling: its settings.

    Raises HarkenError for a folder of anything else, and for settings that it has not.
    """
    file = folder / GENERATOR_FILE
    try:
        name = str(json.loads(file.read_text())["generator"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HarkenError("is not of a generator", file=file, next_step="Train one, or name another folder") from error
    return generator_class(name).load(folder, sampling_of(name, sampling), device=device)


def requests_of(conditions: Sequence[Condition], clips: Sequence[Clip], seed: int) -> Iterator[ClipRequest]:
    """A request for each clip that the conditions want; references are the condition's clips in turn, or, where it has
    none, those of the nearest condition of its machine (`references.distance`).

    clips: among which are the normal training clips of the conditions. Raises HarkenError for a machine without any.
    """
    references = normal_clips(clips)
    for row in conditions:
        if not row.generate:
            continue
        nearest = references[nearest_condition(row.key, references)]
        for number in range(row.generate):
            reference = nearest[number % len(nearest)]
            drawn = int(rng_for(seed, number, str(row.key), "generate").integers(2**62))
            described = caption(replace(reference, **row.key.fields()))
            yield ClipRequest(row.key, reference, described, number, drawn)
