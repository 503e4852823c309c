"""Which recordings a folder gives: one walk for all that read folders."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harken.audio.suffixes import ALL_SUFFIXES, UNREAD_SUFFIXES
from harken.core.errors import HarkenError
from harken.core.names import shown
from harken.data.clips import natural_key

#: folders of deleted files, snapshots and thumbnails of Windows, macOS, Linux and network drives, in lower case
SYSTEM_FOLDERS = frozenset(
    {
        "$recycle.bin", "recycler", "recycled", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "~snapshot",
        "@eadir", "@tmp", "lost+found", "lost.dir", "system volume information", "__macosx",
    }
)  # fmt: skip
#: where Windows puts what it finds when it repairs a disk
_REPAIRED = re.compile(r"found\.[0-9]{3}", re.IGNORECASE)


@dataclass(frozen=True)
class Folder:
    """A folder of a walk: sorted names of its audio files, of those whose endings are not read, and of all others."""

    path: Path
    audio: tuple[str, ...]
    unread: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True)
class Walk:
    """Folders below a root, sorted. skipped: system folders that hold audio. unreadable: folders, and why."""

    folders: tuple[Folder, ...]
    skipped: tuple[Path, ...]
    unreadable: tuple[tuple[Path, str], ...]

    @property
    def notes(self) -> list[str]:
        """What is not read, and how it could be."""
        endings: Counter[str] = Counter(
            _suffix(name) for folder in self.folders for name in folder.unread
        )  # fmt: skip
        notes = []
        for suffixes, how in (
            (ALL_SUFFIXES, "--formats all"),
            (UNREAD_SUFFIXES, "convert them: ffmpeg -i FILE NEW_FILE.wav"),
        ):
            listed = sorted(set(endings) & suffixes)
            if listed:
                count = sum(endings[ending] for ending in listed)
                files = (
                    "1 file with an audio ending that is"
                    if count == 1
                    else f"{count} files with audio endings that are"
                )
                notes.append(f"{files} not read: {', '.join(listed)} ({how})")
        if self.skipped:
            names = ", ".join(sorted({shown(path.name) for path in self.skipped}))
            notes.append(f"recordings in folders of deleted and system files are left out: {names}")
        notes += [f"{shown(path)} cannot be read ({reason})" for path, reason in self.unreadable]
        return notes


@dataclass(frozen=True)
class Recordings:
    """Files that paths give, in order, and notes on what is not read."""

    files: list[Path]
    notes: tuple[str, ...]


def walk(root: Path, suffixes: frozenset[str]) -> Walk:
    """All folders below `root`, with the files whose endings are among `suffixes` in lower case.

    Links are followed, and no folder is visited twice: what is both there and linked to is found where it is. Hidden
    files and folders, and those of systems (`is_system_folder`), are left out.
    """
    folders, skipped, unreadable = [], [], []
    waiting, links, seen = [root], list[Path](), set[str]()
    while waiting or links:
        path = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(path) as scan:
                entries = sorted((e for e in scan if not e.name.startswith(".") or _is_bin(e.name)), key=_name)
        except OSError as error:
            unreadable.append((path, str(error.strerror)))
            continue
        files: list[str] = []
        for entry in entries:
            if not _is_folder(entry):
                if not entry.name.startswith("."):
                    files.append(entry.name)
            elif is_system_folder(entry.name):
                if _holds_audio(Path(entry.path)):
                    skipped.append(Path(entry.path))
            else:
                (links if entry.is_symlink() else waiting).append(path / entry.name)
        folders.append(_folder(path, files, suffixes))
    return Walk(tuple(sorted(folders, key=_path)), tuple(sorted(skipped)), tuple(sorted(unreadable)))


def recordings_of(paths: Iterable[str | Path], suffixes: frozenset[str]) -> Recordings:
    """Audio files among `paths` and in folders among them, without repetition, folders in natural order.

    suffixes: of files in folders; files in `paths` may have any suffix. Raises HarkenError for a path that does not
    exist and for a folder without audio.
    """
    files: dict[Path, None] = {}
    notes: dict[str, None] = {}
    for given in map(Path, paths):
        if given.is_dir():
            walked = walk(given, suffixes)
            inside = [folder.path / name for folder in walked.folders for name in folder.audio]
            if not inside:
                raise _no_audio(given, walked, suffixes)
            files.update(dict.fromkeys(sorted(inside, key=natural_key)))
            notes.update(dict.fromkeys(walked.notes))
        elif given.exists():
            files[given] = None
        else:
            raise HarkenError("there is no such file or folder", file=given, next_step="Check the path")
    return Recordings(list(files), tuple(notes))


def find_recordings(paths: Iterable[str | Path], suffixes: frozenset[str]) -> list[Path]:
    """Files of `recordings_of`. Raises as it does."""
    return recordings_of(paths, suffixes).files


def _folder(path: Path, files: list[str], suffixes: frozenset[str]) -> Folder:
    audio, unread, others = list[str](), list[str](), list[str]()
    for name in files:
        suffix = _suffix(name)
        is_audio = suffix in ALL_SUFFIXES or suffix in UNREAD_SUFFIXES
        (audio if suffix in suffixes else unread if is_audio else others).append(name)
    return Folder(path, tuple(audio), tuple(unread), tuple(others))


def _no_audio(folder: Path, walked: Walk, suffixes: frozenset[str]) -> HarkenError:
    step = f"Put recordings there ({', '.join(sorted(suffixes))}) or give another folder"
    because = "".join(f"; {note}" for note in walked.notes)
    return HarkenError(f"no audio in this folder{because}", file=folder, next_step=step)


def is_system_folder(name: str) -> bool:
    """Whether it holds deleted files, snapshots, thumbnails, or pieces of files after a repair of a disk."""
    return name.lower() in SYSTEM_FOLDERS or _is_bin(name) or _REPAIRED.fullmatch(name) is not None


def _is_bin(name: str) -> bool:
    """Whether it is where deleted files of macOS and Linux go: `.Trashes`, `.Trash-1000`."""
    return name.lower().startswith(".trash")


def _holds_audio(folder: Path) -> bool:
    return any(_suffix(name) in ALL_SUFFIXES for name in _names_below(folder))


def _names_below(folder: Path) -> Iterator[str]:
    for _, _, names in os.walk(folder):
        yield from names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _path(folder: Folder) -> tuple[str, ...]:
    return folder.path.parts
