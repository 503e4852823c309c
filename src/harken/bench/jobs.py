"""Shared by executors: a job, the interface of a pool of workers, and the work of a job."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from harken.bench.derived import check_derived, with_derived
from harken.bench.graph import Task, describe
from harken.bench.stages import Context, stage_class
from harken.bench.stages.base import Beside
from harken.bench.stages.tables import read_clips
from harken.bench.workspace import Object, Workspace, recorded_digest
from harken.core.errors import HarkenError
from harken.core.plugins import located_errors

#: what a disk is to blame for, of whatever it says
_OF_THE_DISK = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EROFS}

#: (done, all)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Job:
    """A task whose inputs are made, or a shard of its recordings.

    key: name of the task's object. inputs: folders that it reads, by the name of the input. shard: (index, count);
    None is the task itself. beside: keys and parameters of tasks whose recordings are listened to with those of this
    one (`Stage.listens_for_others`).
    """

    task: Task
    key: str
    inputs: Mapping[str, tuple[Path, ...]]
    shard: tuple[int, int] | None = None
    beside: tuple[tuple[str, Mapping[str, Any]], ...] = ()


#: a job and its object (None of a shard), or its error
Ended = tuple[Job, Object | HarkenError | None]


class Pool(Protocol):
    """Workers that see the workspace. `submit` and `wait` raise errors of tasks other than HarkenError."""

    def shards(self, task: Task) -> int:
        """Number of shards of a task that can run in parallel; 1 where sharding is no faster."""

    def width(self) -> int:
        """Number of tasks that can run in parallel, where these are not divided into shards."""

    def submit(self, job: Job, progress: Progress) -> bool:
        """Start a job. True if it has ended, having run in this process; only then `progress` is called."""

    def wait(self) -> list[Ended]:
        """Jobs that have ended since the last call, at least one. A submitted job must be left."""

    def close(self) -> None:
        """Release the workers; running jobs are cancelled."""


class Executor(Protocol):
    """Where tasks run."""

    def open(self, tasks: Mapping[str, Task], workspace: Workspace) -> Pool:
        """Workers for these tasks. Raises HarkenError without any."""


def perform(
    job: Job, root: Path, workers: int, progress: Progress = lambda done, total: None
) -> Object | HarkenError | None:
    """Run a job, in any process on any machine. root: of the workspace. workers: processes that it may use.

    Two attempts at the same job may run in parallel: both make the same files, and the first to end is used.
    """
    workspace = Workspace(root)
    if job.shard is not None:
        return _perform(job, workspace, workers, progress)
    with workspace.making(job.key):
        stored = workspace.get(job.key)
        return stored if stored is not None else _perform(job, workspace, workers, progress)


def _perform(job: Job, workspace: Workspace, workers: int, progress: Progress) -> Object | HarkenError | None:
    task, key = job.task, job.key
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
            beside=tuple(
                Beside(cls.Parameters.model_validate(parameters), workspace.scratch(sibling_key))
                for sibling_key, parameters in job.beside
            ),
        )
        parameters = cls.Parameters.model_validate(task.parameters)
        if job.shard is not None:
            cls.run_shard(parameters, context, *job.shard)
            return None
        with located_errors(task.kind):
            cls.run(parameters, context)
        if cls.makes == "clips":
            check_derived(read_clips(made), context.clips, cls, made)
        joined = workspace.get(key) or workspace.keep(key, made, {**describe(task), "inputs": _inputs(job)})
        return replace(joined, seconds=time.monotonic() - begun)
    except Exception as error:
        # A faster attempt has removed the scratch folder.
        stored = workspace.get(key)
        if stored is not None:
            return stored
        if isinstance(error, HarkenError):
            return error
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK and error.filename is None:
            error.filename = str(workspace.root)  # which a full disk does not name
        raise
    finally:
        workspace.drop(made)


def _inputs(job: Job) -> dict[str, list[dict[str, str]]]:
    """Key and digest of the objects that a job reads, by the name of the input."""
    return {
        name: [{"key": folder.name, "digest": recorded_digest(folder)} for folder in folders]
        for name, folders in job.inputs.items()
    }
