"""Classification losses on embeddings, registered here by explicit name, or custom: `file.py:Class`.

All are built from (dim, classes, ...), called with (embedding_BD, target) for a scalar, and have `.logits`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from harken.core.errors import HarkenError, did_you_mean
from harken.core.plugins import blamed, is_custom, load_class

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
    """Names of all losses."""
    return tuple(sorted(_LOSSES))


def loss_class(name: str) -> type[ClassLoss]:
    """The class of a loss, or of a custom one; HarkenError, naming the nearest, for an unknown name."""
    if is_custom(name):
        from harken.training.losses.base import ClassLoss

        return load_class(name, ClassLoss)  # type: ignore[type-abstract]
    if name not in _LOSSES:
        raise HarkenError(f"unknown loss {name!r}", next_step=_nearest(name, _LOSSES))
    module, attribute = _LOSSES[name]
    found: type[ClassLoss] = getattr(import_module(module), attribute)
    return found


def create_loss(name: str, parameters: Mapping[str, Any]) -> ClassLoss:
    """A loss with fresh centres; `parameters` hold at least dim and classes.

    Raises HarkenError, naming the nearest, for an unknown name or parameter, and for one that is missing; ValueError
    for a value that makes no loss.
    """
    found = loss_class(name)
    known = inspect.signature(found).parameters
    for parameter in parameters:
        if parameter not in known:
            raise HarkenError(f"{name} has no parameter {parameter!r}", next_step=_nearest(parameter, known))
    for parameter, told in known.items():
        if told.default is told.empty and parameter not in parameters:
            raise HarkenError(f"{name} needs the parameter {parameter!r}", next_step="Give it")
    with blamed(name):
        return found(**parameters)


def _nearest(word: str, known: Iterable[str]) -> str:
    known = list(known)
    return did_you_mean(word, known, f"Choose one of {', '.join(sorted(known))}")
