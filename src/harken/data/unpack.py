"""Unpacks a published zip into the folder of its machine: nothing outside it, no partial files, nothing replaced."""

from __future__ import annotations

import filecmp
import lzma
import os
import shutil
import stat
import struct
import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from harken.core.errors import HarkenError
from harken.core.names import why_no_files

#: raised by zipfile for damaged archives; RuntimeError means encryption
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError,
    ValueError,
)  # fmt: skip
#: files that archivers of some systems add
_JUNK = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db"})
#: training and test zip of a machine go into one folder, possibly at the same time
_moving = threading.Lock()


@dataclass(frozen=True)
class UnpackLimits:
    """UnpackLimits of a zip: number of entries, unpacked bytes, and unpacked bytes per byte of the zip.

    The largest published zips have some thousands of recordings, a few GiB, at compression ratios below 10.
    """

    entries: int = 100_000
    size: int = 32 * 2**30
    ratio: float = 100.0


def unpack(zip_path: Path, folder: Path, *, limits: UnpackLimits = UnpackLimits()) -> dict[str, int]:
    """Unpack into the machine's `folder`; returns {name below it (with /): size in bytes} of all files of the zip.

    A top-level folder in the zip with the name of `folder` stands for `folder`. Files are unpacked into a hidden
    folder beside it, checked, and then moved one by one: a file is complete or absent, and an interrupted run is
    completed by the next. An existing file with the same bytes is kept. One with different bytes is never
    replaced: since complete files are moved, an interrupted run cannot have left it.

    Raises HarkenError, with nothing moved, for a zip that is damaged, has paths outside the folder, contains anything
    but files and folders, or exceeds `limits`, and for existing files with different content.
    """
    staging = folder.parent / f".unpack-{zip_path.stem}"
    try:
        shutil.rmtree(staging, ignore_errors=True)  # of an interrupted run
        staging.mkdir(parents=True)
        with zipfile.ZipFile(zip_path) as archive:
            files = _checked(archive, zip_path, folder.name, limits)
            for name, entry in files.items():
                target = staging / name
                target.parent.mkdir(parents=True, exist_ok=True)
                # Reads at most the size in the header, which was checked against the limits; the last read checks
                # the CRC.
                with archive.open(entry) as packed, target.open("xb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
        with _moving:
            _move(files, staging, folder)
    except _DAMAGE as error:
        raise HarkenError(
            f"is not a complete zip archive ({str(error) or type(error).__name__})",
            file=zip_path,
            next_step="Run the same command again once the publisher has corrected it, or remove it to fetch it again",
        ) from None
    except OSError as error:
        raise HarkenError(
            f"cannot be unpacked: {error.strerror or error}",
            file=error.filename or zip_path,
            next_step=f"Make sure that {folder.parent} is writable and has space, and run the same command again",
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return {name: entry.file_size for name, entry in files.items()}


def _checked(archive: zipfile.ZipFile, path: Path, machine: str, limits: UnpackLimits) -> dict[str, zipfile.ZipInfo]:
    """{name below the machine's folder: entry} of all files. Raises HarkenError for entries that are refused."""
    entries = archive.infolist()
    size = sum(entry.file_size for entry in entries)
    if len(entries) > limits.entries:
        raise _refused(path, f"contains {len(entries)} entries, more than {limits.entries}")
    if size > limits.size:
        raise _refused(path, f"would unpack to {size / 2**30:.3g} GiB, more than {limits.size / 2**30:.3g}")
    if size > limits.ratio * max(path.stat().st_size, 1):
        raise _refused(path, f"would unpack to more than {limits.ratio:g} times its size")
    files: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        components = _path_components(entry, path)
        if components and components[0] == machine:
            components = components[1:]
        if not components or entry.is_dir() or _JUNK.intersection(components):
            continue
        name = "/".join(components)
        if name in files:
            raise _refused(path, f"contains {entry.filename!r} twice")
        files[name] = entry
    reason = why_no_files(files)
    if reason is not None:
        raise _refused(path, f"contains files that some systems cannot keep ({reason})")
    if not files:
        raise _refused(path, "contains no files")
    return files


def _path_components(entry: zipfile.ZipInfo, path: Path) -> list[str]:
    """Path components of an entry; HarkenError unless it is a plain file or folder below the top folder."""
    name = entry.orig_filename  # `filename` is cut at a NUL and, on some systems, has its backslashes replaced
    components = [component for component in name.split("/") if component not in ("", ".")]
    if name.startswith("/") or ".." in components or any(sign in name for sign in ("\\", ":", "\0")):
        raise _refused(path, f"contains an entry outside its folder: {name!r}")
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused(path, f"contains a link or device: {name!r}")
    if entry.flag_bits & 1:
        raise _refused(path, f"is encrypted: {name!r}")
    return components


def _move(names: dict[str, zipfile.ZipInfo], staging: Path, folder: Path) -> None:
    """Move all files into place, after checking that none would replace a different one."""
    for name in names:
        target = folder / name
        if os.path.lexists(target) and not (target.is_file() and filecmp.cmp(staging / name, target, shallow=False)):
            raise HarkenError(
                "exists with different content and was not replaced",
                file=target,
                next_step="Move it away, and run the same command again",
            )
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / name, target)


def _refused(path: Path, cause: str) -> HarkenError:
    return HarkenError(
        f"{cause}; it was not unpacked", file=path, next_step="Compare it with the published file, and remove it"
    )
