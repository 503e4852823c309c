"""Order in time of recordings, some of which are segments of longer ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from harken.audio.segments import Segment
from harken.data.chronology import Chronology, OrderChoice, chronology


def segment_chronology(
    paths: Sequence[Path],
    segments: Mapping[Path, Segment],
    choice: OrderChoice = "auto",
    *,
    clip_seconds: float = 1.0,
) -> Chronology:
    """As `chronology`; segments of one recording follow each other whatever is known of the recordings.

    paths: recordings, or the names of segments, whose files are given in natural order of names. segments: by their
    names. clip_seconds: how long a recording or segment lasts. Raises HarkenError as `chronology`.
    """
    cut = [segments.get(path) for path in paths]
    if not any(cut):
        return chronology(paths, choice, clip_seconds=clip_seconds)
    file_of = [path if segment is None else segment.file for path, segment in zip(paths, cut, strict=True)]
    start_N = np.array([0.0 if segment is None else segment.start_s for segment in cut])
    files = list(dict.fromkeys(file_of))
    # The order of a single recording is that of its segments.
    when = chronology(files, choice if len(files) > 1 else "none", clip_seconds=clip_seconds)
    number_of = {file: number for number, file in enumerate(files)}
    file_N = np.array([number_of[file] for file in file_of], dtype=np.int64)
    order_N = np.lexsort((start_N, np.argsort(when.order_N)[file_N]))
    source = when.source if when.ordered else "segments of recordings"
    return replace(
        when,
        source=source,
        ordered=True,
        order_N=order_N,
        sequences_N=when.sequences_N[file_N] if when.ordered else file_N.astype(str),
        series_N=when.series_N[file_N],
        seconds_N=None if when.seconds_N is None else when.seconds_N[file_N] + start_N,
        recordings_N=np.array([str(file) for file in file_of]),
    )
