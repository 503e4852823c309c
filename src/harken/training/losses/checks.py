"""What every loss does, as checks: of Harken's, and of custom ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harken.core.conformance import check_all, require, require_refusal
from harken.core.threads import torch_threads
from harken.training.losses import create_loss
from harken.training.losses.base import ClassLoss

Make = Callable[[], ClassLoss]

DIM, CLASSES = 6, 3


def check_loss(loss: str | type[ClassLoss], parameters: Mapping[str, Any] | None = None) -> None:
    """Raise AssertionError, saying which check fails and how, unless the loss passes all of `CHECKS`.

    loss: a class, or any name that `create_loss` takes. parameters: but for dim and classes.
    """

    def make() -> ClassLoss:
        given = {"dim": DIM, "classes": CLASSES, **(parameters or {})}
        return create_loss(loss, given) if isinstance(loss, str) else loss(**given)

    with torch_threads(1), torch.random.fork_rng(devices=[]):
        check_all(loss if isinstance(loss, str) else loss.__name__, CHECKS, make)


def it_is_a_number_with_a_gradient(make: Make) -> None:
    """It is one finite number, with a finite gradient for every embedding."""
    embedding_BD, class_B = clips()
    embedding_BD.requires_grad_()
    value = built(make)(embedding_BD, class_B)
    require(value.shape == (), f"It is of shape {tuple(value.shape)}.")
    require(bool(torch.isfinite(value)), f"It is {float(value.detach())}.")
    value.backward()  # type: ignore[no-untyped-call]
    require(embedding_BD.grad is not None, "There is no gradient.")
    assert embedding_BD.grad is not None
    require(bool(torch.isfinite(embedding_BD.grad).all()), "The gradient is not finite.")
    require(bool((embedding_BD.grad != 0).any(dim=1).all()), "Some embeddings have no gradient.")


def logits_name_the_class(make: Make) -> None:
    """Logits are (clips, classes), finite."""
    logits_BC = built(make).logits(clips()[0])
    require(tuple(logits_BC.shape) == (12, CLASSES), f"They are of shape {tuple(logits_BC.shape)}.")
    require(bool(torch.isfinite(logits_BC).all()), "Some are not finite.")


def classes_are_learned(make: Make) -> None:
    """Trained for 200 steps, embeddings and the loss's parameters separate three classes, and the loss is lower."""
    loss = built(make).train()
    embedding_BD, class_B = clips()
    embedding_BD.requires_grad_()
    optimiser = torch.optim.Adam([embedding_BD, *loss.parameters()], lr=0.05)
    first = float(loss(embedding_BD, class_B).detach())
    for _ in range(200):
        optimiser.zero_grad()
        loss(embedding_BD, class_B).backward()
        optimiser.step()
    right = (loss.eval().logits(embedding_BD).argmax(dim=1) == class_B).float().mean()
    require(float(right) == 1.0, f"{float(right):.0%} of the clips have the highest logit at their class.")
    last = float(loss(embedding_BD, class_B).detach())
    require(last < first, f"It was {first:.3g} and is {last:.3g}.")


def the_same_seed_is_the_same(make: Make) -> None:
    """Built twice under one seed, it gives the same to the last bit."""
    embedding_BD, class_B = clips()
    values = [float(built(make)(embedding_BD, class_B).detach()) for _ in range(2)]
    require(values[0] == values[1], f"It gives {values}.")


def wrong_input_is_refused(make: Make) -> None:
    """ValueError for embeddings of another dimension, an empty batch and a class that does not exist."""
    loss = built(make)
    embedding_BD, class_B = clips()
    require_refusal(partial(loss, embedding_BD[:, 1:], class_B), "Other dimensions were taken.")
    require_refusal(partial(loss, embedding_BD[:0], class_B[:0]), "An empty batch was taken.")
    require_refusal(partial(loss, embedding_BD, class_B + CLASSES), "Classes that do not exist were taken.")


CHECKS: tuple[Callable[[Make], None], ...] = (
    it_is_a_number_with_a_gradient,
    logits_name_the_class,
    the_same_seed_is_the_same,
    wrong_input_is_refused,
    classes_are_learned,
)


def built(make: Make) -> ClassLoss:
    """A loss whose centres are the same each time."""
    torch.default_generator.manual_seed(0)
    return make()


def clips() -> tuple[Tensor, Tensor]:
    """(12, DIM) embeddings and the (12,) classes that they are trained to."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(12, DIM, generator=generator), torch.arange(12) % CLASSES
