"""Published weights of TangoFlux: where they are, their digest and sizes; reading them is `tangoflux_files`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from harken.core.errors import WeightsError
from harken.encoders.checkpoints import load
from harken.generation.config import SIZES, TangoFluxConfig, published_config
from harken.weights.cache import cached, is_cached, status
from harken.weights.catalog import require_entry
from harken.weights.formats import file_sha256

#: what recipes call the published weights
PUBLISHED = "tangoflux"
#: their checkpoints in the catalogue: network and text encoder, autoencoder, tokenizer
CHECKPOINTS = (PUBLISHED, "tangoflux-vae", "flan-t5-large-tokenizer")
#: the same as files of one folder, and the network's settings
FILES = ("tangoflux.safetensors", "vae.safetensors", "tokenizer.json", "config.json")


def checkpoints_of(weights: str | None) -> tuple[str, ...]:
    """Checkpoints of the catalogue that `weights` of a recipe consist of."""
    return CHECKPOINTS if weights == PUBLISHED else ()


def weights_digest(weights: str | None) -> str | None:
    """Digest of published weights; None for random ones. Raises WeightsError, naming what is missing."""
    if weights is None:
        return None
    if weights == PUBLISHED:
        for name in CHECKPOINTS:
            if status(require_entry(name)) == "missing":
                raise WeightsError(
                    f"the weights {name} are not on this machine",
                    next_step=f"Run: harken weights fetch {name} (or, offline: harken weights add FILE)",
                )
            if not is_cached(name):
                load(name)
        digests = [record.sha256 for record in cached() if record.name in CHECKPOINTS]
    else:
        digests = [file_sha256(file) for file in published_files(Path(weights)).values()]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def config_for(weights: str | None, size: str) -> TangoFluxConfig:
    """Sizes of a generator; published weights have theirs. Raises HarkenError for a folder without them."""
    if weights is None:
        return SIZES[size]
    if weights == PUBLISHED:
        return SIZES["full"]
    file = published_files(Path(weights))["config.json"]
    try:
        return published_config(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"is not the config.json of a TangoFlux ({error})", file=file) from None


def published_files(folder: Path) -> dict[str, Path]:
    """Published files in a folder. Raises WeightsError, naming the first that is missing."""
    for name in FILES:
        if not (folder / name).is_file():
            raise WeightsError(
                f"the weights {folder} are not on this machine: there is no {name}",
                next_step=f"Name {PUBLISHED}, or a folder with {', '.join(FILES)}",
            )
    return {name: folder / name for name in FILES}
