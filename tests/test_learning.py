"""A model learns from feedback: normal sound becomes quiet, faults stay found, a fault called normal is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harken.core.errors import BundleError, HarkenError
from harken.monitor import bundle, stored_rows
from harken.monitor.basis import Heard
from harken.monitor.clip_judge import ClipJudge
from harken.monitor.feedback.change import set_alarm
from harken.monitor.feedback.difference import compare_versions
from harken.monitor.feedback.effect import ChangeRefused
from harken.monitor.feedback.known_faults import add_faults
from harken.monitor.feedback.on_disk import (
    change_model,
    list_versions,
    load_fitted,
    roll_back,
)
from harken.monitor.feedback.rebaselining import rebaseline
from harken.monitor.feedback.updating import update
from harken.monitor.fitted import Fitted
from harken.monitor.judged import judged_clips
from harken.monitor.length import LengthEffect
from harken.monitor.manifests import version_file
from harken.monitor.relearn import refitted, surplus_rows
from harken.monitor.stored import content_of, fitted_of, save_fitted
from harken.monitor.stored_checks import Parts
from learned_machines import FAULT, KNOCKS, NEW_STATE, NORMAL, fitted, heard

MODEL = fitted(NORMAL)
MODEL_FILE = Path("m.harken")


def alarms(model: Fitted, clips: list[Heard]) -> int:
    return [judged.kind for judged in judged_clips(model, [clip.features for clip in clips])].count("alarm")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    save_fitted(tmp_path / "pump.harken", MODEL)
    return tmp_path / "pump.harken"


# ---------------------------------------------------------------- normal sound


def test_a_new_state_alarms_is_learned_and_is_quiet_while_the_fault_is_found_in_both() -> None:
    later = heard("later", range(120, 150), hum_hz=300.0)
    faulty = heard("faulty", range(160, 170), hum_hz=300.0, whine_hz=1900.0)
    assert alarms(MODEL, NEW_STATE) == 12
    assert alarms(MODEL, later) == 30
    change = update(MODEL, NEW_STATE, who="Anna", why="new recipe")
    assert alarms(change.fitted, later) <= 1
    assert alarms(change.fitted, FAULT) == len(FAULT)
    assert alarms(change.fitted, faulty) == len(faulty)
    assert change.effect.alarms_before == 12
    assert change.effect.alarms_after <= 2
    assert change.effect.threshold_after < 1.25 * change.effect.threshold_before
    assert change.version.number == 2
    assert (change.version.kind, change.version.who, change.version.why) == ("update", "Anna", "new recipe")


def test_one_odd_recording_becomes_quiet_and_does_not_raise_the_threshold() -> None:
    """It was chosen for its score: as one of sixty it would pull up the threshold of all."""
    for odd in (heard("odd", range(300, 301), hum_hz=500.0), KNOCKS[:1]):
        for model in (MODEL, replace(MODEL, false_alarms="auto")):
            assert alarms(model, odd) == 1
            change = update(model, odd, who="Anna")
            assert change.effect.threshold_after < 1.1 * change.effect.threshold_before
            assert change.effect.event_threshold_after < 1.1 * change.effect.event_threshold_before  # type: ignore
            assert alarms(change.fitted, FAULT) == len(FAULT)
    knocks = update(MODEL, KNOCKS[:4], who="Anna").fitted
    assert alarms(knocks, KNOCKS[4:]) < alarms(MODEL, KNOCKS[4:])


def test_what_is_learned_already_or_is_of_another_model_is_not_learned() -> None:
    with pytest.raises(HarkenError, match="is learned already"):
        update(MODEL, NORMAL[:3], who="Anna")
    change = update(MODEL, [*NORMAL[:3], *NEW_STATE, NEW_STATE[0]], who="Anna")
    assert change.effect.learned == 12
    assert len(change.effect.set_aside) == 4
    other = replace(NEW_STATE[0].features, embedding=np.zeros(3, np.float32))
    with pytest.raises(HarkenError, match="of another model"):
        update(MODEL, [replace(NEW_STATE[0], features=other)], who="Anna")
    with pytest.raises(HarkenError, match="no recordings"):
        update(MODEL, [], who="Anna")
    with pytest.raises(HarkenError, match="name of who made it"):
        update(MODEL, NEW_STATE, who=" ")


def test_an_alarm_for_a_knock_in_sound_that_is_learned_already_is_learned() -> None:
    """But for the knock it is the same to the last sample, and would pass for a copy."""
    knocking = heard("again", range(6), 2e6, knock=True)
    assert alarms(MODEL, knocking) == 6
    assert update(MODEL, knocking, who="Anna").effect.learned == 6


def test_models_without_what_learning_needs_say_to_fit_again() -> None:
    for change in (update, add_faults, rebaseline):
        with pytest.raises(HarkenError, match="Fit it again"):
            change(replace(MODEL, basis=None), NEW_STATE, who="Anna")


def test_learning_the_same_again_gives_the_same_bits() -> None:
    again = refitted(MODEL)
    for name, array in MODEL.detector.state().items():
        np.testing.assert_array_equal(again.detector.state()[name], array)
    assert again.calibration.effective == MODEL.calibration.effective
    first, second = (update(MODEL, NEW_STATE, who="Anna").fitted for _ in range(2))
    for name, array in first.detector.state().items():
        np.testing.assert_array_equal(second.detector.state()[name], array)


def test_a_model_does_not_grow_without_end_and_keeps_its_states_and_its_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harken.monitor.relearn._LEAST_ADDED", 40)
    monkeypatch.setattr("harken.monitor.relearn._TIMES", 0)
    model = update(MODEL, NEW_STATE, who="Anna").fitted
    for turn in range(3):
        more = heard("more", range(1000 + 20 * turn, 1020 + 20 * turn), 2e6 + 1e5 * turn)
        change = update(model, more, who="Anna")
        model = change.fitted
        assert len(model.training.names) <= 60 + 40
    assert change.effect.dropped == 20
    assert len(model.training.names) == 60 + 32
    assert {int(name.split()[1][:4]) // 20 for name in model.training.names if "more" in name} == {50, 51, 52}
    assert surplus_rows(model) == []
    assert set(model.training.names) >= {clip.name for clip in (*NORMAL, *NEW_STATE)}


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("name", ["names", "sha256s", "embeddings", "short_time", "seconds", "versions", "old"])
def test_known_faults_of_strangers_fit_together(name: str) -> None:
    settings, parts = content_of(add_faults(MODEL, FAULT[:2], who="Ben").fitted)
    fitted_of(settings, parts, MODEL_FILE)
    stored = settings["faults"] if name in settings["faults"] else parts["faults"]
    with pytest.raises(BundleError, match="known faults"):
        fitted_of(*changed(settings, parts, name, stored[name][:1]), MODEL_FILE)


@pytest.mark.parametrize(("name", "value"), [("seconds", 0.0), ("old", 1.0)])
def test_known_faults_of_strangers_have_lengths_and_ages(name: str, value: float) -> None:
    settings, parts = content_of(add_faults(MODEL, FAULT[:2], who="Ben").fitted)
    with pytest.raises(BundleError, match=r"known faults: (seconds that is not positive|old of type float64)"):
        fitted_of(*changed(settings, parts, name, np.full(2, value)), MODEL_FILE)
    # Named, but not there, and the other way round.
    with pytest.raises(BundleError, match="faults"):
        fitted_of(settings, {part: arrays for part, arrays in parts.items() if part != "faults"}, MODEL_FILE)
    with pytest.raises(BundleError, match="faults"):
        fitted_of({key: of for key, of in settings.items() if key != "faults"}, parts, MODEL_FILE)


def changed(settings: dict[str, Any], parts: Parts, name: str, value: Any) -> tuple[dict[str, Any], Parts]:
    """A model's content with another value of its known faults."""
    if name in settings["faults"]:
        return {**settings, "faults": {**settings["faults"], name: value}}, parts
    return settings, {**parts, "faults": {**parts["faults"], name: value}}


