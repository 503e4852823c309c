"""Recordings that a model that was fitted is to learn from, or to be compared on: their features, cut as it judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harken.audio.decode import ALL_FORMATS, DEFAULT_FORMATS, Limits
from harken.audio.suffixes import ALL_SUFFIXES, DEFAULT_SUFFIXES
from harken.core.errors import HarkenError
from harken.data.clips import clips_from_files, names_below_common
from harken.data.folders import recordings_of
from harken.data.segment_order import segment_chronology
from harken.embeddings.extract import extract
from harken.embeddings.forms import read_forms
from harken.monitor.basis import Heard
from harken.monitor.clip_judge import ClipJudge
from harken.monitor.cutting import cut_to_judge
from harken.monitor.fitted import Fitted
from harken.monitor.normal_set import Excluded, learnable


@dataclass(frozen=True)
class HeardRecordings:
    """heard: with their features, in the order of time as far as it is known. set_aside: the others, and why."""

    heard: tuple[Heard, ...]
    set_aside: tuple[Excluded, ...]


def hear(
    fitted: Fitted,
    paths: Sequence[str | Path],
    *,
    normal: bool = False,
    store: str | Path | None = None,
    workers: int | None = None,
    all_formats: bool = False,
    limits: Limits = Limits(),
    progress: Callable[[int, int], None] | None = None,
) -> HeardRecordings:
    """Features of recordings, and folders of them, by the model's embedder.

    Recordings that are longer than those learned from are cut into segments of their length. Times are those in names,
    else of files. normal: leave out what names say is no normal sound. store, workers, limits, progress: see
    `Detector.score_many`. Raises HarkenError where none can be used.
    """
    given = [Path(path) for path in paths]
    formats = ALL_FORMATS if all_formats else DEFAULT_FORMATS
    files = recordings_of(given, ALL_SUFFIXES if all_formats else DEFAULT_SUFFIXES).files
    set_aside: list[Excluded] = []
    if normal:
        files = [clip.path for clip in learnable(clips_from_files(files), set_aside)]
    judge = ClipJudge(fitted)
    forms = read_forms(files, workers=workers, limits=limits, formats=formats)
    cutting = cut_to_judge(files, forms, judge.segment_s, judge.lengths_s[1], covering=not normal)
    set_aside += [Excluded(path, error.cause) for path, error in cutting.errors.items()]
    results = extract(
        cutting.paths,
        fitted.spec,
        fitted.weights,
        store=store,
        workers=workers,
        limits=limits,
        formats=formats,
        segments=cutting.segments,
    )
    features = {}
    for done, result in enumerate(results, start=1):
        if result.features is None:
            set_aside.append(Excluded(result.path, "" if result.error is None else result.error.cause))
        else:
            features[result.path] = result.features
        if progress is not None:
            progress(done, len(cutting.paths))
    kept = [path for path in cutting.paths if path in features]
    if not kept:
        first = f": {set_aside[0].path.name} {set_aside[0].reason}" if set_aside else ""
        raise HarkenError(f"none of {len(files) or 'the'} recordings can be used{first}", next_step="Give others")
    when = segment_chronology(kept, cutting.segments, clip_seconds=judge.segment_s)
    names = names_below_common(kept)
    return HeardRecordings(
        tuple(
            Heard(
                names[row],
                features[kept[row]],
                None if when.seconds_N is None or np.isnan(when.seconds_N[row]) else float(when.seconds_N[row]),
                str(cutting.file_of(kept[row])) if kept[row] in cutting.segments else "",
            )
            for row in when.order_N
        ),
        tuple(set_aside),
    )
