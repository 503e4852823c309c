"""Processes of their own, forked from one that has imported everything: what is killed is at work, not at its imports,
and a start takes milliseconds in place of seconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harken.cli.main import run

_READY = multiprocessing.get_context("forkserver")
_READY.set_forkserver_preload(
    [
        "harken.cli.main", "harken.bench.run", "harken.bench.report", "harken.training.autoencoder", "torch._dynamo",
        "matplotlib.figure", "matplotlib.backends.backend_agg", "pandas", "harken.monitor.detector",
        "harken.service.monitor", "harken.service.sources.folder", "harken.page.server",
    ]
)  # fmt: skip


class Started:
    """function(*arguments) in a process at the head of its own group. out, err: files that its output is added to."""

    def __init__(
        self,
        function: Callable[..., object],
        *arguments: object,
        folder: Path | None = None,
        out: Path | None = None,
        err: Path | None = None,
    ) -> None:
        place = (folder or Path.cwd(), dict(os.environ), out or os.devnull, err or os.devnull)
        self._process = _READY.Process(target=_begin, args=(place, function, arguments))
        self._process.start()

    @property
    def pid(self) -> int:
        """Of the process and its group."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float = 120.0) -> int:
        """The exit code, when it has ended."""
        self._process.join(seconds)
        code = self.poll()
        assert code is not None, f"runs after {seconds:g} s"
        return code

    def send_signal(self, number: int) -> None:
        """Nothing is sent to one that has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Now, and wait for its end."""
        self.send_signal(signal.SIGKILL)
        self._process.join()


def command(*words: object, **places: Any) -> Started:
    """`harken WORDS`, as its entry point runs it."""
    return Started(_command, *map(str, words), **places)


def _command(*words: str) -> None:
    sys.argv = ["harken", *words]
    run()


def _begin(
    place: tuple[Path, dict[str, str], str | Path, str | Path],
    function: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    folder, environment, out, err = place
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, file in ((1, out), (2, err)):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    # What runs in a shell's background ignores Ctrl-C, and so would the process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    function(*arguments)
