"""Tasks on the machines of a Ray cluster, which share the folder of the workspace and nothing else."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from harken.bench.graph import Task, Unit
from harken.bench.jobs import Ended, Executor, Job, Pool, Progress, perform
from harken.bench.stages import stage_class
from harken.bench.workspace import Object, Workspace
from harken.core.errors import HarkenError
from harken.core.extras import need
from harken.core.threads import one_thread_for_good
from harken.core.version import __version__
from harken.core.workers import cores

#: seconds for a node to answer, and for a folder made elsewhere to be seen
PATIENCE = 120.0
#: times that a task is begun whose worker or node dies each time
ATTEMPTS = 3
_PDEATHSIG = 1
#: the empty frame with which either side of HTTP/2 begins
_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


@dataclass(frozen=True)
class RayCluster(Executor):
    """address: `host:port`, `ray://host:port` or `auto`, the cluster that this machine is part of; None starts one on
    this machine for the time of the run, with `workers` cores (None: all). A program that has joined a cluster keeps
    it.

    task_cpus, task_gpus: what a task takes of a node, GPUs where it runs a neural network; fractions share one.
    """

    address: str | None = None
    task_cpus: float = 1.0
    task_gpus: float = 0.0
    workers: int | None = None

    def open(self, tasks: Mapping[str, Task], workspace: Workspace) -> RayPool:
        """Raises HarkenError without ray, without a cluster, and for nodes that cannot run the tasks."""
        if self.task_cpus <= 0 or self.task_gpus < 0 or (self.task_gpus > 1 and self.task_gpus % 1):
            raise HarkenError(
                f"a task cannot take {self.task_cpus:g} CPUs and {self.task_gpus:g} GPUs",
                next_step="Give more than 0 CPUs, and a fraction or a whole number of GPUs",
            )
        ray = _import_ray()
        if self.address is not None:
            _check_address(self.address)
        started = not ray.is_initialized()
        if started:
            self._connect(ray)
        pool = RayPool(ray, self, tasks, workspace, started)
        try:
            pool.check()
        except BaseException:
            pool.close()
            raise
        return pool

    def _connect(self, ray: Any) -> None:
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self.address is None:
            quiet |= {"address": "local", "num_cpus": self.workers or cores(), "include_dashboard": False}
            # Nobody else joins it: with this token, Ray does not leave one in the user's home.
            if not any(name.startswith("RAY_AUTH_") for name in os.environ):
                os.environ["RAY_AUTH_TOKEN"] = uuid.uuid4().hex
        else:
            quiet |= {"address": self.address}
        try:
            ray.init(**quiet)
        except Exception as error:
            cause = f"no Ray cluster can be joined at {self.address}" if self.address else "Ray does not start"
            raise HarkenError(
                f"{cause} ({_first_line(error)})",
                next_step="Start one with: ray start --head" if self.address else "Try: ray start --head",
            ) from error


class RayPool(Pool):
    """Tasks on a Ray cluster, which restarts those whose worker or node dies, on another node if necessary, until they
    have died `ATTEMPTS` times: then they are given up."""

    def __init__(
        self, ray: Any, cluster: RayCluster, tasks: Mapping[str, Task], workspace: Workspace, started: bool
    ) -> None:
        self.ray, self.cluster, self.started = ray, cluster, started
        sample = next((str(clip.path) for task in tasks.values() for clip in task.unit.clips), None)
        self.place = Place(
            root=workspace.root,
            token=_leave_token(workspace),
            folder=os.getcwd(),
            sample=sample if sample is not None and os.path.exists(sample) else None,
            environment={name: value for name, value in os.environ.items() if name.startswith("HARKEN_")},
            version=__version__,
            workers=max(1, int(cluster.task_cpus)),
        )
        self._running: dict[Any, Job] = {}
        self._units: dict[int, Any] = {}
        self._do = ray.remote(max_retries=ATTEMPTS - 1, scheduling_strategy="SPREAD", num_cpus=cluster.task_cpus)(_do)

    def check(self) -> None:
        """Raise HarkenError where no node is large enough, or one does not see code, workspace or recordings."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node for node in self._nodes() if _fits(node, self.cluster.task_cpus, 0) > 0]
        for gpus in (0.0, self.cluster.task_gpus):
            if not any(_fits(node, self.cluster.task_cpus, gpus) for node in nodes):
                raise HarkenError(
                    f"no node of the cluster has {self.cluster.task_cpus:g} CPUs and {gpus:g} GPUs for a task",
                    next_step="Give smaller --task-cpus and --task-gpus, or add nodes",
                )
        look = self.ray.remote(num_cpus=0, max_retries=1)(_look)
        asked = {}
        for node in nodes:
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[look.options(scheduling_strategy=where).remote(self.place)] = node["NodeManagerHostname"]
        answered, silent = self.ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE)
        for task in answered:
            try:
                wrong = self.ray.get(task)
            except self.ray.exceptions.RayTaskError as error:
                cause = f"node {asked[task]} cannot run harken ({_first_line(error.cause)})"
                raise HarkenError(cause, next_step=f"Install harken {__version__} there") from error
            except self.ray.exceptions.RayError:
                continue  # the node has gone meanwhile
            if wrong is not None:
                raise wrong
        if silent and not answered:
            raise HarkenError(
                f"node {asked[silent[0]]} did not answer in {PATIENCE:g} s", next_step="Check it with: ray status"
            )

    def shards(self, task: Task) -> int:
        gpus = self._gpus(task)
        return max(1, sum(_fits(node, self.cluster.task_cpus, gpus) for node in self._nodes()))

    def width(self) -> int:
        return 1  # tasks that listen are divided into shards

    def submit(self, job: Job, progress: Progress) -> bool:
        # There can be many clips: each node gets those of a unit once, not with every task.
        unit = job.task.unit
        if id(unit) not in self._units:
            self._units[id(unit)] = self.ray.put(unit)
        light = replace(job, task=replace(job.task, unit=replace(unit, clips=())))
        do = self._do.options(name=job.task.name, num_gpus=self._gpus(job.task))
        self._running[do.remote(self.place, light, self._units[id(unit)])] = job
        return False

    def wait(self) -> list[Ended]:
        errors = self.ray.exceptions
        try:
            self.ray.wait(list(self._running), num_returns=1)
            done, _ = self.ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
            ended = [self._outcome(task, self._running.pop(task)) for task in done]
        except errors.RayTaskError as error:
            raise error.cause from error
        except errors.RayError as error:
            raise HarkenError(
                f"the Ray cluster was lost ({_first_line(error)})", next_step="Start it, and run again, which resumes"
            ) from error
        for _, made in ended:
            if isinstance(made, UnfitNode):
                raise made
            if isinstance(made, Object):
                await_folder(made.folder)
        return ended

    def _outcome(self, task: Any, job: Job) -> Ended:
        errors = self.ray.exceptions
        try:
            return job, self.ray.get(task)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            return job, HarkenError(
                f"the worker of {job.task.name} died {ATTEMPTS} times ({_first_line(error)})",
                next_step="See whether it needs more memory than a node has: fewer tasks per node (--task-cpus), or "
                "--executor local",
            )

    def each(self, function: Callable[[Any], None], items: Iterable[Any], sample: Path) -> Iterator[HarkenError | None]:
        """Run `function` of each item on the nodes, as many as fit; None as each ends, in any order, or its error.

        sample: a file that all nodes must see. Raises HarkenError where one does not.
        """
        self.place = replace(self.place, sample=str(sample))
        self.check()
        run = self.ray.remote(max_retries=ATTEMPTS - 1, scheduling_strategy="SPREAD", num_cpus=self.cluster.task_cpus)(
            _run_item
        )
        place, running = self.ray.put(self.place), dict[Any, Any]()
        waiting = iter(items)
        most = 4 * max(1, sum(_fits(node, self.cluster.task_cpus, 0) for node in self._nodes()))
        try:
            while True:
                for item in islice(waiting, most - len(running)):
                    running[run.remote(place, function, item)] = item
                if not running:
                    return
                done, _ = self.ray.wait(list(running), num_returns=1)
                del running[done[0]]
                yield self._error_of(done[0])
        finally:
            for task in running:
                with suppress(Exception):
                    self.ray.cancel(task, force=True)

    def _error_of(self, task: Any) -> HarkenError | None:
        errors = self.ray.exceptions
        try:
            error: HarkenError | None = self.ray.get(task)
        except errors.RayTaskError as raised:
            raise raised.cause from raised
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as died:
            return HarkenError(
                f"its worker died {ATTEMPTS} times ({_first_line(died)})",
                next_step="See whether it needs more memory than a node has: fewer tasks per node (--task-cpus)",
            )
        except errors.RayError as lost:
            raise HarkenError(
                f"the Ray cluster was lost ({_first_line(lost)})", next_step="Start it, and run again, which resumes"
            ) from lost
        if isinstance(error, UnfitNode):
            raise error
        return error

    def close(self) -> None:
        Path(self.place.token).unlink(missing_ok=True)
        if self.started:
            # This ends the workers. Cancelling before it sometimes makes Ray abort, when a task ends meanwhile.
            self.ray.shutdown()
        elif self._running:
            for task in self._running:
                with suppress(Exception):
                    self.ray.cancel(task, force=True)
            self.ray.wait(list(self._running), num_returns=len(self._running), timeout=10)
        self._running.clear()
        self._units.clear()

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _gpus(self, task: Task) -> float:
        used = stage_class(task.kind).accelerated and task.parameters.get("device") != "cpu"
        return self.cluster.task_gpus if used else 0.0


