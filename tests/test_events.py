"""Short events: their levels, their view beside the stationary one, and both p-values in one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import harken
from harken.detection import create_detector
from harken.detection.details import (
    DETAIL_SHARE,
    MOST_DETAIL_SHARE,
    DetailView,
    detail_shares,
    event_detector,
    joined_p,
    tone_detector,
)
from harken.embeddings.embedder import Embedder, make_spec
from harken.embeddings.short_time import GROUPS, MOMENTS_S, short_time_levels
from harken.embeddings.sketch import make_sketch
from harken.embeddings.steady import steady_levels
from harken.monitor.bundle import read_bundle, write_bundle

RATE = 16_000
HOP_S = 0.032
WIDTH = sum(GROUPS)
EMBEDDER = Embedder(make_spec("spectral", sample_rate=RATE, channels=1))


def machine(seed: int, *, strokes: bool = False, seconds: float = 3.0) -> np.ndarray:
    """(samples,) noise, in which some machines strike twice a second, more or less hard."""
    rng = np.random.default_rng(seed)
    wave_S = 0.05 * rng.standard_normal(round(seconds * RATE))
    if strokes:
        for start in range(int(rng.integers(RATE // 2)), len(wave_S) - 800, RATE // 2):
            wave_S[start : start + 800] += rng.uniform(0.2, 0.4) * rng.standard_normal(800)
    return wave_S


def levels(wave_S: np.ndarray) -> np.ndarray:
    """Short-time levels of a recording."""
    return short_time_levels(EMBEDDER.log_mel(wave_S[None].astype(np.float32)), HOP_S)


def with_knock(wave_S: np.ndarray, start_s: float, height: float) -> np.ndarray:
    knocked_S = wave_S.copy()
    start = round(start_s * RATE)
    knocked_S[start : start + 800] += height * np.random.default_rng(7).standard_normal(800)
    return knocked_S


def test_levels_tell_a_click_from_a_squeal() -> None:
    """By definition: the loudest moment of each length above the median, in narrow groups and in wide ones."""
    log_mel_TM = np.full((200, 128), -60.0, dtype=np.float32)
    log_mel_TM[50, :] = -40
    click_D = short_time_levels(log_mel_TM, HOP_S).reshape(len(MOMENTS_S), WIDTH)
    quarter, second = (round(moment / HOP_S) for moment in MOMENTS_S[1:])
    np.testing.assert_allclose(click_D[0], 20, atol=1e-4)
    np.testing.assert_allclose(click_D[1], 20 / quarter, atol=1e-4)
    np.testing.assert_allclose(click_D[2], 20 / second, atol=1e-4)
    log_mel_TM[50, :] = -60
    log_mel_TM[100:140, 64:68] = -30
    squeal_D = short_time_levels(log_mel_TM, HOP_S).reshape(len(MOMENTS_S), WIDTH)
    np.testing.assert_allclose(squeal_D[:, 16], 30, atol=1e-4)
    np.testing.assert_allclose(squeal_D[:, 15], 0, atol=1e-4)
    np.testing.assert_allclose(squeal_D[:, GROUPS[0] + 4], 30 / 4, atol=1e-4)
    np.testing.assert_allclose(squeal_D[:, -1], 30 / 32, atol=1e-4)


@pytest.mark.parametrize(("frames", "bands"), [(3, 128), (100, 20), (1, 4)])
def test_levels_of_short_clips_and_of_few_bands_have_a_size_of_their_own(frames: int, bands: int) -> None:
    log_mel_TM = np.random.default_rng(0).normal(-50, 3, (frames, bands)).astype(np.float32)
    widths = [min(count, bands) for count in GROUPS]
    values_D = short_time_levels(log_mel_TM, HOP_S)
    assert values_D.shape == (len(MOMENTS_S) * sum(widths),)
    assert np.isfinite(values_D).all()


def test_levels_do_not_depend_on_the_loudness() -> None:
    wave_S = with_knock(machine(0), 1.0, 0.4)
    np.testing.assert_allclose(levels(0.3 * wave_S), levels(wave_S), atol=0.05)


def test_a_knock_is_found_in_noise_and_strokes_of_the_machine_are_not() -> None:
    quiet = DetailView.fit(event_detector(), np.stack([levels(machine(seed)) for seed in range(30)]))
    striking = DetailView.fit(event_detector(), np.stack([levels(machine(seed, strokes=True)) for seed in range(30)]))
    knocked_D = levels(with_knock(machine(100), 1.3, 0.3))
    assert quiet.calibration.p_value(quiet.score([knocked_D]))[0] < 1e-3
    stroke_N = striking.score([levels(machine(seed, strokes=True)) for seed in range(200, 220)])
    assert (striking.calibration.p_value(stroke_N) < 0.02).sum() <= 2
    blow_D = levels(with_knock(machine(100, strokes=True), 1.3, 4.0))
    assert striking.calibration.p_value(striking.score([blow_D]))[0] < 1e-3


def test_the_joined_p_keeps_the_rate_of_false_alarms() -> None:
    p_VN, shares = np.random.default_rng(0).uniform(size=(3, 20_000)), (0.7, 0.2, 0.1)
    for rate in (0.001, 0.01, 0.1):
        allowed = rate + 4 * np.sqrt(rate / 20_000)
        assert (joined_p(p_VN, shares) <= rate).mean() <= allowed
        assert (joined_p([p_VN[0]] * 3, shares) <= rate).mean() <= allowed
    assert joined_p([1e-6, 1.0, 1.0], shares) == pytest.approx(1e-6 / 0.7)
    assert joined_p([0.5, 1.0, 1e-6], shares) == pytest.approx(1e-6 / 0.1)
    assert joined_p([1.0, 1.0], (0.8, 0.2)) == 1.0


def test_details_have_a_fifth_to_a_half_of_the_false_alarms() -> None:
    assert detail_shares(None) == (1 - DETAIL_SHARE, DETAIL_SHARE / 2, DETAIL_SHARE / 2)
    for finest in ((0.02, 0.001, 0.001), (0.01, 0.01, 0.01), (0.001, 0.1, 0.01)):
        shares = detail_shares(finest)
        assert sum(shares) == pytest.approx(1.0)
        assert DETAIL_SHARE <= shares[1] + shares[2] <= MOST_DETAIL_SHARE + 1e-12
    assert detail_shares((0.02, 0.01, 0.01)) == pytest.approx((0.5, 0.25, 0.25))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> harken.Detector:
    """A model of a machine with strokes; in one of the recordings a door was slammed."""
    folder = tmp_path_factory.mktemp("strokes")
    for seed in range(40):
        wave_S = machine(seed, strokes=True)
        sf.write(folder / f"n{seed:02d}.wav", 0.2 * with_knock(wave_S, 2.2, 3.0) if seed == 7 else wave_S, RATE)
    return harken.Detector.fit(folder, workers=0)


def test_a_knock_that_the_whole_sound_hides_is_an_alarm_and_is_named(fitted: harken.Detector) -> None:
    normal = fitted.score(machine(100, strokes=True), RATE)
    assert normal.kind == "normal"
    blow = fitted.score(0.2 * with_knock(machine(100, strokes=True), 1.3, 3.0), RATE)
    assert blow.kind == "alarm"
    assert blow.p_value is not None
    assert blow.p_value < fitted.alarm.rate
    assert (blow.why or "").startswith("new knock ")
    assert " at 1.3 s, " in (blow.why or "")
    faint = fitted.score(with_knock(machine(100, strokes=True), 1.3, 0.3), RATE)
    assert (faint.kind, faint.decided_by) == ("alarm", "event")
    assert faint.score is not None
    assert faint.score < fitted.threshold
    assert faint.rank.startswith("event above all ")
    assert faint.as_json()["decided_by"] == "event"


def test_one_loud_event_among_normal_recordings_silences_nothing(fitted: harken.Detector) -> None:
    """It is not learned from, at least not by the view of events."""
    assert fitted.events is not None
    highest = np.sort(fitted.events.scores_N)[-2:]
    assert fitted.alarm.event_threshold is not None
    assert fitted.alarm.event_threshold < highest[-1] or len(fitted.training.names) == 39


def test_a_model_keeps_its_views_and_older_models_have_none(fitted: harken.Detector, tmp_path: Path) -> None:
    wave_S = 0.2 * with_knock(with_tone(machine(100, strokes=True), 0.01), 1.3, 3.0)
    fitted.save(tmp_path / "m.harken")
    verdict, again = fitted.score(wave_S, RATE), harken.load(tmp_path / "m.harken").score(wave_S, RATE)
    assert (verdict.scores, verdict.p_value, verdict.kind) == (again.scores, again.p_value, again.kind)
    settings, parts = read_bundle(tmp_path / "m.harken")
    for view, kind in (("tones", "tone"), ("events", "event")):
        del settings[view], parts[view]
        write_bundle(tmp_path / f"{view}.harken", settings, parts)
        old = harken.load(tmp_path / f"{view}.harken").score(wave_S, RATE)
        assert old.score == verdict.score
        assert getattr(old, f"{kind}_score") is None
    assert old.decided_by == "sound"


def test_a_share_of_the_false_alarms_is_for_events(fitted: harken.Detector) -> None:
    """The three thresholds together have the rate that was asked for."""
    for asked in ("5%", "auto"):
        fitted.set_alarm(asked)
        alarm = fitted.alarm
        assert alarm.events is not None
        assert alarm.tones is not None
        limits = (alarm.threshold, alarm.event_threshold, alarm.tone_threshold)
        calibrations = (alarm.calibration, alarm.events, alarm.tones)
        rates = [
            float(calibration.p_value(np.nextafter(limit, np.inf)))
            for limit, calibration in zip(limits, calibrations, strict=True)
        ]
        assert sum(rates) <= alarm.rate * 1.001
    fitted.set_alarm("auto")


def with_tone(wave_S: np.ndarray, level: float, hz: float = 2900.0) -> np.ndarray:
    return wave_S + level * np.sin(2 * np.pi * hz * np.arange(len(wave_S)) / RATE)


def test_a_faint_steady_tone_that_no_normal_recording_has_is_an_alarm(fitted: harken.Detector) -> None:
    """Louder than anything in its band, and hidden from the distance over all bands."""
    verdict = fitted.score(with_tone(machine(100, strokes=True), 0.01), RATE)
    assert (verdict.kind, verdict.decided_by) == ("alarm", "tone")
    assert verdict.rank.startswith("tone above all ")
    assert verdict.score is not None
    assert verdict.score < fitted.threshold
    assert (verdict.why or "").startswith("new tone near 2.9 kHz throughout")
    fainter = fitted.score(with_tone(machine(100, strokes=True), 0.006), RATE)
    assert fainter.kind != "normal"
    assert "the rarest difference is a faint tone near 2.9 kHz (+" in (fainter.why or "")


def test_tones_that_normal_recordings_have_are_none() -> None:
    """By definition: how far the loudest band is above the highest normal level within a band of it."""
    rng = np.random.default_rng(0)
    bank_ND = rng.normal(0, 1, (30, 20))
    bank_ND[:, 7] += 25
    beyond = create_detector("beyond").fit(bank_ND)
    neighbour_D, other_D = np.zeros((2, 20))
    neighbour_D[8] = other_D[12] = 20.0
    highest = bank_ND[:, 11:14].max()
    np.testing.assert_allclose(beyond.score([other_D]), [20.0 - highest])
    assert beyond.score([neighbour_D])[0] < 1.0


def test_steady_levels_hear_neither_events_nor_the_loudness() -> None:
    log_mel_TM = np.random.default_rng(0).normal(-60, 0.1, (200, 40)).astype(np.float32)
    quiet_B = steady_levels(make_sketch(log_mel_TM))
    log_mel_TM[50:90] += 30
    np.testing.assert_allclose(steady_levels(make_sketch(log_mel_TM)), quiet_B, atol=0.6)
    np.testing.assert_allclose(steady_levels(make_sketch(log_mel_TM + 7)), quiet_B, atol=0.6)
    log_mel_TM[:, 5] += 12
    assert steady_levels(make_sketch(log_mel_TM))[5] == pytest.approx(12, abs=0.6)


def test_a_knock_is_found_beside_tones_and_a_tone_beside_knocks(fitted: harken.Detector) -> None:
    """Neither raises the score of the other: each has its held-out scores to itself."""
    usual = fitted.score(machine(100, strokes=True), RATE).scores
    knocked = fitted.score(with_knock(machine(100, strokes=True), 1.3, 0.3), RATE).scores
    toned = fitted.score(with_tone(machine(100, strokes=True), 0.01), RATE).scores
    assert usual is not None
    assert knocked is not None
    assert toned is not None
    assert knocked.tone == pytest.approx(usual.tone, abs=0.5)
    assert toned.event == pytest.approx(usual.event, rel=0.2)
    assert (fitted.alarm.event_threshold or np.inf) < (knocked.event or 0.0)
    assert (fitted.alarm.tone_threshold or np.inf) < (toned.tone or 0.0)


def test_steady_levels_that_are_all_the_same_leave_the_rate_to_the_other_views() -> None:
    bank_ND = np.zeros((40, 20), dtype=np.float32)
    view = DetailView.fit(tone_detector(), bank_ND, ordered=False)
    assert view.calibration.finest_with_power < 0.1
    assert view.calibration.p_value(view.score(np.full((1, 20), 12.0)))[0] < 1e-3
