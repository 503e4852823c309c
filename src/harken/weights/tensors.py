"""Named arrays, and whether they are those of an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import WeightsError

Weights = Mapping[str, NDArray[Any]]


def check_tensors(
    weights: Weights,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    architecture: str,
    file: str | Path | None = None,
) -> None:
    """Raise WeightsError unless `weights` has exactly the tensors in `shapes`, all of them finite numbers."""
    next_step = f"Use weights made for {architecture}"
    missing = [name for name in shapes if name not in weights]
    if missing:
        cause = f"lacks {len(missing)} of {len(shapes)} tensors of {architecture}, first {missing[0]}"
        raise WeightsError(cause, file=file, next_step=next_step)
    unknown = [name for name in weights if name not in shapes]
    if unknown:
        cause = f"has {len(unknown)} tensors that {architecture} does not know, first {unknown[0]}"
        raise WeightsError(cause, file=file, next_step=next_step)
    for name, shape in shapes.items():
        array = weights[name]
        if tuple(array.shape) != shape:
            cause = f"has {name} of shape {tuple(array.shape)}, {architecture} needs {shape}"
            raise WeightsError(cause, file=file, next_step=next_step)
        if array.dtype.kind not in "fiu":
            cause = f"has {name} of type {array.dtype}, not numbers"
            raise WeightsError(cause, file=file, next_step=next_step)
        if not np.isfinite(array).all():
            raise WeightsError(
                f"has values in {name} that are not finite", file=file, next_step="Train or download it again"
            )
