"""The folder of a set-up: where its recordings, models and configuration are, and what is kept of an unfinished one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harken.audio.suffixes import DEFAULT_SUFFIXES
from harken.core.errors import HarkenError, reading, writing
from harken.core.files import replace_file, temporary_beside
from harken.core.json_text import json_text
from harken.core.sentences import Sentence

CONFIGURATION = "plant.yaml"
#: of recordings of normal sound, by machine
NORMAL = "normal"
_DRAFT = "set-up.json"
#: not to be listened to: they are made by Harken
_MADE = (NORMAL, "evidence")
#: folders that a person can choose from, at most, and how deep they are
_MOST_FOLDERS, _DEEPEST = 100, 3


@dataclass
class Draft:
    """A machine that is being set up; it survives a restart.

    machine: its name, empty until it is chosen. source: its entry as in the configuration. result: of the last fit, see
    `fitting`, None while there is none that counts. left_out, kept: recordings that stand out, as a person decided.
    """

    machine: str = ""
    source: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    left_out: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    @property
    def outliers(self) -> list[str]:
        """Recordings that stood out, in the order of the last fit."""
        if self.result is None:
            return []
        names = [aside["file"] for aside in self.result["set_aside"] if aside["outlier"]]
        return list(dict.fromkeys([*names, *self.left_out, *self.kept]))


class SetUpFolder:
    """A folder, made if it is not there. Raises HarkenError where it cannot be."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        with writing(self.folder, "Choose another folder"):
            self.folder.mkdir(parents=True, exist_ok=True)
        self.configuration = self.folder / CONFIGURATION
        self.store = self.folder / "monitor.db"
        self.evidence = self.folder / "evidence"

    def normal(self, machine: str) -> Path:
        """Where its normal recordings are."""
        return self.folder / NORMAL / machine

    def model(self, machine: str) -> Path:
        """Its model."""
        return self.folder / f"{machine}.harken"

    def secret(self, machine: str) -> Path:
        """The file of an address that holds a password."""
        return self.folder / f"{machine}.url"

    def folders(self) -> list[str]:
        """Folders below this one that something may write recordings into, by their relative names."""
        return sorted(self._below(self.folder, 1))[:_MOST_FOLDERS]

    def below(self, name: str) -> Path:
        """The folder that a person has named. Raises HarkenError for what is not below this one.

        A link in this folder is followed: the operator has made it, and no request can.
        """
        path = Path(name)
        names = path.parts
        inside = bool(names) and not path.is_absolute() and ".." not in names and name.isprintable()
        if not inside or names[0] in _MADE or names[0].startswith(".") or not (self.folder / path).is_dir():
            choices = ", ".join(self.folders()[:10]) or "none yet"
            raise HarkenError(
                Sentence("is no folder in {folder}", folder=str(self.folder)),
                file=name,
                next_step=Sentence(
                    "Choose one of those in it ({choices}); ln -s makes another one appear there", choices=choices
                ),
            )
        return self.folder / path

    def _below(self, folder: Path, depth: int) -> Iterator[str]:
        with suppress(OSError):
            for path in sorted(folder.iterdir()):
                made = depth == 1 and path.name in _MADE
                if path.name.startswith(".") or path.name.endswith(".harken") or made or not path.is_dir():
                    continue
                yield str(path.relative_to(self.folder))
                if depth < _DEEPEST and not path.is_symlink():
                    yield from self._below(path, depth + 1)

    # ---- the draft ---------------------------------------------------------------------------------------

    def read_draft(self) -> Draft:
        """What an earlier run has left; an empty one where there is none. Raises HarkenError for a damaged one."""
        file = self.folder / _DRAFT
        if not file.exists():
            return Draft()
        step = f"Remove it to set the machine up again; recordings in {NORMAL}/ stay"
        with reading(file, step, errors=(ValueError, TypeError)):
            return Draft(**json.loads(file.read_bytes()))

    def write_draft(self, draft: Draft) -> None:
        """Keep it; only its owner can read it, since an address may hold a password."""
        write_private(self.folder / _DRAFT, json_text(asdict(draft), indent=1) + "\n")


def write_private(file: Path, text: str) -> None:
    """Write a file, whole or not at all, that only its owner can read. Raises HarkenError."""
    aside = temporary_beside(file)
    with writing(file, "Check the folder and the disk"):
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
            handle.write(text)
        replace_file(aside, file)


def is_recording(path: Path) -> bool:
    """Whether a file is one by its name."""
    return path.suffix.lower() in DEFAULT_SUFFIXES and not path.name.startswith(".")
