"""A strip of scores in order of time, as SVG that needs no script: of the page and of reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

#: units of the drawing; those of a bar are whole, so that the text is short
BAR_WIDTH, HEIGHT = 2, 72
#: part of the height that is above the alarm limit
_HEADROOM = 0.25


class Bar(NamedTuple):
    """Scores at a place of the strip, from 0, from the lowest to the highest; None where nothing was judged.

    alarm: whether there is an alarm whose score is not above the limit, by something else than the sound as a whole.
    """

    place: int
    lowest: float | None
    highest: float | None
    alarm: bool = False


def strip(
    bars: Sequence[Bar], bands: Sequence[tuple[float, float]], *, places: int, limit: float | None, label: str
) -> Markup:
    """The bars, the alarm limit as a line, and alarms as bands from place to place.

    Places without a bar are empty; those where nothing was judged have a mark at the bottom. label: read to those who
    do not see it.
    """
    width = places * BAR_WIDTH

    def column(place: float) -> int:
        return round(BAR_WIDTH * min(float(places), max(0.0, place)))

    lows = [bar.lowest for bar in bars if bar.lowest is not None]
    highs = [bar.highest for bar in bars if bar.highest is not None]
    low, high = min(lows, default=0.0), max(highs, default=1.0)
    if limit is not None:
        high = max(high, low + (limit - low) / (1 - _HEADROOM))
    scale = (HEIGHT - 4) / max(high - low, 1e-12)

    def row(score: float) -> int:
        return round(HEIGHT - 2 - (score - low) * scale)

    usual: list[str] = []
    above: list[str] = []
    unheard: list[str] = []
    for bar in bars:
        left = column(bar.place)
        if bar.lowest is None or bar.highest is None:
            unheard.append(f"M{left + 1} {HEIGHT}v-4")
            continue
        bottom, top = row(bar.lowest), row(bar.highest)
        over = bar.alarm or (limit is not None and bar.highest > limit)
        (above if over else usual).append(f"M{left + 1} {bottom + 1}v{min(-2, top - bottom - 2)}")
    shaded = [
        f"M{column(start)} 0H{max(column(end), column(start) + 1)}V{HEIGHT}H{column(start)}z" for start, end in bands
    ]
    line = [] if limit is None else [f"M0 {row(limit)}H{width}"]
    svg = Markup('<svg class="strip" viewBox="0 0 {} {}" role="img" preserveAspectRatio="none" aria-label="{}">')
    shapes = ((shaded, "band"), (unheard, "unheard"), (usual, "bar"), (above, "above"), (line, "limit"))
    return svg.format(width, HEIGHT, label) + Markup("").join(_path(*shape) for shape in shapes) + Markup("</svg>")


def _path(commands: Iterable[str], kind: str) -> Markup:
    """One path of all commands, none for none."""
    drawn = "".join(commands)
    return Markup('<path class="{}" d="{}"/>').format(kind, drawn) if drawn else Markup()
