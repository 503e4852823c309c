"""Recipes: a system as a named graph of stages in YAML, checked to the last key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from harken.bench.repeat import expand, matching, set_key
from harken.core.errors import HarkenError, did_you_mean, reading
from harken.core.plain_yaml import read_yaml
from harken.core.plugins import check_name
from harken.ensemble.problem import SEARCHES
from harken.ensemble.selection import Criterion

DEFAULT_PROFILE = "full"
#: scikit-learn takes no larger ones, and stages add small numbers to theirs
LARGEST_SEED = 2**31 - 1
#: names of recipes, stages, systems and ensembles become names of folders
_FOLDER_NAME = re.compile(r"\w[\w .,+=@()-]{0,99}")


class StageEntry(BaseModel):
    """One stage: which kind (`use`), the stages it reads (`from`), and its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    use: str
    inputs: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}


class SearchEntry(BaseModel):
    """A search for an ensemble's weights by the labels of a development set: see `harken ensemble fit`.

    method: one of `harken.ensemble.problem.SEARCHES`, or a custom search, `file.py:Class`.
    required, select, select_by: weigh only these systems and the best `select` of the others, see
    `harken.ensemble.selection.Selection`; None: all. on: the set whose labels are used, if the run has it
    with labels (default: the first one).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = "bayes"
    steps: Annotated[int, Field(ge=1)] = 15
    best: Annotated[int, Field(ge=1)] = 5
    step: Annotated[float, Field(gt=0, le=1)] = 0.1
    trials: Annotated[int, Field(ge=1)] = 100
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    required: tuple[str, ...] = ()
    select: Annotated[int, Field(ge=0)] | None = None
    select_by: Criterion = "score"
    on: str | None = None

    @model_validator(mode="after")
    def _selects(self) -> Self:
        if self.required and self.select is None:
            raise ValueError("required systems come with `select`, the number of others")
        if self.select == 0 and not self.required:
            raise ValueError("select is at least 1 without required systems")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Omitted if not given, so that earlier objects stay valid.
        fields: dict[str, Any] = handler(self)
        if self.select is None:
            for name in ("required", "select", "select_by"):
                del fields[name]
        if self.on is None:
            del fields["on"]
        return fields

    @field_validator("method")
    @classmethod
    def _method(cls, method: str) -> str:
        check_name("search", method, SEARCHES)
        return method


class EnsembleEntry(BaseModel):
    """Systems of the recipe mixed into one: sum of their scores, in units that `normalise` makes alike, times weights.

    members: system -> weight, or a list for equal ones; a name with `*` is every system that it matches.
    tuned: set whose labels of test clips chose the weights, if any; its numbers are then marked tuned on test.
    search: find the weights anew, by the labels of the run's development set, on which its numbers are tuned on test.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(min_length=1)
    normalise: Literal["train", "gamma", "rank", "none"] = "train"
    tuned: str = ""
    search: SearchEntry | None = None

    @field_validator("members")
    @classmethod
    def _some_weight(cls, members: dict[str, float]) -> dict[str, float]:
        if not any(members.values()):
            raise ValueError("all weights are 0")
        return members


