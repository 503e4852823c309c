"""Checks of every stage, Harken's and custom ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import soundfile as sf
from pydantic import ValidationError

from harken.bench.stages import Context, Input, Stage, stage_class
from harken.bench.stages.base import Artefact, Settings
from harken.bench.stages.tables import read_clips, read_ids, write_arrays, write_ids
from harken.bench.stages.train_separator import write_separators
from harken.core.conformance import check_all, require
from harken.data.clips import Clip
from harken.evaluation.scores import read_scores
from harken.separation.config import SIZES
from harken.separation.sounds import machine_key

#: files that other stages read, by what a stage makes
FILES: Mapping[Artefact, tuple[str, ...]] = {
    "clips": ("clips.parquet", "clips.json"),
    "labels": ("classes.json",),
    "model": ("history.json", "training.json"),
    "embeddings": ("embeddings.safetensors", "clips.json"),
    "frames": ("frames.safetensors", "clips.json"),
    "autoencoder": ("model.safetensors",),
    "separator": ("separators.json", "clips.json"),
    "scores": ("scores.parquet",),
    "conditions": ("conditions.csv",),
    "generator": ("generator.json",),
    "classifier": ("classifier.safetensors",),
    "report": ("report.html", "report.json"),
    "encoder": ("encoder.safetensors", "history.json", "training.json"),
}
#: stages that make inputs of trials
_MAKERS: Mapping[Artefact, str] = {
    "labels": "labels", "clips": "mix", "scores": "detect", "conditions": "rare_conditions"
}  # fmt: skip
RATE = 16_000


@dataclass(frozen=True)
class _Trial:
    """A stage and what it is to run with. inputs: folders by the name of the input."""

    cls: type[Stage]
    parameters: Mapping[str, Any]
    inputs: Mapping[str, tuple[Path, ...]]
    clips: tuple[Clip, ...]
    folder: Path

    def run(self, name: str, seed: int = 0) -> Path:
        """Files of the stage."""
        folders = [self.folder / name / subfolder for subfolder in ("out", "scratch", "store", "logs")]
        for folder in folders:
            folder.mkdir(parents=True)
        out, scratch, store, logs = folders
        context = Context(list(self.clips), self.inputs, out, scratch, store, logs, seed=seed, workers=1)
        self.cls.run(self.cls.Parameters.model_validate(self.parameters), context)
        return out


def check_stage(
    stage: str | type[Stage],
    parameters: Mapping[str, Any] | None = None,
    inputs: Mapping[str, tuple[Path, ...]] | None = None,
) -> None:
    """Raise AssertionError, saying which check fails and how, unless the stage passes all of `CHECKS`.

    stage: a class, or any name that a recipe takes under `use`. It runs on a few seconds of made-up sound. inputs:
    folders for inputs that are neither clips, labels, embeddings, frames nor scores, which are made up too.
    """
    cls = stage_class(stage) if isinstance(stage, str) else stage
    with _trial(cls, parameters or {}, inputs or {}) as trial:
        check_all(stage if isinstance(stage, str) else cls.__name__, CHECKS, trial)


def it_is_declared(trial: _Trial) -> None:
    """It makes and reads known kinds of artefacts, its scope is machine or all, its parameters are Settings."""
    cls = trial.cls
    kinds = get_args(Artefact)
    require(getattr(cls, "makes", None) in kinds, f"It makes {getattr(cls, 'makes', None)!r}, not one of {kinds}.")
    for name, declared in cls.inputs.items():
        require(isinstance(declared, Input), f"{name} is a {type(declared).__name__}, not an Input.")
        require(declared.makes in kinds, f"{name} is {declared.makes!r}, not one of {kinds}.")
    require(cls.scope in ("machine", "all"), f"Its scope is {cls.scope!r}.")
    require(issubclass(cls.Parameters, Settings), "Its Parameters are not Settings.")
    require(cls.Parameters.__name__ == "Parameters" and bool(cls.__doc__), "It has no docstring.")


def parameters_are_plain(trial: _Trial) -> None:
    """Its parameters are the same after they were written as JSON, and an unknown one is refused."""
    kind = trial.cls.Parameters
    chosen = kind.model_validate(trial.parameters)
    require(kind.model_validate_json(chosen.model_dump_json()) == chosen, "They differ after reading.")
    try:
        kind.model_validate({**trial.parameters, "no such parameter": 1})
    except ValidationError:
        return
    raise AssertionError("It was accepted.")


def it_makes_what_it_says(trial: _Trial) -> None:
    """It leaves the files that other stages read, of clips that it was given, and does not change its inputs."""
    before = [_digests(folder) for folders in trial.inputs.values() for folder in folders]
    out = trial.run("first")
    for name in FILES[trial.cls.makes]:
        require((out / name).is_file(), f"There is no {name}.")
    ids = {clip.clip_id for clip in trial.clips}
    if trial.cls.makes == "clips":
        made = read_clips(out)
        require(all(set(clip.parents) <= ids for clip in made), "Some parents were not given.")
        require(not any(clip.recorded for clip in made), "Some are of a kind that is recorded.")
    elif "clips.json" in FILES[trial.cls.makes]:
        require(set(read_ids(out)[0]) <= ids, "Some clips were not given.")
    after = [_digests(folder) for folders in trial.inputs.values() for folder in folders]
    require(before == after, "An input was changed.")


def it_makes_the_same_again(trial: _Trial) -> None:
    """The same parameters, inputs, clips and seed give the same files to the last bit."""
    first, second = _digests(trial.run("one")), _digests(trial.run("other"))
    differing = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    require(not differing, f"{', '.join(differing)} differ.")


def scores_are_held_out_too(trial: _Trial) -> None:
    """Of a stage that makes scores: of the test clips, and held-out ones of the training clips, from which ensembles
    and models take units and thresholds."""
    if trial.cls.makes != "scores":
        return
    (scores,) = read_scores(trial.run("scored") / "scores.parquet")
    require(set(scores.clip_id) <= {clip.clip_id for clip in trial.clips}, "Some clips were not given.")
    for split, rows in (("test", scores.test), ("training", scores.train)):
        require(len(rows) > 0, f"No {split} clip has a score.")


CHECKS: tuple[Callable[[_Trial], None], ...] = (
    it_is_declared,
    parameters_are_plain,
    it_makes_what_it_says,
    it_makes_the_same_again,
    scores_are_held_out_too,
)


@contextmanager
def _trial(cls: type[Stage], parameters: Mapping[str, Any], inputs: Mapping[str, tuple[Path, ...]]) -> Iterator[_Trial]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        clips = made_up_clips(folder)
        if cls.scope == "all":
            clips = [clip for clip in clips if clip.split != "test" or cls.from_tests]
        given = dict(inputs)
        for number, (name_of_input, declared) in enumerate(cls.inputs.items()):
            if not declared.optional and name_of_input not in given:
                count = 2 if declared.many else 1
                given[name_of_input] = tuple(
                    _made_up(declared.makes, clips, folder / f"input {number} {copy}", seed=copy)
                    for copy in range(count)
                )
        yield _Trial(cls, parameters, given, tuple(clips), folder)


def made_up_clips(folder: Path) -> list[Clip]:
    """A machine's clips, half a second each: normal ones of two conditions, test clips without labels, and noise."""
    rng = np.random.default_rng(0)
    blank = Clip("", folder, corpus="dcase2025", year=2025, machine="fan", section="00")
    rows = [
        replace(blank, split="train", condition="normal", domain="source", attributes={"spd": str(row % 2)})
        for row in range(12)
    ]
    rows += [replace(blank, split="test")] * 4
    rows += [replace(blank, split="supplemental", kind="noise", condition="normal")] * 2
    (folder / "sound").mkdir()
    clips = []
    for row, clip in enumerate(rows):
        file = folder / "sound" / f"{row:02d}.wav"
        tone_S = 0.1 * np.sin((0.05 + 0.01 * (row % 2)) * np.arange(RATE // 2))
        sf.write(file, tone_S + 0.02 * rng.normal(size=RATE // 2), RATE)
        clips.append(replace(clip, clip_id=file.name, path=file))
    return clips


def _made_up(makes: Artefact, clips: list[Clip], folder: Path, seed: int) -> Path:
    """An input of that kind."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    ids = [clip.clip_id for clip in clips]
    if makes == "embeddings":
        write_arrays(folder / "embeddings.safetensors", embeddings=rng.normal(size=(len(ids), 8)).astype(np.float32))
        write_ids(folder, ids, [])
    elif makes == "frames":
        frames = rng.normal(size=(20 * len(ids), 16)).astype(np.float32)
        write_arrays(folder / "frames.safetensors", frames=frames, bounds=20 * np.arange(len(ids) + 1))
        write_ids(folder, ids, [])
    elif makes == "separator":
        _random_separator(folder, {machine_key(clip) for clip in clips})
    elif makes == "generator":
        _random_generator(folder, clips)
    elif makes in _MAKERS:
        cls = stage_class(_MAKERS[makes])
        inputs = (
            {"embeddings": (_made_up("embeddings", clips, folder / "embeddings", seed),)} if makes == "scores" else {}
        )
        used = Context(clips, inputs, folder, folder, folder, folder, seed=seed, workers=1)
        cls.run(cls.Parameters(), used)
    else:
        raise AssertionError(f"It reads {makes}, of which none can be made up: give a folder under inputs.")
    return folder


def _random_separator(folder: Path, machines: set[str]) -> None:
    """A separator with random weights, for all machines."""
    from harken.separation.separator import Separator
    from harken.separation.sepreformer import SepReformer

    config = SIZES["tiny"].model_copy(update={"features": 8, "stages": 1})
    Separator(SepReformer(config).eval(), machines=tuple(machines)).write(folder / "guided.safetensors")
    write_separators(folder, dict.fromkeys(machines, "guided.safetensors"))


def _random_generator(folder: Path, clips: list[Clip]) -> None:
    """A small diffusion model with random weights, of the conditions of the clips."""
    from harken.generation.condition_classes import classes_of
    from harken.generation.diffusion_settings import SIZES as DIFFUSION_SIZES
    from harken.generation.diffusion_settings import FrontEndSpec
    from harken.generation.front_end import SpectrogramFrontEnd
    from harken.generation.small_diffusion import write_small_diffusion
    from harken.generation.unet import SpectrogramUNet

    classes, _, _ = classes_of(clips)
    net = SpectrogramUNet(DIFFUSION_SIZES["tiny"], len(classes))
    write_small_diffusion(folder, net, classes, SpectrogramFrontEnd(FrontEndSpec(), 0.5).form, {})


def _digests(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
