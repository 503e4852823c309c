"""First weights with which a separator gives back its mixture, so that training begins with separation; ours."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harken.separation.sepreformer import SepReformer

#: what of the usual random weights is left beside those that pass the mixture on
RANDOM_SHARE = 0.1
#: weights that pass on what is normalised or scaled afterwards: small ones, as a step moves every weight as far
SMALL = 0.2
#: of the lapped transform, so that its coefficients are of the order of 1 where the network listens
GAIN = 10.0


def passes_mixture_on(net: SepReformer) -> bool:
    """Whether `pass_mixture_on` fits: filters of two strides, one pair per sample of a stride, and as many features."""
    config = net.config
    return (
        config.kernel == 2 * config.stride
        and config.encoder_channels == 2 * config.stride
        and config.features >= config.stride
    )


def pass_mixture_on(net: SepReformer) -> None:
    """Set weights such that each output, and each auxiliary one, is about the mixture, to within its scale.

    Filters are those of a lapped orthogonal transform (MDCT, Princen and Bradley, 1986) and their negatives, as
    gelu(x) - gelu(-x) = x. Raises ValueError where they do not fit; see `passes_mixture_on`.
    """
    if not passes_mixture_on(net):
        raise ValueError("the filters are not those of a lapped transform")
    config = net.config
    size, features = config.stride, config.features
    basis_KN = _lapped_transform(size)
    signed_CN = torch.cat([basis_KN, -basis_KN])
    chosen_KC = torch.cat([torch.eye(size), -torch.eye(size)], dim=1)
    same_FF, none_FF = torch.eye(features), torch.zeros(features, features)
    wide_XF = torch.cat([same_FF, none_FF])
    splits = [f"s.{stage}" for stage in range(config.stages + 1)] if not config.shared_split else [""]
    with torch.no_grad():
        net.get_parameter("audio_encoder.conv1d.weight").copy_(GAIN * signed_CN[:, None])
        for decoder in ("audio_decoder", *(f"decoder_bn.{stage}" for stage in range(config.stages))):
            net.get_parameter(f"{decoder}.weight").copy_(signed_CN[:, None])
        _pass(net, "feature_projector.conv1d", F.pad(chosen_KC, (0, 0, 0, features - size)))
        for split in splits:
            name = f"separator.spk_split_block{split}.linear"
            # The first half of the outputs passes the gate, which is half open.
            passed_YF = torch.cat([wide_XF] * config.sources)
            _pass(net, f"{name}.0", torch.cat([passed_YF, torch.zeros_like(passed_YF)]))
            _pass(net, f"{name}.2", torch.kron(torch.eye(config.sources), SMALL * wide_XF.mT.contiguous()))
        for stage in range(config.stages):
            _pass(net, f"separator.simple_fusion.{stage}", torch.cat([none_FF, same_FF], dim=1))
            # Masks are about 1.
            net.get_parameter(f"out_layer_bn.{stage}.end_conv1x1.2.bias").fill_(1.0)
        _pass(net, "out_layer.end_conv1x1.0", torch.cat([wide_XF, torch.zeros_like(wide_XF)]))
        _pass(net, "out_layer.end_conv1x1.2", F.pad(SMALL * chosen_KC.mT, (0, 2 * features - size)))


def _pass(net: nn.Module, layer: str, weight_OI: Tensor) -> None:
    """Add a weight to a share of the random one of a layer; set its bias, if it has one, to zero."""
    parameters = dict(net.get_submodule(layer).named_parameters())
    weight = parameters.pop("weight")
    weight.mul_(RANDOM_SHARE).add_(weight_OI.reshape(weight.shape))
    for bias in parameters.values():
        bias.zero_()


def _lapped_transform(size: int) -> Tensor:
    """(size, 2 size) basis of the MDCT with a sine window."""
    n_N, k_K1 = torch.arange(2 * size), torch.arange(size)[:, None]
    window_N = torch.sin(math.pi / (2 * size) * (n_N + 0.5))
    return window_N * math.sqrt(2 / size) * torch.cos(math.pi / size * (n_N + 0.5 + size / 2) * (k_K1 + 0.5))
