"""What happens to a batch: augmented, embedded, classified; one module, so that several devices can share it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harken.training.augment.compose import Augmentation
from harken.training.augment.featex import featex
from harken.training.augment.mixup import mixup, one_hot
from harken.training.augment.random_state import rng_for
from harken.training.losses import create_loss, loss_class
from harken.training.losses.base import ClassLoss
from harken.training.models import ASDModel
from harken.training.settings import LossSpec
from harken.training.spectrograms import SpectrogramRows

#: clean, noise, mixture
MIXTURES = 3


class TrainingStep(nn.Module):
    """A model with the terms of its loss.

    classes: of the class labels. attribute_free: those that may want several centres. seed: of what is drawn.
    Raises HarkenError for unknown losses and parameters, ValueError for terms that do not fit the model or each other.
    """

    def __init__(
        self,
        model: ASDModel,
        losses: Sequence[LossSpec],
        *,
        classes: int,
        attribute_free: Sequence[int] = (),
        augmentation: Augmentation = Augmentation(),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.terms = tuple(losses)
        self.classes = classes
        self.augmentation = augmentation
        self.seed = seed
        exchanges = any(term.target == "exchanged" for term in losses)
        if exchanges != (augmentation.featex is not None):
            raise ValueError("FeatEx and a loss that is on the exchanged embedding go together")
        if exchanges and len(model.branch_dims) < 2:
            raise ValueError("FeatEx needs a model with two branches")
        self.losses = nn.ModuleList(
            _build(term, model.embedding_dim, classes, attribute_free, seed + number)
            for number, term in enumerate(losses)
        )
        if augmentation.mixup is not None:
            for term, loss in zip(losses, self.losses, strict=True):
                if term.target == "class" and not loss.soft_targets:
                    raise ValueError(f"mixup needs a loss that takes shares of classes, which {term.name} does not")

    def forward(
        self,
        wave_BS: Tensor,
        class_B: Tensor,
        mixture_B: Tensor | None,
        epoch: int,
        place: str,
        spectrograms: SpectrogramRows | None = None,
    ) -> dict[str, Tensor]:
        """Each term's loss by its number and name, weighted; their sum is what is learned from.

        wave_BS: (clips, samples). class_B: (clips,) class of each, -1 for none. mixture_B: second label of each, -1 for
        none. epoch, place: which batch this is; random numbers depend on these and the seed. spectrograms: clips of the
        batch that are none of waveforms; mixup mixes them with each other, and waveforms with waveforms.
        """
        shares_BC: Tensor | None = None
        settings = self.augmentation
        if settings.mixup is not None:
            shares_BC = one_hot(class_B, self.classes)
            rng = rng_for(self.seed, epoch, place, "mixup")
            if spectrograms is None:
                wave_BS, shares_BC = mixup(wave_BS, shares_BC, rng, settings.mixup)
            else:
                heard_B = torch.ones(len(wave_BS), dtype=torch.bool, device=wave_BS.device)
                heard_B[spectrograms.rows_K] = False
                rows_W = heard_B.nonzero()[:, 0]
                wave_WS, shares_WC = mixup(wave_BS[rows_W], shares_BC[rows_W], rng, settings.mixup)
                wave_BS = wave_BS.index_copy(0, rows_W, wave_WS)
                rng = rng_for(self.seed, epoch, place, "mixup of spectrograms")
                rows_K, spectrogram_KFM = spectrograms
                spectrogram_KFM, shares_KC = mixup(spectrogram_KFM, shares_BC[rows_K], rng, settings.mixup)
                spectrograms = SpectrogramRows(rows_K, spectrogram_KFM)
                shares_BC = shares_BC.index_copy(0, rows_W, shares_WC).index_copy(0, rows_K, shares_KC)
        self.model.spectrogram_augment = None
        if settings.spec_augment is not None:
            rngs = [rng_for(self.seed, epoch, f"{place}.{row}", "spec_augment") for row in range(len(wave_BS))]
            self.model.spectrogram_augment = settings.spec_augment.for_batch(rngs)
        branches = self.model.branches(wave_BS, spectrograms=spectrograms)
        embedding_BD = self.model.join(branches)
        losses: dict[str, Tensor] = {}
        for number, (term, loss) in enumerate(zip(self.terms, self.losses, strict=True)):
            if term.target == "exchanged":
                assert settings.featex is not None
                rng = rng_for(self.seed, epoch, place, "featex")
                known_BC = one_hot(class_B, self.classes) if shares_BC is None else shares_BC
                exchanged, triple_BC = featex(branches, known_BC, rng, settings.featex)
                value = loss(self.model.join(exchanged), triple_BC)
            elif term.target == "mixture":
                if mixture_B is None:
                    raise ValueError("a loss on the mixture needs labels with a second label: the policy unisound")
                value = _of_known(loss, embedding_BD, mixture_B)
            elif shares_BC is not None:
                value = loss(embedding_BD, shares_BC)
            else:
                value = _of_known(loss, embedding_BD, class_B)
            losses[f"{number}_{term.name}"] = term.weight * value
        return losses

    def class_loss(self) -> ClassLoss:
        """The first term on the class, whose centres tell which class an embedding is of."""
        number = next(number for number, term in enumerate(self.terms) if term.target == "class")
        loss = self.losses[number]
        assert isinstance(loss, ClassLoss)
        return loss

    def classify(self, wave_BS: Tensor, class_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss of the first term on the class, logits (clips, classes), embedding (clips, D); without augmentation."""
        loss = self.class_loss()
        embedding_BD = self.model(wave_BS)
        return loss(embedding_BD, class_B), loss.logits(embedding_BD), embedding_BD


def _of_known(loss: nn.Module, embedding_BD: Tensor, label_B: Tensor) -> Tensor:
    """Mean loss of the clips that have a label; zero, with a gradient of zeros, if none has."""
    known_B = label_B >= 0
    if not bool(known_B.any()):
        return (embedding_BD * 0.0).sum()
    value: Tensor = loss(embedding_BD[known_B], label_B[known_B])
    return value


def _build(term: LossSpec, dim: int, classes: int, attribute_free: Sequence[int], seed: int) -> ClassLoss:
    number = {"class": classes, "exchanged": 3 * classes, "mixture": MIXTURES}[term.target]
    given: Mapping[str, Any] = {"dim": dim, "classes": number}
    parameters = inspect.signature(loss_class(term.name)).parameters
    if "seed" in parameters:
        given = {**given, "seed": seed}
    if "attribute_free" in parameters:
        several = list(attribute_free) if term.target == "class" else []
        given = {**given, "attribute_free": several}
    return create_loss(term.name, {**given, **term.parameters})
