"""A fitted detector on disk: a directory of plain arrays and one manifest. Never pickle.

    pump.harken/
      manifest.json                      schema, settings, and the sha256 of each other file and of itself
      <part>.<first 12 of sha256>.safetensors

Array files are named by their content and the manifest is replaced last, so that a bundle is at any moment
either the old one, whole, or the new one, whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from harken.core.errors import BundleError
from harken.core.files import temporary_beside, write_atomically

#: 2: bundles that name weights which are not in them; all others are of schema 1, as ever
SCHEMA = 2
_MANIFEST = "manifest.json"
_MOST_MANIFEST_BYTES = 64 * 2**20

Arrays = Mapping[str, np.ndarray]


def write_bundle(
    path: str | Path, about: Mapping[str, Any], parts: Mapping[str, Arrays], *, references: bool = False
) -> None:
    """Write a bundle; one that is there already is replaced, anything else is left alone.

    about: JSON-able settings. parts: arrays by name, by part. The same content gives the same bytes.
    references: whether the settings name weights that are not among the parts.
    Raises BundleError where `path` is something else than a bundle or cannot be written.
    """
    path = Path(path)
    if path.exists() and not (path / _MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise BundleError("exists and is no model", file=path, next_step="Choose another name for the model")
    files: dict[str, bytes] = {}
    names: dict[str, str] = {}
    for part, arrays in sorted(parts.items()):
        data = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})
        names[part] = f"{part}.{hashlib.sha256(data).hexdigest()[:12]}.safetensors"
        files[names[part]] = data
    manifest = {
        "schema": 2 if references else 1,
        "parts": names,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "about": dict(about),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _replace(path, files, _manifest_bytes(manifest))
        else:
            _create(path, files, _manifest_bytes(manifest))
    except OSError as error:
        raise BundleError(
            f"cannot be written ({error.strerror})",
            file=path,
            next_step="Check the disk and the folder's rights",
        ) from None


def _create(path: Path, files: Mapping[str, bytes], manifest: bytes) -> None:
    _remove_leftovers(path)
    temporary = temporary_beside(path)
    temporary.mkdir()
    try:
        for name, data in [*files.items(), (_MANIFEST, manifest)]:
            write_atomically(temporary / name, data, sync=True)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def _replace(path: Path, files: Mapping[str, bytes], manifest: bytes) -> None:
    for name, data in files.items():
        write_atomically(path / name, data, sync=True)
    write_atomically(path / _MANIFEST, manifest, sync=True)
    _sync_folder(path)
    for stray in path.iterdir():
        if stray.name not in files and stray.name != _MANIFEST and stray.suffix in {".safetensors", ".tmp"}:
            stray.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Folders that a killed run left beside the bundle."""
    for stray in path.parent.glob(f".{path.name}.*.tmp"):
        shutil.rmtree(stray, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    body = json.dumps(manifest, sort_keys=True, indent=1)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return (json.dumps({**manifest, "sha256": digest}, sort_keys=True, indent=1) + "\n").encode()


def read_bundle(path: str | Path) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """(about, parts) as given to `write_bundle`. Raises BundleError for anything missing, damaged or newer."""
    path = Path(path)
    manifest = _read_manifest(path)
    again = "Fit the model again, or restore it from a copy"
    parts: dict[str, dict[str, np.ndarray]] = {}
    for part, name in manifest["parts"].items():
        file = path / name
        try:
            data = file.read_bytes()
        except OSError:
            raise BundleError("is missing from the model", file=file, next_step=again) from None
        if hashlib.sha256(data).hexdigest() != manifest["files"][name]:
            raise BundleError("is damaged: its sha256 is not the manifest's", file=file, next_step=again)
        try:
            parts[part] = safetensors.numpy.load(data)
        except safetensors.SafetensorError as error:
            raise BundleError(f"cannot be read ({error})", file=file, next_step=again) from None
    return manifest["about"], parts


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / _MANIFEST
    again = "Fit the model again, or restore it from a copy"
    if not path.exists():
        raise BundleError("there is no such model", file=path, next_step="Check the path, or make one: harken fit")
    try:
        if file.stat().st_size > _MOST_MANIFEST_BYTES:
            raise BundleError("is too large for a manifest", file=file, next_step=again)
        data = file.read_bytes()
    except OSError:
        raise BundleError(
            "is no model: it has no manifest.json", file=path, next_step="Name a model made by harken fit"
        ) from None
    try:
        manifest = json.loads(data)
        schema = manifest["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            raise BundleError(
                f"was written by a newer Harken (schema {schema}; this one reads up to {SCHEMA})",
                file=path,
                next_step="Update Harken",
            )
        manifest.pop("sha256")
        # Byte for byte, so that no flipped byte goes unseen, be it in white space.
        if _manifest_bytes(manifest) != data or schema not in (1, 2):
            raise ValueError("its sha256 does not fit")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BundleError("is damaged", file=file, next_step=again) from None
    return manifest  # type: ignore[no-any-return]
