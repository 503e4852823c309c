"""The cache of converted weights: one safetensors file per checkpoint and a JSON record beside it, checked when read.

Where the catalogue does not know a sha256, the record keeps that of the first download, and a changed copy is noticed
from then on.

HARKEN_CACHE: folder of the cache (default: the user's cache folder).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harken.core.errors import WeightsError
from harken.core.files import user_cache, write_atomically
from harken.weights.catalog import Checkpoint, entry_named, is_checkpoint_name, local_file, require_entry

Status = Literal["cached", "local", "missing"]

#: schema of the record beside each converted file
RECORD_SCHEMA = 1


class Record(BaseModel):
    """What is kept beside a converted file: how to build its encoder, and where it came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = RECORD_SCHEMA
    name: str
    encoder: str
    config: dict[str, Any]
    sha256: str
    source_file: str
    source_sha256: str
    licence: str | None = None


def cache_dir() -> Path:
    """Folder of the converted checkpoints; it need not exist yet."""
    return user_cache() / "weights"


def cached() -> list[Record]:
    """Every checkpoint in the cache, of the catalogue or added, by name; not those with a damaged record."""
    records = []
    for path in sorted(cache_dir().glob("*.json")):
        try:
            records.append(_read_record(path.stem))
        except WeightsError:
            continue
    return records


def status(entry: Checkpoint) -> Status:
    """`cached`: ready; `local`: in the folder HARKEN_WEIGHTS, to be converted on first use; or `missing`."""
    if is_cached(entry.name) and converted_path(entry.name).is_file():
        return "cached"
    return "missing" if local_file(entry) is None else "local"


def verify(name: str) -> Record:
    """Compare a cached checkpoint with its recorded sha256 and, if it has one, the catalogue's.

    Raises WeightsError if it is missing or has changed.
    """
    if not is_checkpoint_name(name) or not is_cached(name):
        require_entry(name)
        raise WeightsError(f"the weights {name} are not in the cache", next_step=_again(name))
    return read_checked(name)[0]


def is_cached(name: str) -> bool:
    """Whether the cache has a checkpoint of that name; `read_checked` says whether it is intact."""
    return _record_path(name).is_file()


def converted_path(name: str) -> Path:
    """Where the cache keeps the tensors of a checkpoint."""
    return cache_dir() / f"{name}.safetensors"


def _record_path(name: str) -> Path:
    return cache_dir() / f"{name}.json"


def keep(record: Record, data: bytes) -> None:
    """Write a converted file, the bytes of a safetensors file, and its record. Raises WeightsError where it cannot."""
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        # The record comes last: a checkpoint without one does not exist.
        write_atomically(converted_path(record.name), data, sync=True)
        write_atomically(_record_path(record.name), (record.model_dump_json(indent=2) + "\n").encode(), sync=True)
    except OSError as error:
        raise WeightsError(
            f"cannot be written: {error.strerror}",
            file=converted_path(record.name),
            next_step="Free space there, or set HARKEN_CACHE to a folder that can be written to",
        ) from None


def _read_record(name: str) -> Record:
    path = _record_path(name)
    try:
        record = Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise WeightsError("is damaged", file=path, next_step=_again(name)) from None
    if record.schema_version != RECORD_SCHEMA:
        cause = f"is of schema {record.schema_version}, this version reads {RECORD_SCHEMA}"
        raise WeightsError(cause, file=path, next_step=_again(name))
    return record


def read_checked(name: str) -> tuple[Record, bytes]:
    """Record and safetensors bytes of a cached checkpoint. Raises WeightsError if it is damaged or has changed."""
    record, path = _read_record(name), converted_path(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot be read: {error.strerror}", file=path, next_step=_again(name)) from None
    entry = entry_named(name)
    expected = entry.sha256 if entry is not None and entry.sha256 is not None else record.sha256
    if not hashlib.sha256(data).hexdigest() == record.sha256 == expected:
        raise WeightsError("has changed since it was converted", file=path, next_step=_again(name))
    return record, data


def _again(name: str) -> str:
    if entry_named(name) is not None:
        return f"Run: harken weights fetch {name}"
    return f"Run: harken weights add FILE --name {name}"