def test_a_known_fault_called_normal_is_refused_unless_forced() -> None:
    known = add_faults(MODEL, FAULT[:4], who="Ben", why="bearing")
    assert (known.effect.faults, known.effect.found_after) == (4, 4)
    assert known.version.kind == "fault"
    with pytest.raises(ChangeRefused, match="nearer to known faults"):
        update(known.fitted, [*NEW_STATE[:2], *FAULT[4:6]], who="Anna")
    forced = update(known.fitted, FAULT[4:], who="Anna", force=True)
    assert forced.version.forced
    assert forced.effect.like_faults
    assert forced.effect.found_after < forced.effect.found_before == 4
    assert set(forced.effect.lost) <= {clip.name for clip in FAULT[:4]}
    # What is no fault is not refused because of one.
    assert update(known.fitted, NEW_STATE, who="Anna").effect.found_after == 4


def test_the_recording_of_a_known_fault_is_refused_also_where_the_model_does_not_find_it() -> None:
    quiet = heard("quiet", range(400, 403))
    assert alarms(MODEL, quiet) == 0
    known = add_faults(MODEL, quiet, who="Ben").fitted
    with pytest.raises(ChangeRefused, match="3 of these 3 recordings are nearer to known faults"):
        update(known, quiet, who="Eve")
    assert update(known, quiet, who="Eve", force=True).version.forced


