"""Which encoders there are: each registers its class by name, and is imported when it is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from typing import Any, TypeVar

import numpy as np

from harken.core.errors import HarkenError, did_you_mean
from harken.core.extras import missing
from harken.core.plugins import is_custom, load_class, located_errors
from harken.encoders.base import Encoder

#: packages whose modules may register encoders; they are read, not imported, so that names cost no torch
_PACKAGES = ("harken.encoders", "harken.training")
_DECORATED = re.compile(r'^@register_encoder\("(\w+)"(, listed=False)?\)$', re.MULTILINE)

_CLASSES: dict[str, type[Encoder]] = {}

#: what arithmetic says of settings of another kind, which come with weights and models of strangers
_ODD_SETTINGS = (
    TypeError, OverflowError, AttributeError, IndexError, KeyError, ZeroDivisionError, RuntimeError,
)  # fmt: skip

EncoderClass = TypeVar("EncoderClass", bound=type[Encoder])


def register_encoder(name: str, *, listed: bool = True) -> Callable[[EncoderClass], EncoderClass]:
    """Class decorator: the encoder is known as `name`, which becomes its `name`.

    Written out on a line of its own, `@register_encoder("beats")`, in a module of this room or of `training`.
    listed: whether it can be built from its configuration alone and stands in `list_encoders`.
    """

    def register(cls: EncoderClass) -> EncoderClass:
        cls.name = name
        _CLASSES[name] = cls
        return cls

    return register


@lru_cache(maxsize=1)
def _modules() -> dict[str, tuple[str, bool]]:
    """Module of each registered name, and whether it is listed; by the decorators in the source files."""
    modules = {}
    for package in _PACKAGES:
        for file in files(package).iterdir():
            if file.name.endswith(".py"):
                for name, unlisted in _DECORATED.findall(file.read_text(encoding="utf-8")):
                    modules[name] = f"{package}.{file.name.removesuffix('.py')}", not unlisted
    return modules


def list_encoders() -> tuple[str, ...]:
    """Names of all encoders that come with Harken."""
    return tuple(sorted(name for name, (_, listed) in _modules().items() if listed))


def encoder_class(name: str) -> type[Encoder]:
    """Class of the encoder `name`: a registered one, or a custom one, `file.py:Class` or `package.module:Class`.

    Raises HarkenError, naming the nearest, if there is none or torch is missing; see `load_class`.
    """
    if is_custom(name):
        return load_class(name, Encoder)  # type: ignore[type-abstract]
    if name not in _modules():
        file = f"Write it as {name}:Class" if name.endswith(".py") else None
        hint = file or did_you_mean(name, list_encoders(), f"Choose one of {', '.join(list_encoders())}")
        raise HarkenError(f"unknown encoder {name!r}", next_step=hint)
    if name not in _CLASSES:
        try:
            import_module(_modules()[name][0])
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise missing("torch", f"encoders such as {name}") from None
    return _CLASSES[name]


def tiny_config(name: str) -> dict[str, Any]:
    """Arguments of a small network of an architecture, for tests; empty where it has no small variant."""
    return dict(encoder_class(name).sizes.get("tiny", {}))


def create_encoder(
    name: str, config: Mapping[str, Any] | None = None, weights: Mapping[str, np.ndarray] | None = None
) -> Encoder:
    """Build an encoder from its JSON-able configuration and, where it has any, its weights.

    Raises HarkenError, WeightsError or ValueError for settings or weights that are none of such an encoder.
    """
    cls = encoder_class(name)
    arguments = dict(config or {})
    if cls.needs_weights:
        arguments["weights"] = weights
    with located_errors(name):
        try:
            return cls(**arguments)
        except _ODD_SETTINGS as error:
            if is_custom(name):
                raise
            said = " ".join(str(error).split())[:200]
            cause = f"{name} cannot be built with such settings ({type(error).__name__}: {said})"
            raise HarkenError(cause, next_step="Correct its settings, or add its weights again") from error
