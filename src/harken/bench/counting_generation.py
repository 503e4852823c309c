"""Counts of the networks that generate clips and screen them, as of `counting`."""

from __future__ import annotations

import torch

from harken.bench.counting import count_both_ways
from harken.bench.work import Counts
from harken.generation.diffusion_settings import DiffusionConfig
from harken.generation.unet import SpectrogramUNet
from harken.generation.xception_classifier import SpectrogramXception
from harken.generation.xception_settings import XceptionConfig


def count_diffusion(config: DiffusionConfig, shape: tuple[int, int], batch: int) -> Counts:
    """Counts of a U-Net. shape: (frames, bins) of the spectrograms. Classes are left out: they are few numbers."""
    frames, bins = shape
    unit = config.unit
    size = (1, bins + -bins % unit, frames + -frames % unit)
    return count_both_ways(
        lambda: SpectrogramUNet(config, 1),
        lambda net, clips: net(torch.empty(clips, *size), torch.empty(clips), torch.zeros(clips, dtype=torch.long)),
        batch,
    )


def count_xception(config: XceptionConfig, classes: int, shape: tuple[int, int], batch: int) -> Counts:
    """Counts of an Xception. shape: (frames, bins) of the spectrograms."""
    return count_both_ways(
        lambda: SpectrogramXception(config, classes), lambda net, clips: net(torch.empty(clips, *shape)), batch
    )
