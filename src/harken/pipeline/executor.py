"""Running tasks: what is there already is not made again, what does not depend on each other runs side by side."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harken.errors import HarkenError
from harken.pipeline.graph import Task, describe
from harken.pipeline.stages import Context, stage_class
from harken.pipeline.workspace import Object, Workspace
from harken.threads import one_thread_for_good


@dataclass(frozen=True)
class Event:
    """Something to show: a task is `cached`, `started`, `done` or `failed`; done, total count tasks.

    Or it is `under way`, of which only tasks tell that run in this process: done, total then count its own parts.
    """

    task: Task
    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Failure:
    """A task that could not be done, and why."""

    task: Task
    error: HarkenError


Watch = Callable[[Event], None]


def run_tasks(
    tasks: Mapping[str, Task], workspace: Workspace, *, workers: int | None = None, watch: Watch = lambda event: None
) -> tuple[dict[str, Object], list[Failure]]:
    """Objects of the tasks by name, and the tasks that failed; those that need a failed one are left out.

    workers: processes (default: one a core); 1 runs everything in this process. The files made are the same whatever
    their number. A kill loses the tasks under way only.
    """
    workers = workers or len(os.sched_getaffinity(0))
    run = _Run(tasks, workspace, workers, watch)
    if workers == 1:
        run.loop(None)
        return run.objects, run.failures
    # Fresh interpreters: forking one with threads (BLAS, torch) may hang.
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=one_thread_for_good
    )
    try:
        run.loop(pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return run.objects, run.failures


class _Run:
    def __init__(self, tasks: Mapping[str, Task], workspace: Workspace, workers: int, watch: Watch) -> None:
        self.tasks, self.workspace, self.workers, self.watch = tasks, workspace, workers, watch
        self.objects: dict[str, Object] = {}
        self.failures: list[Failure] = []
        self._waiting = list(tasks)
        self._failed: set[str] = set()

    def loop(self, pool: ProcessPoolExecutor | None) -> None:
        running: dict[Future[Object], Task] = {}
        while self._waiting or running:
            for name in [name for name in self._waiting if self._ready(name)]:
                self._waiting.remove(name)
                task = self.tasks[name]
                if self._failed & set(task.needs):
                    self._failed.add(name)
                    continue
                try:
                    key = task.key([self.objects[need].digest for need in task.needs])
                except HarkenError as error:
                    self._fail(task, error)
                    continue
                here = self.workspace.get(key)
                if here is not None:
                    self._finish(task, here, "cached")
                    continue
                self._tell(task, "started")
                inputs = tuple(self.objects[need].folder for need in task.needs)
                if pool is None or stage_class(task.kind).spread:
                    try:
                        watched = partial(self._under_way, task)
                        made = _perform(task, key, inputs, self.workspace.root, self.workers, watched)
                        self._finish(task, made, "done")
                    except HarkenError as error:
                        self._fail(task, error)
                    break  # others may have become ready, or ended, meanwhile
                running[pool.submit(_perform, task, key, inputs, self.workspace.root, 1)] = task
            else:
                if running:
                    self._collect(running)

    def _collect(self, running: dict[Future[Object], Task]) -> None:
        ended, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            task = running.pop(future)
            try:
                self._finish(task, future.result(), "done")
            except HarkenError as error:
                self._fail(task, error)
            except BrokenProcessPool as error:
                raise HarkenError(
                    f"a worker process died at {task.name}", next_step="Run again (it goes on); use fewer --workers"
                ) from error

    def _ready(self, name: str) -> bool:
        return all(need in self.objects or need in self._failed for need in self.tasks[name].needs)

    def _finish(self, task: Task, made: Object, what: str) -> None:
        self.objects[task.name] = made
        self._tell(task, what)

    def _fail(self, task: Task, error: HarkenError) -> None:
        self._failed.add(task.name)
        self.failures.append(Failure(task, error))
        self._tell(task, "failed")

    def _under_way(self, task: Task, done: int, total: int) -> None:
        self.watch(Event(task, "under way", done, total))

    def _tell(self, task: Task, what: str) -> None:
        self.watch(Event(task, what, len(self.objects), len(self.tasks)))


def _perform(
    task: Task,
    key: str,
    inputs: tuple[Path, ...],
    root: Path,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Object:
    """Make the object of a task; in any process."""
    workspace = Workspace(root)
    cls = stage_class(task.kind)
    made = workspace.new(key)
    context = Context(
        clips=list(task.unit.clips),
        inputs=inputs,
        out=made,
        scratch=workspace.scratch(key),
        store=workspace.root / "store",
        logs=workspace.root / "logs" / task.name.replace("/", " ") / key[:8],
        seed=task.seed or 0,
        workers=workers,
        progress=progress,
    )
    try:
        cls.run(cls.Parameters.model_validate(task.parameters), context)
        return workspace.keep(key, made, describe(task))
    except BaseException:
        workspace.drop(made)
        raise
