"""Normal recordings -> what a detector is made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from harken.audio.channels import Microphones
from harken.audio.decode import ALL_FORMATS, DEFAULT_FORMATS, Limits
from harken.audio.listen import Level
from harken.audio.segments import Form
from harken.audio.suffixes import ALL_SUFFIXES, DEFAULT_SUFFIXES
from harken.core.errors import HarkenError
from harken.core.names import shown
from harken.core.plugins import custom_names
from harken.core.sentences import Sentence
from harken.core.threads import one_thread
from harken.data.chronology import OrderChoice, chronology
from harken.data.clips import clips_from_files
from harken.data.folders import recordings_of
from harken.data.segment_order import segment_chronology
from harken.detection import create_detector
from harken.embeddings.embedder import make_spec
from harken.embeddings.extract import extract
from harken.embeddings.forms import read_forms
from harken.embeddings.isolated import Extracted
from harken.encoders import encoder_class
from harken.encoders.checkpoints import weights_for
from harken.monitor.alarm import check_request
from harken.monitor.cutting import check_segment, cut_to_learn
from harken.monitor.fitted import Fitted
from harken.monitor.learn import learn
from harken.monitor.length import length_effect
from harken.monitor.normal_set import (
    Excluded,
    learnable,
    named_states,
    not_excluded,
    usual_form,
)
from harken.monitor.off import OffJudge, OffRecordings
from harken.monitor.usable import LEAST_CLIPS, header_notes, usable_clips, without_near_duplicates


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
    every: str | None,
    states: str | None,
    order: OrderChoice,
    segment: str,
    exclude: Sequence[str],
    off: str | Path | Iterable[str | Path],
    keep_outliers: bool,
    store: str | Path | None,
    workers: int | None,
    all_formats: bool,
    limits: Limits,
    progress: Callable[[int, int], None] | None,
) -> Fitted:
    """See `Detector.fit`, of which this is the work. Raises HarkenError as it does."""
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    # Mistakes are cheaper before hours of recordings have been listened to.
    check_request(false_alarms, every)
    check_segment(segment)
    _check_settings(given, [encoder, detector, parameters], level, microphones, order)
    formats = ALL_FORMATS if all_formats else DEFAULT_FORMATS
    listed_files = recordings_of(given, ALL_SUFFIXES if all_formats else DEFAULT_SUFFIXES)
    files = listed_files.files
    set_aside: list[Excluded] = []
    clips = learnable(clips_from_files(not_excluded(files, exclude, set_aside)), set_aside)
    if not clips:
        raise HarkenError(
            Sentence("none of these recordings is to be learned from as a normal one of a machine"),
            next_step=Sentence("Give normal recordings to learn from"),
        )
    if states is not None:
        named_states([clip.path for clip in clips], states)
    recordings = [clip.path for clip in clips]
    if len(recordings) > 1:
        chronology(recordings, order)
    given_off = [off] if isinstance(off, (str, Path)) else list(off)
    off_files = recordings_of(given_off, ALL_SUFFIXES if all_formats else DEFAULT_SUFFIXES).files if given_off else []
    if both := set(map(os.path.realpath, files)) & set(map(os.path.realpath, off_files)):
        raise HarkenError(
            Sentence("is given as normal and as switched off"),
            file=min(both),
            next_step=Sentence("Give it as one of both"),
        )
    forms = read_forms(recordings, workers=workers, limits=limits, formats=formats)
    cutting = cut_to_learn(recordings, forms, segment)
    set_aside += [Excluded(path, error.cause) for path, error in cutting.errors.items()]
    pieces = [paths for _, paths in cutting.pieces]
    clips = [replace(clip, path=path) for clip, paths in zip(clips, pieces, strict=True) for path in paths]
    sample_rate, channels = usual_form(
        [form for form, paths in zip(forms, pieces, strict=True) if form is not None for _ in paths]
    )
    arrays: Mapping[str, np.ndarray] | None = None
    if encoder_class(encoder).needs_weights:
        trained_config, arrays = weights_for(encoder, weights)
        config = {**trained_config, **(config or {})}
    elif weights is not None:
        raise HarkenError(
            Sentence("{encoder} takes no weights", encoder=encoder),
            next_step=Sentence("Leave out --weights, or name an encoder that has some: --encoder"),
        )
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
            monitoring=True,
            weights=arrays,
        )
        unfitted = create_detector(detector, parameters)
        unfitted.check_parameters()
    except (ValueError, TypeError) as error:
        raise HarkenError(str(error), next_step=Sentence("Correct the setting")) from None
    hear = partial(extract, spec=spec, weights=arrays, store=store, workers=workers, limits=limits, formats=formats)
    off_recordings = _off_recordings(
        off_files,
        hear,
        lambda given: read_forms(given, workers=workers, limits=limits, formats=formats),
        segment,
        set_aside,
    )
    results = hear([clip.path for clip in clips], segments=cutting.segments)
    kept, features, usual = usable_clips(clips, results, set_aside, progress)
    if len(kept) < LEAST_CLIPS:
        first: str = ""
        if set_aside:
            file, reason = shown(set_aside[0].path), set_aside[0].reason
            first = Sentence("; the first: {file}: {reason}", file=file, reason=reason)
        total = Sentence("1 recording") if len(files) == 1 else Sentence("{count} recordings", count=len(files))
        if cutting.segments:
            total = Sentence("{count} segments of {recordings}", count=len(clips), recordings=total)
        raise HarkenError(
            Sentence(
                "{count} of {total} can be learned from, at least {least} are needed{first}",
                count=len(kept),
                total=total,
                least=LEAST_CLIPS,
                first=first,
            ),
            next_step=Sentence(
                "Record more normal clips (30 or more make a useful model), or cut longer ones (--segment 5)"
            ),
        )
    kept, features = without_near_duplicates(kept, features, sample_rate, set_aside)
    seconds = float(np.median([clip.seconds for clip in features]))
    when = segment_chronology([clip.path for clip in kept], cutting.segments, order, clip_seconds=seconds)
    kept, features = [kept[row] for row in when.order_N], [features[row] for row in when.order_N]
    named = None if states is None else named_states([cutting.file_of(clip.path) for clip in kept], states)
    try:
        with one_thread():
            learned = learn(unfitted, kept, features, when.of(when.order_N), named, keep_outliers=keep_outliers)
            features_of = {clip.path: heard for clip, heard in zip(kept, features, strict=True)}
            length = length_effect(
                (unfitted, learned.events.detector, None if learned.tones is None else learned.tones.detector),
                [features_of[path] for path in learned.paths],
                learned.training.domains,
                learned.paths,
                {path: form for path, form in zip(recordings, forms, strict=True) if form is not None},
                cutting.segments,
                lambda cuts: hear(cuts, segments=cuts),
            )
    except (ValueError, TypeError) as error:
        # What a detector's parameters may be is known to the detector alone.
        raise HarkenError(
            Sentence("{detector} cannot be fitted: {error}", detector=detector, error=str(error)),
            next_step=Sentence("Correct its parameters"),
        ) from error
    return Fitted(
        spec=spec,
        weights=arrays,
        detector=unfitted,
        calibration=learned.calibration,
        training=learned.training,
        false_alarms=false_alarms,
        every=every,
        notes=(
            *cutting.notes,
            *(f"most of these recordings have the defect {kind!r}: it counts as usual" for kind in usual),
            *listed_files.notes,
            *header_notes(kept, features),
            *learned.notes,
            *(() if off_recordings is None else OffJudge(off_recordings, learned.training).notes()),
        ),
        set_aside=(*set_aside, *learned.set_aside),
        paths=learned.paths,
        block=learned.block,
        events=learned.events,
        tones=learned.tones,
        length=length,
        off=off_recordings,
        basis=replace(learned.basis, usual=tuple(usual)),
    )


def _off_recordings(
    files: Sequence[Path],
    hear: Callable[..., Iterable[Extracted]],
    forms_of: Callable[[Sequence[Path]], Sequence[Form | None]],
    segment: str,
    set_aside: list[Excluded],
) -> OffRecordings | None:
    """Recordings of the machine switched off, in segments as normal ones; what cannot be used is set aside."""
    if not files:
        return None
    cutting = cut_to_learn(files, forms_of(files), segment)
    features, names = [], []
    for result in hear(cutting.paths, segments=cutting.segments):
        if result.features is None:
            set_aside.append(Excluded(result.path, "" if result.error is None else result.error.cause))
        else:
            features.append(result.features)
            names.append(str(result.path.name))
    return OffRecordings.of(features, names)


def _check_settings(given: Sequence[str | Path], names: list[Any], level: str, microphones: str, order: str) -> None:
    """names: of the encoder and the detector, with its parameters."""
    for name in custom_names(names):
        raise HarkenError(
            Sentence("{name} cannot be part of a model, which runs no code that it names", name=name),
            next_step=Sentence(
                "Take a detector and encoder that Harken has; use custom ones in the bench (harken run)"
            ),
        )
    for setting, value, choices in (
        ("level", level, get_args(Level)),
        ("microphones", microphones, get_args(Microphones)),
        ("order", order, get_args(OrderChoice)),
    ):
        if value not in choices:
            raise HarkenError(
                Sentence("unknown {setting} {value!r}", setting=setting, value=value),
                next_step=Sentence("Choose one of {choices}", choices=", ".join(choices)),
            )
    if not given:
        raise HarkenError(
            Sentence("no recordings were given"), next_step=Sentence("Name recordings or folders of them")
        )
