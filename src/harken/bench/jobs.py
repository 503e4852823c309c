"""What executors share: a job, what a pool of workers can do, and how a job is done once it has a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from harken.bench.derived import check_derived, with_derived
from harken.bench.graph import Task, describe
from harken.bench.stages import Context, stage_class
from harken.bench.stages.tables import read_clips
from harken.bench.workspace import Object, Workspace, recorded_digest
from harken.core.errors import HarkenError
from harken.core.plugins import located_errors

#: (done, all)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Job:
    """A task whose inputs are there, or a part of its recordings.

    key: name of the task's object. inputs: folders that it reads, by the name of the input. shard: (index, count);
    None is the task itself.
    """

    task: Task
    key: str
    inputs: Mapping[str, tuple[Path, ...]]
    shard: tuple[int, int] | None = None


#: a job and its object (None of a shard), or why it could not be done
Ended = tuple[Job, Object | HarkenError | None]


class Pool(Protocol):
    """Workers that see the workspace. What is no HarkenError comes out of `submit` or `wait` as it is."""

    def shards(self, task: Task) -> int:
        """Parts of a task that can run side by side; 1 where parts would not make it faster."""

    def submit(self, job: Job, progress: Progress) -> bool:
        """Whether it has ended already, having run in this process; only then it is told of its progress."""

    def wait(self) -> list[Ended]:
        """Those that have ended since the last call, at least one. There must be one that has not been given back."""

    def close(self) -> None:
        """Let go of the workers; jobs under way are given up."""


class Executor(Protocol):
    """Where tasks run."""

    def open(self, tasks: Mapping[str, Task], workspace: Workspace) -> Pool:
        """Workers for these tasks. Raises HarkenError where there are none."""


def perform(
    job: Job, root: Path, workers: int, progress: Progress = lambda done, total: None
) -> Object | HarkenError | None:
    """Do a job, in any process on any machine. root: of the workspace. workers: processes that it may use.

    A second attempt while the first is still at it does no harm: both make the same, and the first to end is taken.
    """
    workspace = Workspace(root)
    task, key = job.task, job.key
    if job.shard is None:
        here = workspace.get(key)
        if here is not None:
            return here
    cls = stage_class(task.kind)
    made, begun = workspace.new(key), time.monotonic()
    try:
        folders = [
            folder for name, made_by in job.inputs.items() if cls.inputs[name].makes == "clips" for folder in made_by
        ]
        context = Context(
            clips=with_derived(task.unit, cls, folders) if folders else list(task.unit.clips),
            inputs=job.inputs,
            out=made,
            scratch=workspace.scratch(key),
            store=workspace.root / "store",
            logs=workspace.root / "logs" / task.name.replace("/", " ") / key[:8],
            seed=task.seed or 0,
            workers=workers,
            progress=progress,
        )
        parameters = cls.Parameters.model_validate(task.parameters)
        if job.shard is not None:
            cls.run_shard(parameters, context, *job.shard)
            return None
        with located_errors(task.kind):
            cls.run(parameters, context)
        if cls.makes == "clips":
            check_derived(read_clips(made), context.clips, cls, made)
        whole = workspace.get(key) or workspace.keep(key, made, {**describe(task), "inputs": _inputs(job)})
        return replace(whole, seconds=time.monotonic() - begun)
    except Exception as error:
        # Whoever was faster has cleared the scratch folder under our feet.
        here = workspace.get(key)
        if here is not None:
            return here
        if isinstance(error, HarkenError):
            return error
        raise
    finally:
        workspace.drop(made)


def _inputs(job: Job) -> dict[str, list[dict[str, str]]]:
    """Key and digest of the objects that a job reads, by the name of the input."""
    return {
        name: [{"key": folder.name, "digest": recorded_digest(folder)} for folder in folders]
        for name, folders in job.inputs.items()
    }