@dataclass(frozen=True)
class Place:
    """The environment of tasks: that of the program that started them.

    token: a file of the workspace. folder: which relative paths start from. sample: one of the recordings, if it is
    there. workers: processes that a task may use.
    """

    root: Path
    token: str
    folder: str
    sample: str | None
    environment: dict[str, str]
    version: str
    workers: int

    def enter(self) -> UnfitNode | None:
        """Prepare this process for tasks; the error if that is impossible."""
        node = socket.gethostname()
        if self.version != __version__:
            return UnfitNode(
                f"node {node} has harken {__version__}, and not {self.version}",
                next_step="Install the same version everywhere",
            )
        if not os.path.exists(self.token):
            return UnfitNode(
                f"the workspace is not visible on node {node}",
                file=self.root,
                next_step="Put it on a shared file system, under the same path everywhere",
            )
        with suppress(OSError):
            os.chdir(self.folder)
        if self.sample is not None and not os.path.exists(self.sample):
            return UnfitNode(
                f"the recordings are not visible on node {node}",
                file=self.sample,
                next_step="Put them on a shared file system, under the same path everywhere",
            )
        os.environ.update(self.environment)
        one_thread_for_good()
        _children_die_with_us()
        return None


class UnfitNode(HarkenError):
    """A node that cannot run tasks."""


