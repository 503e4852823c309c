"""Tasks in processes of this machine."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from harken.bench.graph import Task
from harken.bench.jobs import Ended, Executor, Job, Pool, Progress, perform
from harken.bench.stages import stage_class
from harken.bench.workspace import Object, Workspace
from harken.core.errors import HarkenError
from harken.core.workers import begin_worker, cores

#: seconds until a worker process has started and imported what stages need
_START_S = 4.0
#: seconds of the first task of a stage that are taken for imports
_IMPORTS_S = 2.0
#: seconds per clip of a stage that has not run yet
_UNSEEN_S = 0.01


@dataclass(frozen=True)
class LocalProcesses(Executor):
    """Tasks on this machine. workers: processes (default: one per core); 1 runs everything in this process.

    Stages that use several processes themselves run in this process in sequence, the others beside them, as soon as
    what is left of these takes longer than the start of processes.
    """

    workers: int | None = None

    def open(self, tasks: Mapping[str, Task], workspace: Workspace) -> LocalPool:
        return LocalPool(tasks, workspace, self.workers or cores())


class LocalPool(Pool):
    """See `Pool`."""

    def __init__(self, tasks: Mapping[str, Task], workspace: Workspace, workers: int) -> None:
        self.root, self.workers = workspace.root, workers
        self._ended: list[Ended] = []
        self._running: dict[Future[Object | HarkenError | None], Job] = {}
        self._processes: ProcessPoolExecutor | None = None
        # By kind of stage: clips of tasks that are to come, and least seconds per clip of those that ran here.
        self._left = Counter[str]()
        for task in tasks.values():
            self._left[task.kind] += 0 if stage_class(task.kind).spread else len(task.unit.clips)
        self._least_s: dict[str, float] = {}

    def shards(self, task: Task) -> int:
        return 1

    def width(self) -> int:
        return 1 if self._processes is None and not self._worth_processes() else self.workers

    def submit(self, job: Job, progress: Progress) -> bool:
        kind, clips = job.task.kind, len(job.task.unit.clips)
        if stage_class(kind).spread:
            self._ended.append((job, perform(job, self.root, self.workers, progress)))
            return True
        if self._processes is None and self._worth_processes():
            # Fresh interpreters: forking one with threads (BLAS, torch) may hang.
            self._processes = ProcessPoolExecutor(
                self.workers, mp_context=multiprocessing.get_context("spawn"), initializer=begin_worker
            )
        self._left[kind] -= clips
        if self._processes is not None:
            self._running[self._processes.submit(perform, job, self.root, 1)] = job
            return False
        begun = time.monotonic()
        self._ended.append((job, perform(job, self.root, self.workers, progress)))
        seconds = time.monotonic() - begun - (0.0 if kind in self._least_s else _IMPORTS_S)
        each_s = max(0.0, seconds) / max(1, clips)
        self._least_s[kind] = min(each_s, self._least_s.get(kind, each_s))
        return True

    def _worth_processes(self) -> bool:
        left_s = sum(clips * self._least_s.get(kind, _UNSEEN_S) for kind, clips in self._left.items())
        return left_s * (1 - 1 / self.workers) > _START_S

    def wait(self) -> list[Ended]:
        ended, self._ended = self._ended, []
        if self._running:
            done, _ = wait(self._running, timeout=0 if ended else None, return_when=FIRST_COMPLETED)
            for future in done:
                job = self._running.pop(future)
                try:
                    ended.append((job, future.result()))
                except BrokenProcessPool as error:
                    raise HarkenError(
                        f"a worker process died at {job.task.name}",
                        next_step="Run again, which resumes; use fewer --workers",
                    ) from error
        return ended

    def close(self) -> None:
        if self._processes is None:
            return
        if self._running:
            # The run was stopped: its unfinished tasks start again next time.
            for process in list((self._processes._processes or {}).values()):
                process.terminate()
        self._processes.shutdown(wait=True, cancel_futures=True)
