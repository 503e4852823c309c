"""A page on what a model learned from: the recordings that are unlike the others can be heard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harken.audio.decode import ALL_FORMATS
from harken.audio.segments import read_named
from harken.core.errors import HarkenError
from harken.core.names import shown
from harken.core.pages import data_url, render
from harken.embeddings.sketch import sketch_db
from harken.monitor.detector import Detector
from harken.monitor.normal_set import QUESTION, apart_rows, small_states
from harken.monitor.plot import scores_figure, spectrogram_figure, svg_bytes, webp_bytes
from harken.monitor.report import sound_url, write_page

#: most recordings of a group that are shown
_MOST = 8
_HIGHEST = 5


def write_fit_report(path: str | Path, title: str, detector: Detector) -> None:
    """Write the page to `path`, whole or not at all.

    detector: as `Detector.fit` gives it; one that was loaded knows no recordings. Raises HarkenError where the page
    cannot be written.
    """
    training, fitted = detector.training, detector.fitted
    outliers = [excluded for excluded in detector.set_aside if excluded.outlier]
    facts = [
        ("learned from", f"{len(training.names)} recordings, {float(np.sum(training.seconds_N)) / 60:.3g} min"),
        ("worth", f"{detector.calibration.effective:.0f} independent recordings"),
        ("set aside", f"{len(detector.set_aside)} recording{'s' * (len(detector.set_aside) != 1)}"),
        ("alarm", "; ".join(detector.alarm.sentences())),
        ("encoder, detector", f"{detector.spec.encoder} ({detector.spec.layer}), {detector.detector.name}"),
    ]
    groups = []
    if outliers:
        clips = [clip for excluded in outliers[:_MOST] if (clip := _left_out(detector, excluded.path)) is not None]
        groups.append(_group("Left out: unlike all other recordings", QUESTION, len(outliers), clips))
    for state, rows in small_states(training).items():
        clips = [_learned(detector, row) for row in rows[:_MOST]]
        groups.append(_group(f"Few recordings that sound alike ({state})", QUESTION, len(rows), clips))
    if rows := apart_rows(training):
        clips = [_learned(detector, row) for row in rows[:_MOST]]
        groups.append(_group("Apart from most recordings, alone or a few together", QUESTION, len(rows), clips))
    highest = np.argsort(-training.scores_N, kind="stable")[:_HIGHEST].tolist()
    clips = [_learned(detector, row) for row in highest]
    groups.append(_group("The highest held-out scores", "They set the alarm: are they normal?", len(clips), clips))
    page = render(
        "harken.monitor",
        "fit_report.html",
        title=f"Harken: what {title} learned from",
        learned=facts,
        remarks=fitted.notes,
        histogram=data_url(svg_bytes(scores_figure(detector, {})), "image/svg+xml"),
        groups=groups,
        set_aside=[(shown(excluded.path), excluded.reason) for excluded in detector.set_aside],
    )
    write_page(path, page)


def _group(title: str, question: str, count: int, clips: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"title": title, "question": question, "count": count, "clips": clips}


def _left_out(detector: Detector, path: Path) -> dict[str, Any] | None:
    """A recording or segment that was not learned from; None where it cannot be read any more."""
    try:
        audio = read_named(path, formats=ALL_FORMATS)
        verdict = detector.score(audio.samples_CS, audio.sample_rate)
    except HarkenError:
        return None
    if verdict.score is None or verdict.sketch_db is None:
        return None
    picture = _picture(detector, verdict.sketch_db, verdict.seconds or 0.0)
    return _clip(shown(path.name), f"score {verdict.score:.3g}: {verdict.why}", path) | {"picture": picture}


def _learned(detector: Detector, row: int) -> dict[str, Any]:
    """A recording that was learned from."""
    training = detector.training
    text = f"held-out score {training.scores_N[row]:.3g}, {training.domains[row]}"
    path = detector.fitted.paths[row] if detector.fitted.paths else Path(training.names[row])
    picture = _picture(detector, sketch_db(training.sketches_NBC[row]), float(training.seconds_N[row]))
    return _clip(shown(training.names[row]), text, path) | {"picture": picture}


def _picture(detector: Detector, clip_BC: Any, seconds: float) -> str:
    return data_url(webp_bytes(spectrogram_figure(detector, clip_BC, seconds), dpi=100), "image/webp")


def _clip(name: str, text: str, path: Path) -> dict[str, Any]:
    sound, problem = sound_url(path)
    return {"name": name, "text": text, "sound": sound, "error": problem}
