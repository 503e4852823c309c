"""A fitted detector on disk: a directory of plain arrays and one manifest. Never pickle.

    pump.harken/
      manifest.json                      schema, settings, and the sha256 of each other file and of itself
      <part>.<first 12 of sha256>.safetensors

Array files are named by their content and the manifest is replaced last, so that a bundle is at any moment
either the old one, whole, or the new one, whole. Writers wait for each other; readers wait for nobody, and read again
where the manifest was replaced meanwhile. Bundles come from strangers: only regular files of the expected names are
opened, and what they hold is bounded before it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from harken.core.errors import BundleError, HarkenError
from harken.core.files import flush_folder, read_regular, remove_temporaries, temporary_beside, write_atomically
from harken.core.json_text import json_text
from harken.core.locks import locked
from harken.core.names import shown

#: 2: bundles that name weights which are not in them; all others are of schema 1, as ever
SCHEMA = 2
_MANIFEST = "manifest.json"
_MOST_MANIFEST_BYTES = 64 * 2**20
#: weights of the largest encoders have 5 GiB; all other parts are small
_MOST_BYTES, _MOST_ENCODER_BYTES = 2 * 2**30, 16 * 2**30
_PART = re.compile(r"[a-z][a-z_]{0,39}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: times that a bundle is read again because it was replaced meanwhile
_REREADS = 50
_NAME_ONE = "Name a model, which is a folder made by harken fit"
_AGAIN = "Fit the model again, or restore it from a copy"

Arrays = Mapping[str, np.ndarray]
Content = tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]


def write_bundle(
    path: str | Path, settings: Mapping[str, Any], parts: Mapping[str, Arrays], *, references: bool = False
) -> None:
    """Write a bundle; one that is there already is replaced, anything else is left alone.

    settings: JSON-able settings. parts: arrays by name, by part. The same content gives the same bytes.
    references: whether the settings name weights that are not among the parts.
    Raises BundleError where `path` is something else than a bundle or cannot be written.
    """
    with _writing(Path(path)):
        _write(Path(path), settings, parts, references)


def change_bundle(path: str | Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace the settings of a bundle by what `change` makes of them; no other process writes it meanwhile.

    Raises BundleError as `read_bundle` and `write_bundle`.
    """
    with _writing(Path(path)):
        settings, parts = read_bundle(path)
        _write(Path(path), change(settings), parts, bool(settings.get("public_weights")))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Within it, nobody else writes the bundle; OSError becomes a BundleError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            yield
    except BundleError:
        raise
    except HarkenError as error:
        raise BundleError(error.cause, file=path, next_step=error.next_step) from None
    except OSError as error:
        raise BundleError(
            f"cannot be written ({error.strerror})",
            file=path,
            next_step="Check the disk and the folder's rights",
        ) from None


def _write(path: Path, settings: Mapping[str, Any], parts: Mapping[str, Arrays], references: bool) -> None:
    if path.exists() and not (path / _MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise BundleError("exists and is no model", file=path, next_step="Choose another name for the model")
    files: dict[str, bytes] = {}
    names: dict[str, str] = {}
    for part, arrays in sorted(parts.items()):
        data = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})
        names[part] = _file_name(part, hashlib.sha256(data).hexdigest())
        files[names[part]] = data
    manifest = {
        "schema": 2 if references else 1,
        "parts": names,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "about": dict(settings),
    }
    if path.exists():
        _replace(path, files, _manifest_bytes(manifest))
    else:
        _create(path, files, _manifest_bytes(manifest))


def bundle_digest(path: str | Path) -> str:
    """Hex digest that names the content of a bundle. Raises BundleError where there is none."""
    return hashlib.sha256(_manifest_data(Path(path))).hexdigest()


def _file_name(part: str, sha256: str) -> str:
    return f"{part}.{sha256[:12]}.safetensors"


