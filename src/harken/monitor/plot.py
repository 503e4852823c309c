"""Pictures for people: why a recording was judged as it was, and how scores lie."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.core.names import shown
from harken.embeddings.sketch import sketch_db
from harken.monitor.detector import Detector
from harken.monitor.explain import Explanation
from harken.monitor.verdict import Verdict

Float32 = NDArray[np.float32]

mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})

_NORMAL, _SUSPECT, _ANOMALY, _THRESHOLD = "#3b6ea5", "#d99a2b", "#c8442f", "#222222"
#: of training domains, the first being the source
_DOMAINS = ("#3b6ea5", "#8fbbe3", "#1d3557", "#a8a29e", "#5aa17f", "#b8d8c8", "#7d6aa8", "#c9bfe0")
#: colours of groups of scored recordings, by truth or by verdict
_GROUPS = {"normal": _NORMAL, "suspect": _SUSPECT, "alarm": _ANOMALY, "anomaly": _ANOMALY, "not judged": "#a8a29e"}


@dataclass(frozen=True, eq=False)
class _Panels:
    """What is drawn of one recording. clip_BC, normal_BC: (bands, columns) in dB; lowest, highest: their range.

    start_s, end_s: of the recording or segment; normal_seconds: length of the normal recording.
    """

    explanation: Explanation
    clip_BC: Float32
    normal_BC: Float32
    start_s: float
    end_s: float
    normal_seconds: float
    hz_B: Float32
    lowest: float
    highest: float

    @classmethod
    def of(cls, detector: Detector, verdict: Verdict) -> _Panels:
        explanation, clip_BC = verdict.explanation, verdict.sketch_db
        assert explanation is not None
        assert clip_BC is not None
        row = detector.training.names.index(explanation.nearest)
        normal_BC = sketch_db(detector.training.sketches_NBC[row])
        normal_seconds = float(detector.training.seconds_N[row])
        lowest, highest = np.percentile(np.concatenate([clip_BC, normal_BC], axis=1), [2, 99.8])
        start_s, end_s = verdict.start_s or 0.0, verdict.end_s or verdict.seconds or normal_seconds
        hz_B = detector.band_centres_hz
        return cls(explanation, clip_BC, normal_BC, start_s, end_s, normal_seconds, hz_B, float(lowest), float(highest))

    def clip(self, axes: Axes) -> AxesImage:
        times_s = self.start_s, self.end_s
        image = _spectrogram(axes, self.clip_BC, times_s, self.hz_B, "magma", self.lowest, self.highest)
        _mark_region(axes, self.explanation, times_s, self.hz_B, "white")
        return image

    def normal(self, axes: Axes) -> AxesImage:
        times_s = 0.0, self.normal_seconds
        return _spectrogram(axes, self.normal_BC, times_s, self.hz_B, "magma", self.lowest, self.highest)

    def difference(self, axes: Axes) -> AxesImage:
        heatmap_BC = self.explanation.heatmap_BC
        most = max(6.0, float(np.abs(heatmap_BC).max()))
        times_s = self.start_s, self.end_s
        image = _spectrogram(axes, heatmap_BC, times_s, self.hz_B, "RdBu_r", -most, most)
        _mark_region(axes, self.explanation, times_s, self.hz_B, "black")
        return image


def why_figure(detector: Detector, verdict: Verdict) -> Figure:
    """Three panels: the recording, the normal one most like it, and what differs; verdict and sentence above."""
    panels = _Panels.of(detector, verdict)
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True)
    panels.clip(left)
    figure.colorbar(panels.normal(middle), ax=middle, label="level (dB)", shrink=0.9)
    figure.colorbar(panels.difference(right), ax=right, label="difference (dB)", shrink=0.9)
    left.set_title(f"this recording\n{_short(shown(Path(verdict.name).name))}", fontsize=9, parse_math=False)
    name = _short(shown(Path(panels.explanation.nearest).name))
    middle.set_title(f"most alike normal recording\n{name}", fontsize=9, parse_math=False)
    right.set_title("what differs from the normal recordings\nred: more energy, blue: less", fontsize=9)
    left.set_ylabel("frequency")
    figure.suptitle(
        f"{verdict.kind}   score {verdict.score:.3g}, alarm above {detector.threshold:.3g}, {verdict.rank} normal "
        f"recordings\n{verdict.why}",
        fontsize=10,
        color=_ANOMALY if verdict.is_anomaly else _THRESHOLD,
        wrap=True,
        parse_math=False,
    )
    return figure


def why_panels(detector: Detector, verdict: Verdict) -> list[tuple[str, Figure]]:
    """The panels of `why_figure` as figures of their own, with captions."""
    panels = _Panels.of(detector, verdict)
    captions = (
        f"This recording: level in dB, {panels.lowest:.0f} (dark) to {panels.highest:.0f} (bright)",
        f"The normal recording most like it: {shown(Path(panels.explanation.nearest).name)}",
        "What differs from the normal recordings, in dB. Red: more energy, blue: less",
    )
    drawn = []
    for number, (caption, draw) in enumerate(
        zip(captions, (panels.clip, panels.normal, panels.difference), strict=True)
    ):
        figure = Figure(figsize=(4.2, 3.0), layout="constrained")
        axes = figure.subplots()
        image = draw(axes)
        if number == 2:
            figure.colorbar(image, ax=axes, label="difference (dB)")
        else:
            axes.set_ylabel("frequency")
        drawn.append((caption, figure))
    return drawn


def _short(name: str, most: int = 38) -> str:
    """A file name that fits over its panel: its middle gives way."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}...{name[-(most // 2 - 2) :]}"