def test_faults_found_by_short_events_are_protected_too() -> None:
    known = add_faults(MODEL, KNOCKS[:3], who="Ben")
    assert known.effect.found_after == 3
    with pytest.raises(ChangeRefused, match="nearer to known faults"):
        update(known.fitted, KNOCKS[3:], who="Anna")


def test_without_a_known_fault_a_contaminated_update_is_undone_by_rolling_back(stored: Path) -> None:
    change = change_model(stored, update, FAULT[:4], who="Anna")
    assert any("no fault is known" in sentence for sentence in change.effect.sentences())
    assert alarms(load_fitted(stored), FAULT[4:]) < len(FAULT[4:])
    roll_back(stored, who="Ben", why="it was a fault")
    restored = load_fitted(stored)
    assert alarms(restored, FAULT[4:]) == len(FAULT[4:])
    for name, array in MODEL.detector.state().items():
        np.testing.assert_array_equal(restored.detector.state()[name], array)


def test_what_was_learned_as_normal_and_is_a_fault_is_normal_no_more() -> None:
    contaminated = update(MODEL, FAULT[:4], who="Anna").fitted
    mended = add_faults(contaminated, FAULT[:4], who="Ben")
    assert mended.effect.found_after == 4
    assert len(mended.fitted.training.names) == 60
    with pytest.raises(HarkenError, match="known faults already"):
        add_faults(mended.fitted, FAULT[:4], who="Ben")


def test_forcing_what_is_a_known_fault_to_be_normal_ends_its_being_a_fault() -> None:
    known = add_faults(MODEL, FAULT[:4], who="Ben").fitted
    forced = update(known, FAULT[:2], who="Anna", force=True)
    assert forced.effect.faults == 2


# ---------------------------------------------------------------- maintenance


def test_after_maintenance_the_old_sound_is_normal_no_more(stored: Path) -> None:
    change_model(stored, add_faults, FAULT[:3], who="Ben")
    after = heard("after", range(400, 440), 5e6, hum_hz=300.0)
    change = change_model(stored, rebaseline, after, who="Ben", why="new motor")
    assert change.effect.recordings == 40
    model = load_fitted(stored)
    assert alarms(model, heard("later", range(450, 470), hum_hz=300.0)) <= 2
    assert alarms(model, NORMAL[:10]) == 10
    assert model.faults is not None
    assert model.faults.old_F.all()
    # A model of an earlier version hears tones from now on, but not in shorter recordings: how scores of tones depend
    # on length was never measured.
    earlier = replace(fitted(NORMAL), tones=None, length=LengthEffect(0.5, 0.5))
    judge = ClipJudge(rebaseline(earlier, after, who="Ben").fitted)
    clip = after[0].features
    for seconds, hears in ((1.0, True), (0.9, False)):
        (result,) = judge.scores([replace(clip, seconds=seconds)])
        assert result is not None
        assert (result.scores.tone is not None) == hears
    # Faults of the machine before are counted, and refuse nothing.
    change_model(stored, update, heard("more", range(480, 490), 6e6, hum_hz=300.0), who="Anna")
    with pytest.raises(HarkenError, match="at least 3 are needed"):
        rebaseline(model, after[:2], who="Ben")


# ---------------------------------------------------------------- versions


