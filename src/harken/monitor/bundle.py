"""A fitted detector on disk: a directory of plain arrays and one manifest. Never pickle.

    pump.harken/
      manifest.json                      schema, settings, and the sha256 of each other file and of itself
      <part>.<first 12 of sha256>.safetensors
      versions/0001.json                 manifests of earlier versions, which name array files as well

Array files are named by their content and the manifest is replaced last, so that a bundle is at any moment
either the old one, whole, or the new one, whole. The version in use is `manifest.json`: before a new one replaces it,
it is copied to `versions`. Files that no manifest names are removed afterwards. Writers wait for each other; readers
wait for nobody, and read again where the manifest was replaced meanwhile. Bundles come from strangers: only regular
files of the expected names are opened, and what they hold is bounded before it is read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from harken.core.errors import BundleError, HarkenError
from harken.core.files import flush_folder, read_regular, remove_temporaries, temporary_beside, write_atomically
from harken.core.locks import locked
from harken.monitor.manifests import (
    AGAIN,
    MANIFEST,
    MOST_MANIFEST_BYTES,
    MOST_WHOLE,
    SCHEMA,
    VERSIONS,
    checked_manifest,
    earlier_versions,
    file_name,
    manifest_bytes,
    manifest_data,
    manifest_of,
    number_of,
    sweep,
    version_file,
    without_learned,
)

#: weights of the largest encoders have 5 GiB; all other parts are small
_MOST_BYTES, _MOST_ENCODER_BYTES = 2 * 2**30, 16 * 2**30
#: times that a bundle is read again because it was replaced meanwhile
_REREADS = 50

Arrays = Mapping[str, np.ndarray]
Content = tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]


def write_bundle(
    path: str | Path, settings: Mapping[str, Any], parts: Mapping[str, Arrays], *, schema: int = 1
) -> None:
    """Write a bundle; one that is there already is replaced, anything else is left alone.

    settings: JSON-able settings. parts: arrays by name, by part. The same content gives the same bytes. Earlier
    versions of a bundle that is replaced are kept only where it is of the same version as the new one.
    Raises BundleError where `path` is something else than a bundle or cannot be written.
    """
    with _writing(Path(path)):
        _write(Path(path), settings, parts, schema)


def change_bundle(path: str | Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace the settings of a bundle by what `change` makes of them; no other process writes it meanwhile.

    Raises BundleError as `read_bundle` and `write_bundle`.
    """
    with _writing(Path(path)):
        manifest = checked_manifest(Path(path), manifest_data(Path(path)))
        settings, parts = _read(Path(path), manifest)
        _write(Path(path), change(settings), parts, manifest["schema"])


def add_version(path: str | Path, make: Callable[[Content], Content], *, schema: int = SCHEMA) -> None:
    """Put what `make` makes of the version in use in its place, and keep that one (see `versions`).

    No other process writes the bundle meanwhile. Killed at any moment, it leaves the version before or the new one in
    use, whole. Raises BundleError as `read_bundle` and `write_bundle`; nothing is written where `make` raises.
    """
    path = Path(path)
    with _writing(path):
        data = manifest_data(path)
        settings, parts = make(_read(path, checked_manifest(path, data)))
        _write(path, settings, parts, schema, earlier=data)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Within it, nobody else writes the bundle; OSError becomes a BundleError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(path))
            except HarkenError as error:
                raise BundleError(error.cause, file=path, next_step=error.next_step) from None
            yield
    except OSError as error:
        raise BundleError(
            f"cannot be written ({error.strerror})",
            file=path,
            next_step="Check the disk and the folder's rights",
        ) from None


def _write(
    path: Path, settings: Mapping[str, Any], parts: Mapping[str, Arrays], schema: int, earlier: bytes | None = None
) -> None:
    """earlier: the manifest in use, where it is to be kept as an earlier version."""
    if path.exists() and not (path / MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise BundleError("exists and is no model", file=path, next_step="Choose another name for the model")
    files: dict[str, bytes] = {}
    names: dict[str, str] = {}
    for part, arrays in sorted(parts.items()):
        data = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})
        names[part] = file_name(part, hashlib.sha256(data).hexdigest())
        files[names[part]] = data
    manifest = {
        "schema": schema,
        "parts": names,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "about": dict(settings),
    }
    if path.exists():
        keeps = earlier is not None or _is_of_version(path, settings.get("version"))
        _replace(path, files, manifest_bytes(manifest), earlier, keeps)
    else:
        _create(path, files, manifest_bytes(manifest))


