"""The systems of a run as entries of a submission."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harken.bench.graph import is_evaluation, set_of
from harken.bench.run import load_clips
from harken.core.errors import HarkenError, there_are
from harken.core.plain_yaml import read_yaml_file
from harken.data.clips import Clip
from harken.data.table import read_table
from harken.evaluation.submission import SubmittedSystem


def entries_of(
    folder: Path,
    *,
    systems: Sequence[str] | None,
    label: str | None,
    data: Path | None,
    meta: Mapping[str, Any],
) -> tuple[list[SubmittedSystem], list[Clip]]:
    """Entries and the test clips they must cover, of a run's folder, or of a folder with one system's score files.

    systems: names below the run's `scores`; default those that the recipe submits, else its ensembles, else all.
    label: the set; default the evaluation set where there is one. data: with the test clips of plain score files.
    meta: the submitters' part of meta.yaml; it overrides the recipe's.
    Raises HarkenError for an unknown run, system or set.
    """
    if (folder / "results.json").is_file():
        return _of_run(folder, systems, label, meta)
    if not any(folder.glob("anomaly_score_*.csv")):
        raise HarkenError(
            "is neither a run nor a folder of score files", file=folder, next_step="Give a folder that harken run made"
        )
    if data is None:
        raise HarkenError("the test clips are not known", file=folder, next_step="Give the data: --data ROOT")
    clips = [clip for clip in load_clips(data)[0] if clip.split == "test"]
    sets = sorted({set_of(clip) for clip in clips})
    if label is not None and label not in sets:
        raise HarkenError(f"the data have no set {label!r}", file=data, next_step=there_are(sets))
    clips = [clip for clip in clips if label in (None, set_of(clip))]
    return [SubmittedSystem(folder.name, folder, meta)], clips


def _of_run(
    folder: Path, systems: Sequence[str] | None, label: str | None, meta: Mapping[str, Any]
) -> tuple[list[SubmittedSystem], list[Clip]]:
    results = json.loads((folder / "results.json").read_text())
    recipe = read_yaml_file(folder / "recipe.yaml")
    sets = list(results["sets"])
    chosen = label or next((name for name in sets if is_evaluation(name)), sets[0])
    if chosen not in sets:
        raise HarkenError(f"the run has no set {chosen!r}", file=folder, next_step=there_are(sets))
    clips = [clip for clip in read_table(folder / "clips.parquet") if clip.split == "test" and set_of(clip) == chosen]
    entries = []
    default = recipe.get("submission") or recipe.get("ensembles") or recipe["systems"]
    for name in systems or [name for name in default if name in results["sets"][chosen]]:
        system, _, seed = name.partition("/")
        if system not in results["sets"][chosen]:
            raise HarkenError(
                f"the run has no system {system!r}", file=folder,
                next_step=there_are(results['sets'][chosen]),
            )  # fmt: skip
        seeds = results["sets"][chosen][system]["seeds"]
        place = folder / "scores" / system
        if "-" not in seeds:
            # Of several seeds, the first is submitted unless another is named.
            place = place / (seed or f"seed_{next(iter(seeds))}")
        if len(sets) > 1:
            place = place / chosen.replace(" ", "_")
        if not place.is_dir():
            raise HarkenError("there are no scores", file=place, next_step="Check the name of the system and seed")
        entries.append(
            SubmittedSystem(name, place, _merged(recipe.get("meta") or {}, meta), _development(results, system))
        )
    return entries, clips


def _development(results: Mapping[str, Any], system: str) -> dict[str, dict[str, float]] | None:
    """Development results of a system, machine -> numbers, of its first seed; None where there are none."""
    for label, systems in results["sets"].items():
        if is_evaluation(label) or system not in systems:
            continue
        first = next(iter(systems[system]["seeds"].values()))
        if first is not None:
            names = ("auc_source", "auc_target", "pauc")
            return {
                machine: {name: row[name] for name in names if name in row}
                for machine, sections in first["machines"].items()
                for row in [next(iter(sections.values()))]
            }
    return None


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
