"""How many threads of the processor linear algebra takes: sums that are split over others have other last bits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController, threadpool_limits


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it, BLAS and, where it has been imported, torch work on one thread, so that results do not depend on the
    number of cores. What the caller had set is restored.

    Cheap enough for every recording: the libraries are looked up once, so import what you use first.
    """
    if sys.modules.get("torch") is not None:
        with torch_threads(1):
            yield
    else:
        with _controller().limit(limits=1):
            yield


@contextmanager
def torch_threads(count: int = 1) -> Iterator[None]:
    """Within it, torch works on `count` threads and BLAS on one. What the caller had set is restored."""
    import torch

    before = torch.get_num_threads()
    try:
        with _controller().limit(limits=1):
            # Which also limits torch's own, where they are OpenMP's.
            torch.set_num_threads(count)
            yield
    finally:
        torch.set_num_threads(before)


def look_again() -> None:
    """To be called after code that may have brought libraries along."""
    _controller.cache_clear()


def one_thread_for_good() -> None:
    """For worker processes, which are the parallelism themselves."""
    threadpool_limits(1)
    if sys.modules.get("torch") is not None:
        import torch

        torch.set_num_threads(1)
