"""Waveform -> embedding. One self-contained file per architecture, registered here by explicit name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from harken.core.errors import HarkenError, did_you_mean
from harken.core.plugins import blamed, is_custom, load_class
from harken.encoders.base import Embedding, Encoder
from harken.encoders.frame_encoder import FrameEncoder

__all__ = ["Embedding", "Encoder", "FrameEncoder", "create_encoder", "encoder_class", "list_encoders", "tiny_config"]

# Module and class, imported on use: only the neural encoders need torch.
_ENCODERS = {
    "beats": ("harken.encoders.beats", "BEATs"),
    "dasheng": ("harken.encoders.dasheng", "Dasheng"),
    "dual_branch": ("harken.encoders.dual_branch", "DualBranch"),
    "eat": ("harken.encoders.eat", "EAT"),
    "efficientat": ("harken.encoders.efficientat", "EfficientAT"),
    "fisher": ("harken.encoders.fisher", "FISHER"),
    "log_mel": ("harken.encoders.log_mel", "LogMel"),
    "spectral": ("harken.encoders.spectral", "Spectral"),
    "yamnet": ("harken.encoders.yamnet", "YAMNet"),
}


def list_encoders() -> tuple[str, ...]:
    """Names of all encoders that come with Harken."""
    return tuple(sorted(_ENCODERS))


def encoder_class(name: str) -> type[Encoder]:
    """Class of the encoder `name`, one of `list_encoders` or one's own, `file.py:Class` or `package.module:Class`.

    Raises HarkenError, naming the nearest, if there is none or torch is missing; see `load_class`.
    """
    if is_custom(name):
        return load_class(name, Encoder)  # type: ignore[type-abstract]
    if name not in _ENCODERS:
        file = f"Write it as {name}:Class" if name.endswith(".py") else None
        hint = file or did_you_mean(name, _ENCODERS, f"Choose one of {', '.join(list_encoders())}")
        raise HarkenError(f"unknown encoder {name!r}", next_step=hint)
    module, attribute = _ENCODERS[name]
    try:
        found = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise HarkenError(
            f"the encoder {name} needs torch, which is not installed",
            next_step="Install it with: pip install 'harken[torch]'",
        ) from None
    return found  # type: ignore[no-any-return]


def tiny_config(name: str) -> dict[str, Any]:
    """Arguments of a small network of an architecture, for tests; empty where it has no small variant."""
    return dict(getattr(sys.modules[encoder_class(name).__module__], "TINY", {}))


def create_encoder(
    name: str, config: Mapping[str, Any] | None = None, weights: Mapping[str, np.ndarray] | None = None
) -> Encoder:
    """Build an encoder from its JSON-able configuration and, where it has any, its weights."""
    found = encoder_class(name)
    arguments = dict(config or {})
    if found.needs_weights:
        arguments["weights"] = weights
    with blamed(name):
        return found(**arguments)
