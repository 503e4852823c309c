"""Generators of sound from weights: published ones, random ones, and those that were fine-tuned here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harken.core.errors import HarkenError, WeightsError
from harken.encoders.checkpoints import load
from harken.encoders.without_values import without_values
from harken.generation.config import TangoFluxConfig
from harken.generation.latents import SoundCodec
from harken.generation.sound_generator import SoundGenerator, modules_of
from harken.generation.tangoflux import TangoFlux
from harken.generation.tangoflux_weights import (
    CHECKPOINTS,
    FILES,
    PUBLISHED,
    config_for,
    published_files,
    weights_digest,
)
from harken.generation.text import Tokenizer, text_encoder
from harken.training.arrays import module_arrays, over, under
from harken.training.checkpoints import read_arrays, write_arrays
from harken.weights.formats import TEXT, read_contents

Arrays = Mapping[str, NDArray[Any]]

_TEXT = "text_encoder."


def create_tangoflux(weights: str | None, size: str = "tiny", seed: int = 0) -> SoundGenerator:
    """A generator with published weights, or with random ones.

    weights: `tangoflux`, of the catalogue; or a folder with `FILES`, as they are published; None: random ones of a
    `size` of `SIZES`. Raises WeightsError for weights that are missing, damaged or of something else.
    """
    digest = weights_digest(weights)
    config = config_for(weights, size)
    if weights is None:
        torch.manual_seed(seed)
        generator = _built(config, Tokenizer(config.text), None)
        generator.digest = _digest(generator)
        return generator
    if weights == PUBLISHED:
        network, autoencoder, tokenizer = (dict(load(name).weights) for name in CHECKPOINTS)
        content = tokenizer[TEXT].tobytes()
    else:
        files = published_files(Path(weights))
        network, autoencoder = (read_contents(files[name], None).tensors for name in FILES[:2])
        content = files["tokenizer.json"].read_bytes()
    with without_values():
        generator = _built(config, Tokenizer(config.text, content), weights)
    _assign(generator.net, {name: x for name, x in network.items() if not name.startswith(_TEXT)}, weights)
    of_text = {name.removeprefix(_TEXT): x for name, x in network.items() if name.startswith(_TEXT)}
    # The tensor is shared, and published once.
    of_text.setdefault("encoder.embed_tokens.weight", of_text.get("shared.weight", np.zeros(0)))
    _assign(generator.encoder, of_text, weights)
    generator.codec = SoundCodec(config)
    _assign(generator.codec.autoencoder, {f"net.{name}": x for name, x in autoencoder.items()}, weights)
    generator.digest = str(digest)
    return generator


def write_tangoflux(file: Path, generator: SoundGenerator, size: str, metadata: Mapping[str, Any]) -> None:
    """Write a fine-tuned generator: its network, and what else has random weights. Published parts are only named."""
    modules = modules_of(generator)
    kept = modules if generator.source is None else {"net": modules["net"]}
    arrays: dict[str, NDArray[Any]] = {}
    for name, module in kept.items():
        arrays |= over(module_arrays(module), name)
    header = {"source": generator.source, "size": size, "published_sha256": weights_digest(generator.source)}
    write_arrays(file, arrays, {"generator": header, **metadata})


def read_tangoflux(file: Path) -> SoundGenerator:
    """A generator of `write_tangoflux`. Raises HarkenError for another file, WeightsError where its published parts are
    missing or have changed."""
    arrays, metadata = read_arrays(file)
    header = metadata.get("generator")
    if not isinstance(header, dict):
        raise HarkenError("is no generator of sound", file=file, next_step="Name one that was trained here")
    source = header["source"]
    if weights_digest(source) != header["published_sha256"]:
        raise WeightsError(
            f"was trained from other weights than {source} are now", file=file, next_step="Train it again"
        )
    generator = create_tangoflux(source, header["size"])
    for name, module in modules_of(generator).items():
        if source is None or name == "net":
            _assign(module, under(arrays, name), str(file))
    with file.open("rb") as handle:
        generator.digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return generator


def _built(config: TangoFluxConfig, tokenizer: Tokenizer, source: str | None) -> SoundGenerator:
    net = TangoFlux(config).eval()
    return SoundGenerator(net, text_encoder(config.text), tokenizer, SoundCodec(config), source, "")


def _assign(module: nn.Module, arrays: Arrays, source: str | None) -> None:
    # Arrays may be views of a file's bytes, which cannot be written to.
    tensors = {name: torch.from_numpy(np.array(array, dtype=np.float32)) for name, array in arrays.items()}
    try:
        module.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        cause = str(error).splitlines()[1:2] or [str(error)]
        raise WeightsError(
            f"are weights of something else ({cause[0].strip()[:200]})", file=source, next_step="Get them again"
        ) from None


def _digest(generator: SoundGenerator) -> str:
    digest = hashlib.sha256()
    for name, module in modules_of(generator).items():
        for tensor, array in sorted(module_arrays(module).items()):
            digest.update(f"{name}.{tensor}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
