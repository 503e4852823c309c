"""The cache of converted weights: one safetensors file per checkpoint and a JSON record beside it, checked when read.

    NAME.<first 12 of sha256>.safetensors
    NAME.json                              the record, which names the sha256 and is replaced last

At any moment a checkpoint is the old one, whole, or the new one, whole. Earlier versions called the file
NAME.safetensors, which is still read.

Where the catalogue does not know a sha256, the record keeps that of the first download, and a changed copy is noticed
from then on.

HARKEN_CACHE: folder of the cache (default: the user's cache folder).
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from harken.core.errors import WeightsError
from harken.core.files import read_regular, user_cache, write_atomically
from harken.core.json_text import json_text
from harken.core.locks import locked
from harken.core.names import alike
from harken.weights.catalog import Checkpoint, entry_named, is_checkpoint_name, local_file, require_entry

Status = Literal["cached", "local", "missing"]

#: schema of the record beside each converted file
RECORD_SCHEMA = 1
_MOST_RECORD_BYTES, _MOST_BYTES = 2**20, 16 * 2**30
#: what follows the name of a checkpoint in that of its file
_FILE = re.compile(r"(\.[0-9a-f]{12})?\.safetensors")
_TEMPORARY = re.compile(r"((\.[0-9a-f]{12})?\.safetensors|\.json)\.[0-9a-f]{8}\.tmp")


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
    with suppress(WeightsError):
        if is_cached(entry.name) and converted_file(entry.name) is not None:
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


def converted_file(name: str) -> Path | None:
    """The file of a cached checkpoint's tensors, by its record; None without one. WeightsError for a damaged record."""
    return _file_of(_read_record(name))


def _file_of(record: Record) -> Path | None:
    return next((path for path in _files_of(record) if path.is_file()), None)


def _files_of(record: Record) -> tuple[Path, Path]:
    """Where the tensors are, and where earlier versions kept them."""
    folder = cache_dir()
    return folder / f"{record.name}.{record.sha256[:12]}.safetensors", folder / f"{record.name}.safetensors"


def _record_path(name: str) -> Path:
    return cache_dir() / f"{name}.json"


def keep(record: Record, data: bytes) -> None:
    """Write a converted file, the bytes of a safetensors file, and its record; what had that name is replaced.

    Raises WeightsError where it cannot, and for a name that only the case of letters tells from one that is there; what
    had that name then is as it was.
    """
    pair = alike([*sorted(stored.stem for stored in cache_dir().glob("*.json")), record.name])
    if pair is not None:
        raise WeightsError(
            f"there are weights {pair[0]} already, which is the same name where case does not count",
            next_step="Choose another name (--name)",
        )
    file, _ = _files_of(record)
    path = _record_path(record.name)
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with locked(path):
            for stray in cache_dir().iterdir():
                # What a killed writer of this name left, of whatever content.
                if _TEMPORARY.fullmatch(stray.name.removeprefix(f".{record.name}")):
                    stray.unlink(missing_ok=True)
            write_atomically(file, data, sync=True)
            write_atomically(path, (json_text(record.model_dump(mode="json"), indent=2) + "\n").encode(), sync=True)
            for stored in cache_dir().iterdir():
                if stored != file and _FILE.fullmatch(stored.name.removeprefix(record.name)):
                    stored.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(
            f"cannot be written: {error.strerror}",
            file=file,
            next_step="Free space there, or set HARKEN_CACHE to a folder that can be written to",
        ) from None


def _read_record(name: str) -> Record:
    path = _record_path(name)
    try:
        record = Record.model_validate_json(read_regular(path, _MOST_RECORD_BYTES))
        if record.name != name:
            raise ValueError(f"of {record.name}")
    except (OSError, ValueError):
        raise WeightsError("is damaged", file=path, next_step=_again(name)) from None
    if record.schema_version != RECORD_SCHEMA:
        cause = f"is of schema {record.schema_version}, this version reads {RECORD_SCHEMA}"
        raise WeightsError(cause, file=path, next_step=_again(name))
    return record


def read_checked(name: str) -> tuple[Record, bytes]:
    """Record and safetensors bytes of a cached checkpoint. Raises WeightsError if it is damaged or has changed."""
    while True:
        record = _read_record(name)
        try:
            return record, _checked_bytes(record)
        except WeightsError:
            # It may have been replaced meanwhile.
            if _read_record(name) == record:
                raise


def _checked_bytes(record: Record) -> bytes:
    path = _file_of(record) or _files_of(record)[0]
    try:
        data = read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise WeightsError(f"cannot be read: {error.strerror}", file=path, next_step=_again(record.name)) from None
    entry = entry_named(record.name)
    expected = entry.sha256 if entry is not None and entry.sha256 is not None else record.sha256
    if not hashlib.sha256(data).hexdigest() == record.sha256 == expected:
        raise WeightsError("has changed since it was converted", file=path, next_step=_again(record.name))
    return data


def _again(name: str) -> str:
    if entry_named(name) is not None:
        return f"Run: harken weights fetch {name}"
    return f"Run: harken weights add FILE --name {name}"
