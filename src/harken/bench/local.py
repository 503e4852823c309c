"""Tasks in processes of this machine."""

from __future__ import annotations

import multiprocessing
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


@dataclass(frozen=True)
class LocalProcesses(Executor):
    """Tasks on this machine. workers: processes (default: one per core); 1 runs everything in this process.

    Stages that use several processes themselves run in this process in sequence, the others beside them.
    """

    workers: int | None = None

    def open(self, tasks: Mapping[str, Task], workspace: Workspace) -> LocalPool:
        return LocalPool(workspace, self.workers or cores())


class LocalPool(Pool):
    """See `Pool`."""

    def __init__(self, workspace: Workspace, workers: int) -> None:
        self.root, self.workers = workspace.root, workers
        self._ended: list[Ended] = []
        self._running: dict[Future[Object | HarkenError | None], Job] = {}
        # Fresh interpreters: forking one with threads (BLAS, torch) may hang.
        self._processes = (
            ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=begin_worker)
            if workers > 1
            else None
        )

    def shards(self, task: Task) -> int:
        return 1

    def width(self) -> int:
        return self.workers

    def submit(self, job: Job, progress: Progress) -> bool:
        if self._processes is None or stage_class(job.task.kind).spread:
            self._ended.append((job, perform(job, self.root, self.workers, progress)))
            return True
        self._running[self._processes.submit(perform, job, self.root, 1)] = job
        return False

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
