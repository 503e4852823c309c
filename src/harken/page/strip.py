"""The strip of a machine's last days, as SVG that needs no script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from markupsafe import Markup

from harken.page.scores import Period

#: units of the drawing; those of a period are whole, so that the text is short
PERIOD_WIDTH, HEIGHT = 2, 72
#: part of the height that is above the alarm limit
_HEADROOM = 0.25


def strip(
    periods: Sequence[Period],
    alarms: Sequence[tuple[datetime, datetime]],
    *,
    until: datetime,
    span: timedelta,
    length: timedelta,
    limit: float | None,
    label: str,
) -> Markup:
    """A bar per period of `length` from the lowest to the highest score, the alarm limit as a line, alarms as bands.

    Parts in which nothing was heard are empty; periods without any judged window have a mark at the bottom.
    label: read to those who do not see it.
    """
    count = round(span / length)
    # The period that `until` is in is the last.
    first = int(until.timestamp() // length.total_seconds()) - count + 1
    width = count * PERIOD_WIDTH

    def column(time: datetime) -> int:
        number = time.timestamp() / length.total_seconds() - first
        return round(PERIOD_WIDTH * min(float(count), max(0.0, number)))

    lows = [period.minimum for period in periods if period.minimum is not None]
    highs = [period.maximum for period in periods if period.maximum is not None]
    low, high = min(lows, default=0.0), max(highs, default=1.0)
    if limit is not None:
        high = max(high, low + (limit - low) / (1 - _HEADROOM))
    scale = (HEIGHT - 4) / max(high - low, 1e-12)

    def row(score: float) -> int:
        return round(HEIGHT - 2 - (score - low) * scale)

    bars: list[str] = []
    above: list[str] = []
    unheard: list[str] = []
    for period in periods:
        left = column(period.start)
        if period.minimum is None or period.maximum is None:
            unheard.append(f"M{left + 1} {HEIGHT}v-4")
            continue
        bottom, top = row(period.minimum), row(period.maximum)
        over = limit is not None and period.maximum > limit
        (above if over else bars).append(f"M{left + 1} {bottom + 1}v{min(-2, top - bottom - 2)}")
    bands = [
        f"M{column(start)} 0H{max(column(end), column(start) + 1)}V{HEIGHT}H{column(start)}z" for start, end in alarms
    ]
    line = [] if limit is None else [f"M0 {row(limit)}H{width}"]
    svg = Markup('<svg class="strip" viewBox="0 0 {} {}" role="img" preserveAspectRatio="none" aria-label="{}">')
    shapes = ((bands, "band"), (unheard, "unheard"), (bars, "bar"), (above, "above"), (line, "limit"))
    return svg.format(width, HEIGHT, label) + Markup("").join(_path(*shape) for shape in shapes) + Markup("</svg>")


def _path(commands: Iterable[str], kind: str) -> Markup:
    """One path of all commands, none for none."""
    drawn = "".join(commands)
    return Markup('<path class="{}" d="{}"/>').format(kind, drawn) if drawn else Markup()
