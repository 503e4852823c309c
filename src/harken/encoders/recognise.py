"""Files of weights -> encoder, configuration and tensors by their names here."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import WeightsError
from harken.core.json_text import json_text
from harken.encoders.onnx import is_onnx, read_onnx
from harken.encoders.registry import encoder_class, list_encoders
from harken.weights.catalog import Checkpoint, catalog
from harken.weights.formats import Contents, file_sha256, read_contents
from harken.weights.structure import check_structure
from harken.weights.tensors import Weights, check_tensors


class Loaded(NamedTuple):
    """Everything `create_encoder` takes."""

    encoder: str
    config: dict[str, Any]
    weights: dict[str, NDArray[Any]]


def is_alike(entry: Checkpoint, loaded: Loaded) -> bool:
    """Whether what was read is of the catalogue entry's architecture and sizes, as far as the catalogue knows them."""
    if loaded.encoder != entry.encoder:
        return False
    if entry.tensors:
        return _has_tensors(loaded.weights, entry)
    if entry.config is None:
        return True
    arguments = signature(encoder_class(entry.encoder)).parameters.values()
    defaults = {argument.name: argument.default for argument in arguments}
    return {**defaults, **entry.config} == {**defaults, **loaded.config}


def recognise(path: Path, entry: Checkpoint | None) -> Loaded:
    """Read a file of any format, find its architecture, and bring its tensors to the converted form.

    entry: the checkpoint that the file holds, where that is known. An ONNX file is taken as it is.
    """
    if entry is None and is_onnx(path):
        return Loaded("onnx", {"threads": 1}, {**read_onnx(path)})
    member = None
    if entry is not None and any(source.member for source in entry.files):
        member = {source.sha256: source.member for source in entry.files}.get(file_sha256(path))
    contents = read_contents(path, member)
    recognised = _network(path, contents.tensors, entry)
    if recognised is None:
        recognised = _from_reader(path, contents, list_encoders() if entry is None else (entry.encoder,))
    recognised = recognised or _from_catalog(path, contents.tensors, entry)
    return recognised._replace(weights={name: _plain(recognised.weights[name]) for name in sorted(recognised.weights)})


def _network(path: Path, tensors: Weights, entry: Checkpoint | None) -> Loaded | None:
    """Of a network that is no encoder, as it is; None for anything else. WeightsError for another file than that of
    `entry`, and for one that has some of the tensors of a network and is not it."""
    networks = [candidate for candidate in (catalog() if entry is None else [entry]) if candidate.tensors]
    for candidate in networks:
        if _has_tensors(tensors, candidate):
            check_structure(candidate, tensors, path)
            return Loaded(candidate.encoder, dict(candidate.config or {}), dict(tensors))
    if entry is not None and networks:
        raise WeightsError(
            f"does not hold the weights {entry.name}", file=path, next_step=f"Get them from {entry.source}"
        )
    return None


def _has_tensors(tensors: Weights, entry: Checkpoint) -> bool:
    return all(
        name in tensors
        and len(tensors[name].shape) == len(shape)
        and all(length in (0, actual) for length, actual in zip(shape, tensors[name].shape, strict=True))
        for name, shape in entry.tensors.items()
    )


def _from_reader(path: Path, contents: Contents, encoders: Sequence[str]) -> Loaded | None:
    """By the first of `encoders` that can read the file, None if none knows it."""
    refusal: WeightsError | None = None
    for encoder in encoders:
        try:
            read = encoder_class(encoder).read_checkpoint(contents.tensors, contents.settings)
        except WeightsError as error:
            # Architectures resemble each other; another may still know the file.
            refusal = refusal or WeightsError(error.cause, file=path, next_step=error.next_step)
            continue
        if read is not None:
            return Loaded(encoder, *read)
    if refusal is not None:
        raise refusal
    return None


def _from_catalog(path: Path, tensors: Weights, entry: Checkpoint | None) -> Loaded:
    """By likeness to the entries of the catalogue whose files hold the converted names already."""
    architectures = _architectures() if entry is None else [(entry.encoder, entry.config or {})]
    best: tuple[int, str, dict[str, Any], dict[str, tuple[int, ...]]] | None = None
    for encoder, config in architectures:
        cls = encoder_class(encoder)
        if cls.has_own_files():
            continue
        shapes = cls.tensor_shapes(**config)
        alike = sum(name in tensors and tuple(tensors[name].shape) == shape for name, shape in shapes.items())
        if alike and (best is None or alike > best[0]):
            best = (alike, encoder, config, shapes)
    if best is None:
        raise WeightsError(
            "holds tensors of no architecture that is known here",
            file=path,
            next_step="See what is known: harken weights list",
        )
    _, encoder, config, shapes = best
    check_tensors(tensors, shapes, architecture=encoder, file=path)
    return Loaded(encoder, dict(config), dict(tensors))


def _architectures() -> list[tuple[str, dict[str, Any]]]:
    """Encoder and configuration of every entry, each once."""
    unique = {
        json_text([e.encoder, e.config], sort_keys=True): (e.encoder, e.config or {})
        for e in catalog()
        if not e.tensors
    }
    return list(unique.values())


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    # Contiguous, as safetensors stores memory as it lies; `np.ascontiguousarray` would make scalars vectors. No copy
    # unless needed: the largest networks take gigabytes.
    kind = np.float32 if array.dtype.kind == "f" else array.dtype
    return np.asarray(array, dtype=kind, order="C")
