"""A published zip -> the folder of its machine: nothing outside it, nothing half written, nothing replaced."""

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

#: what zipfile raises for an archive that is not whole; RuntimeError is its word for encryption
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError,
    ValueError,
)  # fmt: skip
#: what archivers of some systems add
_JUNK = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db"})
#: the training and the test zip of a machine go into one folder, perhaps at the same time
_moving = threading.Lock()


@dataclass(frozen=True)
class Limits:
    """What a zip may hold: entries, bytes once unpacked, and bytes for each byte of the zip.

    The largest published zips hold some thousands of recordings, a few GiB, and shrink to no less than a tenth.
    """

    entries: int = 100_000
    size: int = 32 * 2**30
    ratio: float = 100.0


def unpack(zip_path: Path, folder: Path, *, limits: Limits = Limits()) -> dict[str, int]:
    """Unpack into `folder`, the machine's; returns name below it (with /) -> bytes of every file of the zip.

    A top folder in the zip of the same name as `folder` is `folder` itself. Everything is unpacked into a hidden
    folder beside it, checked, and then moved, file by file: a file is whole under its name or not there, and a run
    that was stopped is completed by another. A file that is there with the same bytes stays. One with other bytes
    is never replaced: since whole files are moved, an unpacking that was stopped cannot have left it.

    Raises HarkenError, with nothing moved, for a zip that is damaged, leads outside, holds anything but files and
    folders, or exceeds `limits`, and for a file that is in the way.
    """
    staging = folder.parent / f".unpack-{zip_path.stem}"
    try:
        shutil.rmtree(staging, ignore_errors=True)  # of a run that was stopped
        staging.mkdir(parents=True)
        with zipfile.ZipFile(zip_path) as archive:
            files = _checked(archive, zip_path, folder.name, limits)
            for name, entry in files.items():
                target = staging / name
                target.parent.mkdir(parents=True, exist_ok=True)
                # Never more bytes than the header says, which is what the limits were compared with; and the last
                # read compares the CRC.
                with archive.open(entry) as packed, target.open("xb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
        with _moving:
            _move(files, staging, folder)
    except _DAMAGE as error:
        raise HarkenError(
            f"is not a whole zip archive ({str(error) or type(error).__name__})",
            file=zip_path,
            next_step="Run the same command again once the publisher has mended it, or remove it to download it anew",
        ) from None
    except OSError as error:
        raise HarkenError(
            f"cannot be unpacked: {error.strerror or error}",
            file=error.filename or zip_path,
            next_step=f"Make sure that {folder.parent} can be written to and has space, and run the same command again",
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return {name: entry.file_size for name, entry in files.items()}


def _checked(archive: zipfile.ZipFile, path: Path, machine: str, limits: Limits) -> dict[str, zipfile.ZipInfo]:
    """Name below the machine's folder -> entry, for every file. Raises HarkenError for what may not be unpacked."""
    entries = archive.infolist()
    size = sum(entry.file_size for entry in entries)
    if len(entries) > limits.entries:
        raise _refused(path, f"holds {len(entries)} entries, more than {limits.entries}")
    if size > limits.size:
        raise _refused(path, f"would unpack to {size / 2**30:.3g} GiB, more than {limits.size / 2**30:.3g}")
    if size > limits.ratio * max(path.stat().st_size, 1):
        raise _refused(path, f"would unpack to more than {limits.ratio:g} times its size")
    found: dict[str, zipfile.ZipInfo] = {}
    taken: set[str] = set()
    for entry in entries:
        parts = _parts(entry, path)
        if parts and parts[0] == machine:
            parts = parts[1:]
        if not parts or entry.is_dir() or _JUNK.intersection(parts):
            continue
        name = "/".join(parts)
        if name.casefold() in taken:  # where case does not count, one would replace the other
            raise _refused(path, f"holds {entry.filename!r} twice")
        taken.add(name.casefold())
        found[name] = entry
    if not found:
        raise _refused(path, "holds no files")
    return found


def _parts(entry: zipfile.ZipInfo, path: Path) -> list[str]:
    """Folders and name of an entry that is a plain file or folder at a place below the top."""
    name = entry.orig_filename  # `filename` is cut at a NUL and, on some systems, has its backslashes turned
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or any(sign in name for sign in ("\\", ":", "\0")):
        raise _refused(path, f"holds an entry that leads outside: {name!r}")
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused(path, f"holds a link or device: {name!r}")
    if entry.flag_bits & 1:
        raise _refused(path, f"is encrypted: {name!r}")
    return parts


def _move(names: dict[str, zipfile.ZipInfo], staging: Path, folder: Path) -> None:
    """Move every file to its place, after a look that none is in the way."""
    for name in names:
        target = folder / name
        if os.path.lexists(target) and not (target.is_file() and filecmp.cmp(staging / name, target, shallow=False)):
            raise HarkenError(
                "is there already with other content, and was not replaced",
                file=target,
                next_step="Move it away if it is not yours to keep, and run the same command again",
            )
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / name, target)


def _refused(path: Path, cause: str) -> HarkenError:
    return HarkenError(
        f"{cause}; it was not unpacked", file=path, next_step="Compare it with the publisher's, and remove it"
    )
