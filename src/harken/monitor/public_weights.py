"""Weights of the catalogue that a bundle names, by the sha256 of their converted file, instead of copying them.

They are the same on every machine and may be hundreds of megabytes; what was trained here, and small weights, are
copied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from harken.core.errors import BundleError
from harken.encoders.checkpoints import load
from harken.weights.cache import cached, is_cached, read_checked
from harken.weights.catalog import entry_named, is_checkpoint_name
from harken.weights.formats import from_safetensors

#: bytes of weights that are copied in any case
LARGEST_COPIED = 20 * 2**20

Arrays = dict[str, np.ndarray]


def without_public(weights: Arrays, *, grouped: bool) -> tuple[Arrays, list[dict[str, str]]]:
    """Arrays to copy into a bundle, and references for the rest: `name`, `sha256`, `prefix` of the arrays' names.

    grouped: whether names may begin with `<number>/`, one group for each further embedding (`weights_of`).
    """
    groups: dict[str, Arrays] = {}
    for name, array in weights.items():
        before, slash, plain_name = name.rpartition("/") if grouped else ("", "", name)
        groups.setdefault(before + slash, {})[plain_name] = array
    copied: Arrays = {}
    references = []
    for prefix, arrays in groups.items():
        public = _public_name(arrays)
        if public is None:
            copied |= {prefix + name: array for name, array in arrays.items()}
        else:
            references.append({"prefix": prefix, "name": public[0], "sha256": public[1]})
    return copied, references


def public_arrays(reference: Mapping[str, Any], bundle: Path | str) -> Arrays:
    """What a reference stands for, from the cache; never from the network.

    Raises WeightsError, which says how to fetch them, where they are missing or damaged; BundleError where they are
    others than the bundle was made with.
    """
    name, sha256, prefix = reference["name"], reference["sha256"], reference["prefix"]
    if not is_checkpoint_name(name):
        raise ValueError(f"{name!r} names no weights")
    if not is_cached(name):
        # From the folder HARKEN_WEIGHTS, if they are there.
        load(name)
    record, data = read_checked(name)
    if record.sha256 != sha256:
        raise BundleError(
            f"was made with other weights {name} (sha256 {sha256[:12]}) than are here ({record.sha256[:12]})",
            file=bundle,
            next_step=f"Run: harken weights fetch {name}; or fit the model again",
        )
    return {prefix + tensor: array for tensor, array in from_safetensors(data, name).items()}


def _public_name(arrays: Arrays) -> tuple[str, str] | None:
    """Name and sha256 of the cached weights of the catalogue that these are; None for others and small ones."""
    if sum(array.nbytes for array in arrays.values()) <= LARGEST_COPIED:
        return None
    records = [record for record in cached() if entry_named(record.name) is not None]
    if not records:
        return None
    sha256 = hashlib.sha256(save(arrays)).hexdigest()
    return next(((record.name, sha256) for record in records if record.sha256 == sha256), None)
