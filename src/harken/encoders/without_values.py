"""Networks that get their weights later: built without memory, and without the values that torch draws for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _NoInitialValues(TorchFunctionMode):
    """Leaves tensors as they are where `nn.init` would fill them.

    They have no memory on the meta device; but the first normal distribution drawn there imports torch's compiler,
    which takes over a second of each process.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.normal_ or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def without_values() -> Iterator[None]:
    """Modules built here have shapes only: give them memory (`to_empty`), or assign a state to them."""
    with torch.device("meta"), _NoInitialValues():
        yield
