"""Long recordings are cut by themselves, and clips of other lengths than those learned from keep the set rate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import harken
from command_line import harken as command
from conftest import hum
from harken.audio.segments import Form, cut
from harken.core.errors import HarkenError
from harken.data.segment_order import segment_chronology
from harken.detection.calibration import Calibration
from harken.monitor.alarm import AlarmSetting
from harken.monitor.cutting import cut_to_learn
from harken.monitor.fit_report import write_fit_report
from harken.monitor.judge import judge
from harken.monitor.report import ReportSection, write_report
from harken.monitor.verdict import Verdict
from harken.monitor.view_scores import ViewScores

RATE = 16_000


def long_hum(seconds: int, first_seed: int = 0) -> np.ndarray:
    """(samples,) of so many one-second clips after each other."""
    return np.concatenate([hum(first_seed + second) for second in range(seconds)])


def test_a_long_recording_is_learned_from_as_if_cut_into_files(tmp_path: Path) -> None:
    sf.write(tmp_path / "long.wav", long_hum(24), RATE)
    detector = harken.Detector.fit([tmp_path / "long.wav"], segment="1", workers=0)
    assert detector.training.names[12] == "long.wav@0:00:12-0:00:13"
    assert detector.segment_s == 1.0
    assert "1 recording was cut into 24 segments of 1 s" in detector.notes[0]
    assert any("order of segments of recordings" in note for note in detector.notes)
    (tmp_path / "files").mkdir()
    for second in range(24):
        sf.write(tmp_path / "files" / f"{second:03d}.wav", hum(second), RATE)
    files = harken.Detector.fit(tmp_path / "files", workers=0)
    np.testing.assert_array_equal(detector.training.scores_N, files.training.scores_N)


def test_a_recording_of_over_a_minute_is_judged_in_segments(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    """With their times, the same by every number of processes and from a store."""
    detector = harken.Detector.fit(make_clips("normal", 20), workers=0)
    sound = long_hum(62, 500)
    sound[60 * RATE : 61 * RATE] = hum(900, fault=True)
    sf.write(tmp_path / "new.wav", sound, RATE)
    verdicts = list(detector.score_many([tmp_path / "new.wav"], workers=0, store=tmp_path / "store"))
    assert [(verdict.start_s, verdict.end_s) for verdict in verdicts] == [(s, s + 1) for s in range(62)]
    highest = max(verdicts, key=lambda verdict: verdict.score)
    assert highest.name == f"{tmp_path}/new.wav@0:01:00-0:01:01"
    assert 60 <= highest.explanation.start_s < highest.explanation.end_s <= 61
    again = detector.score_many([tmp_path / "new.wav"], workers=2, store=tmp_path / "store")
    assert [verdict.score for verdict in again] == [verdict.score for verdict in verdicts]
    with pytest.raises(HarkenError, match="is judged in segments"):
        detector.score(tmp_path / "new.wav")


def test_a_clip_that_is_longer_is_judged_by_its_worst_segment(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    detector = harken.Detector.fit(make_clips("normal", 40), false_alarms="4%", workers=0)
    sound = long_hum(3, 500)
    normal = detector.score(sound, RATE)
    assert (normal.kind, normal.seconds) == ("normal", 3.0)
    sound[2 * RATE :] = hum(900, fault=True)
    sf.write(tmp_path / "long.wav", sound, RATE)
    verdict = detector.score(tmp_path / "long.wav")
    assert (verdict.kind, verdict.start_s, verdict.end_s, verdict.seconds) == ("alarm", 2.0, 3.0, 3.0)
    assert verdict.explanation.start_s >= 2.0
    assert len(verdict.segment_scores) == 3
    assert verdict.score == pytest.approx(detector.score(sound, RATE).score, rel=1e-3)
    # A third of the rate for each of three segments.
    alone = detector.score(hum(900, fault=True), RATE)
    assert verdict.p_value == pytest.approx(3 * alone.p_value, rel=0.05)
    assert verdict.as_json()["start_s"] == 2.0
    assert alone.as_json()["start_s"] is None


def test_the_same_error_of_consecutive_segments_is_given_once(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    detector = harken.Detector.fit(make_clips("normal", 20), workers=0)
    sound = long_hum(8, 500)
    sound[2 * RATE : 5 * RATE] = 0
    sf.write(tmp_path / "long.wav", np.tile(sound, 8), RATE)
    verdicts = list(detector.score_many([tmp_path / "long.wav"], workers=0))
    failed = [verdict for verdict in verdicts if verdict.error is not None]
    assert (len(verdicts), len(failed)) == (48, 8)
    assert str(failed[1].error).startswith(f"{tmp_path}/long.wav@0:00:10-0:00:13: is silent")
    sf.write(tmp_path / "stereo.wav", np.stack([sound, sound], axis=1), RATE)
    (whole,) = detector.score_many([tmp_path / "stereo.wav"], workers=0)
    assert str(whole.error).startswith(f"{tmp_path}/stereo.wav: has 2 channels")


def test_rates_of_segments() -> None:
    """A share is one of recordings; a rate per time is that of gapless segments, or of snapshots."""
    calibration = Calibration.independent(np.arange(1.0, 200.0))

    def per_segment(false_alarms: str, interval_s: float, count: int, *, together: bool) -> float:
        setting = AlarmSetting(false_alarms, calibration, interval_s)
        return setting.of_segments(count, 10.0 * count, together=together).rate / setting.rate

    assert per_segment("1%", 10, 3, together=True) == pytest.approx(1 / 3)
    assert per_segment("1%", 10, 12, together=False) == 1
    assert per_segment("1/week", 10, 12, together=False) == 1
    assert per_segment("1/week", 600, 12, together=False) == pytest.approx(1 / 12)
    assert per_segment("1/week", 60, 12, together=False) == pytest.approx(1 / 6)
    # No recording is more often suspect, either: among three segments, one above all normal scores is no surprise.
    setting = AlarmSetting("0.1%", calibration, 10.0)
    assert judge(ViewScores(199.5), setting).kind == "suspect"
    assert judge(ViewScores(199.5), setting, among=3).kind == "normal"


def test_a_lasting_change_counts_segments_as_often_as_recordings(make_clips: Callable[..., Path]) -> None:
    detector = harken.Detector.fit(make_clips("normal", 60), false_alarms="5%", every="10s", workers=0)
    score = float(detector.calibration.scores[-1]) + 1

    def changes(every_s: int) -> list[int]:
        """Numbers of the segments, one per second, with which a change is reported."""
        sequence = detector.sequence()
        verdicts = [
            Verdict(Path("a.wav"), "suspect", score, start_s=every_s * second, end_s=every_s * second + 1.0)
            for second in range(600)
        ]
        return [number for number, verdict in enumerate(verdicts) if sequence.update(verdict) is not None]

    at_intervals = changes(10)
    assert len(at_intervals) == 1
    assert changes(1) == [10 * at_intervals[0]]


def test_shorter_clips_keep_the_rate_or_are_not_judged(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    harken.Detector.fit(make_clips("normal", 60), false_alarms="5%", workers=0).save(tmp_path / "m.harken")
    detector = harken.load(tmp_path / "m.harken")
    for ratio in (0.82, 0.9, 1.0, 1.2):
        alarms = sum(detector.score(hum(2000 + i, seconds=ratio), RATE).kind == "alarm" for i in range(40))
        # 2 at the length learned from, and 30 at 0.82 of it if scores were taken as they are.
        assert alarms <= 6, ratio
    short = detector.score(hum(1, seconds=0.7), RATE)
    assert short.kind == "not judged"
    assert short.why == (
        "lasts 0.7 s, and the model learned from recordings of 1 s: record as long, or fit with --segment 0.7"
    )
    assert short.as_json()["score"] is None


def test_recordings_of_unlike_lengths_are_cut_to_one() -> None:
    def cut_up(seconds: list[float], segment: str = "auto") -> list[int]:
        paths = [Path(f"{number}.wav") for number in range(len(seconds))]
        forms = [Form(100, 1, round(100 * each), round(100 * each)) for each in seconds]
        cutting = cut_to_learn(paths, forms, segment)
        assert set(cutting.errors) == {path for path, pieces in cutting.pieces if not pieces}
        return [len(pieces) for _, pieces in cutting.pieces]

    assert cut_up([10.0, 10.4, 10.1]) == [1, 1, 1]
    assert cut_up([61.0]) == [6]
    assert cut_up([50.0]) == [1]
    assert cut_up([7200.0, 5.0]) == [1440, 1]
    assert cut_up([1.0] + [10.0] * 15 + [25.0]) == [0] + [1] * 15 + [2]
    assert cut_up([61.0, 10.0], "none") == [1, 1]
    assert cut_up([10.0, 3.0], "5") == [2, 0]
    assert cut_up([10.0], "2 s") == [5]
    with pytest.raises(HarkenError, match="unit of time"):
        cut_up([10.0], "short")
    with pytest.raises(HarkenError, match="cannot be learned from"):
        cut_up([10.0], "0.01")


def test_segments_of_a_recording_follow_each_other() -> None:
    files = [Path(f"pump_20240501_1{hour}0000.wav") for hour in (4, 3)]
    segments = {
        segment.path: segment for file in files for segment in cut(file, Form(100, 1, 3000, 3000), 10, covering=True)
    }
    when = segment_chronology(list(segments), segments)
    assert [list(segments)[row].name[-26:] for row in when.order_N[:3]] == [
        "130000.wav@0:00:00-0:00:10",
        "130000.wav@0:00:10-0:00:20",
        "130000.wav@0:00:20-0:00:30",
    ]
    assert when.seconds_N is not None
    assert np.diff(when.seconds_N[when.order_N]).tolist() == [10, 10, 3580, 10, 10]
    unknown = segment_chronology(list(segments), segments, "none")
    assert unknown.ordered
    assert len(set(unknown.sequences_N)) == 2


def test_the_command_line_cuts_too(tmp_path: Path) -> None:
    sf.write(tmp_path / "long.wav", long_hum(61), RATE)
    model = str(tmp_path / "m.harken")
    fitted = command("fit", str(tmp_path / "long.wav"), "-o", model, "--segment", "4", "--workers", "1")
    assert "learned from 15 segments (" in fitted.stderr
    assert " segments, one in " in fitted.stderr
    sf.write(tmp_path / "new.wav", np.concatenate([long_hum(60, 100), hum(900, fault=True)]), RATE)
    done = command("score", str(tmp_path / "new.wav"), "-m", model, "--json", "--workers", "1")
    *records, summary = map(json.loads, done.stdout.splitlines())
    records = [record for record in records if record["record"] == "recording"]
    assert (records[15]["start_s"], records[15]["end_s"]) == (57.0, 61.0)
    assert (summary["recordings"], summary["verdicts"]) == (1, 16)
    assert "normal recording" not in done.stdout
    done = command("explain", str(tmp_path / "new.wav"), "-m", model, "-o", str(tmp_path / "why.png"))
    assert done.stderr.startswith("57-61 s: ")
    assert (tmp_path / "why.png").exists()


def test_reports_play_segments(tmp_path: Path) -> None:
    sf.write(tmp_path / "long.wav", long_hum(10), RATE)
    detector = harken.Detector.fit([tmp_path / "long.wav"], segment="1", workers=0)
    write_fit_report(tmp_path / "fit.html", "m", detector)
    page = (tmp_path / "fit.html").read_text()
    assert "long.wav@0:00:0" in page
    assert page.count("<audio") == 5
    sf.write(tmp_path / "new.wav", np.concatenate([long_hum(2, 50), hum(900, fault=True)]), RATE)
    verdict = detector.score(tmp_path / "new.wav")
    section = ReportSection("m", detector, [verdict], normal_folder=tmp_path)
    write_report(tmp_path / "score.html", "m", [section])
    page = (tmp_path / "score.html").read_text()
    assert "new.wav@0:00:02-0:00:03" in page
    # The segment and the one most like it.
    assert page.count("<audio") == 2