def test_versions_are_listed_read_and_compared(stored: Path) -> None:
    change_model(stored, update, NEW_STATE, who="Anna", why="new recipe", origin="folder new")
    change_model(stored, set_alarm, "5%", None, who="Ben")
    kinds = [(version.number, version.kind, version.who) for version in list_versions(stored)]
    assert kinds == [(1, "fit", ""), (2, "update", "Anna"), (3, "set-alarm", "Ben")]
    assert list_versions(stored)[1].effect["learned"] == 12
    assert list_versions(stored)[1].origin == "folder new"
    first, last = load_fitted(stored, 1), load_fitted(stored)
    assert (first.false_alarms, last.false_alarms) == ("1%", "5%")
    difference = compare_versions(first, last, [*NEW_STATE, *FAULT])
    assert difference.counts(0)["alarm"] == 20
    assert {clip.name for clip in difference.differing} <= {clip.name for clip in NEW_STATE}
    assert difference.as_json()["versions"] == [1, 3]
    with pytest.raises(BundleError, match="has no version 9"):
        load_fitted(stored, 9)


def test_earlier_versions_are_small_and_say_what_they_said(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep rows alone, which later versions share, and learn from them again."""
    monkeypatch.setattr(bundle, "MOST_WHOLE", 2)
    clips = [clip.features for clip in (*NEW_STATE, *FAULT, *KNOCKS)]
    said = {}
    for number in range(2, 7):
        change = change_model(stored, update, NEW_STATE[number - 2 : number - 1], who="Anna")
        said[number] = judged_clips(change.fitted, clips)
    parts = [json.loads(version_file(stored, number).read_text())["parts"] for number in range(1, 6)]
    assert ["detector" in names for names in parts] == [True, False, False, True, True]
    assert judged_clips(load_fitted(stored, 3), clips) == said[3]
    arrays = [file.name.partition("_")[0].partition(".")[0] for file in stored.glob("*.safetensors")]
    assert (arrays.count("training"), arrays.count("added"), arrays.count("detector")) == (1, 5, 4)
    roll_back(stored, who="Ben", to=3)
    assert judged_clips(load_fitted(stored), clips) == said[3]


def test_rows_of_many_updates_are_one_file(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_rows, "_CHUNK", 4)
    for place in range(4):
        change_model(stored, update, NEW_STATE[place : place + 1], who="Anna")
        change_model(stored, set_alarm, "1%", None, who="Ben")
    parts = json.loads((stored / "manifest.json").read_text())["parts"]
    assert [part for part in parts if part.startswith("added")] == ["added_0000000", "added_0000004", "added_0000008"]
    model = load_fitted(stored)
    assert model.training.names[60:] == tuple(clip.name for clip in NEW_STATE[:4])
    assert [*model.basis.version_N[60:]] == [2, 4, 6, 8]  # type: ignore[union-attr]


def test_rolling_back_goes_to_the_version_before_and_keeps_known_faults(stored: Path) -> None:
    change_model(stored, update, NEW_STATE[:6], who="Anna")
    change_model(stored, update, NEW_STATE[6:], who="Anna")
    change_model(stored, add_faults, FAULT[:3], who="Ben")
    assert roll_back(stored, who="Ben", to=2).version.to == 2
    assert len(load_fitted(stored).training.names) == 66
    assert len(load_fitted(stored).faults) == 3  # type: ignore[arg-type]
    assert roll_back(stored, who="Ben").version.to == 1
    with pytest.raises(HarkenError, match="none to go back to"):
        roll_back(stored, who="Ben")
    with pytest.raises(HarkenError, match="is in use"):
        roll_back(stored, who="Ben", to=6)
    # What was once in use is there, whatever was gone back to.
    assert len(load_fitted(stored, 3).training.names) == 72


def test_a_stored_version_says_the_same_as_the_one_in_memory(stored: Path) -> None:
    change = change_model(stored, update, [*NEW_STATE, *KNOCKS[:2]], who="Anna")
    again = load_fitted(stored)
    clips = [clip.features for clip in (*NEW_STATE, *FAULT, *KNOCKS)]
    assert judged_clips(again, clips) == judged_clips(change.fitted, clips)
    np.testing.assert_array_equal(again.calibration.scores, change.fitted.calibration.scores)
    assert again.version == change.version
    # And learns on as that one would.
    more = heard("more", range(500, 506), 9e6, hum_hz=300.0)
    first, second = (update(model, more, who="Anna").fitted for model in (again, change.fitted))
    np.testing.assert_array_equal(first.training.scores_N, second.training.scores_N)


# ---------------------------------------------------------------- strangers


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with known faults and two updates."""
    path = tmp_path_factory.mktemp("learned") / "m.harken"
    save_fitted(path, MODEL)
    change_model(path, add_faults, FAULT[:3], who="Ben")
    change_model(path, update, NEW_STATE[:6], who="Anna")
    change_model(path, update, NEW_STATE[6:], who="Anna")
    return path


@pytest.mark.parametrize(
    ("part", "name", "array"),
    [
        ("added_0000003", "embeddings", np.zeros((6, 3), np.float32)),
        ("added_0000003", "embeddings", np.zeros((6, 640))),
        ("added_0000003", "embeddings", np.full((6, 640), np.nan, np.float32)),
        ("added_0000003", "more", np.zeros(6)),
        ("added_0000003", "versions", np.zeros(6, np.int64)),
        ("added_0000003", "picked", np.zeros(6, np.int64)),
        ("added_0000003", "sketch_widths", np.zeros(6, np.int64)),
        ("added_0000003", "short_time", np.zeros((6, 2), np.float32)),
        ("added_0000009", "embeddings", np.zeros((6, 640), np.float32)),
        ("scores", "counted", np.zeros(72, bool)),
        ("scores", "counted", np.ones(71, bool)),
        ("scores", "event_counted", np.ones(72)),
        ("scores", "scores", np.full(72, np.inf)),
        ("scores", "embeddings", np.zeros((72, 640), np.float32)),
        ("training", "versions", np.full(60, 2)),
        ("training", "strata", np.zeros(60)),
        ("training", "recorded_s", np.full(60, np.inf)),
        ("faults", "embeddings", np.zeros((2, 640), np.float32)),
        ("faults", "short_time", np.zeros((3, 4), np.float32)),
        ("faults", "short_time", np.full((3, 123), np.nan, np.float32)),
        ("faults", "seconds", np.zeros(3)),
        ("faults", "old", np.zeros(3)),
        ("faults", "more", np.zeros(3)),
        ("basis", "short_time", np.zeros((72, 123), np.float32)),
    ],
)
def test_rows_and_faults_that_do_not_fit_are_refused(
    part: str, name: str, array: np.ndarray, learned: Path, tmp_path: Path
) -> None:
    about, parts = bundle.read_bundle(learned)
    parts.setdefault(part, {})[name] = array
    bundle.write_bundle(tmp_path / "m", about, parts, schema=3)
    with pytest.raises(BundleError, match="is no model"):
        load_fitted(tmp_path / "m")


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("basis", {"stating": "guessed"}),
        ("basis", {"base": 9}),
        ("basis", {"base": True}),
        ("basis", {"ordered": 1}),
        ("basis", {"usual": "silent"}),
        ("basis", {"source": 3}),
        ("basis", []),
        ("faults", {"names": ["a"]}),
        ("faults", {"sha256s": [1, 2, 3]}),
        ("faults", "three"),
    ],
)
def test_settings_that_no_version_has_are_refused(entry: str, change: object, learned: Path, tmp_path: Path) -> None:
    about, parts = bundle.read_bundle(learned)
    about[entry] = {**about[entry], **change} if isinstance(change, dict) else change
    bundle.write_bundle(tmp_path / "m", about, parts, schema=3)
    with pytest.raises(BundleError, match="is no model"):
        load_fitted(tmp_path / "m")


def test_an_earlier_version_whose_rows_give_other_scores_is_refused(learned: Path, tmp_path: Path) -> None:
    about, parts = bundle.read_bundle(learned)
    del parts["detector"], parts["events"]
    bundle.write_bundle(tmp_path / "m", about, parts, schema=3)
    assert load_fitted(tmp_path / "m").training.names == load_fitted(learned).training.names
    parts["scores"]["scores"] = parts["scores"]["scores"] + 1.0
    bundle.write_bundle(tmp_path / "m", about, parts, schema=3)
    with pytest.raises(BundleError, match="other scores than this version of Harken learns"):
        load_fitted(tmp_path / "m")
