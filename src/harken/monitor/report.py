"""A report that anyone can open: one HTML file with plots, the worst recordings, and a player for each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

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
from harken.monitor.sequence import Change
from harken.monitor.verdict import Kind, Verdict

#: longest sound that is put into the report, in seconds
_MOST_SECONDS = 12.0


@dataclass(frozen=True)
class ReportSection:
    """One model with what it scored.

    truth: whether each verdict is of an anomaly, where known. changes: lasting ones, see `monitor.sequence`.
    """

    title: str
    detector: Detector
    verdicts: Sequence[Verdict]
    truth: Sequence[bool] | None = None
    result: SectionResult | None = None
    changes: Sequence[Change] = ()


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
    scored = [verdict for verdict in section.verdicts if verdict.score is not None]
    counts = {kind: sum(verdict.kind == kind for verdict in section.verdicts) for kind in get_args(Kind)}
    judged = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    facts = [
        ("learned from", f"{len(detector.training.names)} normal recordings"),
        ("judged", f"{len(section.verdicts)} recordings: {judged}"),
        ("alarm", "; ".join(detector.alarm.sentences())),
        ("encoder, detector", f"{detector.spec.encoder} ({detector.spec.layer}), {detector.detector.name}"),
    ]
    if section.result is not None:
        values = (section.result.auc_source, section.result.auc_target, section.result.pauc)
        facts.append(("AUC source, AUC target, pAUC", " · ".join(f"{value:.3f}" for value in values)))
    notes = list(detector.notes)
    notes += [change.sentence for change in section.changes]
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
            kind: scores
            for kind in get_args(Kind)
            if (scores := [verdict.score or 0.0 for verdict in scored if verdict.kind == kind])
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
        "kind": verdict.kind,
        "score": verdict.score,
        "rank": verdict.rank,
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