class Recipe(BaseModel):
    """A resolved recipe.

    parameters: values of `$name` in stages, already inserted. seeds: each stage that draws random numbers, and all that
    depend on it, run once per seed. score_years: years whose machines are scored (default: all); the others are only
    trained on. stages: by name, in any order. systems: system -> the stage that yields its scores and decisions.
    ensembles: by name, of systems, each the mean of its seeds. submission: the systems and ensembles that are
    submitted by default. meta: content of a submission's meta.yaml.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    summary: str = ""
    reference: str = ""
    parameters: dict[str, str | int | float | bool | None] = {}
    seeds: tuple[int, ...] = (0,)
    score_years: tuple[int, ...] | None = None
    stages: dict[str, StageEntry]
    systems: dict[str, str]
    ensembles: dict[str, EnsembleEntry] = {}
    submission: tuple[str, ...] = ()
    meta: dict[str, Any] = {}

    @field_validator("seeds")
    @classmethod
    def _some_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) > LARGEST_SEED:
            raise ValueError(f"seeds are different whole numbers from 0 to {LARGEST_SEED}, at least one")
        return seeds

    @model_validator(mode="after")
    def _names_of_folders(self) -> Self:
        for name in (self.name, *self.stages, *self.systems, *self.ensembles):
            if not _FOLDER_NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} cannot be the name of a folder: write letters, digits, spaces and . , + = @ ( ) - _, "
                    "beginning with a letter or digit"
                )
        return self

    def inputs_of(self, stage: str) -> dict[str, tuple[str, ...]]:
        """Names of the stages that a stage reads, by the input that each is. HarkenError where they do not match."""
        from harken.bench.stages import match_inputs, stage_class

        entry = self.stages[stage]
        sources = [(source, stage_class(self.stages[source].use)) for source in entry.inputs]
        return match_inputs(entry.use, stage_class(entry.use), sources)

    def as_yaml(self) -> str:
        """Itself as a recipe file without profiles; reading it gives an equal recipe."""
        data = self.model_dump(mode="json", exclude={"stages"})
        data["stages"] = {
            name: {"use": entry.use, **({"from": list(entry.inputs)} if entry.inputs else {}), **entry.parameters}
            for name, entry in self.stages.items()
        }
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def list_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    files = resources.files("harken.bench.recipes").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def recipe_text(name_or_file: str) -> str:
    """The YAML of a recipe that comes with the package, or of a file. Raises HarkenError when there is neither."""
    if name_or_file in list_recipes():
        return resources.files("harken.bench.recipes").joinpath(f"{name_or_file}.yaml").read_text(encoding="utf-8")
    file = Path(name_or_file)
    if file.suffix in (".yaml", ".yml") or file.is_file():
        with reading(file):
            return file.read_text(encoding="utf-8")
    raise HarkenError(f"there is no recipe {name_or_file!r}", next_step=_nearest(name_or_file, list_recipes()))


def load_recipe(
    name_or_file: str, *, profile: str = DEFAULT_PROFILE, changes: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe with a profile and then `changes` applied, checked.

    A profile is a mapping of dotted keys to values (`stages.autoencoder.epochs: 2`), as are changes; `*` in them stands
    for every name (`stages.*.training.steps`), and a parameter is set by its bare name. What is written under `repeat`
    means many stages, see `expand`. Under `when`, a recipe may say what follows from a parameter's value, in dotted
    keys again: `when: {encoder: {beats: {stages.embed.pooling: rdp:19}}}`; profile and changes go over it.
    Raises HarkenError, naming the nearest, for an unknown recipe, profile, key, stage or system.
    """
    from harken.bench.stages import stage_class

    text = recipe_text(name_or_file)
    try:
        data = read_yaml(text)
    except ValueError as error:
        raise HarkenError(f"is not valid YAML ({error})", file=name_or_file, next_step="Correct the file") from error
    if not isinstance(data, dict) or not isinstance(data.get("stages", {} if data.get("repeat") else None), dict):
        raise HarkenError(
            "is not a recipe: it has no stages", file=name_or_file, next_step="Start from one: harken recipe copy"
        )
    data = expand(data, name_or_file)
    profiles = data.pop("profiles", None) or {}
    profiles.setdefault(DEFAULT_PROFILE, {})
    if profile not in profiles:
        raise HarkenError(f"{name_or_file} has no profile {profile!r}", next_step=_nearest(profile, profiles))
    when = data.pop("when", None) or {}
    wanted = {**(profiles[profile] or {}), **(changes or {})}
    parameters = data.setdefault("parameters", {})
    given = [key for key in wanted if key in parameters]
    for key in given:
        parameters[key] = wanted.pop(key)
    for name, cases in when.items():
        for key, value in (cases.get(str(parameters.get(name))) or {}).items():
            if key not in [f"parameters.{name}" for name in given]:
                set_key(data, key, value, name_or_file)
    for key, value in wanted.items():
        set_key(data, key, value, name_or_file)
    for key in ("parameters", "stages", "systems", "ensembles", "meta"):
        if not isinstance(data.get(key) or {}, dict):
            raise HarkenError(
                f"{key} is {data[key]!r}, not a mapping of names",
                file=name_or_file,
                next_step="Write names and their values",
            )
    for key in ("stages", "meta"):
        data[key] = _filled(data.get(key) or {}, parameters, name_or_file)
    _known_keys(data, Recipe.model_fields, name_or_file, "")
    stages = {}
    for name, entry in data["stages"].items():
        stages[name] = _stage_entry(name, entry, name_or_file)
    data["stages"] = stages
    _written_out(data, name_or_file)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise _explained(error, name_or_file) from error
    _no_truths_as_numbers(data, recipe.model_dump(), name_or_file)
    for name, stage in recipe.stages.items():
        for source in stage.inputs:
            if source not in recipe.stages:
                raise HarkenError(
                    f"stage {name} reads {source!r}, which is not there", file=name_or_file,
                    next_step=_nearest(source, recipe.stages),
                )  # fmt: skip
        try:
            recipe.inputs_of(name)
        except HarkenError as error:
            raise HarkenError(f"stage {name}: {error.cause}", file=name_or_file, next_step=error.next_step) from None
    for system, name in recipe.systems.items():
        if name not in recipe.stages:
            raise HarkenError(
                f"system {system} takes its scores from {name!r}, which is not there", file=name_or_file,
                next_step=_nearest(name, recipe.stages),
            )  # fmt: skip
        if stage_class(recipe.stages[name].use).makes != "scores":
            raise HarkenError(
                f"system {system} takes its scores from {name}, a stage without scores", file=name_or_file,
                next_step="Name a stage that scores, such as detect",
            )  # fmt: skip
    for name in recipe.ensembles:
        if name in recipe.systems:
            raise HarkenError(
                f"{name} is a system and an ensemble", file=name_or_file, next_step="Name the ensemble otherwise"
            )
    systems = {**recipe.systems, **recipe.ensembles}
    for name in recipe.submission:
        if name not in systems:
            raise HarkenError(
                f"submission names {name!r}, which is neither a system nor an ensemble", file=name_or_file,
                next_step=_nearest(name, systems),
            )  # fmt: skip
    if not recipe.systems:
        raise HarkenError("has no system", file=name_or_file, next_step="Write under systems which stage scores")
    return recipe


