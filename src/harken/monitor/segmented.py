"""Verdicts on recordings of any length, as their segments become ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.audio.segments import Form, cut
from harken.core.errors import HarkenError
from harken.embeddings.embedder import ClipFeatures, Embedder
from harken.embeddings.isolated import Extracted
from harken.monitor.alarm import AlarmSetting
from harken.monitor.clip_judge import ClipJudge, ClipScores
from harken.monitor.cutting import LONG_S, LONGEST, Cutting
from harken.monitor.verdict import Verdict, worst


def verdicts(
    judge: ClipJudge,
    alarm: AlarmSetting,
    cutting: Cutting,
    results: Iterable[Sequence[Extracted]],
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Verdict]:
    """One verdict per recording, or per segment of those that last over `LONG_S`, in the order of `cutting`.

    results: of `cutting.paths`, those together that came together. progress: called with (done, all) recordings and
    segments.
    """
    waiting, done, count = _scored(judge, results), 0, len(cutting.paths)

    def judged(path: Path, pieces: list[Path], setting: AlarmSetting, among: int) -> Iterator[Verdict]:
        nonlocal done
        for result, scores in islice(waiting, len(pieces)):
            segment = cutting.segments.get(result.path)
            done += 1
            if progress is not None:
                progress(done, count)
            if result.features is not None:
                yield judge.verdict(path, result.features, scores, setting, segment, among, result.further)
            elif segment is None:
                yield Verdict(path, error=result.error)
            else:
                yield Verdict(path, error=result.error, start_s=segment.start_s, end_s=segment.end_s)

    for path, pieces in cutting.pieces:
        if not pieces:
            yield Verdict(path, error=cutting.errors[path])
            continue
        last = cutting.segments.get(pieces[-1])
        if last is None or len(pieces) == 1:
            yield from judged(path, pieces, alarm, 1)
            continue
        together = last.end_s <= LONG_S
        among = len(pieces) if together else 1
        setting = alarm.of_segments(len(pieces), last.end_s, together=together)
        of_segments = _errors_once(judged(path, pieces, setting, among), last.end_s)
        if together:
            yield worst(list(of_segments), last.end_s)
        else:
            yield from of_segments


def _scored(judge: ClipJudge, results: Iterable[Sequence[Extracted]]) -> Iterator[tuple[Extracted, ClipScores | None]]:
    for together in results:
        scores = iter(judge.scores([result.features for result in together if result.features is not None]))
        for result in together:
            yield result, None if result.features is None else next(scores)


def _errors_once(of_segments: Iterable[Verdict], seconds: float) -> Iterator[Verdict]:
    """Verdicts on the segments of a recording of `seconds`; the same error of consecutive ones is given once."""
    failed: Verdict | None = None
    for verdict in of_segments:
        if failed is not None and _cause(failed) == _cause(verdict):
            failed = replace(failed, end_s=verdict.end_s)
            continue
        if failed is not None:
            yield _located(failed, seconds)
        failed = None if verdict.error is None else verdict
        if verdict.error is None:
            yield verdict
    if failed is not None:
        yield _located(failed, seconds)


def _cause(verdict: Verdict) -> str | None:
    return None if verdict.error is None else verdict.error.cause


def _located(failed: Verdict, seconds: float) -> Verdict:
    """With an error about the time that it spans."""
    error = failed.error
    assert error is not None
    if failed.start_s == 0 and failed.end_s == seconds:
        failed = replace(failed, start_s=None, end_s=None)
    return replace(failed, error=type(error)(error.cause, file=failed.name, next_step=error.next_step))


def verdicts_of_samples(
    judge: ClipJudge,
    alarm: AlarmSetting,
    embedder: Embedder,
    sounds: Sequence[tuple[NDArray[np.floating], int | None]],
    name: Path,
) -> list[Verdict]:
    """Verdicts on several (samples,) or (channels, samples) with their rates, each as if it were alone.

    What is longer than learned from is judged by its worst segment. What cannot be judged gives a verdict with `error`.
    Raises ValueError without a rate.
    """
    verdicts: dict[int, Verdict] = {}
    features_by_row: dict[int, ClipFeatures] = {}
    for row, (samples, rate) in enumerate(sounds):
        frames = samples.shape[-1] if samples.ndim else 0
        try:
            if rate and frames > LONGEST * judge.lengths_s[1] * rate:
                verdicts[row] = _by_worst_segment(judge, alarm, embedder, samples, rate, name)
            else:
                features_by_row[row] = embedder.analyse(samples, sample_rate=rate)
        except HarkenError as error:
            verdicts[row] = Verdict(name, error=error, seconds=frames / rate if rate else None)
    for (row, features), scores in zip(features_by_row.items(), judge.scores([*features_by_row.values()]), strict=True):
        verdicts[row] = judge.verdict(name, features, scores, alarm)
    return [verdicts[row] for row in range(len(sounds))]


def _by_worst_segment(
    judge: ClipJudge, alarm: AlarmSetting, embedder: Embedder, samples: NDArray[np.floating], rate: int, name: Path
) -> Verdict:
    frames = samples.shape[-1]
    segments = cut(name, Form(rate, 1, frames, frames), judge.segment_s, covering=True)
    setting = alarm.of_segments(len(segments), frames / rate, together=True)
    verdicts = []
    for segment in segments:
        features = embedder.analyse(samples[..., segment.start : segment.start + segment.frames], sample_rate=rate)
        verdicts.append(judge.verdict(name, features, judge.scores([features])[0], setting, segment, len(segments)))
    return worst(verdicts, frames / rate)