def _spectrogram(
    axes: Axes,
    values_BC: Float32,
    times_s: tuple[float, float],
    centres_hz_B: Float32,
    colours: str,
    low: float,
    high: float,
) -> AxesImage:
    bands = len(values_BC)
    image = axes.imshow(
        values_BC,
        origin="lower",
        aspect="auto",
        extent=(*times_s, 0, bands),
        cmap=colours,
        vmin=low,
        vmax=high,
    )
    ticks = [t for t in (100, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000) if t < centres_hz_B[-1]]
    axes.set_yticks(np.interp(ticks, centres_hz_B, np.arange(bands) + 0.5))
    axes.set_yticklabels([f"{t} Hz" if t < 1000 else f"{t // 1000} kHz" for t in ticks])
    axes.set_xlabel("time (s)")
    return image


def _mark_region(
    axes: Axes, explanation: Explanation, times_s: tuple[float, float], centres_hz_B: Float32, colour: str
) -> None:
    if (
        explanation.low_hz is None
        or explanation.high_hz is None
        or explanation.start_s is None
        or explanation.end_s is None
    ):
        return
    low, high = np.interp([explanation.low_hz, explanation.high_hz], centres_hz_B, np.arange(len(centres_hz_B)) + 0.5)
    xs = [explanation.start_s, explanation.end_s, explanation.end_s, explanation.start_s, explanation.start_s]
    axes.plot(np.clip(xs, *times_s), [low, low, high, high, low], color=colour, linewidth=1.2)


def spectrogram_figure(detector: Detector, clip_BC: Float32, seconds: float) -> Figure:
    """One recording; clip_BC: its sketch, (bands, columns) in dB."""
    figure = Figure(figsize=(6, 2.4), layout="constrained")
    axes = figure.subplots()
    lowest, highest = np.percentile(clip_BC, [2, 99.8])
    image = _spectrogram(axes, clip_BC, (0.0, seconds), detector.band_centres_hz, "magma", lowest, highest)
    figure.colorbar(image, ax=axes, label="level (dB)")
    return figure


def scores_figure(detector: Detector, scores_by_group: Mapping[str, Sequence[float]]) -> Figure:
    """Histogram of the held-out scores of each training domain above that of scored recordings, and the threshold.

    scores_by_group: scores of scored recordings under the names that the legend shows; without any, only those of the
    training recordings are drawn.
    """
    names = list(scores_by_group)
    figure = Figure(figsize=(8, 4.2 if names else 2.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True) if names else [figure.subplots()] * 2
    training = detector.training
    everything = np.concatenate([training.scores_N, *[np.asarray(v) for v in scores_by_group.values() if len(v)]])
    everything = np.maximum(everything, 1e-9)
    top = max(float(everything.max()), detector.threshold) * 1.05
    bins = np.geomspace(max(float(everything.min()) * 0.95, top / 1e4), top, 50).tolist()
    domains = sorted(set(training.domains))
    of = np.asarray(training.domains)
    upper.hist(
        [training.scores_N[of == name] for name in domains],
        bins=bins,
        stacked=True,
        label=domains,
        color=[_DOMAINS[number % len(_DOMAINS)] for number in range(len(domains))],
    )
    upper.set_title("normal recordings, each scored by the others", fontsize=9, loc="left")
    colours = [_GROUPS.get(name, _NORMAL) for name in names]
    if names:
        lower.hist(
            [np.asarray(scores_by_group[name]) for name in names],
            bins=bins,
            stacked=True,
            label=names,
            color=colours,
        )
        lower.set_title("scored recordings", fontsize=9, loc="left")
    for axes in figure.axes:
        axes.axvline(detector.threshold, color=_THRESHOLD, linestyle="--", linewidth=1)
        axes.set_ylabel("recordings")
        axes.set_xscale("log")
        # Scores rarely span more than two decades: a few plain numbers instead of powers of ten.
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    score = "anomaly score" if detector.events is None else "score of the sound as a whole"
    lower.set_xlabel(f"{score} (dashed: alarm above {detector.threshold:.3g})")
    return figure


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG with text as text; the same picture has the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "harken", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def webp_bytes(figure: Figure, dpi: int = 140) -> bytes:
    """The figure as WebP: a tenth of a PNG for spectrograms."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=dpi, pil_kwargs={"quality": 80, "method": 4})
    return buffer.getvalue()


def png_bytes(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as PNG; without a date, so that the same picture has the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def save_png(figure: Figure, path: str | Path) -> None:
    """Write the figure, whole or not at all. Raises HarkenError where that cannot be."""
    path = Path(path)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise HarkenError("is no name for a picture", file=path, next_step="Give a name that ends in .png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, png_bytes(figure))
    except OSError as error:
        raise HarkenError(
            f"cannot be written ({error.strerror})", file=path, next_step="Choose another place"
        ) from None
