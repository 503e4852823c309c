"""Storage of the results of stages, named by their inputs, complete or absent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harken.core.errors import HarkenError
from harken.core.files import write_atomically

SCHEMA = 1
_ABOUT = "stage.json"


@dataclass(frozen=True)
class Object:
    """What one stage made. digest: of all its files, which is what later stages depend on. seconds: that making it
    took; 0 for an existing one."""

    key: str
    folder: Path
    digest: str
    seconds: float = field(default=0.0, compare=False)


def object_key(stage: str, version: int, parameters: Mapping[str, Any], inputs: Mapping[str, Sequence[str]]) -> str:
    """Name of the object that a stage makes of inputs with these digests, by input name."""
    text = json.dumps(
        {
            "schema": SCHEMA,
            "stage": stage,
            "version": version,
            "parameters": parameters,
            "inputs": {name: list(digests) for name, digests in inputs.items()},
        },
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:40]


class Workspace:
    """A folder with `objects/` (results of stages), `scratch/` (of running stages), `store/` (embeddings of single
    recordings), `logs/` (of trainings, for TensorBoard) and `runs/`.

    An object appears by one rename when its stage has ended; a killed stage leaves nothing but scratch. Objects carry
    digests of their files: a damaged one counts as missing and is made again.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        try:
            for name in ("objects", "scratch", "store", "runs"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HarkenError(
                f"cannot be a workspace ({error.strerror})", file=root, next_step="Choose another folder"
            ) from None

    def get(self, key: str) -> Object | None:
        """The object of that name; None if it is missing or damaged."""
        folder = self._folder(key)
        try:
            record = json.loads((folder / _ABOUT).read_text())
            files = record["files"]
            if record["schema"] != SCHEMA or any(_sha256(folder / name) != digest for name, digest in files.items()):
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return Object(key, folder, _digest(files))

    def scratch(self, key: str) -> Path:
        """Folder for the stage that makes this object, which survives a kill."""
        folder = self.root / "scratch" / key
        folder.mkdir(exist_ok=True)
        return folder

    def new(self, key: str) -> Path:
        """Empty folder for a new object, to be passed to `keep`."""
        folder = self.root / "scratch" / f"{key}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        return folder

    def keep(self, key: str, made: Path, record: Mapping[str, Any]) -> Object:
        """Turn a folder from `new` into the object of that name. record: stage, parameters, and keys and digests of its
        inputs, kept beside it in `stage.json`."""
        files = {path.relative_to(made).as_posix(): _sha256(path) for path in sorted(made.rglob("*")) if path.is_file()}
        text = json.dumps({"schema": SCHEMA, **record, "files": files}, indent=1, sort_keys=True)
        write_atomically(made / _ABOUT, text.encode())
        folder = self._folder(key)
        folder.parent.mkdir(exist_ok=True)
        if folder.exists():
            # A damaged object, or another run was faster.
            shutil.rmtree(folder, ignore_errors=True)
        try:
            os.rename(made, folder)
        except OSError:
            if self.get(key) is None:
                raise
            shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(self.root / "scratch" / key, ignore_errors=True)
        return Object(key, folder, _digest(files))

    def drop(self, made: Path) -> None:
        """Remove a folder of `new`."""
        shutil.rmtree(made, ignore_errors=True)

    def _folder(self, key: str) -> Path:
        return self.root / "objects" / key[:2] / key


def recorded_digest(folder: Path) -> str:
    """Digest of an object by its record, without reading its files."""
    return _digest(json.loads((folder / _ABOUT).read_text())["files"])


def _digest(files: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
