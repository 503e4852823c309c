"""Storage of the results of stages, named by their inputs, complete or absent."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.core.locks import lock_file, locked

SCHEMA = 1
_ABOUT = "stage.json"
#: names of half-made objects, and of files that are being written
_HALF_MADE = re.compile(r"[0-9a-f]{40}\.[0-9]+\.[0-9a-f]{8}")
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.tmp")
#: seconds after which a temporary file is nobody's
_WRITTEN_S = 60.0


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
    text = json_text(
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

    Several runs may use it at once: each object is made by one of them, for which the others wait. What killed runs
    left is removed by a run that is alone.
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

    @contextmanager
    def running(self) -> Iterator[None]:
        """The time of a run. At its beginning, unless there is another one, what killed runs left is removed: half-made
        objects and temporary files; scratch of a stage stays, since the stage goes on from there."""
        scratch = self.root / "scratch"
        lease = scratch / f"run-{uuid.uuid4().hex}"
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(lease))
                alone = all(_is_free(file) for file in scratch.glob(".run-*.lock") if file != lock_file(lease))
            except OSError:
                alone = False  # the file system has no locks
            if alone:
                self._sweep()
            yield

    def _sweep(self) -> None:
        for entry in (self.root / "scratch").iterdir():
            if _HALF_MADE.fullmatch(entry.name):
                shutil.rmtree(entry, ignore_errors=True)
        # Others than runs may write to the store, each file in a moment.
        latest = time.time() - _WRITTEN_S
        for name in ("runs", "store", "logs"):
            for folder, _, files in os.walk(self.root / name):
                for file in files:
                    path = Path(folder, file)
                    with suppress(OSError):
                        if _TEMPORARY.fullmatch(file) and (name == "runs" or path.stat().st_mtime < latest):
                            path.unlink()

    @contextmanager
    def making(self, key: str) -> Iterator[None]:
        """The time of making an object: other processes that are to make the same one wait for its end."""
        with ExitStack() as stack:
            # Without locks, both make it, and the first to end is used.
            with suppress(OSError):
                stack.enter_context(locked(self.root / "scratch" / f"{key}.making", patience=-1))
            yield

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
        text = json_text({"schema": SCHEMA, **record, "files": files}, indent=1, sort_keys=True)
        write_atomically(made / _ABOUT, text.encode())
        folder = self._folder(key)
        folder.parent.mkdir(exist_ok=True)
        try:
            if self.get(key) is None:
                shutil.rmtree(folder, ignore_errors=True)  # a damaged object
            # Fails where another run was faster, whose object may be in use.
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


def _is_free(file: Path) -> bool:
    """Whether nobody holds a lock file, which then is removed."""
    from filelock import FileLock, Timeout

    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    file.unlink(missing_ok=True)
    lock.release()
    return True


def recorded_digest(folder: Path) -> str:
    """Digest of an object by its record, without reading its files."""
    return _digest(json.loads((folder / _ABOUT).read_text())["files"])


def _digest(files: Mapping[str, str]) -> str:
    return hashlib.sha256(json_text(files, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
