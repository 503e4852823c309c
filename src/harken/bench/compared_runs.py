"""Runs as they are compared: the parameters of their recipes, and the test clips that they all scored."""

from __future__ import annotations

import filecmp
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harken.bench.official import official_year
from harken.core.errors import HarkenError, reading
from harken.core.flat import flat_values
from harken.core.plain_yaml import read_yaml
from harken.data.clips import Clip
from harken.data.table import read_table
from harken.data.truth import Label, Truth
from harken.ensemble.runs import SCORES
from harken.evaluation.scores import Scores, read_scores

#: machine, section, name of the file without its ending
ClipKey = tuple[str, str, str]

#: parts of a recipe that change no number
_WORDS = ("name", "title", "summary", "reference", "meta", "submission")


@dataclass(frozen=True)
class ComparedRun:
    """A run by its folder. name: what it is called in the comparison."""

    name: str
    folder: Path

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Values of the resolved recipe by dotted key; custom code that it names is not loaded."""
        file = self.folder / "recipe.yaml"
        with reading(file, "Run the recipe again"):
            recipe = read_yaml(file.read_text(encoding="utf-8"))
        if not isinstance(recipe, dict):
            raise HarkenError("is not the recipe of a run", file=file, next_step="Run the recipe again")
        return flat_values({key: value for key, value in recipe.items() if key not in _WORDS})

    @cached_property
    def systems(self) -> dict[tuple[str, str], list[Scores]]:
        """Scores of each seed by (set, system)."""
        systems: dict[tuple[str, str], list[Scores]] = defaultdict(list)
        for table in read_scores(self.folder / SCORES):
            systems[table.set, table.system].append(table.test)
        return dict(systems)

    @property
    def sets(self) -> list[str]:
        """Names of its sets."""
        return list(dict.fromkeys(data_set for data_set, _ in self.systems))

    @cached_property
    def clips(self) -> dict[str, Clip]:
        """Rows of the clips table by id."""
        return {clip.clip_id: clip for clip in read_table(self.folder / "clips.parquet")}

    def scored(self, table: Scores) -> dict[ClipKey, Clip]:
        """The clips of a table of its scores."""
        keys = zip(table.machine, table.section, table.names, strict=True)
        return {key: self.clips[clip_id] for key, clip_id in zip(keys, table.clip_id, strict=True)}

    def stored_score(self, table: Scores) -> float | None:
        """The official score of a table as the run has printed it, to the last digit; None without one."""
        with reading(self.folder / "results.json", "Run the recipe again"):
            results = json.loads((self.folder / "results.json").read_text(encoding="utf-8"))
        seeds = results.get("sets", {}).get(table.set, {}).get(table.system, {}).get("seeds", {})
        result = seeds.get("-" if table.seed is None else str(table.seed))
        return None if result is None else float(result["official_score"])


def differing(runs: Sequence[ComparedRun]) -> dict[str, tuple[Any, ...]]:
    """Parameters that are not the same in all runs, with the value in each; None where a run has none."""
    keys = dict.fromkeys(key for run in runs for key in run.parameters)
    rows = {key: tuple(run.parameters.get(key) for run in runs) for key in keys}
    return {
        key: values
        for key, values in rows.items()
        if len({(key in run.parameters, repr(run.parameters.get(key))) for run in runs}) > 1
    }


def common_sets(runs: Sequence[ComparedRun], wanted: str | None) -> tuple[list[str], list[str]]:
    """Sets that all runs have, and notes on those that are left out. HarkenError, with the names, where none is."""
    shared = [name for name in runs[0].sets if all(name in run.sets for run in runs)]
    if wanted is not None:
        lacking = [run.name for run in runs if wanted not in run.sets]
        if lacking:
            raise HarkenError(f"{', '.join(lacking)}: no set {wanted!r}", next_step=_sets_of(runs))
        shared = [wanted]
    if not shared:
        raise HarkenError("the runs have no set of data in common", next_step=_sets_of(runs))
    left_out = {run.name: [name for name in run.sets if name not in shared] for run in runs}
    notes = [f"{name}: {', '.join(sets)} left out, which not all runs have" for name, sets in left_out.items() if sets]
    return shared, [] if wanted is not None else notes


def _sets_of(runs: Sequence[ComparedRun]) -> str:
    return "; ".join(f"{run.name} has {', '.join(run.sets)}" for run in runs)


@dataclass(frozen=True)
class SharedClips:
    """Test clips of a set that every system has scored. truth: None where the label of one is unknown to all runs."""

    keys: frozenset[ClipKey]
    truth: Truth | None
    year: int | None
    notes: tuple[str, ...]

    def of(self, table: Scores) -> Scores:
        """The rows of these clips."""
        rows = zip(table.machine, table.section, table.names, strict=True)
        return table.take([number for number, key in enumerate(rows) if key in self.keys])


def shared_clips(data_set: str, scored: Sequence[tuple[ComparedRun, Scores]]) -> SharedClips:
    """The clips that all tables of a set have, with labels from any run that knows them.

    Raises HarkenError for clips of one name that are different recordings or have different labels, and without any
    clip in common.
    """
    clips = [(run, run.scored(table)) for run, table in scored]
    keys = frozenset(clips[0][1]).intersection(*(rows for _, rows in clips))
    if not keys:
        names = ", ".join(dict.fromkeys(run.name for run, _ in clips))
        raise HarkenError(f"{names} have no test clips of {data_set} in common", next_step="Compare other runs")
    notes = list(dict.fromkeys(_left_out(data_set, run, rows, keys) for run, rows in clips if len(rows) > len(keys)))
    by_run = {run.name: (run, rows) for run, rows in clips}
    (first, first_rows), *others = by_run.values()
    unread = [run.name for run, rows in others if not _check_same(first, first_rows, run, rows, keys)]
    if unread:
        notes.append(
            f"{data_set}: not all recordings of {', '.join([first.name, *unread])} can be read: "
            "that they are the same is known from names, lengths and labels only"
        )
    truth = _truth(data_set, [rows for _, rows in by_run.values()], keys)
    return SharedClips(keys, truth, official_year([first_rows[key] for key in sorted(keys)]), tuple(notes))


def _left_out(data_set: str, run: ComparedRun, rows: Mapping[ClipKey, Clip], keys: Iterable[ClipKey]) -> str:
    extra = sorted(rows.keys() - set(keys))
    machines = ", ".join(dict.fromkeys(machine for machine, *_ in extra))
    return (
        f"{data_set}: compared on the {len(rows) - len(extra)} test clips that all have scored; "
        f"{len(extra)} of {run.name} are left out, of {machines}"
    )


def _check_same(
    first: ComparedRun, first_rows: Mapping[ClipKey, Clip], run: ComparedRun, rows: Mapping[ClipKey, Clip],
    keys: Iterable[ClipKey],
) -> bool:  # fmt: skip
    """Whether all recordings were read and are the same; HarkenError where one is not."""
    compared = True
    for key in sorted(keys):
        one_clip, clip = first_rows[key], rows[key]
        values: dict[str, tuple[Any, Any]] = {
            name: (getattr(one_clip, name), getattr(clip, name))
            for name in ("condition", "domain", "sample_rate", "channels", "frames")
        }
        for name, (before, after) in values.items():
            if before != after and not {before, after} & {None, "unknown"}:
                raise HarkenError(
                    f"{first.name} and {run.name} are of different data: {key[2]} of {key[0]} has the {name} {before} "
                    f"in one and {after} in the other", next_step="Compare runs on the same data",
                )  # fmt: skip
        same = _same_recording(one_clip.path, clip.path)
        if same is False:
            raise HarkenError(
                f"{first.name} and {run.name} are of different data: {one_clip.path} and {clip.path} are different "
                "recordings", next_step="Compare runs on the same data",
            )  # fmt: skip
        compared &= same is True
    return compared


def _same_recording(first: Path, second: Path) -> bool | None:
    """Whether two files hold the same; None where one cannot be read."""
    if first == second:
        return True
    try:
        return filecmp.cmp(first, second, shallow=False)
    except OSError:
        return None


def _truth(data_set: str, tables: Sequence[Mapping[ClipKey, Clip]], keys: Iterable[ClipKey]) -> Truth | None:
    truth = Truth(f"the clips tables of {data_set}")
    for key in sorted(keys):
        machine, section, name = key
        conditions = [rows[key].condition for rows in tables if rows[key].condition != "unknown"]
        domains = [rows[key].domain for rows in tables if rows[key].domain != "unknown"]
        if not conditions:
            return None
        truth.add((machine, section), name, Label(conditions[0] == "anomaly", (domains or ["unknown"])[0]))
    return truth
