"""Objects that the tasks of a run made, each with the objects that it was made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harken.bench.workspace import Workspace
from harken.core.errors import HarkenError


@dataclass(frozen=True)
class Made:
    """An object. inputs: keys of the objects that it was made of, by the name of the input."""

    key: str
    stage: str
    kind: str
    parameters: dict[str, Any]
    folder: Path
    inputs: Mapping[str, tuple[str, ...]]


class MadeByRun:
    """Objects by task, and the objects that they were made of.

    run: its folder. workspace: of the objects; None: the one that contains the folder.
    Raises HarkenError for a folder without a list of tasks.
    """

    def __init__(self, run: Path, workspace: Path | None = None) -> None:
        self.run = run
        self.workspace = Workspace(run.absolute().parents[1] if workspace is None else workspace)
        file = run / "tasks.json"
        if not file.is_file():
            raise HarkenError("has no list of its tasks", file=run, next_step="Run the recipe again")
        self._tasks: dict[str, dict[str, Any]] = json.loads(file.read_text())

    def seeds(self, stage: str, set: str, machine: str) -> list[int | None]:
        """Seeds of a stage's objects for a machine; None for an object that does not depend on the seed."""
        return [row["seed"] for row in self._rows(stage, set, machine)]

    def of(self, stage: str, set: str, machine: str, seed: int | None) -> Made:
        """The object of a stage for a machine and seed. Raises HarkenError without one."""
        for row in self._rows(stage, set, machine):
            if row["seed"] == seed:
                return self.get(row["object"])
        raise HarkenError(f"{stage} was not made for {machine}", file=self.run, next_step="Choose another machine")

    def get(self, key: str) -> Made:
        """The object of that key. Raises HarkenError where it is missing or damaged."""
        kept = self.workspace.get(key)
        record = {} if kept is None else json.loads((kept.folder / "stage.json").read_text())
        if kept is None or "inputs" not in record:
            raise HarkenError(
                f"what the run made is not in the workspace (object {key})"
                if kept is None
                else f"{record['stage']} was made by an older Harken, which did not record what it read",
                file=self.workspace.root,
                next_step="Run the recipe again, in a new workspace"
                if record
                else "Give the workspace of the run (--workspace), or run the recipe again",
            )
        inputs = {name: tuple(row["key"] for row in rows) for name, rows in record["inputs"].items()}
        return Made(key, record["stage"], record["kind"], record["parameters"], kept.folder, inputs)

    def _rows(self, stage: str, set: str, machine: str) -> list[dict[str, Any]]:
        return [
            row for row in self._tasks.values() if (row["stage"], row["set"], row["machine"]) == (stage, set, machine)
        ]