def _written_out(data: dict[str, Any], file: str) -> None:
    """Names of members with `*` become those of the systems that they match."""
    systems = list(data.get("systems") or {})
    for name, entry in (data.get("ensembles") or {}).items():
        if not isinstance(entry, dict) or not isinstance(entry.get("members"), dict | list):
            raise HarkenError(
                f"ensemble {name} does not list its members", file=file,
                next_step="Write members: [SYSTEM, ...], or members: {SYSTEM: WEIGHT, ...}",
            )  # fmt: skip
        members = entry["members"]
        if isinstance(members, list):
            repeated = [member for number, member in enumerate(members) if member in members[:number]]
            if repeated:
                raise HarkenError(
                    f"ensemble {name} has the member {repeated[0]!r} twice", file=file, next_step="Give it a weight"
                )
            members = {str(member): 1.0 for member in members}
        weights: dict[str, Any] = {}
        for member, weight in members.items():
            named = matching(str(member), systems)
            if not named:
                raise HarkenError(
                    f"ensemble {name} has a member {member!r}, which is no system", file=file,
                    next_step=_nearest(str(member), systems),
                )  # fmt: skip
            weights |= dict.fromkeys(named, weight)
        entry["members"] = weights
        search = entry.get("search")
        if isinstance(search, dict) and isinstance(search.get("required"), list):
            search["required"] = _required(name, search["required"], list(weights), file)


