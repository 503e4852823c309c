"""A report that anyone can open: one HTML file with plots, the worst recordings, and a player for each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from harken.audio.decode import ALL_FORMATS, decode
from harken.audio.listen import without_offset
from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.core.pages import data_url, render
from harken.evaluation.metrics import SectionResult
from harken.monitor.detector import Detector
from harken.monitor.plot import png_bytes, scores_figure, why_figure
from harken.monitor.verdict import Verdict, shifted

#: longest sound that is put into the report, in seconds
_MOST_SECONDS = 12.0


@dataclass(frozen=True)
class ReportSection:
    """One model with what it scored. truth: whether each verdict is of an anomaly, where known."""

    title: str
    detector: Detector
    verdicts: Sequence[Verdict]
    truth: Sequence[bool] | None = None
    result: SectionResult | None = None


def write_report(
    path: str | Path, title: str, sections: Sequence[ReportSection], *, worst: int = 5, lead: str = ""
) -> None:
    """Write the report to `path`, whole or not at all.

    worst: how many of the highest scores of each section are shown with heat map and player. lead: a paragraph put
    first. Raises HarkenError where the file cannot be written.
    """
    page = render(
        "harken.monitor", "report.html", title=title, lead=lead, sections=[_values(part, worst) for part in sections]
    )
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page.encode())
    except OSError as error:
        raise HarkenError(
            f"cannot be written ({error.strerror})",
            file=path,
            next_step="Choose another place for the report",
        ) from None


def _values(section: ReportSection, worst: int) -> dict[str, Any]:
    """What the template shows of one model."""
    detector = section.detector
    scored = [verdict for verdict in section.verdicts if verdict.error is None]
    alarms = sum(bool(verdict.is_anomaly) for verdict in scored)
    extrapolated = " (extrapolated)" if detector.calibration.extrapolated(detector.rate) else ""
    facts = [
        ("learned from", f"{len(detector.training.names)} normal recordings"),
        ("scored", f"{len(scored)} recordings, {alarms} alarms"),
        ("false alarms allowed", f"{detector.false_alarms}{extrapolated}"),
        ("finest rate that the data supports", f"{detector.calibration.finest:.2%} of recordings"),
        ("encoder, detector", f"{detector.spec.encoder} ({detector.spec.layer}), {detector.detector.name}"),
    ]
    if section.result is not None:
        values = (section.result.auc_source, section.result.auc_target, section.result.pauc)
        facts.append(("AUC source, AUC target, pAUC", " · ".join(f"{value:.3f}" for value in values)))
    notes = list(detector.notes)
    changed = shifted([verdict.p_value for verdict in scored if verdict.p_value is not None])
    if changed and section.truth is None:
        notes.append(changed)
    notes += [str(verdict.error) for verdict in section.verdicts if verdict.error is not None]
    notes += [f"{excluded.path}: {excluded.reason}" for excluded in detector.set_aside]
    order = sorted(scored, key=lambda verdict: -(verdict.score or 0.0))
    return {
        "title": section.title,
        "facts": facts,
        "notes": notes,
        "histogram": data_url(png_bytes(scores_figure(detector, _groups(section, scored))), "image/png"),
        "clips": [_clip(detector, verdict) for verdict in order[:worst]],
    }


def _groups(section: ReportSection, scored: Sequence[Verdict]) -> dict[str, list[float]]:
    """Scores under the names that the legend shows: by truth where it is known, else by decision."""
    if section.truth is None:
        return {
            "no alarm": [v.score or 0.0 for v in scored if not v.is_anomaly],
            "alarm": [v.score or 0.0 for v in scored if v.is_anomaly],
        }
    truth = {str(v.path): label for v, label in zip(section.verdicts, section.truth, strict=True)}
    return {
        "normal": [v.score or 0.0 for v in scored if not truth[str(v.path)]],
        "anomaly": [v.score or 0.0 for v in scored if truth[str(v.path)]],
    }


def _clip(detector: Detector, verdict: Verdict) -> dict[str, Any]:
    """Heat map and sound of one recording; `error` says why there is no sound."""
    assert verdict.sketch_db is not None
    sound, problem = None, ""
    try:
        audio = decode(verdict.path, formats=ALL_FORMATS)
        sound = data_url(_flac(audio.samples_CS, audio.sample_rate), "audio/flac")
    except HarkenError as error:
        problem = str(error)
    return {
        "name": Path(verdict.path).name,
        "alarm": bool(verdict.is_anomaly),
        "score": verdict.score,
        "p_value": verdict.p_value,
        "why": verdict.why or "",
        "picture": data_url(png_bytes(why_figure(detector, verdict, verdict.sketch_db)), "image/png"),
        "sound": sound,
        "error": problem,
    }


def _flac(samples_CS: np.ndarray, sample_rate: int) -> bytes:
    """The beginning of the sound, brought to a level that can be heard."""
    sound = without_offset(samples_CS)[:, : int(_MOST_SECONDS * sample_rate)].T
    peak = float(np.abs(sound).max())
    buffer = io.BytesIO()
    sf.write(buffer, sound * (0.7 / peak if peak > 0 else 1.0), sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
