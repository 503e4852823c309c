"""Manifests of a bundle: that of the version in use, and those of earlier versions beside it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from harken.core.errors import BundleError
from harken.core.files import read_regular
from harken.core.json_text import json_text
from harken.core.names import shown

#: 1: the first; 2: names weights which are not in it; 3: rows and scores are apart, and there may be versions;
#: 4: there may be a view of tones
SCHEMA = 4
MANIFEST, VERSIONS = "manifest.json", "versions"
#: earlier versions that are kept, besides the first
MOST_VERSIONS = 50
#: the latest of these are kept with what was learned from their rows; the others learn it again where they are read
MOST_WHOLE = 5
LEARNED_PARTS = frozenset({"detector", "events", "tones"})
#: parts of a bundle; each is a file
_MOST_PARTS = 1000
MOST_MANIFEST_BYTES = 64 * 2**20
_PART = re.compile(r"[a-z][a-z0-9_]{0,39}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ARRAY_FILE = re.compile(rb"[a-z][a-z0-9_]{0,39}\.[0-9a-f]{12}\.safetensors")
_VERSION_FILE = re.compile(r"(?P<number>\d{4,7})\.json")
_NAME_ONE = "Name a model, which is a folder made by harken fit"
AGAIN = "Fit the model again, or restore it from a copy"
_OTHER = "Choose another version: harken model show"


def file_name(part: str, sha256: str) -> str:
    """Name of the file of a part whose content has this digest."""
    return f"{part}.{sha256[:12]}.safetensors"


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as it is written, with its digest."""
    body = json_text(manifest, sort_keys=True, indent=1)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return (json_text({**manifest, "sha256": digest}, sort_keys=True, indent=1) + "\n").encode()


def manifest_data(path: Path) -> bytes:
    """Bytes of the manifest in use. Raises BundleError where there is none that can be read."""
    file = path / MANIFEST
    if not path.exists():
        raise BundleError("there is no such model", file=path, next_step="Check the path, or make one: harken fit")
    try:
        return read_regular(file, MOST_MANIFEST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        kind = "a folder without manifest.json" if path.is_dir() else "a file" if path.is_file() else "a pipe or device"
        step = f"Name a model, or make one: harken fit {shown(path)} -o MODEL" if path.is_dir() else _NAME_ONE
        raise BundleError(f"is no model but {kind}", file=path, next_step=step) from None
    except OSError as error:
        raise BundleError(f"cannot be read ({error.strerror})", file=file, next_step=AGAIN) from None


def checked_manifest(path: Path, data: bytes, file: Path | None = None) -> dict[str, Any]:
    """The manifest without its digest, of the expected form; its settings are any JSON. file: where it was read."""
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
        if manifest_bytes(manifest) != data or type(schema) is not int or schema not in range(1, SCHEMA + 1):
            raise ValueError("its sha256 does not fit")
        if set(manifest) != {"schema", "parts", "files", "about"} or not isinstance(manifest["about"], dict):
            raise ValueError("it has other entries")
        expected = {part: file_name(part, manifest["files"][name]) for part, name in manifest["parts"].items()}
        if (
            manifest["parts"] != expected
            or set(manifest["files"]) != set(expected.values())
            or len(expected) > _MOST_PARTS
            or not all(_PART.fullmatch(part) for part in expected)
            or not all(_DIGEST.fullmatch(digest) for digest in manifest["files"].values())
        ):
            raise ValueError("files of other names")
        version_number(manifest["about"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BundleError("is damaged", file=file or path / MANIFEST, next_step=AGAIN) from None
    return manifest  # type: ignore[no-any-return]


def manifest_of(path: Path, current: bytes, version: int | None) -> dict[str, Any]:
    """The checked manifest of a version. current: the bytes of the one in use, which None stands for."""
    manifest = checked_manifest(path, current)
    if version is None or version == version_number(manifest["about"]):
        return manifest
    if version > version_number(manifest["about"]) or version not in earlier_versions(path):
        raise BundleError(
            f"has no version {version}", file=path, next_step=f"Choose one of: harken model show {shown(path)}"
        )
    file = version_file(path, version)
    try:
        data = read_regular(file, MOST_MANIFEST_BYTES)
    except OSError as error:
        raise BundleError(f"cannot be read ({error.strerror})", file=file, next_step=_OTHER) from None
    earlier = checked_manifest(path, data, file)
    if version_number(earlier["about"]) != version:
        raise BundleError("is of another version than its name", file=file, next_step=_OTHER)
    return earlier


def sweep(path: Path, number: int, *, versions: bool) -> None:
    """Remove versions that are not kept, and then files that no manifest names.

    number: of the version in use. versions: whether earlier ones are of the same model; those of one that was replaced
    are removed.
    """
    kept = [(path / MANIFEST).read_bytes()]
    for earlier, file in earlier_versions(path).items():
        if versions and (earlier == 1 or number - MOST_VERSIONS <= earlier < number):
            with suppress(OSError):
                kept.append(read_regular(file, MOST_MANIFEST_BYTES))
        else:
            with suppress(OSError):
                file.unlink()
    # Manifests before arrays: what a kept manifest names is there at any moment.
    named = {name.decode() for data in kept for name in _ARRAY_FILE.findall(data)}
    folders = [path] if (path / VERSIONS).is_symlink() else [path, path / VERSIONS]
    for folder in folders:
        for stray in folder.iterdir() if folder.is_dir() else ():
            if stray.suffix == ".tmp" or (stray.suffix == ".safetensors" and stray.name not in named):
                stray.unlink(missing_ok=True)
    with suppress(OSError):
        (path / VERSIONS).rmdir()  # which only an empty one can be


def without_learned(manifest: bytes) -> bytes | None:
    """A manifest without `LEARNED_PARTS`; None where it has none, or does not keep what they are made again from."""
    content = json.loads(manifest)
    names = [content["parts"][part] for part in LEARNED_PARTS if part in content["parts"]]
    if not names or "basis" not in content["about"]:
        return None
    del content["sha256"]
    content["parts"] = {part: name for part, name in content["parts"].items() if part not in LEARNED_PARTS}
    content["files"] = {name: digest for name, digest in content["files"].items() if name not in names}
    return manifest_bytes(content)


def version_file(path: Path, number: int) -> Path:
    """Where the manifest of an earlier version is."""
    return path / VERSIONS / f"{number:04d}.json"


def earlier_versions(path: Path) -> dict[int, Path]:
    """Files of earlier versions by number, ascending; some may be left of a writer that was killed."""
    try:
        names = [] if (path / VERSIONS).is_symlink() else os.listdir(path / VERSIONS)
    except OSError:
        return {}
    files = {int(match["number"]): path / VERSIONS / name for name in names if (match := _VERSION_FILE.fullmatch(name))}
    return {number: files[number] for number in sorted(files)}


def number_of(manifest: bytes) -> int:
    """Number of the version that a manifest is of: 1 for one that was only fitted."""
    return version_number(json.loads(manifest)["about"])


def version_number(settings: Mapping[str, Any]) -> int:
    """`number_of`, from the settings of a bundle. Raises ValueError for no such number."""
    number = (settings.get("version") or {}).get("number", 1)
    if type(number) is not int or not 1 <= number < 10**7:
        raise ValueError(f"version {number}")
    return number
