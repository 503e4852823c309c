"""harken report: reports are made again from what is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile as sf

import harken
from command_line import called
from conftest import hum
from harken.monitor.detector import Detector
from harken.monitor.report import ReportSection, write_report
from harken.monitor.tally import tallied
from harken.monitor.verdict import Verdict
from listening import RATE, detector_in, write

pytest.importorskip("pyarrow", reason="pyarrow is not installed (harken[bench])")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, recordings, and what harken score has stored of them in both forms and as a report."""
    folder = tmp_path_factory.mktemp("scored")
    (folder / "normal").mkdir()
    detector_in(folder / "normal").save(folder / "pump.harken")
    (folder / "heard").mkdir()
    for number in range(3):
        # The second with a faint fault, which the rarest alarm does not report.
        sound, faulty = hum(70 + number), hum(70 + number, fault=True)
        write(folder / "heard" / f"pump_20260301_1{number}0000.wav", sound + (number == 1) * 0.2 * (faulty - sound))
    sf.write(folder / "heard" / "pump_20260302_100000.wav", hum(5, seconds=0.1), RATE)
    (folder / "heard" / "pump_20260302_110000.wav").write_bytes(b"no sound")
    model = ("-m", folder / "pump.harken", "--workers", 1)
    done = called("score", folder / "heard", *model, "--json", "--report", folder / "scored.html")
    (folder / "scored.jsonl").write_text(done.stdout)
    called("score", folder / "heard", *model, "--results", folder / "results")
    return folder


@pytest.mark.parametrize("stored", ["results", "scored.jsonl"])
def test_the_report_of_stored_scores_is_that_of_harken_score(scored: Path, tmp_path: Path, stored: str) -> None:
    done = called("report", scored / stored, "-m", scored / "pump.harken", "-o", tmp_path / "again.html")
    assert done.returncode == 0, done.stderr
    again, before = (tmp_path / "again.html").read_text(), (scored / "scored.html").read_text()
    # What a table by day does not hold of an error is what to do about it.
    cut = before.index("pump_20260302_110000.wav") if stored == "results" else len(before)
    assert again[:cut] == before[:cut]
    assert again[again.index("<dl>") :] == before[before.index("<dl>") :]


def test_results_of_another_model_or_alarm_are_refused(scored: Path, tmp_path: Path) -> None:
    for seed in range(8):
        write(tmp_path / f"{seed}.wav", hum(900 + seed))
    Detector.fit(tmp_path, workers=0).save(tmp_path / "other.harken")
    for options, message in (
        (("-m", tmp_path / "other.harken"), "of another model"),
        (("-m", scored / "pump.harken", "--false-alarms", "1e-9"), "the alarm was set otherwise"),
        ((), "the model is needed"),
    ):
        done = called("report", scored / "scored.jsonl", "-o", tmp_path / "again.html", *options)
        assert done.returncode == 2, message
        assert message in done.stderr
        assert not (tmp_path / "again.html").exists()
    (tmp_path / "empty.jsonl").write_text('{"record": "summary"}\n')
    assert "has no verdicts" in called("report", tmp_path / "empty.jsonl", "-m", scored / "pump.harken").stderr


def test_recordings_that_have_gone_are_still_in_the_report(scored: Path, tmp_path: Path) -> None:
    lines = (scored / "scored.jsonl").read_text().replace(str(scored / "heard"), str(tmp_path / "gone"))
    (tmp_path / "scored.jsonl").write_text(lines)
    done = called("report", tmp_path / "scored.jsonl", "-m", scored / "pump.harken")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "scored.html").read_text()
    worst = max((json.loads(line) for line in lines.splitlines()), key=lambda entry: entry.get("score") or 0.0)
    assert worst["why"] in page
    assert "there is no such file" in page
    assert 'class="panels"' not in page


def test_years_of_verdicts_need_little_memory() -> None:
    verdicts = (
        Verdict(Path(f"{number}.wav"), "alarm" if number == 700 else "normal", float(number % 1000))
        for number in range(5000)
    )
    tally = tallied(verdicts, None, 3)
    assert [verdict.path.name for verdict in tally.unusual] == ["700.wav", "999.wav", "1999.wav"]
    assert (tally.count, tally.sentence, tally.state) == (5000, "1 alarm, 4999 normal", "alarm")
    assert tally.listed == [("700.wav", "alarm", "")]
    assert len(tally.strip(2000.0)) < 5000


def test_an_alarm_by_a_tone_is_shown_before_normal_recordings_of_higher_scores(scored: Path, tmp_path: Path) -> None:
    quiet, toned = (
        Verdict(Path(f"{name}.wav"), kind, score, 1.0, tone, p, decided_by=view, higher_than=30, of=40)
        for name, kind, score, tone, p, view in (
            ("quiet", "normal", 40.0, 1.0, 0.3, "sound"), ("toned", "alarm", 12.0, 19.5, 1e-4, "tone"),
        )
    )  # fmt: skip
    write_report(tmp_path / "r.html", "r", [ReportSection("pump", harken.load(scored / "pump.harken"), [quiet, toned])])
    page = (tmp_path / "r.html").read_text()
    assert "alarm · tone score 19.5 dB, above 30 of 40 normal recordings" in page
    assert page.index("toned.wav") < page.index("quiet.wav")
    assert 'class="above"' in page, "its bar is that of an alarm although its score is below the limit"
