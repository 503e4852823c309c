"""Checkpoints of encoders: fetched, added and read; unknown files are recognised by their tensors.

A published file is converted once, to a safetensors file in the cache (`weights.cache`), and later read from there.
Only `fetch` uses the network.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from harken.core.errors import WeightsError
from harken.encoders.recognise import Loaded, is_alike, recognise
from harken.weights.cache import Record, is_cached, keep, read_checked, status, verify
from harken.weights.catalog import (
    Checkpoint,
    catalog,
    entry_named,
    entry_of_file,
    is_checkpoint_name,
    local_file,
    require_entry,
)
from harken.weights.download import Progress, Unreachable, download
from harken.weights.formats import file_sha256, from_safetensors


def fetch(name: str, progress: Progress | None = None) -> Record:
    """Bring a checkpoint of the catalogue into the cache, from the first mirror that has it.

    A checkpoint that is cached and intact, or in HARKEN_WEIGHTS, is not downloaded. Raises WeightsError.
    """
    entry = require_entry(name)
    if status(entry) == "cached":
        try:
            return verify(name)
        except WeightsError:
            pass  # damaged: get it again
    local = local_file(entry)
    if local is not None:
        return add(local, name)
    failures = []
    for source in entry.files:
        for mirror in source.mirrors:
            with tempfile.TemporaryDirectory(prefix="harken-") as folder:
                try:
                    path = download(source, mirror, Path(folder), progress)
                    loaded = recognise(path, entry)
                except Unreachable as failure:
                    failures.append(str(failure))
                    continue
                except WeightsError as failure:
                    if source.sha256 is not None:
                        raise
                    # Without a known sha256 it may be an error page of the mirror.
                    failures.append(f"{mirror}: {failure.cause}")
                    continue
                return _install(entry.name, path, entry, loaded)
    wanted = " or ".join(
        f"{source.name} (sha256 {source.sha256[:16]}...)" if source.sha256 else source.name for source in entry.files
    )
    raise WeightsError(
        f"{name} could not be downloaded: {'; '.join(failures) or 'it has no mirror'}",
        next_step=f"Get {wanted} by other means and run: harken weights add FILE",
    )


def add(path: str | Path, name: str | None = None) -> Record:
    """Check a local file, convert it and keep it in the cache.

    The file is recognised by its sha256 or by the names and shapes of its tensors. name: of the checkpoint; by
    default the catalogue's name for a file of the catalogue, else the file's own without its suffix. Where the
    catalogue does not know a file's sha256, its name and configuration decide.
    Raises WeightsError if the file is damaged, of no known architecture, or of another checkpoint than `name`.
    """
    path = Path(path)
    entry = entry_of_file(file_sha256(path))
    loaded = recognise(path, entry)
    if name is None:
        entry = entry or next((candidate for candidate in catalog() if _may_be(path, candidate, loaded)), None)
        name = entry.name if entry is not None else path.stem
    if not is_checkpoint_name(name):
        raise WeightsError(
            f"{name!r} cannot be a checkpoint's name",
            file=path,
            next_step="Name it with letters, digits, - and _",
        )
    expected = entry_named(name)
    return _install(name, path, expected, loaded)


def check_named(name_or_path: str) -> None:
    """Raise WeightsError, naming the nearest, for what is no checkpoint of the catalogue or the cache and no file.

    Whether one of the catalogue is on this machine is not looked at."""
    if is_checkpoint_name(name_or_path) and (is_cached(name_or_path) or entry_named(name_or_path) is not None):
        return
    if not Path(name_or_path).is_file():
        require_entry(name_or_path)


def load(name_or_path: str | Path) -> Loaded:
    """Weights and configuration of a cached checkpoint by name, or of a file by path; never from the network.

    Raises WeightsError if it is missing, damaged, or of no known architecture.
    """
    name = str(name_or_path)
    if is_checkpoint_name(name):
        if is_cached(name):
            record, data = read_checked(name)
            return Loaded(record.encoder, record.config, from_safetensors(data, name))
        entry = entry_named(name)
        if entry is not None:
            local = local_file(entry)
            if local is None:
                raise WeightsError(
                    f"the weights {name} are not on this machine",
                    next_step=f"Run: harken weights fetch {name} (or, offline: harken weights add FILE)",
                )
            add(local, name)
            return load(name)
    path = Path(name_or_path)
    if not path.is_file():
        require_entry(name)
    return recognise(path, entry_of_file(file_sha256(path)))


def weights_for(encoder: str, weights: str | Path | None) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]]:
    """Configuration and weights of an encoder: the given ones, or the catalogue's first."""
    if weights is None:
        names = [entry.name for entry in catalog() if entry.encoder == encoder]
        if not names:
            raise WeightsError(f"no weights of {encoder} are in the catalogue", next_step="Give a file of weights")
        weights = names[0]
    loaded = load(weights)
    if loaded.encoder != encoder:
        raise WeightsError(
            f"are weights of {loaded.encoder}, not of {encoder}",
            file=str(weights),
            next_step="Give weights of that encoder",
        )
    return dict(loaded.config), loaded.weights


def _install(name: str, path: Path, entry: Checkpoint | None, loaded: Loaded) -> Record:
    """Keep what was read from `path` in the cache as `name`; where `entry` is given, it must be that checkpoint."""
    from safetensors.numpy import save

    encoder, config, weights = loaded
    # No metadata: safetensors orders tensors by type and name, so equal weights give equal bytes.
    data = save(weights)
    sha256, source_sha256 = hashlib.sha256(data).hexdigest(), file_sha256(path)
    if entry is not None and not _is_of(entry, loaded, sha256, source_sha256):
        raise WeightsError(
            f"does not hold the weights {name}, but others",
            file=path,
            next_step=f"Add it under another name, or run: harken weights fetch {name}",
        )
    source_entry = entry or next((source_entry for source_entry in catalog() if source_entry.sha256 == sha256), None)
    record = Record(
        name=name,
        encoder=encoder,
        config=config,
        sha256=sha256,
        source_file=path.name,
        source_sha256=source_sha256,
        licence=source_entry.licence if source_entry else None,
    )
    keep(record, data)
    return record


def _is_of(entry: Checkpoint, loaded: Loaded, sha256: str, source_sha256: str) -> bool:
    """Whether a conversion is the catalogue's checkpoint, as far as the catalogue knows it."""
    if entry.sha256 is not None:
        return sha256 == entry.sha256
    recorded = any(source.sha256 == source_sha256 for source in entry.files)
    return (recorded or not entry.pinned) and is_alike(entry, loaded)


def _may_be(path: Path, entry: Checkpoint, loaded: Loaded) -> bool:
    """Whether `path` goes by the name of a file of the catalogue whose sha256 is not known, and is one like it."""
    named = any(source.name == path.name and source.sha256 is None for source in entry.files)
    return named and not entry.pinned and is_alike(entry, loaded)
