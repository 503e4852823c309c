"""Recipes: a system as a named graph of stages in YAML, checked to the last key."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

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

from harken.bench.recipe_changes import changed_by
from harken.bench.recipe_checks import (
    conditional_keys,
    filled,
    mapping_at,
    named_stage,
    profile_keys,
    stage_entry,
    write_out_members,
)
from harken.bench.recipe_seeds import check_seeds
from harken.bench.repeat import expand, set_key
from harken.core.errors import HarkenError, reading
from harken.core.later_fields import LaterFields
from harken.core.names import alike, shown, why_no_file_name
from harken.core.plain_yaml import read_yaml_lines, yaml_text
from harken.core.plugins import check_name
from harken.core.settings import SettingError, check_kinds, explained, known_keys, located, nearest
from harken.ensemble.problem import SEARCHES
from harken.ensemble.selection import Criterion

DEFAULT_PROFILE = "full"
#: scikit-learn takes no larger ones, and stages add small numbers to theirs
LARGEST_SEED = 2**31 - 1
_MOST_SEEDS, _MOST_STAGES, _MOST_BYTES = 1_000, 2_000, 16 * 2**20
#: names of recipes, stages, systems and ensembles become names of folders
_FOLDER_NAME = re.compile(r"\w[\w .,+=@()-]{0,99}")


class StageEntry(LaterFields, BaseModel):
    """One stage: which kind (`use`), the stages it reads (`from`), and its parameters.

    seeds: which of the recipe's it, and all that depends on it, runs with; None: all. seed: it runs once, with this
    one, and what depends on it reads it whatever its own seed is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    later: ClassVar[tuple[str, ...]] = (
        "seeds",
        "seed",
    )

    use: str
    inputs: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    seeds: tuple[int, ...] | None = None
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] | None = None


