"""The scores of each machine as a picture: bars of normal clips above a line and of anomalies below it, in SVG.

Drawn by a template in a millisecond; a figure of matplotlib takes over a second, most of it for text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.core.pages import render

Float64 = NDArray[np.float64]

#: bars of a machine
_BARS = 24
#: size of a panel's axes, of the margins at its left and right, and of those above and below, in pixels
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _ABOVE, _BELOW = 320, 160, 44, 14, 26, 40
#: height of a line of the legend, and width of a column of it
_LEGEND_LINE, _LEGEND_COLUMN = 20, 130
#: steps between ticks, times a power of ten
_STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Group:
    """Clips that are drawn alike: those of a `condition`, `anomaly` below the line, all others above it."""

    name: str
    condition: str
    colour: str
    clips: Sequence[str]


def score_bars(scores: Mapping[str, Mapping[str, float]], groups: Sequence[Group]) -> bytes:
    """SVG of the scores by clip of each machine; bars of groups are stacked. Without groups all clips are one."""
    columns = min(3, len(scores))
    legend_columns = min(4, 2 * columns)
    drawn = groups or [Group("all clips", "normal", "#777777", [clip for each in scores.values() for clip in each])]
    top = _LEGEND_LINE * -(-len(drawn) // legend_columns) + 6
    panel_width, panel_height = _LEFT + _WIDTH + _RIGHT, _ABOVE + _HEIGHT + _BELOW
    panels = [
        _panel(machine, scores[machine], drawn)
        | {"x": _LEFT + column * panel_width, "y": top + _ABOVE + line * panel_height, "first": column == 0}
        for number, machine in enumerate(sorted(scores))
        for line, column in [divmod(number, columns)]
    ]
    legend = [
        {"name": group.name, "colour": group.colour, "x": 8 + _LEGEND_COLUMN * column, "y": 4 + _LEGEND_LINE * line}
        for number, group in enumerate(drawn)
        for line, column in [divmod(number, legend_columns)]
    ]
    size = {"width": columns * panel_width, "height": top + -(-len(scores) // columns) * panel_height}
    axes = {"axes_width": _WIDTH, "axes_height": _HEIGHT}
    return render("harken.bench", "score_bars.svg", panels=panels, legend=legend, **size, **axes).encode()


def _panel(machine: str, scores: Mapping[str, float], groups: Sequence[Group]) -> dict[str, Any]:
    edges = np.histogram_bin_edges(list(scores.values()), bins=_BARS).astype(np.float64)
    heights = {True: np.zeros(_BARS), False: np.zeros(_BARS)}
    stairs = []
    for group in groups:
        counts = np.histogram([scores[clip] for clip in group.clips if clip in scores], edges)[0]
        below = group.condition == "anomaly"
        bottom = heights[below]
        heights[below] = bottom + counts
        sign = -1 if below else 1
        stairs.append((group.colour, sign * heights[below], sign * bottom))
    low, high = -heights[True].max(), heights[False].max()
    high = max(high, low + 1)
    x_of = (edges - edges[0]) / (edges[-1] - edges[0]) * _WIDTH

    def y_of(count: Any) -> Any:
        return (high - count) / (high - low) * _HEIGHT

    return {
        "title": machine,
        "bars": [(colour, _outline(x_of, y_of(upper), y_of(lower))) for colour, upper, lower in stairs],
        "line": f"{y_of(0):.1f}",
        "x_ticks": [
            (f"{(value - edges[0]) / (edges[-1] - edges[0]) * _WIDTH:.1f}", f"{value:.10g}")
            for value in ticks(float(edges[0]), float(edges[-1]), 5)
        ],
        "y_ticks": [
            (f"{y_of(count):.1f}", f"{abs(count):.0f}") for count in ticks(low, high, 5) if count == round(count)
        ],
    }


def _outline(x_E: Float64, upper_B: Float64, lower_B: Float64) -> str:
    """Path around stairs: along their upper side, and back along the lower one. Bars without height are left out."""
    pieces = []
    for left, right, upper, lower in zip(x_E[:-1], x_E[1:], upper_B, lower_B, strict=True):
        if upper != lower:
            pieces.append(f"M{left:.1f} {lower:.1f}V{upper:.1f}H{right:.1f}V{lower:.1f}Z")
    return "".join(pieces)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Up to `most` + 1 round numbers from `low` to `high`: multiples of 1, 2 or 5 times a power of ten."""
    least = (high - low) / most
    power = 10.0 ** np.floor(np.log10(least))
    step = float(next(step * power for step in _STEPS if step * power >= least * (1 - 1e-9)))
    numbers = range(int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9)) + 1)
    return [float(f"{number * step:.12g}") for number in numbers]
