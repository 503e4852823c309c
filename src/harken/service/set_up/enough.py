"""How much normal sound there is, and how much is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median

from harken.audio.decode import ALL_FORMATS
from harken.audio.segments import read_form
from harken.core.errors import AudioError
from harken.data.name_times import clock_in_name
from harken.data.names import without_suffix
from harken.monitor.alarm import SHOWS_CORRELATION
from harken.monitor.cutting import LONG_S
from harken.monitor.sessions import PAUSE_SECONDS
from harken.service.set_up.folder import is_recording

#: with fewer, correlation in time does not show; and a number of sessions on different days (docs/alarms.md, "How to
#: record normal sound")
LEAST, SESSIONS = SHOWS_CORRELATION, 3
#: median of the rarest rate at which single recordings still find faults (docs/alarms.md, "Rates that still find
#: faults"), at this number of recordings; it falls as the number to this power
_ONE_IN, _AT, _POWER = 490.0, 70, 1.5
#: fewer recordings do not show how often they are made
_LEAST_TIMES = 5
#: seconds of a recording: of those that are longer, segments of this length count
USUAL_S = 10.0


@dataclass(frozen=True)
class Recorded:
    """Normal sound of a machine.

    recordings: how many; segments of long ones count. seconds: of all. sessions: divided by pauses of half an hour.
    days: different dates. last: when the last one was made.
    """

    recordings: int = 0
    seconds: float = 0.0
    sessions: int = 0
    days: int = 0
    last: datetime | None = None

    @property
    def enough(self) -> bool:
        """Whether an alarm that is false once a week at most can be expected of it."""
        return self.recordings >= LEAST and self.sessions >= SESSIONS and self.days > 1

    @property
    def false_alarm_s(self) -> float:
        """About how many seconds of normal sound there would be per false alarm of single recordings, as other machines
        had it with so many recordings; 0 without any."""
        if not self.recordings:
            return 0.0
        return self.seconds / self.recordings * _ONE_IN * (self.recordings / _AT) ** _POWER


class RecordedFiles:
    """Measures a folder; headers are read once per file."""

    def __init__(self) -> None:
        self._seconds: dict[Path, float] = {}

    def of(self, folder: Path) -> Recorded:
        """What is in a folder; nothing in one that is not there."""
        return self.summed(files_of(folder))

    def summed(self, files: Sequence[Path]) -> Recorded:
        """What is in files. Those that cannot be read do not count."""
        times: list[datetime] = []
        seconds, count = 0.0, 0
        for file in files:
            length = self._length(file)
            if not length:
                continue
            seconds += length
            count += 1 if length <= LONG_S else max(1, int(length // USUAL_S))
            if (time := clock_in_name(without_suffix(file.name))) is not None:
                times.append(time)
        times.sort()
        pauses = sum((later - earlier).total_seconds() > PAUSE_SECONDS for earlier, later in pairwise(times))
        days = len({time.astimezone().date() for time in times})
        sessions = pauses + 1 if count else 0
        return Recorded(count, seconds, sessions, max(days, min(count, 1)), times[-1] if times else None)

    def _length(self, file: Path) -> float:
        if file not in self._seconds:
            try:
                self._seconds[file] = read_form(file, formats=ALL_FORMATS).seconds
            except AudioError:
                self._seconds[file] = 0.0
        return self._seconds[file]


def interval_s(files: Sequence[Path], recorded: Recorded) -> float | None:
    """Seconds from one recording to the next, where times are known and they do not follow each other; else None."""
    named = [clock_in_name(without_suffix(file.name)) for file in files]
    times = sorted(time.timestamp() for time in named if time is not None)
    if len(times) < _LEAST_TIMES or not recorded.recordings:
        return None
    step = median(later - earlier for earlier, later in pairwise(times))
    return round(step, 1) if step > 1.5 * recorded.seconds / len(files) else None


def files_of(folder: Path) -> list[Path]:
    """Recordings in a folder, by name."""
    return sorted(path for path in folder.iterdir() if is_recording(path)) if folder.is_dir() else []
