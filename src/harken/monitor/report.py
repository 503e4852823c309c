"""A report that anyone can open: one HTML file with plots, the worst recordings, and a player for each."""

from __future__ import annotations

import base64
import io
import string
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import soundfile as sf

from harken.audio.decode import ALL_FORMATS, decode
from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.evaluation.metrics import SectionResult
from harken.monitor.detector import Detector
from harken.monitor.plot import png_bytes, scores_figure, why_figure
from harken.monitor.verdict import Verdict, shifted

#: longest sound that is put into the report, in seconds
_MOST_SECONDS = 12.0

_PAGE = string.Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
 h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd }
 h3 { font-size: 1rem; margin-bottom: .3rem } img { max-width: 100% } audio { width: 100%; height: 2rem }
 table { border-collapse: collapse } td, th { padding: .15rem .8rem .15rem 0; text-align: left }
 td.n { text-align: right; font-variant-numeric: tabular-nums } .alarm { color: #c8442f; font-weight: 600 }
 .note { background: #fff6df; padding: .5rem .8rem; border-left: 4px solid #e0a800; margin: .4rem 0 }
 .clip { margin-bottom: 2rem } small { color: #666 }
</style></head><body><h1>$title</h1>
$body
<p><small>Harken $version. p-values come from held-out scores of the normal recordings alone.</small></p>
</body></html>
""")


@dataclass(frozen=True)
class Part:
    """One model with what it scored. truth: whether each verdict is of an anomaly, where known."""

    title: str
    detector: Detector
    verdicts: Sequence[Verdict]
    truth: Sequence[bool] | None = None
    result: SectionResult | None = None


def write_report(path: str | Path, title: str, parts: Sequence[Part], *, worst: int = 5, lead: str = "") -> None:
    """Write the report to `path`, whole or not at all.

    worst: how many of the highest scores of each part are shown with heat map and player. lead: HTML put first.
    """
    from harken.core.version import __version__

    body = lead + "".join(_part(part, worst) for part in parts)
    page = _PAGE.substitute(title=escape(title), body=body, version=__version__)
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


def _part(part: Part, worst: int) -> str:
    detector = part.detector
    scored = [verdict for verdict in part.verdicts if verdict.error is None]
    alarms = sum(bool(verdict.is_anomaly) for verdict in scored)
    promise = detector.false_alarms + (" (extrapolated)" if detector.calibration.extrapolated(detector.rate) else "")
    rows = [
        ("learned from", f"{len(detector.training.names)} normal recordings"),
        ("scored", f"{len(scored)} recordings, {alarms} alarms"),
        ("false alarms promised", promise),
        ("finest rate that the data supports", f"{detector.calibration.finest:.2%} of recordings"),
        ("encoder, detector", f"{detector.spec.encoder} ({detector.spec.layer}), {detector.detector.name}"),
    ]
    if part.result is not None:
        rows.append(
            (
                "AUC source, AUC target, pAUC",
                " · ".join(
                    f"{value:.3f}" for value in (part.result.auc_source, part.result.auc_target, part.result.pauc)
                ),
            )
        )
    html = [f"<h2>{escape(part.title)}</h2><table>"]
    html += [f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows]
    html.append("</table>")
    notes = list(detector.notes)
    changed = shifted([verdict.p_value for verdict in scored if verdict.p_value is not None])
    if changed and part.truth is None:
        notes.append(changed)
    notes += [str(verdict.error) for verdict in part.verdicts if verdict.error is not None]
    notes += [f"{aside.path}: {aside.reason}" for aside in detector.set_aside]
    html += [f'<p class="note">{escape(note)}</p>' for note in notes]
    html.append(_image(png_bytes(scores_figure(detector, _groups(part, scored))), "distribution of scores"))
    order = sorted(scored, key=lambda verdict: -(verdict.score or 0.0))
    if worst and order:
        html.append(f"<h3>The {min(worst, len(order))} highest scores</h3>")
    html += [_clip(detector, verdict) for verdict in order[:worst]]
    return "\n".join(html)


def _groups(part: Part, scored: Sequence[Verdict]) -> dict[str, list[float]]:
    if part.truth is None:
        return {
            "no alarm": [v.score or 0.0 for v in scored if not v.is_anomaly],
            "alarm": [v.score or 0.0 for v in scored if v.is_anomaly],
        }
    truth = {str(v.path): label for v, label in zip(part.verdicts, part.truth, strict=True)}
    return {
        "normal": [v.score or 0.0 for v in scored if not truth[str(v.path)]],
        "anomaly": [v.score or 0.0 for v in scored if truth[str(v.path)]],
    }


def _clip(detector: Detector, verdict: Verdict) -> str:
    mark = '<span class="alarm">alarm</span>' if verdict.is_anomaly else "no alarm"
    head = f"<h3>{escape(Path(verdict.path).name)} · {mark} · score {verdict.score:.3g} · p {verdict.p_value:.2g}</h3>"
    assert verdict.sketch_db is not None
    picture = _image(png_bytes(why_figure(detector, verdict, verdict.sketch_db)), verdict.why or "")
    try:
        audio = decode(verdict.path, formats=ALL_FORMATS)
        player = _player(audio.samples_CT, audio.sample_rate)
    except HarkenError as error:
        player = f'<p class="note">{escape(str(error))}</p>'
    return f'<div class="clip">{head}{picture}{player}</div>'


def _player(samples_CT: np.ndarray, sample_rate: int) -> str:
    """An audio element with the sound inside, brought to a level that can be heard."""
    sound = samples_CT[:, : int(_MOST_SECONDS * sample_rate)].T
    peak = float(np.abs(sound).max())
    buffer = io.BytesIO()
    sf.write(buffer, sound * (0.7 / peak if peak > 0 else 1.0), sample_rate, format="FLAC", subtype="PCM_16")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/flac;base64,{data}"></audio>'


def _image(png: bytes, alternative: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(alternative, quote=True)}" src="data:image/png;base64,{data}">'
