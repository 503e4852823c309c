"""Sessions of normal recordings, and whether the last one is like the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.data.chronology import Chronology
from harken.detection import AnomalyDetector
from harken.detection.calibration import Calibration

Ints = NDArray[np.int64]

#: a pause of this many usual intervals, and at least so many seconds, ends a session
PAUSE_INTERVALS, PAUSE_SECONDS = 10.0, 1800.0
#: fewest recordings of a session that is scored by the others, and of the others
LAST_CLIPS, OTHER_CLIPS = 8, 20
#: rate at which alarms of the last session are counted, and how many times as many are a difference between sessions
RATE, DIFFERENT = 0.05, 3.0


@dataclass(frozen=True)
class SessionCheck:
    """The last session as scored by a detector that learned from the others.

    sessions: number of all. clips: of the last one. alarms: of them, at the rate `RATE`.
    """

    sessions: int
    clips: int
    alarms: int

    @property
    def different(self) -> bool:
        """Whether far more of its recordings are alarms than the rate is."""
        return self.alarms > max(2.0, DIFFERENT * RATE * self.clips)

    @property
    def sentence(self) -> str:
        """For the notes of a model."""
        result = (
            f"of {self.sessions} sessions, the last as heard by a model of the others: {self.alarms} of its "
            f"{self.clips} recordings would be alarms at {RATE:.0%}"
        )
        if not self.different:
            return f"{result}: sessions sound alike"
        return (
            f"{result}: other sessions are other sounds, and the false-alarm rate does not hold for the next one. "
            "Record on more days, with all states, until the last session is like the others"
        )


def session_numbers(when: Chronology, paths: Sequence[Path]) -> Ints:
    """(N,) session of each recording, in order of time: divided by pauses where times are known, else by folders, or
    by long recordings where such were cut."""
    seconds_N = when.seconds_N
    if seconds_N is None:
        places = [str(path.parent) for path in paths] if when.recordings_N is None else when.recordings_N.tolist()
        number_of = {place: number for number, place in enumerate(dict.fromkeys(places))}
        return np.array([number_of[place] for place in places], dtype=np.int64)
    # Those without a time are in the session of the recording before them.
    steps = np.nan_to_num(np.diff(seconds_N))
    if not len(steps):
        return np.zeros(len(paths), dtype=np.int64)
    pause = max(PAUSE_SECONDS, PAUSE_INTERVALS * float(np.median(steps)))
    return np.concatenate([[0], np.cumsum(steps > pause)]).astype(np.int64)


def check_last_session(
    detector: AnomalyDetector,
    embeddings_ND: NDArray[np.floating],
    domains: Sequence[str],
    blocks_N: Ints | None,
    session_N: Ints,
) -> SessionCheck | None:
    """Fit the detector to all but the last session of at least `LAST_CLIPS` recordings, and score that one.

    detector: gives kind and parameters; it is not changed. blocks_N: see `AnomalyDetector.fit`. None with fewer than
    two sessions, or with other sessions of fewer than `OTHER_CLIPS` recordings together.
    """
    numbers, sizes = np.unique(session_N, return_counts=True)
    large = numbers[sizes >= LAST_CLIPS]
    if len(numbers) < 2 or not len(large):
        return None
    last_N = session_N == large[-1]
    if (~last_N).sum() < OTHER_CLIPS:
        return None
    others = type(detector)(**detector.get_params())
    try:
        others.fit(
            embeddings_ND[~last_N], np.asarray(domains)[~last_N], None if blocks_N is None else blocks_N[~last_N]
        )
    except ValueError:
        # All others may be in one block.
        return None
    calibration = Calibration.independent(others.train_scores_)
    alarms = int((others.score(embeddings_ND[last_N]) > calibration.threshold(RATE)).sum())
    return SessionCheck(len(numbers), int(last_N.sum()), alarms)


def session_notes(check: SessionCheck | None, when: Chronology, session_N: Ints) -> list[str]:
    """What to know of the sessions: how the last one is judged by the others, or that there is a single one."""
    if check is not None:
        return [check.sentence]
    if session_N.max(initial=0) > 0:
        return []
    if when.seconds_N is None:
        return [
            "when they were recorded is not known: if all in one go, other days may be other sounds. Record on more "
            "days, with all states, with times in the names or a folder per day"
        ]
    minutes = float(np.nanmax(when.seconds_N) - np.nanmin(when.seconds_N)) / 60
    span = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    return [
        f"all were recorded in one go of {span}: other days may be other sounds. Record on more days, with all states"
    ]
