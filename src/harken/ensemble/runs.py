"""The systems of a run as members, and the scores of their training clips from its workspace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import yaml

from harken.core.errors import HarkenError
from harken.data import catalog
from harken.data.clips import Clip
from harken.data.names import without_ending
from harken.data.table import read_table
from harken.data.truth import Section
from harken.ensemble.member import Member, Source, Train, member_of
from harken.evaluation.score_files import System, read_system_folder

#: key of scores of training clips of a model that was fitted on all sections of its machine
_ALL = "all sections"
#: machine, section, its scores by clip
_Fingerprint = tuple[str, str, tuple[tuple[str, float], ...]]


def members_of_run(folder: Path, data_set: str | None) -> list[Member]:
    """`recipe/system`, or `recipe/system/seed_1`, for each system and seed of a run on one set, but for its ensembles.

    The scores of training clips are those of the object in the run's workspace that made exactly these scores; there
    are none where the workspace has gone. Raises HarkenError where the run has several sets and none is named.
    """
    try:
        results = json.loads((folder / "results.json").read_text())
        sets, recipe = list(results["sets"]), str(results["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HarkenError(f"is no run ({error})", file=folder, next_step="Run the recipe again") from None
    if data_set is not None and data_set not in sets:
        raise HarkenError(f"the run has no set {data_set!r}", file=folder, next_step=f"There are: {', '.join(sets)}")
    if data_set is None and len(sets) > 1:
        raise HarkenError(
            f"the run has several sets: {', '.join(sets)}", file=folder, next_step="Choose one with --data-set"
        )
    label = data_set or sets[0]
    top = folder / "scores"
    mixes = _ensembles(folder)
    made = _held_out(folder)
    clips = _training_clips(folder, results, label)
    members = []
    for place in sorted({file.parent for file in top.rglob("anomaly_score_*.csv")}):
        name = place.relative_to(top)
        if name.parts and name.parts[0] in mixes:
            continue
        if len(sets) > 1:
            if name.name != label.replace(" ", "_"):
                continue
            name = name.parent
        for system in read_system_folder(place, f"{recipe}/{name.as_posix()}"):
            train = _train_of(system, made, clips)
            members.append(member_of(system, train, Source(folder, system.name, data_set)))
    return members


def _ensembles(folder: Path) -> set[str]:
    """Names of the ensembles of the run's recipe: mixes of its other systems."""
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
        return set(recipe.get("ensembles") or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError):
        return set()


def _held_out(folder: Path) -> dict[_Fingerprint, dict[str, np.ndarray]]:
    """Scores of training clips in the workspace of a run, by the scores of test clips that were made with them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[_Fingerprint, dict[str, np.ndarray]] = {}
    for file in sorted(folder.absolute().parent.parent.glob("objects/*/*/train_scores.safetensors")):
        try:
            arrays = safetensors.numpy.load_file(file)
            rows = pq.read_table(file.parent / "scores.parquet").to_pylist()
        except (OSError, pa.ArrowException, safetensors.SafetensorError):
            continue
        system = System("")
        for row in rows:
            rows_of = system.scores.setdefault((row["machine"], row["section"]), {})
            rows_of[without_ending(row["file"])] = row["score"]
        for key in system.scores:
            found[_fingerprint(system, key)] = arrays
    return found


def _fingerprint(system: System, key: Section) -> _Fingerprint:
    return (*key, tuple(sorted(system.scores[key].items())))


def _train_of(
    system: System, made: dict[_Fingerprint, dict[str, np.ndarray]], clips: dict[Section, list[str]]
) -> dict[Section, Train]:
    train = {}
    for key in system.scores:
        arrays = made.get(_fingerprint(system, key), {})
        section = key[1] if key[1] in arrays else _ALL
        if section in arrays:
            scores_T = np.asarray(arrays[section], dtype=np.float64)
            names = clips.get((key[0], section), [])
            train[key] = Train(scores_T, tuple(names) if len(names) == len(scores_T) else None)
    return train


def _training_clips(folder: Path, results: dict[str, Any], label: str) -> dict[Section, list[str]]:
    """Names of the training clips of each section, in the order of their scores: that of the clips table, without
    those that could not be used."""
    file = folder / "clips.parquet"
    if not file.is_file():
        return {}
    unusable = {row["clip_id"] for row in results.get("quarantined", [])}
    found: dict[Section, list[str]] = {}
    for clip in _learned_from(read_table(file), label):
        if clip.clip_id not in unusable:
            found.setdefault((clip.machine, clip.section), []).append(without_ending(clip.path.name))
    for machine in {machine for machine, _ in found}:
        found[machine, _ALL] = [name for key, names in list(found.items()) if key[0] == machine for name in names]
    return found


def _learned_from(clips: Sequence[Clip], label: str) -> list[Clip]:
    """Normal training clips of the machines themselves, of the set `label`: `dcase2025 dev`."""
    return [
        clip
        for clip in clips
        if clip.split == "train"
        and clip.condition == "normal"
        and clip.kind == "machine"
        and " ".join(filter(None, (clip.corpus, catalog.half_of(clip.year, clip.machine, clip.section)))) == label
    ]
