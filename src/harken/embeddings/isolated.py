"""A function of many recordings, in processes that may crash or hang without harm to this one."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool
from pebble.common.types import CONSTS

from harken.core.errors import AudioError, HarkenError
from harken.core.workers import begin_worker
from harken.embeddings.embedder import ClipFeatures

# A pool looks at its state so often, and ends when it has looked: by default a tenth of a second of each pool.
CONSTS.sleep_unit = 0.02

#: recordings per worker that are worked on, or whose results wait
_AHEAD = 16


@dataclass(frozen=True)
class Extracted:
    """Outcome for one path: `features`, or the `error` for which it was set aside.

    cached: found in the store. further: what was made of the features in the worker, see `extract_together`.
    """

    path: Path
    features: ClipFeatures | None = None
    error: HarkenError | None = None
    cached: bool = False
    further: Any = None


@dataclass(frozen=True)
class Together:
    """Results that come together: at most `count`, of which none waits longer than `patience_s` for the next one."""

    count: int = 1
    patience_s: float = 0.0


def isolated(
    function: Callable[[Path], Any],
    names: list[Path],
    *,
    workers: int | None,
    timeout: float,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Iterator[Any]:
    """function(name) of each name, in order; a crash, or `timeout` seconds without an end, is an `Extracted` error.

    workers: processes (None: one per core); 0 works in this process, unprotected. initializer: called in each worker.
    """
    for results in isolated_together(
        function, names, Together(), workers=workers, timeout=timeout, initializer=initializer, initargs=initargs
    ):
        yield from results


def isolated_together(
    function: Callable[[Path], Any],
    names: list[Path],
    together: Together,
    *,
    workers: int | None,
    timeout: float,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Iterator[list[Any]]:
    """As `isolated`, in lists of consecutive results."""
    if workers == 0:
        yield from _in_this_process(function, names, together)
        return
    if workers is not None and workers < 0:
        raise HarkenError(
            f"{workers} workers are too few", next_step="Give 0 for none, or leave it out for one per core"
        )
    count = min(workers or os.cpu_count() or 1, max(1, len(names)))
    with ProcessPool(
        max_workers=count,
        initializer=_worker_begins,
        initargs=(initializer, initargs),
        context=multiprocessing.get_context(start_method()),
    ) as pool:
        waiting: deque[tuple[Path, Any]] = deque()
        left = iter(names)

        def schedule() -> None:
            while len(waiting) < _AHEAD * count and (path := next(left, None)) is not None:
                waiting.append((path, pool.schedule(function, args=[path], timeout=timeout)))

        try:
            schedule()
            while waiting:
                results = [_outcome(*waiting.popleft(), timeout)]
                begun = time.monotonic()
                schedule()
                while waiting and len(results) < together.count:
                    remaining_s = max(0.0, begun + together.patience_s - time.monotonic())
                    if not wait([waiting[0][1]], timeout=remaining_s).done:
                        break
                    results.append(_outcome(*waiting.popleft(), timeout))
                    schedule()
                yield results
        except BaseException:
            pool.stop()  # type: ignore[no-untyped-call]
            raise


def _in_this_process(function: Callable[[Path], Any], names: list[Path], together: Together) -> Iterator[list[Any]]:
    results: list[Any] = []
    begun = time.monotonic()
    for path in names:
        results.append(function(path))
        if len(results) >= together.count or time.monotonic() - begun >= together.patience_s:
            yield results
            results, begun = [], time.monotonic()
    if results:
        yield results


def start_method() -> str:
    """Fork shares weights and modules and starts in milliseconds; the parent has no torch threads to lose."""
    return "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"


def _worker_begins(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    begin_worker()
    if initializer is not None:
        initializer(*initargs)


def _outcome(path: Path, future: Any, timeout: float) -> Any:
    try:
        return future.result()
    except FutureTimeout:
        cause = f"took longer than {timeout:g} s and was given up"
    except ProcessExpired as expired:
        cause = f"crashed the decoder or encoder (exit code {expired.exitcode})"
    return Extracted(path, error=AudioError(cause, file=path, next_step="Remove it or record it again"))
