"""One thread for linear algebra: sums that are split over threads differ in their last bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController, threadpool_limits


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it, BLAS works on one thread, so that results do not depend on the number of cores.

    Cheap enough for every recording: the libraries are looked up once, so import what you use first.
    """
    with _controller().limit(limits=1):
        yield


def look_again() -> None:
    """To be called after code that may have brought libraries along."""
    _controller.cache_clear()


def one_thread_for_good() -> None:
    """For worker processes, which are the parallelism themselves."""
    threadpool_limits(1)
