"""Simulated plant: layout, determinism, physics of the faults, difficulty."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile
from scipy.signal import butter, hilbert, periodogram, sosfiltfilt
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from harken.audio.listen import normalised
from harken.audio.stft import mel_bands, power_spectrogram
from harken.core.errors import HarkenError
from harken.data.names import parse_name
from harken.detection import DEFAULT_DETECTOR, create_detector
from harken.embeddings.embedder import Embedder, make_spec
from harken.plant import list_machines, simulate
from harken.plant.bearing import BPFI, BPFO
from harken.plant.fan import BLADES, HZ_PER_VOLT
from harken.plant.gearbox import HZ_PER_VOLT as GEARBOX_HZ_PER_VOLT
from harken.plant.gearbox import PINION_TEETH, mesh_table
from harken.plant.machine import OperatingRun
from harken.plant.room import FAR_LOSS_DB
from harken.plant.signals import modes, noise, rms, slope
from harken.plant.simulate import CONDITIONS, DOMAINS, MACHINES, Item, operation, render

RATE = 16_000
SMALL = {"train_source": 4, "train_target": 2, "test_per_condition": 3, "supplemental": 2, "seconds": 0.5}

# The official naming scheme, written independently of the code under test.
RECORDING = re.compile(
    r"section_00_(source|target)_(?:train_normal|test_(?:normal|anomaly))_\d{4}_"
    r"(?:noAttribute|[a-zA-Z]+_[^_]+(?:_[a-zA-Z]+_[^_]+)*)\.wav"
)
SUPPLEMENTAL = re.compile(r"section_00_(machine|noise)_\d{4}_\.wav")


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant")
    simulate(root, hide_attributes=["slider"], **SMALL)
    return root


def relative_files(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


# Layout


def test_layout_and_names_are_official(plant: Path) -> None:
    assert len(list_machines()) >= 5
    assert {path.name for path in plant.iterdir()} == set(list_machines())
    kinds = set()
    for machine in list_machines():
        folder = plant / machine
        inside = {path.name for path in folder.iterdir()}
        assert inside == {"train", "test", "supplemental", "attributes_00.csv"}
        assert all(RECORDING.fullmatch(path.name) for path in (folder / "train").iterdir())
        assert all(RECORDING.fullmatch(path.name) for path in (folder / "test").iterdir())
        train = [path.name for path in (folder / "train").iterdir()]
        assert len(train) == 6
        assert sum("_source_train_normal_" in name for name in train) == 4
        for domain in DOMAINS:
            for condition in CONDITIONS:
                wavs = (folder / "test").glob(f"section_00_{domain}_test_{condition}_*.wav")
                assert sorted(path.name.split("_")[5] for path in wavs) == ["0000", "0001", "0002"]
        extra = {SUPPLEMENTAL.fullmatch(path.name) for path in (folder / "supplemental").iterdir()}
        assert len(extra) == 2
        assert None not in extra
        kinds |= {match[1] for match in extra if match}
    assert kinds == {"machine", "noise"}


def test_names_can_be_parsed(plant: Path) -> None:
    for path in plant.rglob("*.wav"):
        name = parse_name(path.stem)
        assert name is not None
        assert name.split == path.parent.name
        hidden = path.parent.name == "supplemental" or path.parent.parent.name == "slider"
        assert (name.attributes == "") == hidden


def test_attributes_match_files_and_names(plant: Path) -> None:
    for machine in list_machines():
        with (plant / machine / "attributes_00.csv").open(newline="") as file:
            header, *rows = csv.reader(file)
        files = [*(plant / machine / "train").iterdir(), *(plant / machine / "test").iterdir()]
        assert sorted(row[0] for row in rows) == sorted(path.relative_to(plant).as_posix() for path in files)
        if machine == "slider":
            assert header == ["file_name"]
            assert all(row[0].endswith("_noAttribute.wav") for row in rows)
            continue
        pairs = (len(header) - 1) // 2
        assert header == ["file_name", *(f"d{n}{suffix}" for n in range(1, pairs + 1) for suffix in "pv")]
        assert all(Path(row[0]).stem.endswith("_" + "_".join(row[1:])) for row in rows)


def test_target_conditions_differ_from_source() -> None:
    for machine in MACHINES.values():
        assert len(machine.source) > 1
        assert not [condition for condition in machine.target if condition in machine.source]
        assert {tuple(condition) for condition in machine.source} == {tuple(c) for c in machine.target}


def test_recordings_are_16_bit_mono_and_never_clip(plant: Path) -> None:
    for path in plant.rglob("*.wav"):
        rate, pcm = wavfile.read(path)
        assert (rate, pcm.dtype, pcm.shape) == (RATE, np.int16, (RATE // 2,))
        assert 100 < np.abs(pcm.astype(int)).max() < 32_500


def test_a_very_loud_factory_does_not_clip() -> None:
    for machine in list_machines():
        item = Item(machine, "test", "source", "normal", 0)
        pcm = render(item, samples=RATE, rate=RATE, noise_db=60.0, far_microphone=True)
        assert 30_000 < np.abs(pcm.astype(int)).max() < 32_500


# Determinism


def test_bytes_depend_on_the_seed_only(tmp_path: Path) -> None:
    first, same, different = (tmp_path / name for name in ("first", "same", "different"))
    for root, seed in ((first, 3), (same, 3), (different, 4)):
        simulate(root, machines=["valve", "fan"], seed=seed, **SMALL)
    assert relative_files(first) == relative_files(same)
    before, after = relative_files(first), relative_files(different)
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before if name.endswith(".wav"))


def test_a_clip_does_not_depend_on_the_size_of_the_plant(plant: Path, tmp_path: Path) -> None:
    less = {**SMALL, "train_source": 2, "train_target": 1, "test_per_condition": 1, "supplemental": 1}
    files = simulate(tmp_path, machines=["slider", "bearing"], hide_attributes=["slider"], **less)
    assert len(files) == 2 * (2 + 1 + 4 + 1)
    for path in files:
        assert path.read_bytes() == (plant / path.relative_to(tmp_path)).read_bytes()


def test_hiding_attributes_changes_names_only(plant: Path, tmp_path: Path) -> None:
    visible = simulate(tmp_path, machines=["slider"], **SMALL)
    hidden = sorted((plant / "slider" / "train").iterdir())
    assert [path.read_bytes() for path in sorted(visible) if path.parent.name == "train"] == [
        path.read_bytes() for path in hidden
    ]


def test_progress_and_no_unfinished_files(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    files = simulate(tmp_path, machines=["pump"], progress=lambda *counts: seen.append(counts), **SMALL)
    assert seen == [(n, len(files)) for n in range(1, len(files) + 1)]
    assert not [path for path in tmp_path.rglob(".*")]


# Microphones and noise


@pytest.mark.parametrize("machine", ["fan", "valve"])
def test_the_far_microphone_records_less_of_the_machine(machine: str) -> None:
    clean = Item(machine, "supplemental", "source", "normal", 0)
    assert MACHINES[machine].supplemental == "machine"
    near_S, far_S = render(clean, samples=2 * RATE, rate=RATE, far_microphone=True).T / 32768
    assert 20 * np.log10(rms(near_S) / rms(far_S)) == pytest.approx(FAR_LOSS_DB, abs=2.0)
    # The noise field is diffuse: the far microphone has the lower signal-to-noise ratio.
    noisy = Item(machine, "test", "source", "normal", 0)
    near_S, far_S = render(noisy, samples=2 * RATE, rate=RATE, far_microphone=True, noise_db=40).T / 32768
    assert 20 * np.log10(rms(near_S) / rms(far_S)) == pytest.approx(0.0, abs=2.0)


def test_the_near_channel_equals_the_mono_clip() -> None:
    item = Item("gearbox", "test", "target", "anomaly", 2)
    both = render(item, samples=RATE, rate=RATE, far_microphone=True)
    alone = render(item, samples=RATE, rate=RATE)
    np.testing.assert_array_equal(both[:, 0], alone)


def test_noise_level_changes_the_signal_to_noise_ratio() -> None:
    item = Item("pump", "supplemental", "source", "normal", 0)
    assert MACHINES["pump"].supplemental == "noise"
    usual, louder = (rms(render(item, samples=RATE, rate=RATE, noise_db=db) / 1.0) for db in (0.0, 6.0))
    assert 20 * np.log10(louder / usual) == pytest.approx(6.0, abs=0.2)


def test_noise_has_unit_power_and_the_given_slope() -> None:
    noise_S = noise(20 * RATE, RATE, np.random.default_rng(0), slope(6.0, low_hz=200.0))
    assert rms(noise_S) == pytest.approx(1.0, abs=0.03)
    frequency, power = periodogram(noise_S, RATE)
    octaves = [power[(frequency > low) & (frequency < 1.1 * low)].mean() for low in (400, 800, 1600, 3200)]
    np.testing.assert_allclose(10 * np.diff(np.log10(octaves)), -6.0, atol=0.8)


# Physics of the faults


def machine_sound(name: str, fault: str | None, *, seconds: float = 4.0, severity: float = 0.9) -> np.ndarray:
    """(T,) the machine alone in its first source condition, with fixed seeds."""
    machine = MACHINES[name]
    run = OperatingRun(machine.source[0], fault, severity, int(seconds * RATE), RATE)
    return machine.sound(run, np.random.default_rng(1), np.random.default_rng(2))


def tone_db(signal_S: np.ndarray, frequency_hz: float) -> float:
    """Strongest line within 2.5 % of a frequency, in dB."""
    frequency, power = periodogram(signal_S, RATE, window="hann")
    near = np.abs(frequency / frequency_hz - 1) < 0.025
    return float(10 * np.log10(power[near].max()))


def envelope(signal_S: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """(T,) envelope of a band, without its mean, as in bearing diagnosis."""
    band = butter(4, (low_hz, high_hz), "bandpass", fs=RATE, output="sos")
    envelope_S = np.abs(hilbert(sosfiltfilt(band, signal_S)))
    return np.asarray(envelope_S - envelope_S.mean())


@pytest.mark.parametrize(("fault", "order"), [("outer race", BPFO), ("inner race", BPFI)])
def test_a_race_defect_shows_in_the_envelope_spectrum(fault: str, order: float) -> None:
    (housing, *_) = modes((2600.0,), 0.03, np.random.default_rng(0))
    speed_hz = float(MACHINES["bearing"].source[0]["vel"])
    band = (0.7 * housing.frequency_hz, 1.3 * housing.frequency_hz)
    sound, faulty = (envelope(machine_sound("bearing", f), *band) for f in (None, fault))
    assert tone_db(faulty, order * speed_hz) > tone_db(sound, order * speed_hz) + 15
    # The line belongs to the defect: it exceeds the spectrum between it and multiples of the shaft speed.
    assert tone_db(faulty, order * speed_hz) > tone_db(faulty, (order - 0.25) * speed_hz) + 6


def test_an_inner_race_defect_is_modulated_by_the_shaft() -> None:
    speed_hz = float(MACHINES["bearing"].source[0]["vel"])
    inner, outer = (envelope(machine_sound("bearing", f), 1000, 6000) for f in ("inner race", "outer race"))
    assert tone_db(inner, speed_hz) - tone_db(inner, BPFI * speed_hz) > (
        tone_db(outer, speed_hz) - tone_db(outer, BPFO * speed_hz) + 10
    )


def test_a_cracked_tooth_causes_sidebands_around_the_mesh() -> None:
    def sidebands_db(crack: float) -> float:
        """Energy in dB of the second to tenth sidebands around the first mesh tone, relative to it."""
        order_K = np.abs(np.fft.rfft(mesh_table(PINION_TEETH, np.ones(1), np.zeros(1), 0.1, crack))) ** 2
        sides = [PINION_TEETH + sign * side for sign in (-1, 1) for side in range(2, 11)]
        return float(10 * np.log10(order_K[sides].sum() / order_K[PINION_TEETH] + 1e-12))

    assert sidebands_db(0.0) < -100  # run-out causes the first only
    assert sidebands_db(0.1) > -40
    assert sidebands_db(1.0) > sidebands_db(0.3) + 3 > sidebands_db(0.1) + 6


def test_a_cracked_tooth_knocks_once_per_revolution() -> None:
    shaft_hz = GEARBOX_HZ_PER_VOLT * float(MACHINES["gearbox"].source[0]["volt"])
    sound, faulty = (envelope(machine_sound("gearbox", f), 1500, 6000) for f in (None, "cracked tooth"))
    for order in (1, 2, 3):
        assert tone_db(faulty, order * shaft_hz) > tone_db(sound, order * shaft_hz) + 15


def test_unbalance_raises_the_first_order_and_modulates_the_blade_pass() -> None:
    speed_hz = HZ_PER_VOLT * float(MACHINES["fan"].source[0]["spd"].rstrip("V"))
    sound, unbalanced = machine_sound("fan", None), machine_sound("fan", "unbalance")

    def above_blade_pass_db(signal_S: np.ndarray, order: float) -> float:
        return tone_db(signal_S, order * speed_hz) - tone_db(signal_S, BLADES * speed_hz)

    assert above_blade_pass_db(unbalanced, 1) > above_blade_pass_db(sound, 1) + 10
    assert above_blade_pass_db(unbalanced, BLADES - 1) > above_blade_pass_db(sound, BLADES - 1) + 6


def test_a_leaking_valve_hisses_while_closed() -> None:
    def quiet_power(fault: str | None) -> float:
        """Power above 4 kHz in the quietest tenth of the frames."""
        power_TF = power_spectrogram(machine_sound("valve", fault).astype(np.float32), 256, 128)
        return float(np.quantile(power_TF[:, 64:].sum(axis=1), 0.1))

    assert quiet_power("leak") > 10 * quiet_power(None)


@pytest.mark.parametrize("name", list_machines())
def test_every_fault_grows_with_its_severity(name: str) -> None:
    """Largest spectral deviations from the healthy machine: small for an incipient fault, large for a severe one."""

    def spectrum_db(fault: str | None, severity: float) -> np.ndarray:
        sound_S = machine_sound(name, fault, severity=severity, seconds=3.0)
        return log_mel(sound_S / rms(sound_S))[:128]

    healthy = spectrum_db(None, 0.0)
    for fault in MACHINES[name].faults:
        gaps_db = (np.sort(np.abs(spectrum_db(fault, severity) - healthy)) for severity in (0.0, 1.0))
        slight, severe = (gap_db[-10:].mean() for gap_db in gaps_db)
        assert severe > 3.0, fault
        assert slight < 0.5 * severe, fault


# Difficulty


@cache
def _bands() -> np.ndarray:
    return mel_bands(RATE, 1024, 128, 0.0, RATE / 2)[0]


def log_mel(signal_S: np.ndarray) -> np.ndarray:
    """(256,) mean and deviation over time of each log-mel band: a minimal embedding."""
    bands_TM = power_spectrogram(signal_S.astype(np.float32), 1024, 512) @ _bands()
    level_TM = 10 * np.log10(np.maximum(bands_TM, 1e-10))
    return np.concatenate([level_TM.mean(axis=0), level_TM.std(axis=0)])


def clips(machine: str, split: str, count: int, domains: Iterable[str] = DOMAINS) -> list[Item]:
    kinds = CONDITIONS if split == "test" else CONDITIONS[:1]
    first = Item(machine, split, "source", "normal", 0)  # type: ignore[arg-type]
    return [
        replace(first, domain=domain, condition=condition, index=index)  # type: ignore[arg-type]
        for domain in domains
        for condition in kinds
        for index in range(count)
    ]


@pytest.mark.parametrize("machine", list_machines())
def test_a_simple_detector_finds_some_anomalies_and_loudness_none(machine: str) -> None:
    train = clips(machine, "train", 60, ["source"]) + clips(machine, "train", 6, ["target"])
    test = clips(machine, "test", 15)
    sound = {item: render(item, samples=2 * RATE, rate=RATE) / 32768 for item in train + test}
    train_ND, test_ND = (np.stack([log_mel(sound[item]) for item in items]) for items in (train, test))
    scale_D = train_ND.std(axis=0)
    score_N = cdist(test_ND / scale_D, train_ND / scale_D).min(axis=1)
    truth_N = [item.condition == "anomaly" for item in test]
    assert 0.65 < roc_auc_score(truth_N, score_N) < 0.95
    # The same with the defaults of `harken fit`.
    embedder = Embedder(make_spec("spectral", sample_rate=RATE, channels=1))
    train_ND, test_ND = (
        np.stack([embedder.embed(normalised(sound[item].astype(np.float32)[None])) for item in items])
        for items in (train, test)
    )
    detector = create_detector(DEFAULT_DETECTOR).fit(train_ND, [item.domain for item in train])
    assert 0.65 < roc_auc_score(truth_N, detector.score(test_ND)) < 0.95
    by_level = roc_auc_score(truth_N, [rms(sound[item]) for item in test])
    assert max(by_level, 1 - by_level) < 0.65


def test_conditions_rotate() -> None:
    for name, machine in MACHINES.items():
        items = clips(name, "test", 12, ["source"])
        seen = {tuple(operation(item).values()) for item in items}
        assert seen == {tuple(condition.values()) for condition in machine.source}


# Errors


def test_unknown_machines_suggest_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(HarkenError, match="Did you mean gearbox"):
        simulate(tmp_path, machines=["gear box"])
    with pytest.raises(HarkenError, match="Did you mean valve"):
        simulate(tmp_path, hide_attributes=["valves"])
    with pytest.raises(HarkenError, match="no machine is given"):
        simulate(tmp_path, machines=[])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("train_source", 0),
        ("train_target", -1),
        ("test_per_condition", 0),
        ("supplemental", -1),
        ("seconds", 0.4),
        ("seconds", 61.0),
        ("seconds", float("nan")),
        ("sample_rate", 100),
        ("noise_db", float("inf")),
        ("seed", -1),
    ],
)
def test_invalid_sizes_are_refused(tmp_path: Path, option: str, value: float) -> None:
    with pytest.raises(HarkenError) as caught:
        simulate(tmp_path, **{option: value})  # type: ignore[arg-type]
    assert str(value) in str(caught.value)
    assert caught.value.next_step
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "fan").mkdir()
    simulate(tmp_path, machines=["fan"], **SMALL)  # an empty folder is fine
    before = relative_files(tmp_path)
    with pytest.raises(HarkenError, match="not empty") as caught:
        simulate(tmp_path, machines=["bearing", "fan"], seed=1, **SMALL)
    assert caught.value.file == str(tmp_path / "fan")
    assert relative_files(tmp_path) == before
    with pytest.raises(HarkenError, match="this is a file"):
        simulate(tmp_path / "fan" / "attributes_00.csv", machines=["fan"])
