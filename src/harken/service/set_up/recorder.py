"""Normal sound of a machine as files, with their times in their names."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harken.audio.decode import ALL_FORMATS, decode
from harken.audio.moments import Moments
from harken.audio.quality import Finding, inspect
from harken.audio.write import write_sound
from harken.core.errors import AudioError, HarkenError
from harken.core.files import replace_file, temporary_beside
from harken.data.name_times import clock_in_name
from harken.data.names import without_suffix
from harken.service.records import Block, Recording, Window
from harken.service.set_up.enough import USUAL_S
from harken.service.windows import Windower

#: bytes that stay free on the disk
_LEAST_FREE = 500 * 2**20


class NormalRecorder:
    """Records until `most` recordings are kept; sound with a defect is not kept, and counted by its kind.

    folder: of the recordings. seconds: length of each, where sound comes without an end; every_s: from the beginning of
    one to that of the next. Of files, copies are kept. ended: why it has, once it has: `done`, `stopped`, `disk`.
    """

    def __init__(self, folder: Path, *, most: int, seconds: float = USUAL_S, every_s: float | None = None) -> None:
        self.folder, self.most = folder, most
        self.kept = 0
        self.unfit: Counter[str] = Counter()
        self.ended = ""
        self.began = datetime.now(UTC)
        self._windower = Windower(seconds, None if every_s is None else max(every_s, seconds))
        folder.mkdir(parents=True, exist_ok=True)

    def hear(self, block: Block) -> None:
        """Sound that follows the last, or comes after a gap."""
        for window in self._windower.push(block):
            if not self.ended:
                self._keep(window)

    def take(self, recording: Recording) -> None:
        """A file; one that is kept already counts no more."""
        if self.ended:
            return
        if recording.error is not None:
            self.unfit["unreadable"] += 1
            return
        target = self.folder / _name(recording)
        if target.exists():
            return
        try:
            audio = decode(recording.file, formats=ALL_FORMATS)
            if not self._fit(inspect(Moments(audio.samples_CS), audio.sample_rate)):
                return
        except AudioError:
            self.unfit["unreadable"] += 1
            return

        def copy() -> None:
            aside = temporary_beside(target)
            shutil.copyfile(recording.file, aside)
            replace_file(aside, target)

        self._write(copy)

    def stop(self) -> None:
        """Record no more."""
        self.ended = self.ended or "stopped"

    def _keep(self, window: Window) -> None:
        if not self._fit(inspect(Moments(window.samples_CS), window.sample_rate)):
            return
        self._write(lambda: write_sound(self.folder / _stamp(window.start), window.samples_CS, window.sample_rate))

    def _fit(self, findings: Sequence[Finding]) -> bool:
        kinds = [finding.kind for finding in findings if not finding.harmless]
        if kinds:
            self.unfit[kinds[0]] += 1
        return not kinds

    def _write(self, write: Callable[[], object]) -> None:
        """A disk that is full ends the recording."""
        try:
            if shutil.disk_usage(self.folder).free < _LEAST_FREE:
                self.ended = "disk"
                return
            write()
        except (OSError, HarkenError):
            self.ended = "disk"
            return
        self.kept += 1
        if self.kept >= self.most:
            self.ended = "done"


def _stamp(time: datetime) -> str:
    """`20260301_120000.250Z`: sorted by time, and the same in every time zone."""
    time = time.astimezone(UTC)
    return f"{time:%Y%m%d_%H%M%S}.{time.microsecond // 1000:03d}Z"


def copied(names: Iterable[str]) -> set[str]:
    """What the files were called, in their folder with `_` for `/`, of which these are copies."""
    return {called for name in names for called in (name, name.partition("Z_")[2])}


def _name(recording: Recording) -> str:
    """Name of the copy of a file: with its time in front, unless its name has one."""
    name = recording.origin.replace("/", "_") or recording.file.name
    return name if clock_in_name(without_suffix(name)) is not None else f"{_stamp(recording.start)}_{name}"
