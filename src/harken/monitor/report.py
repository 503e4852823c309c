"""A report that anyone can open: one HTML file with plots, the worst recordings, and a player for each."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from harken.audio.decode import ALL_FORMATS, Audio
from harken.audio.listen import without_offset
from harken.audio.segments import file_of_name, read_named
from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.core.names import shown
from harken.core.pages import check_page, data_url, render
from harken.evaluation.metrics import SectionResult
from harken.monitor.as_a_whole import AsAWhole
from harken.monitor.detector import Detector
from harken.monitor.plot import scores_figure, svg_bytes, webp_bytes, why_panels
from harken.monitor.sequence import Change
from harken.monitor.tally import tallied
from harken.monitor.verdict import Verdict

#: longest sound that is put into the report, in seconds
_MOST_SECONDS = 12.0
#: in Hz, of the format
_HIGHEST_FLAC_RATE = 655_350


@dataclass(frozen=True)
class ReportSection:
    """One model with what it scored.

    verdicts: gone through once; the most unusual are shown as `judged_again` gives them, which may add their
    spectrograms. truth: whether each verdict is of an anomaly, where known. changes: lasting ones, see
    `monitor.sequence`, or that all differ as a whole, see `monitor.as_a_whole`. normal_folder: of the normal
    recordings, which are then heard beside the others.
    """

    title: str
    detector: Detector
    verdicts: Iterable[Verdict]
    truth: Sequence[bool] | None = None
    result: SectionResult | None = None
    changes: Sequence[Change | AsAWhole] = ()
    normal_folder: Path | None = None
    judged_again: Callable[[Verdict], Verdict] = lambda verdict: verdict


def write_report(
    path: str | Path, title: str, sections: Sequence[ReportSection], *, worst: int = 5, lead: str = ""
) -> None:
    """Write the report to `path`, whole or not at all.

    worst: how many of the most unusual recordings of each section are shown with heat map and player. lead: a paragraph
    put first. Raises HarkenError where the file cannot be written.
    """
    page = render(
        "harken.monitor",
        "report.html",
        title=title,
        lead=lead,
        sections=[_values(section, worst) for section in sections],
    )
    write_page(path, page)


def write_page(path: str | Path, page: str) -> None:
    """Write a page, whole or not at all. Raises HarkenError where it cannot be written, and as `check_page`."""
    path = Path(path)
    check_page(path)
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
    tally = tallied(section.verdicts, section.truth, worst)
    facts = [
        ("learned from", f"{len(detector.training.names)} normal recordings"),
        ("judged", f"{tally.count} recordings"),
        ("alarm and what it rests on", ". ".join(map(_capital, detector.alarm.sentences()))),
        ("encoder, detector", f"{detector.spec.encoder} ({detector.spec.layer}), {detector.detector.name}"),
    ]
    if section.result is not None:
        values = (section.result.auc_source, section.result.auc_target, section.result.pauc)
        facts.append(("AUC source, AUC target, pAUC", " · ".join(f"{value:.3f}" for value in values)))
    unusual = [section.judged_again(verdict) for verdict in tally.unusual]
    first = unusual[0] if unusual else None
    on_normals = [*detector.notes, *(f"{shown(excluded.path)}: {excluded.reason}" for excluded in detector.set_aside)]
    return {
        "title": section.title,
        "state": tally.state,
        "headline": tally.sentence,
        "reason": "" if first is None else f"The most unusual is {shown(Path(first.name).name)}: {first.why}.",
        "strip": tally.strip(detector.threshold),
        "facts": facts,
        "notes": [*(change.sentence for change in section.changes), *tally.notes],
        "on_normals": on_normals,
        "histogram": data_url(svg_bytes(scores_figure(detector, tally.groups())), "image/svg+xml"),
        "clips": [_clip(detector, verdict, section.normal_folder) for verdict in unusual],
        "listed": tally.listed if len(tally.listed) > len(unusual) else [],
    }


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _clip(detector: Detector, verdict: Verdict, normal_folder: Path | None) -> dict[str, Any]:
    """Verdict, pictures and sounds of one recording; `error` says why there is no sound."""
    sounds: list[tuple[str, Audio]] = []
    problem = ""
    try:
        sounds.append(("this recording", read_named(Path(verdict.name), formats=ALL_FORMATS)))
        explanation = verdict.explanation
        normal = None if explanation is None else _normal_file(normal_folder, explanation.nearest)
        if normal is not None:
            sounds.append(("the normal recording most like it", read_named(normal, formats=ALL_FORMATS)))
    except HarkenError as error:
        problem = str(error)
    gain = _audible_gain([audio for _, audio in sounds])
    panels = [] if verdict.sketch_BC is None else why_panels(detector, verdict)
    return {
        "name": shown(Path(verdict.name).name),
        "kind": verdict.kind,
        "headline": _headline(verdict),
        "why": verdict.why or "",
        "panels": [(caption, data_url(webp_bytes(figure), "image/webp")) for caption, figure in panels],
        "sounds": [(name, _audible(audio, gain)) for name, audio in sounds],
        "error": problem,
    }


def _headline(verdict: Verdict) -> str:
    scores = {"sound": verdict.score, "event": verdict.event_score, "tone": verdict.tone_score}
    view = "" if verdict.decided_by == "sound" else f"{verdict.decided_by} "
    unit = " dB" if verdict.decided_by == "tone" else ""
    rank = verdict.rank.removeprefix(view)
    return f"{verdict.kind} · {view}score {scores[verdict.decided_by]:.3g}{unit}, {rank} normal recordings"


def sound_url(path: Path) -> tuple[str | None, str]:
    """Data URL of the beginning of a recording or named segment, at a level that can be heard; or None, and why."""
    try:
        audio = read_named(path, formats=ALL_FORMATS)
    except HarkenError as error:
        return None, str(error)
    return _audible(audio, _audible_gain([audio])), ""


def _normal_file(folder: Path | None, name: str) -> Path | None:
    """The recording or segment of that name in the folder or below it; None where there is none."""
    if folder is None:
        return None
    file = file_of_name(folder / name)
    if file.is_file():
        return folder / name
    named = next((path for path in sorted(folder.rglob(file.name)) if path.is_file()), None)
    return None if named is None else named.with_name(Path(name).name)


def _audible_gain(sounds: Sequence[Audio]) -> float:
    """One gain for all, so that their loudness can be compared."""
    peak = max((float(np.abs(without_offset(audio.samples_CS)).max()) for audio in sounds), default=0.0)
    return 0.7 / peak if peak > 0 else 1.0


def _audible(audio: Audio, gain: float) -> str:
    """The beginning of the sound as a data URL."""
    samples_SC = without_offset(audio.samples_CS)[:, : int(_MOST_SECONDS * audio.sample_rate)].T
    file_format = "FLAC" if audio.sample_rate <= _HIGHEST_FLAC_RATE else "WAV"
    buffer = io.BytesIO()
    sf.write(buffer, samples_SC * gain, audio.sample_rate, format=file_format, subtype="PCM_16")
    return data_url(buffer.getvalue(), f"audio/{file_format.lower()}")
