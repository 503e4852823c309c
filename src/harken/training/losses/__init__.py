"""Classification losses on embeddings, registered here by explicit name, or custom: `file.py:Class`.

All are constructed with (dim, classes, ...), called with (embedding_BD, target) for a scalar, and have `.logits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from harken.core.errors import HarkenError, did_you_mean
from harken.core.plugins import build, is_custom, load_class

if TYPE_CHECKING:
    from harken.training.losses.base import ClassLoss

__all__ = ["create_loss", "list_losses", "loss_class"]

# Module and class, imported on use: they need torch.
_LOSSES = {
    "adaproj": ("harken.training.losses.adaproj", "AdaProj"),
    "adaptive_prototype": ("harken.training.losses.adaptive_prototype", "AdaptivePrototype"),
    "arcface": ("harken.training.losses.arcface", "ArcFace"),
    "scadacos": ("harken.training.losses.scadacos", "SCAdaCos"),
    "subcentre_arcface": ("harken.training.losses.subcentre_arcface", "SubcentreArcFace"),
}


def list_losses() -> tuple[str, ...]:
    """Names of all built-in losses."""
    return tuple(sorted(_LOSSES))


def loss_class(name: str) -> type[ClassLoss]:
    """Class of a built-in or custom loss. Raises HarkenError, suggesting the nearest name, for an unknown one."""
    if is_custom(name):
        from harken.training.losses.base import ClassLoss

        return load_class(name, ClassLoss)  # type: ignore[type-abstract]
    if name not in _LOSSES:
        raise HarkenError(f"unknown loss {name!r}", next_step=did_you_mean(name, list_losses()))
    module, attribute = _LOSSES[name]
    cls: type[ClassLoss] = getattr(import_module(module), attribute)
    return cls


def create_loss(name: str, parameters: Mapping[str, Any]) -> ClassLoss:
    """Create a loss with new centres; `parameters` must include dim and classes.

    Raises HarkenError, suggesting the nearest name, for an unknown name or parameter and for a missing one; ValueError
    for invalid values.
    """
    return build(loss_class(name), name, parameters)
