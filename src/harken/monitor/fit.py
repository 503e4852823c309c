"""Normal recordings -> what a detector is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from harken.audio.channels import Microphones
from harken.audio.decode import ALL_FORMATS, DEFAULT_FORMATS, Limits
from harken.audio.listen import Level
from harken.audio.suffixes import ALL_SUFFIXES, DEFAULT_SUFFIXES
from harken.core.errors import HarkenError
from harken.core.plugins import custom_names
from harken.core.threads import one_thread
from harken.data.clips import Clip, clips_from_files, find_recordings
from harken.detection import AnomalyDetector, create_detector
from harken.detection.blocks import find_blocks
from harken.detection.calibration import Calibration, parse_rate
from harken.detection.states import find_states
from harken.embeddings.embedder import ClipFeatures, make_spec
from harken.embeddings.extract import Extracted, extract
from harken.encoders import encoder_class
from harken.encoders.checkpoints import weights_for
from harken.monitor.fitted import Fitted
from harken.monitor.normal_set import (
    Excluded,
    Training,
    learnable,
    named_states,
    names_below_common,
    near_duplicate_rows,
    notes_on,
    unfit,
    usual_form,
)

#: fewer recordings than this are not learned from
LEAST_CLIPS = 3


def fit_normal(
    paths: str | Path | Iterable[str | Path],
    *,
    encoder: str,
    weights: str | Path | None,
    config: Mapping[str, Any] | None,
    layer: str | None,
    pooling: str | None,
    level: Level,
    microphones: Microphones,
    detector: str,
    parameters: Mapping[str, Any] | None,
    false_alarms: str,
    states: str | None,
    store: str | Path | None,
    workers: int | None,
    all_formats: bool,
    limits: Limits,
    progress: Callable[[int, int], None] | None,
) -> Fitted:
    """See `Detector.fit`, of which this is the work. Raises HarkenError as it does."""
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    # Mistakes are cheaper before hours of recordings have been listened to.
    _check_settings(given, [encoder, detector, parameters], level, microphones, false_alarms)
    formats = ALL_FORMATS if all_formats else DEFAULT_FORMATS
    files = find_recordings(given, ALL_SUFFIXES if all_formats else DEFAULT_SUFFIXES)
    set_aside: list[Excluded] = []
    clips = learnable(clips_from_files(files), set_aside)
    if not clips:
        raise HarkenError(
            "none of these recordings is named as a normal one of a machine",
            next_step="Give normal recordings to learn from",
        )
    if states is not None:
        named_states([clip.path for clip in clips], states)
    sample_rate, channels = usual_form([clip.path for clip in clips], workers, limits, formats)
    arrays: Mapping[str, np.ndarray] | None = None
    if encoder_class(encoder).needs_weights:
        trained_config, arrays = weights_for(encoder, weights)
        config = {**trained_config, **(config or {})}
    try:
        spec = make_spec(
            encoder,
            sample_rate=sample_rate,
            channels=channels,
            config=config,
            layer=layer,
            pooling=pooling,
            level=level,
            microphones=microphones,
            weights=arrays,
        )
        unfitted = create_detector(detector, parameters)
    except (ValueError, TypeError) as error:
        raise HarkenError(str(error), next_step="Correct the setting") from None
    results = extract(
        [clip.path for clip in clips], spec, arrays, store=store, workers=workers, limits=limits, formats=formats
    )
    kept, features = _usable(clips, results, set_aside, progress)
    if len(kept) < LEAST_CLIPS:
        first = f"; the first: {set_aside[0].path}: {set_aside[0].reason}" if set_aside else ""
        raise HarkenError(
            f"{len(kept)} of {len(files)} recordings can be learned from, at least {LEAST_CLIPS} are needed{first}",
            next_step="Record more normal clips (30 or more make a useful model)",
        )
    kept, features = _without_near_duplicates(kept, features, set_aside)
    named = None if states is None else named_states([clip.path for clip in kept], states)
    try:
        with one_thread():
            calibration, training, notes = _learn(unfitted, kept, features, named)
    except (ValueError, TypeError) as error:
        # What a detector's parameters may be is known to the detector alone.
        raise HarkenError(f"{detector} cannot be fitted: {error}", next_step="Correct its parameters") from error
    return Fitted(spec, arrays, unfitted, calibration, training, tuple(notes), tuple(set_aside))


def _check_settings(
    given: Sequence[str | Path], names: list[Any], level: str, microphones: str, false_alarms: str
) -> None:
    """names: of the encoder and the detector, with its parameters."""
    for name in custom_names(names):
        raise HarkenError(
            f"{name} cannot be part of a model, which runs no code that it names",
            next_step="Take a detector and encoder that Harken has; use custom ones in the bench (harken run)",
        )
    parse_rate(false_alarms, 10.0)
    for what, value, choices in (
        ("level", level, get_args(Level)),
        ("microphones", microphones, get_args(Microphones)),
    ):
        if value not in choices:
            raise HarkenError(f"unknown {what} {value!r}", next_step=f"Choose one of {', '.join(choices)}")
    if not given:
        raise HarkenError("no recordings were given", next_step="Name recordings or folders of them")


def _usable(
    clips: Sequence[Clip],
    results: Iterable[Extracted],
    set_aside: list[Excluded],
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Clip], list[ClipFeatures]]:
    """Clips that can be learned from, and their features; the others are added to `set_aside`."""
    kept: list[Clip] = []
    features: list[ClipFeatures] = []
    seen: dict[str, Path] = {}
    for done, (clip, result) in enumerate(zip(clips, results, strict=True), start=1):
        reason = unfit(result, seen)
        if reason is None and result.features is not None:
            seen[result.features.sha256] = clip.path
            kept.append(clip)
            features.append(result.features)
        else:
            set_aside.append(Excluded(clip.path, reason or ""))
        if progress is not None:
            progress(done, len(clips))
    return kept, features


def _without_near_duplicates(
    clips: list[Clip], features: list[ClipFeatures], set_aside: list[Excluded]
) -> tuple[list[Clip], list[ClipFeatures]]:
    """Without those that are the same as an earlier one but for a re-encoding, as long as enough are left."""
    if len(clips) <= LEAST_CLIPS:
        return clips, features
    duplicates = near_duplicate_rows(np.stack([clip.embedding for clip in features]))
    duplicates = dict(list(duplicates.items())[: len(clips) - LEAST_CLIPS])
    set_aside += [
        Excluded(clips[row].path, f"is nearly the same as {clips[first].path.name}")
        for row, first in sorted(duplicates.items())
    ]
    rows = [row for row in range(len(clips)) if row not in duplicates]
    return [clips[row] for row in rows], [features[row] for row in rows]


def _learn(
    detector: AnomalyDetector, clips: Sequence[Clip], features: Sequence[ClipFeatures], named_states: list[str] | None
) -> tuple[Calibration, Training, list[str]]:
    """Fit the detector; calibration, what is kept of the recordings, and notes on them."""
    embeddings_ND = np.stack([clip.embedding for clip in features])
    notes: list[str] = []
    named = {clip.domain for clip in clips}
    if named_states is not None:
        domains = named_states
        notes.append(f"{len(set(domains))} operating states named by the files")
    elif "unknown" not in named and len(named) > 1:
        domains = [str(clip.domain) for clip in clips]
    else:
        states_N = find_states(embeddings_ND)
        domains = [f"state {state}" for state in states_N]
        if states_N.max() > 0:
            sizes = ", ".join(str(count) for count in np.bincount(states_N))
            notes.append(f"{states_N.max() + 1} operating states found, of {sizes} recordings")
    blocks = find_blocks(embeddings_ND)
    if blocks.drifting:
        notes.append(
            "these recordings drift: neighbours in time stay alike over a tenth of them and more, so the promise "
            "about false alarms rests on little; record over a longer time"
        )
    order_N = np.arange(len(clips))
    detector.fit(embeddings_ND, domains, order_N // blocks.length if blocks.length > 1 else None)
    calibration = Calibration.fit(detector.train_scores_)
    training = Training(
        names=names_below_common([clip.path for clip in clips]),
        domains=tuple(domains),
        embeddings_ND=embeddings_ND,
        sketches_NBC=[clip.sketch_BC for clip in features],
        scores_N=detector.train_scores_,
        levels_db_N=np.array([clip.level_db for clip in features]),
        seconds_N=np.array([clip.seconds for clip in features]),
    )
    return calibration, training, notes + notes_on(training, calibration)