def await_folder(folder: Path) -> None:
    """Wait until a folder that another node made is visible here: shared file systems may be late.

    Raises HarkenError when it takes longer than two minutes.
    """
    end = time.monotonic() + PATIENCE
    while not folder.is_dir():
        if time.monotonic() > end:
            raise HarkenError("was made on another node, but is not visible here", file=folder, next_step="Run again")
        # Reading the parent folders makes NFS discard its cached absence.
        for above in (folder.parent.parent, folder.parent):
            with suppress(OSError):
                os.listdir(above)
        time.sleep(0.1)


def _look(place: Place) -> UnfitNode | None:
    return place.enter()


def _do(place: Place, job: Job, unit: Unit) -> Object | HarkenError | None:
    unfit = place.enter()
    if unfit is not None:
        return unfit
    try:
        for folder in (folder for folders in job.inputs.values() for folder in folders):
            await_folder(folder)
    except HarkenError as error:
        return error
    return perform(replace(job, task=replace(job.task, unit=unit)), place.root, place.workers)


def _run_item(place: Place, function: Callable[[Any], None], item: Any) -> HarkenError | None:
    unfit = place.enter()
    if unfit is not None:
        return unfit
    try:
        function(item)
    except HarkenError as error:
        return error
    return None


@cache
def _children_die_with_us() -> None:
    # Recordings are decoded in forked children. They inherit the connection by whose end Ray knows that this process
    # has died: one that outlives it would keep its task from being begun again.
    if sys.platform != "linux":
        return
    libc, parent = ctypes.CDLL(None), os.getpid()

    def begin() -> None:
        libc.prctl(_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    os.register_at_fork(after_in_child=begin)


def _leave_token(workspace: Workspace) -> str:
    token = workspace.root / "scratch" / f"visible.{uuid.uuid4().hex}"
    token.touch()
    return str(token)


def _fits(node: Mapping[str, Any], cpus: float, gpus: float) -> int:
    """Number of tasks that a node can run in parallel."""
    has = node["Resources"]
    return int(min(has.get(name, 0) / each + 1e-9 for name, each in (("CPU", cpus), ("GPU", gpus)) if each))


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # As Ray's present default: tasks without a share of a GPU see none. Set explicitly, it prints no warning.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    return need("ray", "clusters")


def _check_address(address: str) -> None:
    """Raises HarkenError where no gRPC server answers: Ray itself would try for minutes, and then end the program."""
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        raise HarkenError(
            f"{address!r} is not an address of a Ray cluster", next_step="Give host:port, ray://host:port, or auto"
        )
    try:
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS)
                if connection.recv(4)[3:] != _SETTINGS[3:4]:
                    raise OSError("it is not a port of Ray")
    except (OSError, OverflowError) as error:
        raise HarkenError(
            f"no Ray cluster answers at {address} ({error})", next_step="Start one with: ray start --head"
        ) from None


def _first_line(error: object) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
