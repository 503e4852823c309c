"""What the tests of several encoders share: inputs, official files, and checks that each calls with numbers of its own.

What holds for every encoder without such numbers is in test_encoders.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harken.core.errors import WeightsError
from harken.encoders.torch_encoder import TorchEncoder

Arrays = dict[str, np.ndarray]
#: a `read_checkpoint`: tensors and the rest of a file -> configuration and weights
Reader = Callable[[Mapping[str, np.ndarray], Mapping[str, Any]], tuple[dict[str, Any], Arrays] | None]


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    """Random networks of the reference implementations, with their inputs and outputs."""
    return shared / "golden" / "encoders"


def noise(clips: int, samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.1, size=(clips, samples)).astype(np.float32)


def official(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Tensors and the rest of a file."""
    found = torch.load(path, weights_only=True)
    return {name: tensor.numpy() for name, tensor in found.pop("model").items()}, found


def check_reads(
    read: Reader,
    files: Iterable[tuple[Arrays, dict[str, Any]]],
    config: dict[str, Any],
    weights: Mapping[str, np.ndarray],
) -> None:
    """Every file gives the configuration and the weights: to the last bit, where its tensors are float32."""
    for tensors, about in files:
        found = read(tensors, about)
        assert found is not None
        assert found[0] == config
        assert found[1].keys() == weights.keys()
        half = any(array.dtype == np.float16 for array in tensors.values())
        for name, array in found[1].items():
            assert array.dtype == (np.float32 if weights[name].dtype.kind == "f" else weights[name].dtype)
            if half:
                np.testing.assert_allclose(array, weights[name], rtol=5e-4, atol=1e-6)
            else:
                assert np.array_equal(array, weights[name])


def check_damage_is_refused(
    read: Reader,
    tensors: Arrays,
    about: dict[str, Any],
    *,
    needed: Sequence[str],
    count: int,
    unknown: Sequence[str],
    narrow: int = 7,
) -> None:
    """Files are refused without any of the `needed` of `count` tensors, and with one that is not as it should be.

    Not as it should be is another shape (an axis more, or `narrow` of its last one), not finite, and `unknown`.
    """
    for name in needed:
        with pytest.raises(WeightsError, match=rf"lacks 1 of {count}"):
            read({key: array for key, array in tensors.items() if key != name}, about)
        for wrong in (tensors[name][..., :narrow], tensors[name][None]):
            with pytest.raises(WeightsError):
                read(tensors | {name: wrong}, about)
    with pytest.raises(WeightsError, match="not finite"):
        read(tensors | {needed[0]: np.full_like(tensors[needed[0]], np.nan)}, about)
    # A part that computes something else is not left out.
    for name in unknown:
        with pytest.raises(WeightsError, match="does not know"):
            read(tensors | {name: np.ones(96)}, about)


def check_layers(encoder: TorchEncoder, samples: int, shape: tuple[int, int]) -> np.ndarray:
    """All layers in one pass, each of `shape`, are those that are asked for one by one; (2, layers, *shape)."""
    found = encoder.encode(noise(2, samples), layers=encoder.layers)
    assert found.layers == encoder.layers
    assert found.features_BLTD.shape == (2, len(encoder.layers), *shape)
    for index, layer in enumerate(encoder.layers):
        alone = encoder.encode(noise(2, samples), layers=(layer,))
        assert np.array_equal(found.features_BLTD[:, index], alone.features_BLTD[:, 0])
    # Nothing asked for is the default layer, from the network as well.
    with torch.inference_mode():
        (default,) = encoder.module(torch.from_numpy(noise(2, samples)))
    index = encoder.layers.index(encoder.default_layer)
    np.testing.assert_allclose(default[:, : shape[0]], found.features_BLTD[:, index], atol=1e-5)
    return found.features_BLTD


def check_everything_learns(net: nn.Module, samples: int, layers: tuple[str, ...], *, blind: str = " ") -> None:
    """The waveform and every parameter get a gradient, of padded clips too; parameters named `blind` one of zeros."""
    net.train()
    wave = torch.from_numpy(noise(2, samples)).requires_grad_()
    outputs = net(wave, layers, torch.tensor([samples, 9_000]))
    # Not the plain mean or square, of which a last normalisation leaves nothing to learn.
    sum((found * torch.linspace(0, 1, found[0].numel()).view_as(found[0])).mean() for found in outputs).backward()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name.endswith(blind), name


def check_front_end_keeps_precision(net: nn.Module, front_end: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Within autocast a spectrogram is the same to the last bit, and what comes of it is finite."""
    wave = torch.from_numpy(noise(2, 16_000))
    with torch.no_grad():
        exact = front_end(wave)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(front_end(wave), exact)
            assert net(wave)[0].isfinite().all()
