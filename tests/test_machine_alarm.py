"""The alarm of a machine: from windows to messages, history and evidence, through kills, outages and full disks."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import sqlalchemy as sa

import harken
from conftest import hum
from harken.detection.calibration import Calibration
from harken.monitor.alarm import AlarmSetting
from harken.monitor.verdict import Verdict
from harken.service.changes import Changes
from harken.service.episode_rule import EpisodeRule
from harken.service.evidence import EvidenceFolder
from harken.service.machine_alarm import MachineAlarm
from harken.service.recorder import Recorder
from harken.service.records import HeardWindow, Message, Window
from harken.service.requests import Request
from harken.service.store import tables
from harken.service.store.store import Store
from harken.service.texts import title_and_text

T0 = datetime(2026, 3, 1, tzinfo=UTC)
HOP = timedelta(seconds=10)
NORMAL_N = np.random.default_rng(0).normal(size=300)
#: above the limit of single windows
LOUD = 50.0


def rule() -> EpisodeRule:
    return EpisodeRule(AlarmSetting("1/week", Calibration.fit(NORMAL_N), 10.0))


def heard(number: int, score: float | None) -> HeardWindow:
    samples_CS = (0.1 * np.random.default_rng(number).normal(size=(1, 1600))).astype(np.float32)
    window = Window(samples_CS, 160, number, 1600 * number, T0 + number * HOP, resume={"pump": {"number": number + 1}})
    kind: Any = "not judged" if score is None else "alarm" if score > 10 else "normal"
    return HeardWindow("pump", window, Verdict(Path("<sound>"), kind, score, p_value=0.5 if score == 0 else 1e-6), "m1")


def hear(alarm: MachineAlarm, scores: Iterable[float | None], first: int = 0) -> int:
    number = first
    for number, score in enumerate(scores, start=first):
        alarm.hear(heard(number, score))
    return number + 1


def events(recorder: Recorder) -> list[str]:
    return [each.payload["event"] for each in recorder.outbox.pending("sink", 1000)]


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[MachineAlarm, Recorder]]:
    """An alarm on the store of the test, and its recorder with one sink."""

    def make(**options: Any) -> tuple[MachineAlarm, Recorder]:
        recorder = Recorder(tmp_path / "store.db")
        recorder.outbox.use_sinks(["sink"])
        return MachineAlarm("pump", rule(), options.pop("model", "m1"), recorder, **options), recorder

    return make


def rows(path: Path, table: sa.Table) -> list[Any]:
    store = Store.open(path / "store.db")
    with store.reading() as connection:
        result = [*connection.execute(sa.select(table))]
    store.close()
    return result


def test_a_fault_is_one_alarm_acknowledged_and_over(made: Any, tmp_path: Path) -> None:
    alarm, recorder = made()
    number = hear(alarm, [0.0] * 5 + [LOUD] * 20)
    message = recorder.outbox.pending("sink")[0]
    assert message.payload["annunciation"]
    assert message.payload["active"]
    assert alarm.answer(Request("pump", "acknowledge", "ada", T0, text="bearing ordered")) == "acknowledged"
    assert alarm.answer(Request("pump", "acknowledge", "ada", T0)) == "it is acknowledged already"
    hear(alarm, [0.0] * 60, number)
    assert events(recorder) == ["raised", "lasting", "acknowledged", "returned"]
    recorder.close()
    (record,) = rows(tmp_path, tables.alarms)
    assert (record.phase, record.acknowledged_by, record.highest) == ("normal", "ada", LOUD)
    assert record.ended > record.raised >= record.onset
    assert [row.action for row in rows(tmp_path, tables.history)] == ["raised", "lasting", "acknowledged", "returned"]
    windows = rows(tmp_path, tables.windows)
    assert len(windows) == 85
    assert sum(row.alarm == record.id for row in windows) == record.windows
    assert rows(tmp_path, tables.resume)[0].token == {"number": 85}


def test_a_change_that_lasts_is_announced_as_one_and_once(made: Any, tmp_path: Path) -> None:
    """A new state rings again and again in its windows, which are one alarm; what it may be is said with it."""
    alarm, recorder = made()
    number = hear(alarm, [0.0] * 5 + [LOUD] * 400)
    (raised, lasting) = recorder.outbox.pending("sink")
    assert [each.payload["event"] for each in (raised, lasting)] == ["raised", "lasting"]
    assert lasting.payload["quiet"]
    title, text = title_and_text(lasting)
    assert title == "pump: lasting change"
    assert "a fault, a new operating state, a moved microphone or other surroundings" in text
    assert text.endswith("Since 2026-03-01 00:00 UTC.")
    # Not again after a restart, and not before another alarm.
    recorder.close()
    alarm, recorder = made()
    number = hear(alarm, [LOUD] * 50 + [0.0] * 2000, number)
    assert events(recorder) == ["raised", "lasting", "returned"]
    alarm.answer(Request("pump", "acknowledge", "ada", T0))
    hear(alarm, [LOUD] * 50, number)
    assert events(recorder)[3:] == ["acknowledged", "raised", "lasting"]
    texts = [row.text for row in rows(tmp_path, tables.history) if row.action == "lasting"]
    assert texts[0] == "since 2026-03-01 00:00 UTC"


def test_messages_of_other_machines_in_the_same_transaction_hide_no_lasting_change(made: Any) -> None:
    alarm, recorder = made()
    raised = Message("1", 0, "alarm", "fan", T0, {"event": "raised"})
    for number, score in enumerate([0.0] * 5 + [LOUD] * 100):
        alarm.hear(heard(number, score), Changes(messages=[raised]))
    assert "lasting" in events(recorder)


def test_a_slow_change_is_announced_with_what_it_may_be(made: Any) -> None:
    """No window rings on its own: the alarm is that of many together."""
    alarm, recorder = made()
    hear(alarm, [3.0] * 60)
    (raised,) = recorder.outbox.pending("sink")
    assert "a moved microphone" in title_and_text(raised)[1]


def test_a_restart_goes_on_with_the_same_alarm(made: Any, tmp_path: Path) -> None:
    alarm, recorder = made()
    number = hear(alarm, [LOUD] * 3)
    alarm.answer(Request("pump", "shelve", "ada", T0, until=T0 + timedelta(days=1)))
    first = alarm.state
    # Killed: nothing is closed.
    again, recorder = made()
    hear(again, [LOUD] * 3, number)
    assert again.state == first
    assert events(recorder) == ["raised", "shelved", "lasting"]
    assert len(rows(tmp_path, tables.alarms)) == 1
    # With another model, the evidence of the old one does not count, and the alarm ends in its time.
    third, recorder = made(model="m2")
    hear(third, [0.0] * 12, number + 3)
    assert events(recorder)[-1] == "returned"


def test_windows_of_a_sensor_that_is_not_good_raise_nothing(made: Any) -> None:
    alarm, recorder = made()
    alarm.sensor(False, T0, "dead microphone")
    number = hear(alarm, [None] * 3 + [LOUD] * 3)
    assert events(recorder) == ["suppressed", "noted"]
    assert not recorder.outbox.pending("sink")[-1].payload["active"]
    # A restart with the sensor as it was says nothing again.
    alarm, recorder = made()
    alarm.sensor(False, T0 + number * HOP, "dead microphone")
    assert events(recorder) == ["suppressed", "noted"]
    alarm.sensor(True, T0 + number * HOP)
    assert events(recorder) == ["suppressed", "noted", "unsuppressed", "raised"]


def test_shelving_ends_where_nothing_is_heard(made: Any) -> None:
    alarm, recorder = made()
    until = T0 + timedelta(hours=1)
    assert "shelved until" in alarm.answer(Request("pump", "shelve", "ada", T0, until=until))
    assert "days at most" in alarm.answer(Request("pump", "shelve", "ada", T0, until=T0 + timedelta(days=99)))
    hear(alarm, [LOUD])
    alarm.tick(until - timedelta(seconds=1))
    assert events(recorder) == ["shelved", "noted"]
    alarm.tick(until)
    assert events(recorder) == ["shelved", "noted", "unshelved", "raised"]


def test_an_alarm_raised_while_the_store_is_away_goes_out_and_is_stored_later(made: Any, tmp_path: Path) -> None:
    """And an alarm that the store remembers of an earlier run ends in favour of it."""
    alarm, recorder = made()
    number = hear(alarm, [LOUD] * 3)
    alarm.answer(Request("pump", "out of service", "ada", T0))
    recorder.close()
    aside = tmp_path / "aside"
    aside.mkdir()
    for each in tmp_path.glob("store.db*"):
        each.rename(aside / each.name)
    (tmp_path / "store.db").mkdir()
    alarm, recorder = made()
    hear(alarm, [LOUD] * 3, number)
    (message,) = recorder.outbox.pending("sink")
    assert message.payload["annunciation"]
    (tmp_path / "store.db").rmdir()
    for each in aside.iterdir():
        each.rename(tmp_path / each.name)
    recorder._link.try_at_once()
    recorder.requests()
    hear(alarm, [LOUD], number + 3)
    assert alarm.state.out_of_service
    recorder.close()
    phases = {row.id: row.phase for row in rows(tmp_path, tables.alarms)}
    assert sorted(phases.values()) == ["normal", "unacknowledged"]
    assert phases[message.payload["alarm"]] == "unacknowledged"
    assert len(rows(tmp_path, tables.windows)) == 7


def test_evidence_is_sound_picture_and_sentence(tmp_path: Path, made: Any) -> None:
    normal = tmp_path / "normal"
    normal.mkdir()
    for seed in range(8):
        sf.write(normal / f"{seed}.wav", hum(seed), 16000)
    detector = harken.Detector.fit(normal, workers=0)
    whine = hum(99) + 0.5 * np.sin(2 * np.pi * 3000 * np.arange(len(hum(99))) / 16000)
    verdict = detector.score(whine, 16000)
    folder = EvidenceFolder(tmp_path / "evidence")
    alarm, recorder = made(evidence=folder, detector=detector)
    window = Window(whine[None].astype(np.float32), 16000, 0, 0, T0)
    alarm.hear(HeardWindow("pump", window, Verdict(verdict.path, "alarm", LOUD, p_value=1e-9, **_why(verdict)), "m1"))
    folder.close()
    recorder.close()
    (record,) = rows(tmp_path, tables.evidence)
    (raised,) = rows(tmp_path, tables.alarms)
    assert raised.evidence == record.id
    assert raised.sentence == record.sentence == verdict.why
    samples, rate = sf.read(tmp_path / "evidence" / record.sound)
    assert rate == 16000
    np.testing.assert_allclose(samples, whine, atol=1e-6)
    assert (tmp_path / "evidence" / record.picture).read_bytes()[8:12] == b"WEBP"


def _why(verdict: Verdict) -> dict[str, Any]:
    return {"explanation": verdict.explanation, "sketch_BC": verdict.sketch_BC, "higher_than": 8, "of": 8}


def test_evidence_stays_within_its_quota(tmp_path: Path) -> None:
    folder = EvidenceFolder(tmp_path, quota=20_000)
    records = [folder.save(heard(number, LOUD)) for number in range(30)]
    kept = sorted(tmp_path.iterdir())
    assert sum(file.stat().st_size for file in kept) == folder.size <= 20_000
    last = [record.sound for record in records if record is not None][-len(kept) :]
    assert [file.name for file in kept] == last, "the oldest went"
    again = EvidenceFolder(tmp_path, quota=10_000)
    again.save(heard(31, LOUD))
    assert again.size <= 10_000


def test_alarms_go_out_where_no_evidence_can_be_kept(made: Any, tmp_path: Path) -> None:
    folder = EvidenceFolder(tmp_path / "evidence")
    os.rmdir(tmp_path / "evidence")
    alarm, recorder = made(evidence=folder)
    hear(alarm, [LOUD] * 3)
    assert events(recorder) == ["raised"]
    assert "evidence is not kept" in folder.problem


def test_a_message_has_its_id_before_the_store_has_it(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    alarm, recorder = made()
    ids: list[Message] = []
    monkeypatch.setattr(alarm, "_commit", lambda changes: ids.extend(changes.messages))
    hear(alarm, [LOUD])
    assert uuid.UUID(ids[0].id)
    assert recorder.outbox.pending("sink") == []
