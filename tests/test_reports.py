"""Reports: what stands in them is escaped, and colours mean what the legend says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.colors import to_hex

import harken.core.pages
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
