"""Whether there is a GPU, without loading torch where there is none."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path


def default_device() -> str:
    """`cuda` where torch finds a GPU, else `cpu`.

    Torch takes seconds to load: it is only asked where the driver has a device. Its answer does not start CUDA in this
    process, which may be forked afterwards.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or not any(Path("/dev").glob("nvidia[0-9]*")) or find_spec("torch") is None:
        return "cpu"
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
