"""Windows, and recordings of their own, to verdicts of one machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.audio.decode import ALL_FORMATS, Limits, decode
from harken.audio.segments import Segment, cut, read_form, read_segment
from harken.core.errors import AudioError, HarkenError
from harken.monitor.cutting import LONG_S
from harken.monitor.detector import Detector
from harken.monitor.verdict import Verdict
from harken.service.judging_pool import JudgingPool
from harken.service.kept_features import features_name
from harken.service.records import HeardWindow, Recording, Resume, Window
from harken.service.sources.base import SourceForm

Float32 = NDArray[np.float32]


class WindowJudge:
    """Judges the sound of one machine with a model that stays in memory.

    Sound goes to the model as it was recorded, at its own rate: a window gets the score that `harken score` gives to a
    file of the same samples.

    machine: its name. model: digest of the detector, see `bundle_digest`. resume: what is stored of an earlier run.
    channels: of recordings that belong to it, from 0; None: all. limits: of recordings. pool: judges for all who share
    the detector; None: nobody does. Threads must not share it.
    """

    def __init__(
        self,
        machine: str,
        detector: Detector,
        model: str = "",
        *,
        resume: Resume | None = None,
        channels: Sequence[int] | None = None,
        limits: Limits = Limits(),
        pool: JudgingPool | None = None,
    ) -> None:
        resume = resume or {}
        self._pool = JudgingPool(1) if pool is None else pool
        self.machine, self.detector, self.model, self.limits = machine, detector, model, limits
        self._spec = features_name(detector.spec)
        self._channels = None if channels is None else list(channels)
        #: of the next recording; windows of a stream have theirs
        self._number = int(resume.get(machine, {}).get("number", 0))
        #: of recordings that other machines of the source may have to hear again
        self._stored = {key: dict(value) for key, value in resume.items() if key.startswith(f"{machine}/")}

    def use(self, detector: Detector, model: str) -> None:
        """Judge with another version of the model, from the next item on."""
        self.detector, self.model, self._spec = detector, model, features_name(detector.spec)

    def hear(self, item: Window | Recording) -> Iterator[HeardWindow]:
        """Verdicts on a window (one), or a recording (one; per segment, where it lasts over a minute).

        Raises FileNotFoundError for a recording whose file has gone.
        """
        if isinstance(item, Window):
            yield HeardWindow(self.machine, item, self._verdict(item), self.model, self._spec)
            return
        name = f"{self.machine}/{item.origin}"
        stored = self._stored.get(name, {})
        if stored.get("state") == item.origin_state:
            if stored.get("done"):
                return
            item = replace(item, judged_s=max(item.judged_s, float(stored.get("judged_s", 0.0))))
        pending: HeardWindow | None = None
        verdicts = self._verdicts(item)
        while True:
            with self._pool.alone(self.detector):
                verdict = next(verdicts, None)
                heard = None if verdict is None else self._heard(item, verdict)
            if heard is None:
                break
            if pending is not None:
                yield pending
            pending = heard
        if pending is not None:
            done = {name: {"state": item.origin_state, "done": True}}
            self._stored |= done
            yield replace(pending, window=replace(pending.window, resume={**pending.window.resume, **done}))

    def _verdict(self, window: Window) -> Verdict:
        return replace(self._pool.judge(self.detector, window), path=Path(window.origin or "<sound>"))

    def _verdicts(self, recording: Recording) -> Iterator[Verdict]:
        if recording.error is not None:
            yield Verdict(recording.file, error=recording.error)
            return
        if self._channels is None:
            verdicts = self.detector.score_many([recording.file], workers=0, limits=self.limits, all_formats=True)
        else:
            verdicts = self._verdicts_of_channels(recording.file, self._channels)
        for verdict in verdicts:
            if verdict.error is not None and not recording.file.exists():
                raise FileNotFoundError(recording.file)
            if verdict.end_s is None or verdict.segment_scores or verdict.end_s > recording.judged_s + 1e-6:
                yield verdict

    def _verdicts_of_channels(self, file: Path, channels: list[int]) -> Iterator[Verdict]:
        """As of a recording with these channels alone."""
        try:
            form = read_form(file, self.limits, ALL_FORMATS)
            if max(channels) >= form.channels:
                raise AudioError(
                    f"{self.machine} listens to channel {max(channels) + 1} of {form.channels}",
                    file=file,
                    next_step="Correct the channels of this machine",
                )
            if form.seconds <= LONG_S:
                audio = decode(file, limits=self.limits, formats=ALL_FORMATS)
                yield replace(self.detector.score(audio.samples_CS[channels], audio.sample_rate), path=file)
                return
            segments = cut(file, form, self.detector.segment_s, covering=True)
        except HarkenError as error:
            yield Verdict(file, error=error)
            return
        for segment in segments:
            start_s, end_s = segment.start_s, segment.end_s
            try:
                audio = read_segment(segment, self.limits, ALL_FORMATS)
                verdict = self.detector.score(audio.samples_CS[channels], audio.sample_rate)
                yield replace(verdict, path=file, start_s=start_s, end_s=end_s)
            except HarkenError as error:
                yield Verdict(file, error=error, start_s=start_s, end_s=end_s)

    def _heard(self, recording: Recording, verdict: Verdict) -> HeardWindow:
        """With its sound."""
        # The worst segment judges all of a recording up to a minute.
        start_s, end_s = (None, None) if verdict.segment_scores else (verdict.start_s, verdict.end_s)
        samples_CS, rate = self._sound(recording.file, verdict, start_s, end_s)
        resume: dict[str, dict[str, Any]] = {
            self.machine: {"number": self._number + 1, "position": recording.end_position}
        }
        if end_s is not None:
            resume[f"{self.machine}/{recording.origin}"] = {"state": recording.origin_state, "judged_s": end_s}
        window = Window(
            samples_CS=samples_CS,
            sample_rate=rate,
            number=self._number,
            position=recording.position + round((start_s or 0.0) * rate),
            start=recording.start + timedelta(seconds=start_s or 0.0),
            origin=recording.origin,
            resume=resume,
        )
        self._number += 1
        return HeardWindow(self.machine, window, verdict, self.model, self._spec)

    def _sound(self, file: Path, verdict: Verdict, start_s: float | None, end_s: float | None) -> tuple[Float32, int]:
        if verdict.error is None:
            try:
                if start_s is None or end_s is None:
                    audio = decode(file, limits=self.limits, formats=ALL_FORMATS)
                else:
                    rate = read_form(file, self.limits, ALL_FORMATS).sample_rate
                    start = round(start_s * rate)
                    segment = Segment(file, start, round(end_s * rate) - start, rate)
                    audio = read_segment(segment, self.limits, ALL_FORMATS)
                samples_CS = audio.samples_CS if self._channels is None else audio.samples_CS[self._channels]
                return samples_CS, audio.sample_rate
            except AudioError:
                pass  # it has gone meanwhile; its verdict stands
        return np.zeros((self.detector.spec.channels, 0), np.float32), self.detector.spec.sample_rate


def check_fits(detector: Detector, form: SourceForm, place: str, *, chosen: int | None = None) -> None:
    """Raise HarkenError where sound of this form cannot be judged by the model, as far as the form is known.

    place: of the source. chosen: number of its channels that belong to the machine; None: all.
    """
    spec = detector.spec
    if form.sample_rate is not None and form.sample_rate < spec.sample_rate:
        raise HarkenError(
            f"gives sound of {form.sample_rate} Hz: what the model listens to above {form.sample_rate / 2:g} Hz is "
            "missing",
            file=place,
            next_step=f"Record at {spec.sample_rate} Hz or more, or fit to recordings of its rate",
        )
    count = form.channels if chosen is None else chosen
    if count is not None and count != spec.channels and not (spec.mono and count == 1):
        raise HarkenError(
            f"gives {count} channel{'s' * (count != 1)}, and the model listens to {spec.channels}",
            file=place,
            next_step="Choose the channels of this machine, or fit to recordings of this form",
        )