def _create(path: Path, files: Mapping[str, bytes], manifest: bytes) -> None:
    remove_temporaries(path)
    temporary = temporary_beside(path)
    temporary.mkdir()
    try:
        for name, data in [*files.items(), (_MANIFEST, manifest)]:
            write_atomically(temporary / name, data, sync=True)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_folder(path.parent)


def _replace(path: Path, files: Mapping[str, bytes], manifest: bytes) -> None:
    for name, data in files.items():
        write_atomically(path / name, data, sync=True)
    write_atomically(path / _MANIFEST, manifest, sync=True)
    flush_folder(path)
    for stray in path.iterdir():
        if stray.name not in files and stray.name != _MANIFEST and stray.suffix in {".safetensors", ".tmp"}:
            stray.unlink(missing_ok=True)


def _manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    body = json_text(manifest, sort_keys=True, indent=1)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return (json_text({**manifest, "sha256": digest}, sort_keys=True, indent=1) + "\n").encode()


def read_bundle(path: str | Path) -> Content:
    """(settings, parts) as given to `write_bundle`. Raises BundleError for anything missing, damaged or newer."""
    path = Path(path)
    for _ in range(_REREADS):
        data = _manifest_data(path)
        try:
            return _read(path, _checked_manifest(path, data))
        except BundleError:
            if _manifest_data(path) == data:
                raise
    raise BundleError("is replaced all the time", file=path, next_step="Run again when nobody writes it")


def _read(path: Path, manifest: Mapping[str, Any]) -> Content:
    parts: dict[str, dict[str, np.ndarray]] = {}
    for part, name in manifest["parts"].items():
        file = path / name
        try:
            data = read_regular(file, _MOST_ENCODER_BYTES if part == "encoder" else _MOST_BYTES)
        except FileNotFoundError:
            raise BundleError("is missing from the model", file=file, next_step=_AGAIN) from None
        except OSError as error:
            raise BundleError(f"cannot be read ({error.strerror})", file=file, next_step=_AGAIN) from None
        if hashlib.sha256(data).hexdigest() != manifest["files"][name]:
            raise BundleError("is damaged: its sha256 is not the manifest's", file=file, next_step=_AGAIN)
        try:
            parts[part] = safetensors.numpy.load(data)
        # Types of numbers that NumPy does not have are a KeyError.
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise BundleError(f"cannot be read ({error})", file=file, next_step=_AGAIN) from None
    return manifest["about"], parts


def _manifest_data(path: Path) -> bytes:
    file = path / _MANIFEST
    if not path.exists():
        raise BundleError("there is no such model", file=path, next_step="Check the path, or make one: harken fit")
    try:
        return read_regular(file, _MOST_MANIFEST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        kind = "a folder without manifest.json" if path.is_dir() else "a file" if path.is_file() else "a pipe or device"
        step = f"Name a model, or make one: harken fit {shown(path)} -o MODEL" if path.is_dir() else _NAME_ONE
        raise BundleError(f"is no model but {kind}", file=path, next_step=step) from None
    except OSError as error:
        raise BundleError(f"cannot be read ({error.strerror})", file=file, next_step=_AGAIN) from None


def _checked_manifest(path: Path, data: bytes) -> dict[str, Any]:
    """The manifest without its digest, of the expected form; its settings are any JSON."""
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
        if set(manifest) != {"schema", "parts", "files", "about"} or not isinstance(manifest["about"], dict):
            raise ValueError("it has other entries")
        expected = {part: _file_name(part, manifest["files"][name]) for part, name in manifest["parts"].items()}
        if (
            manifest["parts"] != expected
            or set(manifest["files"]) != set(expected.values())
            or not all(_PART.fullmatch(part) for part in expected)
            or not all(_DIGEST.fullmatch(digest) for digest in manifest["files"].values())
        ):
            raise ValueError("files of other names")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BundleError("is damaged", file=path / _MANIFEST, next_step=_AGAIN) from None
    return manifest  # type: ignore[no-any-return]
