"""A run read back from its folder, as it was when its report was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harken.bench.ensembles import Mix
from harken.bench.graph import make_units
from harken.bench.official import official_result
from harken.bench.recipe import load_recipe
from harken.bench.result import Failed, Run, SystemScores
from harken.bench.stages.tables import Quarantined
from harken.core.errors import HarkenError, reading
from harken.data.index import DataFinding
from harken.data.table import read_table
from harken.data.truth import Truth
from harken.ensemble.runs import SCORES
from harken.evaluation.scores import Scores, read_scores


def stored_run(folder: Path, truth: Truth | None = None) -> Run:
    """The run of a folder `WORKSPACE/runs/RECIPE-DIGEST`; its workspace is not needed.

    truth: labels of its test clips, where it was run with a file of them. Raises HarkenError for a folder that is no
    run, and where its official numbers need labels that are not there.
    """
    if not (folder / "results.json").is_file():
        raise HarkenError("is not a run", file=folder, next_step="Give a folder below WORKSPACE/runs")
    with reading(folder / "results.json", "Run the recipe again", errors=(ValueError, KeyError, TypeError)):
        results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        left_out: dict[str, Any] = {
            "quarantined": tuple(Quarantined(**row) for row in results["quarantined"]),
            "unscored": {label: tuple(clips) for label, clips in results["unscored"].items()},
            "failures": tuple(Failed(row["task"], HarkenError(row["error"])) for row in results["failed"]),
            # Runs of earlier releases do not hold them.
            "findings": tuple(DataFinding(**row) for row in results.get("findings", ())),
            "notes": tuple(results["notes"]),
        }
    recipe = load_recipe(str(folder / "recipe.yaml"))
    clips = read_table(folder / "clips.parquet")
    return Run(
        folder,
        recipe,
        units=tuple(make_units(clips, None, recipe.score_years)),
        clips=tuple(clips),
        systems=tuple(_system(table, clips, results["sets"], truth, folder) for table in read_scores(folder / SCORES)),
        **left_out,
    )


def _system(table: Scores, clips: Any, sets: dict[str, Any], truth: Truth | None, folder: Path) -> SystemScores:
    """Official results are computed from the scores, as the run did."""
    stored = sets.get(table.set, {}).get(table.system, {})
    result, why = official_result(table, clips, truth)
    if result is None and "official_score" in stored:
        raise HarkenError(
            f"its official numbers are of labels that it does not hold ({table.set})",
            file=folder,
            next_step="Give the file of labels: --truth",
        )
    mix = None if stored.get("mix") is None else Mix(**stored["mix"])
    return SystemScores(table, folder / "scores" / table.system, result, why, mix)