def bundle_digest(path: str | Path) -> str:
    """Hex digest that names the content of a bundle. Raises BundleError where there is none."""
    return hashlib.sha256(manifest_data(Path(path))).hexdigest()


def _create(path: Path, files: Mapping[str, bytes], manifest: bytes) -> None:
    remove_temporaries(path)
    temporary = temporary_beside(path)
    temporary.mkdir()
    try:
        for name, data in [*files.items(), (MANIFEST, manifest)]:
            write_atomically(temporary / name, data, sync=True)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_folder(path.parent)


def _replace(path: Path, files: Mapping[str, bytes], manifest: bytes, earlier: bytes | None, keeps: bool) -> None:
    """earlier: see `_write`. keeps: whether earlier versions stay."""
    for name, data in files.items():
        if not _holds(path / name, data):
            write_atomically(path / name, data, sync=True)
    if earlier is not None:
        if (path / VERSIONS).is_symlink():
            (path / VERSIONS).unlink()
        (path / VERSIONS).mkdir(exist_ok=True)
        write_atomically(version_file(path, number_of(earlier)), earlier, sync=True)
        flush_folder(path / VERSIONS)
    flush_folder(path)
    write_atomically(path / MANIFEST, manifest, sync=True)
    flush_folder(path)
    if keeps:
        _lighten(path, number_of(manifest) - MOST_WHOLE)
    sweep(path, number_of(manifest), versions=keeps)


def _lighten(path: Path, before: int) -> None:
    """Leave out of versions that are earlier, but for the first, what can be learned again from their rows."""
    for number, file in earlier_versions(path).items():
        if not 1 < number < before:
            continue
        # Those before it are done, and one that cannot be read stays as it is.
        with suppress(OSError, ValueError, KeyError, TypeError):
            lighter = without_learned(read_regular(file, MOST_MANIFEST_BYTES))
            if lighter is not None:
                write_atomically(file, lighter, sync=True)


def _is_of_version(path: Path, version: object) -> bool:
    """Whether the bundle there is this version of itself, which is made by no other."""
    try:
        return version is not None and checked_manifest(path, manifest_data(path))["about"].get("version") == version
    except BundleError:
        return False


def _holds(file: Path, data: bytes) -> bool:
    """Whether the file is there, whole: versions share most of their arrays."""
    try:
        return file.stat().st_size == len(data) and read_regular(file, len(data)) == data
    except OSError:
        return False


def read_bundle(path: str | Path, version: int | None = None) -> Content:
    """(settings, parts) as given to `write_bundle`, of the version in use or of an earlier one.

    Raises BundleError for anything missing, damaged or newer, and for a version that is not kept.
    """
    path = Path(path)
    for _ in range(_REREADS):
        data = manifest_data(path)
        try:
            return _read(path, manifest_of(path, data, version))
        except BundleError:
            if manifest_data(path) == data:
                raise
    raise BundleError("is replaced all the time", file=path, next_step="Run again when nobody writes it")


def _read(path: Path, manifest: Mapping[str, Any]) -> Content:
    parts: dict[str, dict[str, np.ndarray]] = {}
    for part, name in manifest["parts"].items():
        file = path / name
        try:
            data = read_regular(file, _MOST_ENCODER_BYTES if part == "encoder" else _MOST_BYTES)
        except FileNotFoundError:
            raise BundleError("is missing from the model", file=file, next_step=AGAIN) from None
        except OSError as error:
            raise BundleError(f"cannot be read ({error.strerror})", file=file, next_step=AGAIN) from None
        if hashlib.sha256(data).hexdigest() != manifest["files"][name]:
            raise BundleError("is damaged: its sha256 is not the manifest's", file=file, next_step=AGAIN)
        try:
            parts[part] = safetensors.numpy.load(data)
        # Types of numbers that NumPy does not have are a KeyError.
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise BundleError(f"cannot be read ({error})", file=file, next_step=AGAIN) from None
    return manifest["about"], parts
