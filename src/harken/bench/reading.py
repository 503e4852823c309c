"""A run read back: scores, clips, embeddings and histories as pandas tables and NumPy arrays."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harken.bench.recipe import Recipe, load_recipe
from harken.bench.stages.tables import read_arrays, read_ids
from harken.core.errors import HarkenError, did_you_mean
from harken.core.extras import need
from harken.data.labels import ClassTable
from harken.data.table import read_table
from harken.ensemble.runs import SCORES

if TYPE_CHECKING:
    import pandas as pd


def load_run(folder: str | Path, workspace: str | Path | None = None) -> LoadedRun:
    """A run by its folder, `WORKSPACE/runs/RECIPE-DIGEST`.

    workspace: of the objects of its stages; None: the one that contains the folder. Scores, clips, results and
    recipe are in the folder itself, so that a copy of it has them; embeddings, histories and labels need the workspace.
    Raises HarkenError for a folder that is not a run.
    """
    return LoadedRun(folder, workspace)


class LoadedRun:
    """See `load_run`. Tables are read on first use; change a copy of them.

    folder: of the run. workspace: where its objects are.
    """

    def __init__(self, folder: str | Path, workspace: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.workspace = Path(workspace) if workspace is not None else self.folder.absolute().parent.parent
        if not (self.folder / "results.json").is_file():
            raise HarkenError("is not a run", file=self.folder, next_step="Give a folder below WORKSPACE/runs")

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return load_recipe(str(self.folder / "recipe.yaml"))

    @cached_property
    def results(self) -> dict[str, Any]:
        """`results.json`: official numbers by set and system, recordings set aside, notes."""
        results: dict[str, Any] = json.loads((self.folder / "results.json").read_text())
        return results

    @cached_property
    def clips(self) -> pd.DataFrame:
        """One row per clip: the clips table, with labels of test clips where they are known."""
        pd = need("pandas", "tables")
        rows = [asdict(clip) for clip in read_table(self.folder / "clips.parquet")]
        return pd.DataFrame(rows)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per clip, system and seed: set, system, seed, clip_id, file, machine, section, split, score,
        decision, domain, condition, marks (such as "tuned on test"; empty where there are none). Rows of the split
        `train` are held-out scores of training clips."""
        pd = need("pandas", "tables")
        table = pd.read_parquet(self.folder / SCORES)
        table["seed"] = table["seed"].astype("Int64")
        labels = self.clips[["clip_id", "domain", "condition"]].drop_duplicates("clip_id")
        return table.merge(labels, on="clip_id", how="left")

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """One row per task: its name, stage, kind, set, machine, seed and the key of its object."""
        pd = need("pandas", "tables")
        file = self.folder / "tasks.json"
        if not file.is_file():
            raise HarkenError("has no list of its tasks", file=self.folder, next_step="Run the recipe again")
        rows = [{"task": name, **row} for name, row in json.loads(file.read_text()).items()]
        return pd.DataFrame(rows).astype({"seed": "Int64"})

    def embeddings(
        self, stage: str, *, machine: str | None = None, set: str | None = None, seed: int | None = None
    ) -> tuple[NDArray[np.float32], pd.DataFrame]:
        """(clips, dimensions) vectors that a stage made, and the row of the clips table of each.

        machine, set: None is all of them. seed: None is the first. Raises HarkenError for a stage that makes no
        embeddings, an unknown name, and without the workspace.
        """
        pd = need("pandas", "tables")
        vectors, tables = [], []
        by_id = self.clips.drop_duplicates("clip_id").set_index("clip_id", drop=False)
        for folder in self._objects(stage, "embeddings.safetensors", machine=machine, set=set, seed=seed):
            kept = read_ids(folder)[0]
            inside = np.array([clip_id in by_id.index for clip_id in kept])
            vectors.append(np.asarray(read_arrays(folder / "embeddings.safetensors")["embeddings"])[inside])
            tables.append(by_id.loc[[clip_id for clip_id in kept if clip_id in by_id.index]])
        return np.concatenate(vectors), pd.concat(tables, ignore_index=True)

    def history(self, stage: str, seed: int | None = None) -> pd.DataFrame:
        """Loss and other signals of a training, one row per evaluation. seed: None is the first."""
        pd = need("pandas", "tables")
        (folder,) = self._objects(stage, "history.json", seed=seed)
        return pd.json_normalize(json.loads((folder / "history.json").read_text())["evaluations"])

    def labels(self, stage: str) -> pd.Series:
        """Class number of each training clip that a `labels` stage made, by clip_id."""
        pd = need("pandas", "tables")
        (folder,) = self._objects(stage, "classes.json")
        return pd.Series(dict(ClassTable.read(folder / "classes.json").class_of), name="class")

    def _objects(
        self,
        stage: str,
        file: str,
        *,
        machine: str | None = None,
        set: str | None = None,
        seed: int | None = None,
    ) -> list[Path]:
        """Folders of a stage's objects for these machines and sets with one seed, which have `file`."""
        rows = self.tasks
        for column, value in (("stage", stage), ("machine", machine), ("set", set), ("seed", seed)):
            if value is not None:
                _check_known(value, rows[column].dropna().unique(), column, self.folder)
                rows = rows[rows[column] == value]
        if seed is None and rows["seed"].notna().any():
            rows = rows[rows["seed"] == rows["seed"].min()]
        folders = [self.workspace / "objects" / key[:2] / key for key in rows["object"]]
        for folder in folders:
            if not folder.is_dir():
                raise HarkenError(
                    f"what the stage {stage} made is not in the workspace {self.workspace}",
                    file=self.folder,
                    next_step="Give the workspace: load_run(folder, workspace=...), or run the recipe again",
                )
            if not (folder / file).is_file():
                raise HarkenError(
                    f"the stage {stage} makes no {file}", file=self.folder, next_step="Choose another stage of tasks"
                )
        return folders


def _check_known(value: Any, values: Iterable[Any], column: str, folder: Path) -> None:
    """Raise HarkenError, naming the nearest, for a value that is not among `values`."""
    names = [str(name) for name in values]
    if str(value) not in names:
        hint = did_you_mean(str(value), names)
        raise HarkenError(f"has no {column} {value!r}", file=folder, next_step=hint)
