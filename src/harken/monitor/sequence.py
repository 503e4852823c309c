"""Recordings judged one after the other: a change that lasts is reported once, although no recording alone rings."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harken.core.errors import HarkenError, writing
from harken.core.files import read_regular, write_atomically
from harken.core.json_text import json_text
from harken.core.locks import locked
from harken.core.names import shown
from harken.detection.sequential import Evidence
from harken.monitor.alarm import AlarmSetting
from harken.monitor.verdict import Verdict

#: version of the memory file
_VERSION = 1
#: recordings that a memory knows to have been judged
_HEARD = 10_000
#: a memory is about a hundred times smaller
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Change:
    """A lasting change of the sound.

    state: `began` or `ended`. since: the recording with which it most likely began; at: the one with which it was
    noticed, or ended. recordings: judged from `since` to `at`; segments: whether these are segments of longer ones.
    """

    state: Literal["began", "ended"]
    since: str
    at: str
    recordings: int
    segments: bool = False

    @property
    def sentence(self) -> str:
        """For people."""
        since = shown(self.since)
        if self.state == "ended":
            return f"sounds as usual again since {shown(self.at)}; it had sounded different since {since}"
        counted = "segments" if self.segments else "recordings"
        return (
            f"sounds different since {since} ({self.recordings} {counted}, judged together): a fault, a new "
            "operating state, a moved microphone or other surroundings. If the machine is healthy, add normal "
            "recordings of this state and fit again"
        )

    def as_json(self) -> dict[str, Any]:
        """JSON-able fields."""
        return {
            "record": "change",
            "state": self.state,
            "since": self.since,
            "at": self.at,
            "recordings": self.recordings,
            "why": self.sentence,
        }


class Sequence:
    """Judges recordings together, in order of time; see `harken.detection.sequential.EDetector`.

    A recording that is not judged, or was counted before (same bytes), counts for nothing. Segments that are judged
    together count as one recording; of others, one counts per interval of the setting, as recordings would.
    Nothing is reported where the normal recordings do not support the test. The state can be kept in a
    file and taken up again (`save`, `load`).
    """

    def __init__(self, setting: AlarmSetting) -> None:
        self._test = setting.changes
        self._supported = self._test.supported
        self._evidence = Evidence()
        self._since = ""
        self._latest: deque[str] = deque(maxlen=self._test.block)
        self._heard: dict[str, None] = {}
        self._interval_s = setting.interval_s
        self._segment: tuple[Path, float] | None = None

    @property
    def changed(self) -> str | None:
        """The recording since which the machine sounds different, if it does now."""
        return self._since if self._evidence.alarm else None

    def update(self, verdict: Verdict) -> Change | None:
        """Count one more recording; what is to be reported, if anything."""
        if verdict.score is None or verdict.kind == "not judged" or not self._supported:
            return None
        if verdict.sha256 in self._heard or self._within_interval(verdict):
            return None
        if verdict.sha256 is not None:
            self._heard[verdict.sha256] = None
            if len(self._heard) > _HEARD:
                del self._heard[next(iter(self._heard))]
        name = verdict.name if not verdict.segment_scores else str(verdict.path)
        self._latest.append(name)
        scores = verdict.segment_scores or (verdict.score,)
        before, self._evidence = self._evidence, self._test.update(self._evidence, *scores)
        if self._evidence.alarm != before.alarm:
            return self._report(before, name, verdict.start_s is not None and not verdict.segment_scores)
        if self._evidence.onset != before.onset or not self._since:
            self._since = self._latest[0]
        return None

    def _within_interval(self, verdict: Verdict) -> bool:
        """Whether it is a segment that begins less than an interval after one of its recording that counted."""
        if verdict.start_s is None or verdict.segment_scores:
            self._segment = None
            return False
        last = self._segment
        # Lengths of recordings are rounded to samples.
        if last is not None and last[0] == verdict.path and verdict.start_s < last[1] + 0.999 * self._interval_s:
            return True
        self._segment = verdict.path, verdict.start_s
        return False

    def _report(self, before: Evidence, name: str, segments: bool) -> Change:
        now = self._evidence
        if now.alarm:
            if now.onset != before.onset or not self._since:
                self._since = self._latest[0]
            return Change("began", self._since, name, now.clips - now.onset, segments)
        change = Change("ended", self._since, name, now.clips - before.onset, segments)
        self._since = ""
        return change

    def save(self, path: str | Path) -> None:
        """Write the state, whole or not at all. Raises HarkenError where that cannot be."""
        memory = {
            "harken_memory": _VERSION,
            "model": self._model(),
            "evidence": self._evidence.to_json(),
            "since": self._since,
            "latest": list(self._latest),
            "heard": list(self._heard),
        }
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, (json_text(memory, indent=1) + "\n").encode())
        except OSError as error:
            cause = f"cannot be written ({error.strerror})"
            raise HarkenError(cause, file=path, next_step="Choose another place") from None

    @classmethod
    def load(cls, path: str | Path, setting: AlarmSetting) -> Sequence:
        """Take up the state of `path`; a new one where there is no such file.

        Raises HarkenError for a file that is not a memory, or is that of another model.
        """
        sequence = cls(setting)
        path = Path(path)
        step = "Give another file as memory, or remove this one to begin anew"
        try:
            memory = json.loads(read_regular(path, _MOST_BYTES))
            if memory["harken_memory"] != _VERSION:
                raise ValueError(f"version {memory['harken_memory']!r}")
            model, since = memory["model"], memory["since"]
            evidence = Evidence.from_json(memory["evidence"])
            latest, heard = memory["latest"], memory["heard"]
            if not all(isinstance(value, str) for value in (model, since, *latest, *heard)):
                raise ValueError("names that are not text")
        except FileNotFoundError:
            return sequence
        except OSError as error:
            raise HarkenError(f"cannot be read ({error.strerror})", file=path, next_step=step) from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise HarkenError(f"is not a memory of scored recordings ({error})", file=path, next_step=step) from None
        if model != sequence._model():
            raise HarkenError("is the memory of another model, or of an earlier fit", file=path, next_step=step)
        sequence._evidence, sequence._since = evidence, since
        sequence._latest.extend(latest)
        sequence._heard = dict.fromkeys(heard)
        return sequence

    @classmethod
    @contextmanager
    def remembered(
        cls, path: str | Path, setting: AlarmSetting, waits: Callable[[], None] = lambda: None
    ) -> Iterator[Sequence]:
        """`load`, and `save` at the end; meanwhile no other process has the same memory, and `waits` is called if
        this one has to wait for it. HarkenError, before anything is counted, where that cannot be or takes too long."""
        path = Path(path)
        with ExitStack() as stack:
            with writing(path, "Choose another place"):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(path, busy="is the memory of recordings that are being scored", waits=waits))
            sequence = cls.load(path, setting)
            try:
                yield sequence
            finally:
                sequence.save(path)

    def _model(self) -> str:
        """Names what evidence depends on: the normal scores and the length of blocks."""
        scores = np.ascontiguousarray(self._test.calibration.scores)
        return hashlib.sha256(scores.tobytes() + str(self._test.block).encode()).hexdigest()