def _required(ensemble: str, patterns: Sequence[Any], members: Sequence[str], file: str) -> list[str]:
    """Names of the members that patterns with `*` match."""
    required: dict[str, None] = {}
    for pattern in patterns:
        named = matching(str(pattern), members)
        if not named:
            raise HarkenError(
                f"ensemble {ensemble} requires {pattern!r}, which is not among its members", file=file,
                next_step=_nearest(str(pattern), members),
            )  # fmt: skip
        required |= dict.fromkeys(named)
    return list(required)


def _stage_entry(name: str, entry: Any, file: str) -> dict[str, Any]:
    """use, inputs and parameters of one stage, the latter with their defaults filled in."""
    from harken.bench.stages import stage_class

    if not isinstance(entry, dict) or not isinstance(entry.get("use"), str):
        raise HarkenError(f"stage {name} does not say its kind", file=file, next_step="Write use: embed, or another")
    given = {key: value for key, value in entry.items() if key not in ("use", "from")}
    inputs = entry.get("from", [])
    inputs = [inputs] if isinstance(inputs, str) else inputs
    kind = stage_class(entry["use"])
    _known_keys(given, kind.Parameters.model_fields, file, f"stages.{name}.")
    try:
        parameters = kind.Parameters.model_validate(given).model_dump(mode="json")
    except ValidationError as error:
        raise _explained(error, file, f"stages.{name}.") from error
    _no_truths_as_numbers(given, parameters, file, f"stages.{name}")
    return {"use": entry["use"], "inputs": inputs, "parameters": parameters}


def _filled(value: Any, parameters: Mapping[str, Any], file: str) -> Any:
    """`$name` replaced by the parameter of that name, at any depth."""
    if isinstance(value, dict):
        return {key: _filled(inside, parameters, file) for key, inside in value.items()}
    if isinstance(value, list):
        return [_filled(inside, parameters, file) for inside in value]
    if isinstance(value, str) and value.startswith("$"):
        if value[1:] not in parameters:
            raise HarkenError(f"there is no parameter {value!r}", file=file, next_step=_nearest(value[1:], parameters))
        return parameters[value[1:]]
    return value


def _known_keys(given: Mapping[str, Any], fields: Mapping[str, Any], file: str, prefix: str) -> None:
    for key in given:
        if key not in fields:
            raise HarkenError(f"unknown key {prefix}{key}", file=file, next_step=_nearest(str(key), fields))


def _no_truths_as_numbers(given: Any, checked: Any, file: str, where: str = "") -> None:
    """HarkenError where `yes` or `no` was taken for 1 or 0, as pydantic does."""
    if isinstance(given, bool):
        if isinstance(checked, int | float) and not isinstance(checked, bool):
            word = "yes" if given else "no"
            raise HarkenError(f"{where}: {word} is no number", file=file, next_step="Write a number")
    elif isinstance(given, Mapping) and isinstance(checked, Mapping):
        for key in given.keys() & checked.keys():
            _no_truths_as_numbers(given[key], checked[key], file, f"{where}.{key}".lstrip("."))
    elif isinstance(given, list | tuple) and isinstance(checked, list | tuple):
        for number, (given_item, checked_item) in enumerate(zip(given, checked, strict=False)):
            _no_truths_as_numbers(given_item, checked_item, file, f"{where}.{number}")


def _explained(error: ValidationError, file: str, prefix: str = "") -> HarkenError:
    first = error.errors()[0]
    where = (prefix + ".".join(map(str, first["loc"]))).rstrip(".")
    # What concerns several values says which.
    given = f" (given {json.dumps(first['input'], default=str)[:60]})" if first["loc"] else ""
    return HarkenError(
        f"{where or 'recipe'}: {first['msg'].removeprefix('Value error, ')}{given}",
        file=file,
        next_step="Correct it",
    )


def _nearest(word: str, names: Mapping[str, Any] | Sequence[str]) -> str:
    return did_you_mean(word, sorted(names))
