"""Reports: what stands in them is escaped, and colours mean what the legend says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex

import harken.core.pages
from harken.bench.score_bars import Group, score_bars, ticks
from harken.core.pages import render, stylesheet
from harken.monitor.detector import Detector
from harken.monitor.plot import scores_figure
from harken.monitor.report import ReportSection, write_report


def test_names_with_markup_stay_text(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    normal = make_clips("normal", 6)
    odd = tmp_path / "a <b>&c.wav"
    odd.write_bytes((normal / "clip_000.wav").read_bytes())
    detector = Detector.fit(normal, workers=0)
    section = ReportSection("pump <3", detector, list(detector.score_many([odd])))
    write_report(tmp_path / "report.html", "me & you", [section], lead="<i>first</i>")
    page = (tmp_path / "report.html").read_text()
    for text in ("<h2>pump &lt;3 <span", "<h1>me &amp; you</h1>", "&lt;i&gt;first&lt;/i&gt;", "a &lt;b&gt;&amp;c.wav"):
        assert text in page


def test_only_alarms_are_red(make_clips: Callable[..., Path]) -> None:
    detector = Detector.fit(make_clips("normal", 6), workers=0)
    figure = scores_figure(detector, {"no alarm": [1.0, 1.1], "alarm": [9.0]})
    colours = {
        label: to_hex(bar.get_facecolor())
        for bar, label in zip(*figure.axes[1].get_legend_handles_labels(), strict=True)
    }
    assert colours["no alarm"] == "#3b6ea5"
    assert colours["alarm"] == "#c8442f"


def test_reports_have_the_look_of_the_page_and_need_no_other_file() -> None:
    page = render("harken.monitor", "report.html", title="t", lead="", sections=[])
    assert page.startswith("<!doctype html>")
    assert page.count("<style>") == 1
    assert str(stylesheet()) in page
    assert "prefers-color-scheme: dark" in page
    assert page.rstrip().endswith("</html>")
    # No template has a style of its own, and none but the page's links to files.
    source = Path(harken.core.pages.__file__).parents[1]
    for template in source.rglob("templates/*.html"):
        text = template.read_text()
        assert ("<style" in text) == (template.name == "report_base.html"), template
        assert "style=" not in text, template


def test_scores_of_machines_are_drawn_as_bars() -> None:
    scores = {"fan & co": {f"f{number}": float(number % 24) for number in range(72)}, "valve": {"v0": 1e-4, "v1": 2e-4}}
    normal, anomalous = [f"f{number}" for number in range(48)], [f"f{number}" for number in range(48, 72)]
    groups = [Group("source normal", "normal", "#00f", normal), Group("source anomaly", "anomaly", "#f00", anomalous)]
    drawing = ElementTree.fromstring(score_bars(scores, groups))
    texts = [text.text for text in drawing.findall(".//{*}text")]
    assert {"fan & co", "valve", "source normal", "source anomaly", "anomaly score", "0.00012"} <= set(texts)
    line, above, below = (
        [path.get("d", "") for path in drawing.findall(".//{*}path") if path.get("fill") == colour]
        for colour in ("none", "#00f", "#f00")
    )
    # Of 24 values, two normal clips and one anomaly have each: bars twice as high above the line as below.
    zero = float(line[0].split("M0 ")[2].split("H")[0])
    top = {float(bar.split("V")[1].split("H")[0]) for bar in above[0].split("M")[1:]}
    bottom = {float(bar.split("V")[1].split("H")[0]) for bar in below[0].split("M")[1:]}
    assert (len(above[0].split("M")) - 1, len(below[0].split("M")) - 1) == (24, 24)
    assert (zero - top.pop()) == pytest.approx(2 * (bottom.pop() - zero), abs=0.2)
    assert not top
    assert not bottom


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 17), (1e-5, 3e-5), (99_999.5, 100_000.5), (-1e9, 1e12)])
def test_ticks_are_a_few_round_numbers(low: float, high: float) -> None:
    numbers = ticks(low, high, 5)
    assert 2 <= len(numbers) <= 6
    assert low <= min(numbers) < max(numbers) <= high
    steps = np.diff(numbers)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)
