"""Operations of TangoFlux, counted without weights or memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from harken.bench.counting import _counted, _shapes_only, _with_shapes_only
from harken.bench.work import Counts, Work
from harken.generation.autoencoders import Oobleck
from harken.generation.config import TangoFluxConfig
from harken.generation.finetuning import ADAPTED
from harken.generation.latents import REACH, SoundCodec
from harken.generation.tangoflux import Conditioning, TangoFlux
from harken.generation.tangoflux_settings import FinetuningSpec
from harken.training.lora import add_lora_to

#: tokens of a caption, and that of the duration
TOKENS = 33


def count_finetuning(config: TangoFluxConfig, spec: FinetuningSpec) -> Counts:
    """Of a batch both ways with its latents at hand, and of one pass of one clip."""
    with _shapes_only():
        net = TangoFlux(config)
        if spec.adapter is not None:
            add_lora_to(net, ADAPTED, spec.adapter.rank, spec.adapter.alpha)
            net.duration_emebdder.requires_grad_(True)
            net.fc.requires_grad_(True)
        if spec.recompute:
            for block in (*net.transformer.transformer_blocks, *net.transformer.single_transformer_blocks):
                block.forward = partial(_with_shapes_only, block.forward)
            net.transformer.enable_gradient_checkpointing()
        net.train()
        with _counted([]) as both_ways:
            _velocity(net, spec.batch).sum().backward()
        net.eval()
        with _counted([]) as forward, torch.no_grad():
            _velocity(net, 1)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in net.parameters()]
    total, learned = sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
    # Transposed weights were counted as if they were copies.
    copies = 4.0 * total
    return Counts(
        total, learned, forward.work(), both_ways.work(), both_ways.peak - copies, max(0.0, forward.peak - copies)
    )


def count_codec(config: TangoFluxConfig, seconds: float, *, decoding: bool) -> Counts:
    """Of a clip of so many seconds, encoded or decoded as far as it takes."""
    kind = config.autoencoder
    latents = min(config.latents, int(seconds * kind.sample_rate / kind.hop) + 1 + 2 * REACH)
    with _shapes_only():
        autoencoder = SoundCodec(config).autoencoder
        if not isinstance(autoencoder, Oobleck):
            return Counts(0, 0, Work(0, 0), Work(0, 0), 0, 0)
        with _counted([]) as passed, torch.no_grad():
            if decoding:
                autoencoder.sound(torch.empty(latents, config.channels))
            else:
                autoencoder.latents(torch.empty(latents * kind.hop))
    parameters = sum(parameter.numel() for parameter in autoencoder.parameters())
    return Counts(parameters, 0, passed.work(), Work(0, 0), 0, passed.peak)


def _velocity(net: TangoFlux, clips: int) -> Any:
    config = net.config
    width = config.text.width
    condition = net.condition(torch.empty(clips, TOKENS - 1, width), torch.ones(clips, TOKENS - 1), torch.ones(clips))
    return net(torch.empty(clips, config.latents, config.channels), torch.ones(clips), Conditioning(*condition))
