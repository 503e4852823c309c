"""How many threads of the processor take part: sums that are split over others have other last bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harken.core.threads import one_thread


@contextmanager
def torch_threads(count: int = 1) -> Iterator[None]:
    """Within it, torch works on `count` threads and BLAS on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with one_thread():
            # Which also limits torch's own, where they are OpenMP's.
            torch.set_num_threads(count)
            yield
    finally:
        torch.set_num_threads(before)
