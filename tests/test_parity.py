"""Every encoder against the reference implementations, loaded as a user loads an official file.

`pytest tests/test_parity.py -s` prints the table of largest absolute differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from harken.encoders import create_encoder
from harken.encoders.base import Encoder
from harken.encoders.checkpoints import load
from harken.encoders.torch_encoder import TorchEncoder

#: of tokens and frames: the float32 filter bank of bands with next to no energy explains what is more than 1e-5
TOKENS = 2e-4
#: of means over them, of which embeddings are made
POOLED = 1e-5
Reference = dict[str, torch.Tensor]
Rows = Iterator[tuple[str, torch.Tensor | np.ndarray, torch.Tensor]]


def trained(folder: Path, name: str, **config: Any) -> TorchEncoder:
    found = load(folder / f"{name}_tiny.pt")
    encoder: Encoder = create_encoder(name, {**found.config, **config}, found.weights)
    assert isinstance(encoder, TorchEncoder)
    encoder.module.eval()
    return encoder


def beats(folder: Path, reference: Reference) -> Rows:
    wave, padding = reference["waveform"], reference["padding_mask"].bool()
    for attention in ("sdpa", "eager"):
        net: Any = trained(folder, "beats", attention=attention).module
        yield "filter bank", net.spectrogram(wave), reference["fbank"]
        yield f"features, {attention}", net(wave)[0], reference["features"]
        lengths = (~padding).sum(dim=1)
        valid = ~reference["padding_mask_out"].bool()
        assert (net.valid_tokens(lengths, wave.shape[1]) == valid.sum(dim=1)).all()
        masked = net(wave, lengths_B=lengths)[0]
        yield f"masked features, {attention}", masked[valid], reference["features_masked"][valid]


def eat(folder: Path, reference: Reference) -> Rows:
    encoder = trained(folder, "eat")
    net: Any = encoder.module
    wave = reference["waveform"]
    yield "spectrogram", net.spectrogram(wave), reference["spectrogram"][:, 0]
    yield "features", net(wave, (encoder.default_layer,))[0], reference["features"]
    for index in range(3):
        yield f"layer target {index}", net(wave, (f"target_{index + 1}",))[0], reference[f"layer_target_{index}"]


def fisher(folder: Path, reference: Reference) -> Rows:
    for rate, bands in ((16_000, 2), (48_000, 6)):
        encoder = trained(folder, "fisher", sample_rate=rate)
        net: Any = encoder.module
        wave = reference[f"waveform_{rate}"][None]
        # Bins beyond the last whole sub-band are dropped; their logarithms magnify the last digit of the mean.
        used = slice(0, 100 * bands)
        yield (
            f"spectrogram, {rate} Hz",
            net.spectrogram(wave)[..., used],
            reference[f"spectrogram_{rate}"][:, 0, :, used],
        )
        found = encoder.encode(wave.numpy())
        yield f"embedding, {rate} Hz", found.features_BLTD[:, 0, 0], reference[f"embedding_{rate}"]


def dasheng(folder: Path, reference: Reference) -> Rows:
    encoder = trained(folder, "dasheng")
    net: Any = encoder.module
    yield "spectrogram", net.spectrogram(reference["waveform"]), reference["spectrogram"][:, 0]
    for name, what in (("", "features"), ("_12s", "features, 12 s in two chunks")):
        found = encoder.encode(reference[f"waveform{name}"].numpy())
        yield what, found.features_BLTD[:, 0], reference[f"features{name}"]


@pytest.mark.parametrize("rows", [beats, eat, fisher, dasheng], ids=lambda rows: rows.__name__)
def test_parity_with_the_reference(rows: Callable[[Path, Reference], Rows], shared: Path) -> None:
    folder = shared / "golden" / "encoders"
    with torch.inference_mode():
        for what, ours, theirs in rows(folder, load_file(folder / f"{rows.__name__}_tiny_io.safetensors")):
            ours = torch.as_tensor(ours)
            assert ours.shape == theirs.shape, what
            difference = float((ours - theirs).abs().max())
            pooled = float((ours.mean(dim=-2) - theirs.mean(dim=-2)).abs().max()) if "features" in what else 0.0
            print(f"{rows.__name__:<9}{what:<32}{difference:.1e}{pooled:>12.1e}")
            assert difference <= (POOLED if "embedding" in what else TOKENS), what
            assert pooled <= POOLED, what
