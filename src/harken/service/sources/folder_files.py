"""The files of a folder that is watched: which are new and finished, which were taken."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.core.system_reasons import reason_of
from harken.data.clips import natural_key
from harken.data.folders import walk
from harken.data.name_times import clock_in_name
from harken.data.names import without_suffix
from harken.service.records import Resume
from harken.service.sources.base import SourceError
from harken.service.sources.settling import Settling

Order = Literal["name", "time"]


@dataclass(frozen=True)
class FolderFile:
    """A file at one moment. origin: its path below the folder."""

    path: Path
    origin: str
    size: int
    modified_ns: int

    @property
    def state(self) -> str:
        """What tells it from a later one of the same name."""
        return f"{self.size}-{self.modified_ns}"

    @property
    def named(self) -> datetime | None:
        """Time in its name."""
        return clock_in_name(without_suffix(self.origin))

    def start(self, seconds: float) -> datetime:
        """When it was recorded: as its name says, else so long before it was written."""
        return self.named or datetime.fromtimestamp(self.modified_ns / 1e9 - seconds, UTC)


class FolderFiles:
    """Looks through a folder and those below it, and remembers what was taken. Threads may share it.

    order, machines, resume: see `FolderSource`. suffixes: of audio files. settling: decides which are finished.
    """

    def __init__(
        self,
        folder: Path,
        machines: Sequence[str],
        resume: Resume,
        order: Order,
        suffixes: frozenset[str],
        settling: Settling,
    ) -> None:
        self.folder, self._machines, self._order = folder, tuple(machines), order
        self._suffixes, self._settling = suffixes, settling
        self._states = self._stored(resume)
        self._forgotten: list[str] = []
        self._lock = threading.Lock()

    def root(self) -> tuple[int, int]:
        """What tells the folder from another one at its place. Raises SourceError where it cannot be read."""
        try:
            status = self.folder.stat()
            if not self.folder.is_dir():
                raise HarkenError(
                    Sentence("is not a folder"), file=self.folder, next_step=Sentence("Give a folder of recordings")
                )
        except OSError as error:
            raise self._gone(reason_of(error)) from None
        return status.st_dev, status.st_ino

    def finished(self) -> list[FolderFile]:
        """New files that are finished, in order, up to the first one that the others have to wait for.

        Raises SourceError for a folder that cannot be read.
        """
        walked = walk(self.folder, self._suffixes)
        unreadable = dict(walked.unreadable)
        if self.folder in unreadable:
            raise self._gone(unreadable[self.folder])
        present: set[str] = set()
        new: list[tuple[FolderFile, os.stat_result]] = []
        for path in (folder.path / name for folder in walked.folders for name in folder.audio):
            try:
                status = path.stat()
            except OSError:
                continue  # it has gone meanwhile
            file = FolderFile(path, path.relative_to(self.folder).as_posix(), status.st_size, status.st_mtime_ns)
            present.add(file.origin)
            state = self.state(file)
            if not (state.get("done") or state.get("given")):
                new.append((file, status))
        self._forget(present)
        self._settling.keep({file.path for file, _ in new})
        finished, blocked = [], False
        for file, status in sorted(new, key=lambda entry: self._key(entry[0])):
            if blocked:
                self._settling.note(file.path, status)
            elif self._settling.finished(file.path, status):
                finished.append(file)
            else:
                blocked = self._settling.blocks(file.path)
        return finished

    def state(self, file: FolderFile) -> Mapping[str, Any]:
        """What is known of a file as it is now; nothing of a new one, or one that was changed since."""
        with self._lock:
            state = self._states.get(file.origin, {})
        return state if state.get("state") == file.state else {}

    def set_state(self, file: FolderFile, **state: Any) -> None:
        """given: it was taken. next: so many samples of it were."""
        with self._lock:
            self._states[file.origin] = {"state": file.state, **state}

    def give_back(self, origin: str) -> None:
        """A file was not judged after all."""
        with self._lock:
            self._states.pop(origin, None)

    def forgotten(self) -> Resume:
        """Keys of files that have gone, since the last call."""
        with self._lock:
            forgotten, self._forgotten = self._forgotten, []
        return {f"{machine}/{origin}": {} for origin in forgotten for machine in self._machines}

    def _stored(self, resume: Resume) -> dict[str, Mapping[str, Any]]:
        """By origin: what all machines have done of a file."""
        states: dict[str, list[Mapping[str, Any]]] = {}
        for machine in self._machines:
            prefix = f"{machine}/"
            for key, value in resume.items():
                if key.startswith(prefix) and value:
                    states.setdefault(key.removeprefix(prefix), []).append(value)
        return {origin: _least(values, len(self._machines)) for origin, values in states.items()}

    def _gone(self, reason: str) -> SourceError:
        cause = Sentence("the folder cannot be read ({reason})", reason=reason)
        return SourceError(cause, file=self.folder, next_step=Sentence("Check that it is there, and mounted"))

    def _key(self, file: FolderFile) -> tuple[Any, ...]:
        name = natural_key(Path(file.origin))
        if self._order == "name":
            return (name,)
        named = file.named
        return (file.modified_ns / 1e9 if named is None else named.timestamp(), name)

    def _forget(self, present: set[str]) -> None:
        # A share that is not mounted is an empty folder: nothing is forgotten while none of the files is there.
        with self._lock:
            gone = self._states.keys() - present
            if len(gone) < len(self._states):
                for origin in gone:
                    del self._states[origin]
                self._forgotten += gone


def _least(states: Sequence[Mapping[str, Any]], machines: int) -> Mapping[str, Any]:
    """What so many machines have all done, at least, of a file in the same state."""
    unfinished = [state for state in states if not state.get("done")]
    if len(states) < machines or len({state.get("state") for state in states}) > 1:
        return {"state": ""}
    if not unfinished:
        return states[0]
    return {
        "state": states[0].get("state"),
        "next": min(int(state.get("next", 0)) for state in unfinished),
        "judged_s": min(float(state.get("judged_s", 0.0)) for state in unfinished),
    }
