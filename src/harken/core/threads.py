"""Numbers of threads of BLAS and torch: results depend on them in the last bits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController, threadpool_limits

#: packages that bring threads of their own with them
_THREADED = ("numpy", "scipy", "sklearn", "torch")


def _controller() -> ThreadpoolController:
    return _listed(tuple(name for name in _THREADED if name in sys.modules))


@lru_cache(maxsize=1)
def _listed(packages: tuple[str, ...]) -> ThreadpoolController:
    """Libraries that these packages have loaded: they are listed anew when there is another one."""
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Context in which BLAS and, if imported, torch use one thread: results do not depend on the number of cores.

    The caller's settings are restored. Cheap enough for each recording. What is imported within the context is not
    limited: import it before, or open another one.
    """
    if sys.modules.get("torch") is not None:
        with torch_threads(1):
            yield
    else:
        with blas_threads(1):
            yield


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Context in which BLAS uses `count` threads. The caller's settings are restored."""
    with _controller().limit(limits=count):
        yield


@contextmanager
def torch_threads(count: int = 1) -> Iterator[None]:
    """Context in which torch uses `count` threads and BLAS one. The caller's settings are restored."""
    import torch

    before = torch.get_num_threads()
    try:
        with blas_threads(1):
            # After the limit, which also applies to torch if it uses OpenMP.
            torch.set_num_threads(count)
            yield
    finally:
        torch.set_num_threads(before)


def refresh_libraries() -> None:
    """List libraries anew; call it after running code that may have loaded some."""
    _listed.cache_clear()


def one_thread_for_good() -> None:
    """Set BLAS and torch to one thread permanently, in worker processes."""
    threadpool_limits(1)
    if sys.modules.get("torch") is not None:
        import torch

        torch.set_num_threads(1)
