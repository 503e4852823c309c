"""Running tasks: existing objects are reused, independent tasks run in parallel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from harken.bench.graph import Task
from harken.bench.jobs import Executor, Job, Pool
from harken.bench.local import LocalProcesses
from harken.bench.stages import stage_class
from harken.bench.workspace import Object, Workspace
from harken.core.errors import HarkenError, TooFewError

#: with fewer recordings per shard, starting a worker takes longer than it saves
SHARD_CLIPS = 64


@dataclass(frozen=True)
class Event:
    """Progress of a run: a task is `cached`, `started`, `done` (in `seconds`), `left out` or `failed`; done and total
    count tasks. A started task may wait for a worker.

    Tasks that run in this process are also `under way`: done, total then count their steps.
    """

    task: Task
    state: str
    done: int
    total: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Failure:
    """A task that could not be done, and why."""

    task: Task
    error: HarkenError


Watch = Callable[[Event], None]


def run_tasks(
    tasks: Mapping[str, Task],
    workspace: Workspace,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    watch: Watch = lambda event: None,
) -> tuple[dict[str, Object], list[Failure]]:
    """Objects of the tasks by name, and the tasks that failed; those that need a failed one are left out.

    executor: where they run; None: in `workers` processes of this machine. The files are the same with any executor and
    any number of workers. A kill loses running tasks only.
    """
    with closing((executor or LocalProcesses(workers)).open(tasks, workspace)) as pool:
        run = _Run(tasks, workspace, pool, watch)
        run.loop()
    return run.objects, run.failures


class _Run:
    def __init__(self, tasks: Mapping[str, Task], workspace: Workspace, pool: Pool, watch: Watch) -> None:
        self.tasks, self.workspace, self.pool, self.watch = tasks, workspace, pool, watch
        self.objects: dict[str, Object] = {}
        self.failures: list[Failure] = []
        self._waiting = list(tasks)
        self._failed: set[str] = set()
        # By key: the running task and those that wait for the same object; shards that have not ended.
        self._running: dict[str, list[Task]] = {}
        self._shards: Counter[str] = Counter()
        # Tasks whose recordings are listened to by another one, by the key of that one.
        self._beside: dict[str, list[str]] = {}

    def loop(self) -> None:
        while self._waiting or self._running:
            ready = next((name for name in self._waiting if self._ready(name)), None)
            if ready is None:
                self._collect()
                continue
            self._waiting.remove(ready)
            self._begin(self.tasks[ready])

    def _begin(self, task: Task) -> None:
        if self._failed & set(task.needs):
            self._failed.add(task.name)
            return
        try:
            key = task.key({need: self.objects[need].digest for need in task.needs})
        except HarkenError as error:
            self._fail(task, error)
            return
        if key in self._running:
            self._running[key].append(task)
            return
        stored = self.workspace.get(key)
        if stored is not None:
            self._finish(task, stored, "cached")
            return
        self._tell(task, "started")
        self._running[key] = [task]
        folders = {name: tuple(self.objects[need].folder for need in needs) for name, needs in task.inputs.items()}
        job = Job(task, key, folders, beside=tuple(self._joined(task, key)))
        count = 1
        if stage_class(task.kind).shards:
            count = min(self.pool.shards(task), len(task.unit.clips) // SHARD_CLIPS)
        if count > 1:
            self._shards[key] = count
            for index in range(count):
                self._submit(replace(job, shard=(index, count)))
        elif self._submit(job):
            self._collect()  # others become ready, or have ended meanwhile

    def _joined(self, task: Task, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Keys and parameters of the tasks that can be done beside this one; they wait until it has ended."""
        if not stage_class(task.kind).listens_for_others:
            return
        alike = [self.tasks[name] for name in self._waiting if self.tasks[name].kind == task.kind]
        ready = [sibling for sibling in alike if self._ready(sibling.name)]
        apart = {_joins(sibling) for sibling in [task, *ready]} | {
            _joins(running) for tasks in self._running.values() for running in tasks if running.kind == task.kind
        }
        if len(apart) < self.pool.width():
            return  # done in parallel they end earlier
        for sibling in ready:
            if _joins(sibling) != _joins(task) or self._failed & set(sibling.needs):
                continue
            try:
                sibling_key = sibling.key({need: self.objects[need].digest for need in sibling.needs})
            except HarkenError:
                continue  # raised again when it begins
            if sibling_key != key and sibling_key not in self._running and self.workspace.get(sibling_key) is None:
                self._waiting.remove(sibling.name)
                self._beside.setdefault(key, []).append(sibling.name)
                yield sibling_key, sibling.parameters

    def _submit(self, job: Job) -> bool:
        return self.pool.submit(job, partial(self._under_way, job.task))

    def _collect(self) -> None:
        for job, made in self.pool.wait():
            if job.shard is not None:
                # The task repeats what a shard failed to do, or raises its error.
                self._shards[job.key] -= 1
                if not self._shards[job.key]:
                    self._submit(replace(job, shard=None))
                continue
            self._waiting[:0] = self._beside.pop(job.key, [])
            for number, task in enumerate(self._running.pop(job.key)):
                if isinstance(made, HarkenError):
                    self._fail(task, made)
                else:
                    assert made is not None
                    self._finish(task, made, "cached" if number else "done")

    def _ready(self, name: str) -> bool:
        return all(need in self.objects or need in self._failed for need in self.tasks[name].needs)

    def _finish(self, task: Task, made: Object, state: str) -> None:
        self.objects[task.name] = made
        self._tell(task, state, made.seconds)

    def _fail(self, task: Task, error: HarkenError) -> None:
        self._failed.add(task.name)
        self.failures.append(Failure(task, error))
        self._tell(task, "left out" if isinstance(error, TooFewError) else "failed")

    def _under_way(self, task: Task, done: int, total: int) -> None:
        self.watch(Event(task, "under way", done, total))

    def _tell(self, task: Task, state: str, seconds: float = 0.0) -> None:
        self.watch(Event(task, state, len(self.objects), len(self.tasks), seconds))


def _joins(task: Task) -> tuple[object, ...]:
    """Equal for tasks that can be done beside each other, if they are of one kind."""
    return task.unit.set, task.unit.machine, task.seed, tuple(sorted(task.inputs.items()))
