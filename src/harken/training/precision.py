"""What float32 products are computed in while a network is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32_products(use: bool) -> Iterator[None]:
    """Context in which matrix products of float32 on a GPU are computed in tf32 (10 bits of mantissa), if `use`; else
    nothing changes. The caller's setting is restored. Products on a CPU stay in fp32, to the bit."""
    if not use:
        yield
        return
    # Not set_float32_matmul_precision, which is also of processors.
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