class SearchEntry(BaseModel):
    """A search for an ensemble's weights by the labels of a development set: see `harken ensemble fit`.

    method: one of `harken.ensemble.problem.SEARCHES`, or a custom search, `file.py:Class`.
    required, select, select_by: weigh only these systems and the best `select` of the others, see
    `harken.ensemble.selection.Selection`; None: all. labels_of: the set whose labels are used, if the run has it
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
    labels_of: str | None = None

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
                fields.pop(name, None)
        if self.labels_of is None:
            fields.pop("labels_of", None)
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
        if not 0 < len(seeds) <= _MOST_SEEDS or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds are 1 to {_MOST_SEEDS} different whole numbers")
        if min(seeds) < 0 or max(seeds) > LARGEST_SEED:
            raise ValueError(f"seeds are different whole numbers from 0 to {LARGEST_SEED}, at least one")
        return seeds

    def inputs_of(self, stage: str) -> dict[str, tuple[str, ...]]:
        """Names of the stages that a stage reads, by the input that each is. HarkenError where they do not match."""
        from harken.bench.stages import match_inputs, stage_class

        entry = self.stages[stage]
        sources = [(source, stage_class(self.stages[source].use)) for source in entry.inputs]
        return match_inputs(entry.use, stage_class(entry.use), sources)

    def parameters_of(self, stage: str) -> Any:
        """Parameters of a stage, as its class has them."""
        from harken.bench.stages import stage_class

        entry = self.stages[stage]
        return stage_class(entry.use).Parameters.model_validate(entry.parameters)

    def as_yaml(self) -> str:
        """Itself as a recipe file without profiles; reading it gives an equal recipe."""
        data = self.model_dump(mode="json", exclude={"stages"})
        data["stages"] = {
            name: {
                "use": entry.use,
                **({"from": list(entry.inputs)} if entry.inputs else {}),
                **({"seeds": list(entry.seeds)} if entry.seeds is not None else {}),
                **({"seed": entry.seed} if entry.seed is not None else {}),
                **entry.parameters,
            }
            for name, entry in self.stages.items()
        }
        return yaml_text(data)


def list_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    files = resources.files("harken.bench.recipes").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def recipe_text(name_or_file: str) -> str:
    """The YAML of a recipe that comes with the package, or of a file. Raises HarkenError when there is neither."""
    if name_or_file in list_recipes():
        return resources.files("harken.bench.recipes").joinpath(f"{name_or_file}.yaml").read_text(encoding="utf-8")
    file = Path(name_or_file)
    try:
        is_file = file.is_file()
    except ValueError:  # a NUL
        is_file = False
    if is_file or (file.suffix in (".yaml", ".yml") and not file.exists()):
        with reading(file), file.open("rb") as handle:
            return handle.read(_MOST_BYTES).decode("utf-8")
    raise HarkenError(f"there is no recipe {name_or_file!r}", next_step=nearest(name_or_file, list_recipes()))


def load_recipe(
    name_or_file: str,
    *,
    profile: str = DEFAULT_PROFILE,
    changes: Mapping[str, Any] | None = None,
    swept: Collection[str] = (),
) -> Recipe:
    """A recipe with a profile and then `changes` applied, checked.

    A profile is a mapping of dotted keys to values (`stages.autoencoder.epochs: 2`), as are changes; `*` in them stands
    for every name (`stages.*.training.steps`), and a parameter is set by its bare name. What is written under `repeat`
    means many stages, see `expand`. Under `when`, a recipe may say what follows from a parameter's value, in dotted
    keys again: `when: {encoder: {beats: {stages.embed.pooling: rdp:19}}}`; profile and changes go over it.
    swept: keys of the changes that are from a sweep.
    Raises HarkenError, naming line or change and nearest name, for an unknown recipe, profile, key, stage or system.
    Within `without_custom_code`, raises UntrustedError where stages are custom ones.
    """
    text = recipe_text(name_or_file)
    try:
        data, lines = read_yaml_lines(text)
    except ValueError as error:
        raise HarkenError(f"is not valid YAML ({error})", file=name_or_file, next_step="Correct the file") from error
    if not isinstance(data, dict) or not isinstance(data.get("stages", {} if data.get("repeat") else None), dict):
        raise HarkenError(
            "is not a recipe: it has no stages", file=name_or_file, next_step="Start from one: harken recipe copy"
        )
    changes = changes or {}

    def elsewhere(error: SettingError) -> str | None:
        return changed_by(error, changes, swept, lambda fewer: _checked(read_yaml_lines(text)[0], profile, fewer))

    with located(name_or_file, lines, profile=profile, elsewhere=elsewhere):
        return _checked(data, profile, changes)


def _checked(data: Any, profile: str, changes: Mapping[str, Any]) -> Recipe:
    """The recipe that `data` says with a profile and changes. Raises SettingError where it says none."""
    recipe = _resolved(expand(data), profile, changes)
    _check_names(recipe)
    _check_references(recipe)
    return recipe


def _resolved(data: dict[str, Any], profile: str, changes: Mapping[str, Any]) -> Recipe:
    """The recipe that `data` says; everything but references between its stages and systems is checked."""
    wanted = {**profile_keys(data, profile), **changes}
    parameters = data["parameters"] = mapping_at(data, "parameters")
    given = [name for name in wanted if name in parameters]
    for name in given:
        parameters[name] = wanted.pop(name)
    for key, value in {**conditional_keys(data, parameters, given), **wanted}.items():
        set_key(data, key, value)
    parameters = mapping_at(data, "parameters")
    for key in ("stages", "meta"):
        data[key] = filled(mapping_at(data, key), parameters, key)
    known_keys(data, Recipe.model_fields, "")
    if len(data["stages"]) > _MOST_STAGES:
        raise SettingError(f"it has {len(data['stages'])} stages, more than {_MOST_STAGES}", key="stages")
    data["stages"] = {name: stage_entry(name, entry) for name, entry in data["stages"].items()}
    write_out_members(data)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise explained(error, subject="recipe") from error
    check_kinds(data, recipe.model_dump())
    return recipe


def _check_names(recipe: Recipe) -> None:
    """Whether names can be those of folders, on every system."""
    sections = {"stages": [*recipe.stages], "systems": [*recipe.systems], "ensembles": [*recipe.ensembles]}
    keys = {"name": recipe.name, **{f"{section}.{name}": name for section in sections for name in sections[section]}}
    for key, name in keys.items():
        reason = why_no_file_name(name)
        if reason is not None or not _FOLDER_NAME.fullmatch(name):
            reason = f" ({reason})" if reason else ""
            raise SettingError(
                f"{key}: {shown(name)!r} cannot be the name of a folder{reason}", key=key,
                next_step="Write letters, digits, spaces and . , + = @ ( ) - _, beginning with a letter or digit",
            )  # fmt: skip
    for names in (sections["stages"], sections["systems"] + sections["ensembles"]):
        pair = alike(names)
        if pair is not None:
            raise SettingError(f"{pair[0]!r} and {pair[1]!r} are one folder where case does not count", key="systems")


def _check_references(recipe: Recipe) -> None:
    """Whether stages, systems and ensembles that are named are there, and make what is read of them."""
    from harken.bench.stages import stage_class

    for name, stage in recipe.stages.items():
        for source in stage.inputs:
            if source not in recipe.stages:
                raise SettingError(
                    f"stage {name} reads {source!r}, which is not there", key=f"stages.{name}.from",
                    next_step=nearest(source, recipe.stages),
                )  # fmt: skip
        with named_stage(name, f"stages.{name}"):
            recipe.inputs_of(name)
    for name in recipe.stages:
        check_seeds(recipe.stages, name, recipe.seeds)
    for system, name in recipe.systems.items():
        key = f"systems.{system}"
        if name not in recipe.stages:
            raise SettingError(
                f"system {system} takes its scores from {name!r}, which is not there", key=key,
                next_step=nearest(name, recipe.stages),
            )  # fmt: skip
        if stage_class(recipe.stages[name].use).makes != "scores":
            raise SettingError(
                f"system {system} takes its scores from {name}, a stage without scores", key=key,
                next_step="Name a stage that scores, such as detect",
            )  # fmt: skip
    for name in recipe.ensembles:
        if name in recipe.systems:
            raise SettingError(
                f"{name} is a system and an ensemble", key=f"ensembles.{name}", next_step="Name the ensemble otherwise"
            )
    systems = {**recipe.systems, **recipe.ensembles}
    for row, name in enumerate(recipe.submission):
        if name not in systems:
            raise SettingError(
                f"submission names {name!r}, which is neither a system nor an ensemble", key=f"submission.{row}",
                next_step=nearest(name, systems),
            )  # fmt: skip
    if not recipe.systems:
        raise SettingError("has no system", key="systems", next_step="Write under systems which stage scores")
