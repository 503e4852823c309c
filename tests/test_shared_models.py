"""Models from strangers, and models that several processes write and read at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import hum
from harken.core import files
from harken.core.errors import BundleError, HarkenError
from harken.core.files import flush_folder, read_regular, replace_file
from harken.core.locks import lock_file, locked
from harken.core.version import __version__
from harken.monitor import bundle as bundles
from harken.monitor.bundle import change_bundle, read_bundle, write_bundle
from harken.monitor.detector import Detector
from harken.monitor.feedback.change import set_alarm
from harken.monitor.feedback.on_disk import change_model
from harken.monitor.length import LengthEffect
from harken.monitor.manifests import manifest_bytes
from harken.monitor.off import OffRecordings
from harken.monitor.sequence import Sequence
from harken.monitor.stored import load_fitted, save_fitted
from harken.monitor.stored_checks import check_spec
from ready_process import command

Change = Callable[[dict[str, Any], dict[str, dict[str, np.ndarray]]], object]


@pytest.fixture(scope="module")
def model(once: Callable[..., Path]) -> Path:
    import soundfile as sf

    def make(folder: Path) -> None:
        for index in range(6):
            sf.write(folder / f"{index}.wav", hum(index), 16_000, subtype="PCM_16")
        Detector.fit(folder, workers=0).save(folder / "m.harken")

    return once("strangers_model", make) / "m.harken"


def changed(model: Path, target: Path, change: Change) -> Path:
    """A bundle with valid digests whose settings or arrays were changed."""
    about, parts = read_bundle(model)
    change(about, parts)
    write_bundle(target, about, parts)
    return target


def spoilt(name: str, value: object, row: object = 0) -> Change:
    def change(about: dict[str, Any], parts: dict[str, dict[str, np.ndarray]]) -> None:
        part, array = name.split("/")
        parts[part][array] = parts[part][array].copy()
        parts[part][array][row] = value

    return change


def replaced(name: str, array: np.ndarray) -> Change:
    part, key = name.split("/")
    return lambda about, parts: parts.setdefault(part, {}).update({key: array})


def setting(**values: object) -> Change:
    return lambda about, parts: about.update(values)


@pytest.mark.parametrize(
    "change",
    [
        spoilt("scores/scores", np.nan),
        spoilt("training/embeddings", np.inf),
        spoilt("detector/train_scores_", np.nan),
        spoilt("detector/bank_", np.nan, (0, 0)),
        spoilt("events/bank_", np.nan, (0, 0)),
        spoilt("health/health", np.nan),
        replaced("scores/scores", np.zeros(3)),
        replaced("training/embeddings", np.zeros((6, 3), np.float32)),
        replaced("training/sketch_widths", np.full(6, -1)),
        replaced("detector/score", np.zeros(3)),
        replaced("detector/_score", np.zeros(3)),
        replaced("detector/mean_", np.zeros((2, 2))),
        replaced("detector/bank_", np.zeros((6, 2))),
        spoilt("detector/scale_", -1.0),
        spoilt("detector/scale_", 0.0),
        spoilt("events/scale_", -1.0),
        spoilt("detector/gain_", -1.0),
        spoilt("detector/train_scores_", -1e300),
        spoilt("scores/scores", 1e300),
        spoilt("training/embeddings", 1e35),
        replaced("extra/x", np.zeros(3)),
        replaced("events/train_scores_", np.zeros((6, 1))),
        setting(names=[1, 2, 3, 4, 5, 6]),
        setting(names="abcdef"),
        setting(effective_clips=1e300),
        setting(effective_clips=float("nan")),
        setting(false_alarms=None),
        setting(every=["1h"]),
        setting(block=10**12),
        setting(notes="x"),
        setting(spec={}),
        setting(events=[]),
        setting(tones=[]),
        lambda about, parts: about.pop("events"),
        setting(parameters={"neighbours": "many"}),
        setting(parameters=["neighbours"]),
        setting(effective_clips=6.1),
        setting(least_effective_clips=6.1),
        setting(least_effective_clips=0),
        setting(domains=["source"] * 5),
        setting(sha256s=["x"]),
        setting(block=0),
        setting(block=7),
        setting(block=True),
        setting(length={"sound": -0.1, "events": 0.0}),
        setting(length={"sound": 0.0, "events": 4.1}),
        setting(off=["a", "b", "c"]),
        lambda about, parts: parts["training"].update(sketches=parts["training"]["sketches"][:-1]),
        replaced("training/sketches", np.zeros((0, 0), np.uint8)),
        spoilt("training/seconds", 0.0),
        spoilt("training/seconds", 2e8),
        spoilt("training/levels_db", -2e4),
        replaced("training/sketch_widths", np.zeros(6, np.int64)),
        replaced("scores/event_scores", np.zeros(5)),
        replaced("scores/tone_scores", np.zeros(5)),
        replaced("tones/highest_", np.zeros(5)),
        replaced("scores/scores", np.zeros(6, np.complex64)),
        replaced("health/health", np.zeros((5, 1, 4))),
        replaced("health/health", np.zeros((6, 4))),
        replaced("detector/radius_", np.full(6, -1.0)),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused_although_its_digests_do(
    change: Change, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(HarkenError):
        load_fitted(changed(model, tmp_path / "m", change))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"config": {"bands": -1}}, "spectral needs at least 100 Hz and 4 bands"),
        ({"layer": "../x"}, "spectral has no layer '../x'"),
        ({"pooling": "median"}, "unknown pooling 'median'"),
        ({"pooling": "cls"}, "no class token"),
        ({"pooling": "mean"}, "encoder gives 128 numbers per recording, and its detector takes 640"),
        ({"level": "loud"}, "has level: Input should be 'normalised' or 'recorded'"),
    ],
)
def test_settings_of_an_encoder_that_cannot_be_built_are_refused(
    settings: dict[str, Any], message: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(HarkenError, match=message):
        Detector.load(changed(model, tmp_path / "m", lambda about, parts: about["spec"].update(settings))).score(
            hum(0), 16_000
        )


def off(count: int, dimensions: int, names: int, levels: int) -> Change:
    def change(about: dict[str, Any], parts: dict[str, dict[str, np.ndarray]]) -> None:
        about["off"] = [f"{number}.wav" for number in range(names)]
        width = parts["training"]["embeddings"].shape[1] + dimensions
        parts["off"] = {"embeddings": np.ones((count, width), np.float32), "levels_db": np.full(levels, np.nan)}

    return change


def test_recordings_of_the_machine_off_fit_together(model: Path, tmp_path: Path) -> None:
    assert load_fitted(changed(model, tmp_path / "m", off(3, 0, 3, 3))).off.names == ("0.wav", "1.wav", "2.wav")  # type: ignore[union-attr]
    for number, shape in enumerate([(2, 0, 2, 2), (3, 1, 3, 3), (3, 0, 4, 3), (3, 0, 3, 4)]):
        with pytest.raises(BundleError, match="switched off"):
            load_fitted(changed(model, tmp_path / str(number), off(*shape)))
    with pytest.raises(BundleError, match="lacks 'off'"):
        load_fitted(changed(model, tmp_path / "unnamed", replaced("off/embeddings", np.ones((3, 3)))))


def test_all_that_a_model_holds_is_read_as_it_was_written(model: Path, tmp_path: Path) -> None:
    """Also a level that is not known, and weights, which their encoder checks."""
    fitted = load_fitted(model)
    assert fitted.training.health_NCK is not None
    assert read_bundle(model)[1]["training"]["embeddings"].dtype == np.float32
    off_recordings = OffRecordings(
        fitted.training.embeddings_ND[:3] + 1, np.array([-60.0, np.nan, -61.5]), ("a.wav", "b.wav", "c.wav")
    )
    weights = {"norm.scale_": np.array([-1.0, 1e33], np.float32), "count": np.arange(3)}
    more = replace(
        fitted, off=off_recordings, weights=weights, false_alarms="1%", every="10min", block=6, notes=("a note",),
        length=LengthEffect(0.5, 4.0), calibration=replace(fitted.calibration, effective=4.5, least_effective=4.5),
    )  # fmt: skip
    save_fitted(tmp_path / "m", more)
    assert (tmp_path / "m" / "manifest.json").read_text().count(f'"harken": "{__version__}"') == 1
    again = load_fitted(tmp_path / "m")
    for name in ("spec", "false_alarms", "every", "block", "length", "notes"):
        assert getattr(again, name) == getattr(more, name), name
    assert (again.calibration.effective, again.calibration.least_effective) == (4.5, 4.5)
    assert again.off is not None
    assert again.off.names == off_recordings.names
    for value, expected in (
        (again.off.embeddings_MD, off_recordings.embeddings_MD), (again.off.levels_db_M, off_recordings.levels_db_M),
        *((again.weights[name], weights[name]) for name in weights),  # type: ignore[index]
        (again.calibration.scores, np.sort(fitted.training.scores_N)),
        (again.events.scores_N, fitted.events.scores_N),  # type: ignore[union-attr]
        (again.tones.scores_N, fitted.tones.scores_N),  # type: ignore[union-attr]
        *((getattr(again.training, name), getattr(fitted.training, name)) for name in vars(fitted.training)
          if name.rpartition("_")[2] in {"ND", "N", "NCK"}),
        *zip(again.training.sketches_NBC, fitted.training.sketches_NBC, strict=True),
    ):  # fmt: skip
        np.testing.assert_array_equal(value, expected)
    for name in ("names", "domains", "sha256s"):
        assert getattr(again.training, name) == getattr(fitted.training, name) != ()
    save_fitted(tmp_path / "n", again)
    assert {file.name: file.read_bytes() for file in (tmp_path / "n").iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()
    }


def test_models_of_earlier_versions_are_read(model: Path, tmp_path: Path) -> None:
    """They have fewer settings and parts."""

    def age(about: dict[str, Any], parts: dict[str, dict[str, np.ndarray]]) -> None:
        for name in (
            "every",
            "block",
            "least_effective_clips",
            "length",
            "sha256s",
            "health_statistics",
            "events",
            "tones",
        ):
            del about[name]
        del parts["health"], parts["events"], parts["tones"], about["basis"]
        rows = parts["training"]
        for key in ("short_time", "recorded_s", "sequences", "strata", "versions", "picked"):
            del rows[key]
        rows["scores"] = parts.pop("scores")["scores"]

    old, new = load_fitted(changed(model, tmp_path / "m", age)), load_fitted(model)
    assert (old.every, old.block, old.length, old.events, old.training.sha256s) == (None, 1, None, None, ())
    assert old.training.health_NCK is None
    assert old.calibration.least_effective == old.calibration.effective == new.calibration.effective
    np.testing.assert_array_equal(old.detector.train_scores_, new.detector.train_scores_)
    other = load_fitted(changed(model, tmp_path / "other", setting(health_statistics=["of another version"])))
    assert other.training.health_NCK is None


@pytest.mark.parametrize(("rate", "channels"), [(99, 1), (768_001, 1), (16_000, 0), (16_000, 1001)])
def test_recordings_that_nobody_listens_to_are_refused(rate: int, channels: int, model: Path) -> None:
    spec = load_fitted(model).spec.model_copy(update={"sample_rate": rate, "channels": channels})
    listened = spec.model_copy(
        update={"sample_rate": np.clip(rate, 100, 768_000), "channels": np.clip(channels, 1, 1000)}
    )
    check_spec(listened)
    for wrong in (spec, listened.model_copy(update={"more": (spec,)})):
        with pytest.raises(ValueError, match=f"of {rate} Hz with {channels} channels"):
            check_spec(wrong)
    nested = listened.model_copy(update={"more": (listened.model_copy(update={"more": (listened,)}),)})
    with pytest.raises(ValueError, match="embeddings within embeddings"):
        check_spec(nested)


def test_no_code_of_any_depth_is_run(model: Path, tmp_path: Path) -> None:
    code = tmp_path / "evil.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    spec = read_bundle(model)[0]["spec"]
    for name, values in {
        "encoder": {"spec": {**spec, "encoder": f"{code}:Evil"}},
        "further": {"spec": {**spec, "more": [{**spec, "encoder": f"{code}:Evil"}]}},
        "config": {"spec": {**spec, "config": {**spec["config"], "front": f"{code}:Evil"}}},
        "detector": {"detector": f"{code}:Evil"},
        "events": {"events": {"detector": f"{code}:Evil"}},
    }.items():
        with pytest.raises(BundleError, match="a model never runs"):
            Detector.load(changed(model, tmp_path / name, setting(**values)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_links_pipes_and_devices_are_neither_followed_nor_waited_for(model: Path, tmp_path: Path) -> None:
    for which in ("manifest.json", "training.*", "detector.*"):
        for number, kind in enumerate(("link", "pipe", "device", "folder")):
            copy = tmp_path / f"{which[0]}{number}"
            shutil.copytree(model, copy)
            (file,) = copy.glob(which)
            content = file.rename(tmp_path / f"content {which[0]}{number}")
            {
                "link": lambda file=file, content=content: file.symlink_to(content),
                "pipe": lambda file=file: os.mkfifo(file),
                "device": lambda file=file: file.symlink_to("/dev/zero"),
                "folder": lambda file=file: file.mkdir(),
            }[kind]()
            with pytest.raises(BundleError, match="not a regular file"):
                read_bundle(copy)
    # The folder itself may be a link, such as `current`.
    (tmp_path / "current").symlink_to(model)
    read_bundle(tmp_path / "current")


def test_a_file_is_bounded_before_it_is_read(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "_MOST_BYTES", 1000)
    with pytest.raises(BundleError, match="more than 1,000"):
        read_bundle(model)
    with (tmp_path / "large").open("wb") as handle:
        handle.truncate(2**40)
    with pytest.raises(OSError, match="more than"):
        read_regular(tmp_path / "large", 2**30)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "x/../../y", "detector.safetensors", "con"])
def test_files_of_other_names_are_not_opened(name: str, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "m")
    manifest = json.loads((model / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["files"][name] = manifest["files"].pop(manifest["parts"]["detector"])
    manifest["parts"]["detector"] = name
    (tmp_path / "m" / "manifest.json").write_bytes(manifest_bytes(manifest))
    with pytest.raises(BundleError, match="is damaged"):
        read_bundle(tmp_path / "m")


# ---------------------------------------------------------------- at once

WRITER = """
import sys, numpy as np
from harken.monitor.bundle import write_bundle
path, number, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for turn in range(times):
    write_bundle(path, {"writer": number, "turn": turn}, {"detector": {"bank": np.full(2000, 100 * number + turn)}})
"""


def test_two_writers_and_a_reader_of_one_model(tmp_path: Path) -> None:
    path = tmp_path / "m.harken"
    write_bundle(path, {"writer": 0, "turn": 0}, {"detector": {"bank": np.zeros(2000, np.int64)}})
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number), "15"], stderr=subprocess.PIPE)
        for number in (1, 2)
    ]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        about, parts = read_bundle(path)
        assert (parts["detector"]["bank"] == 100 * about["writer"] + about["turn"]).all()
        reads += 1
    assert [writer.communicate()[1] for writer in writers] == [b"", b""]
    assert reads > 5
    read_bundle(path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.harken"]
    assert len(list(path.iterdir())) == 2


def test_the_second_writer_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race at its worst: the first has written its arrays and not yet its manifest."""
    path = tmp_path / "m"
    write_bundle(path, {"n": 0}, {"detector": {"x": np.zeros(3)}})
    written = files.write_atomically
    threads: list[threading.Thread] = []

    def write(file: Path, data: bytes, **options: bool) -> None:
        if file.name == "manifest.json" and not threads:
            other = {"n": 2}, {"detector": {"x": np.full(3, 2.0)}}
            threads.append(threading.Thread(target=write_bundle, args=(path, *other)))
            threads[0].start()
            threads[0].join(0.3)
        written(file, data, **options)

    monkeypatch.setattr(bundles, "write_atomically", write)
    write_bundle(path, {"n": 1}, {"detector": {"x": np.ones(3)}})
    assert read_bundle(path)[1]["detector"]["x"].sum() in (3, 6)
    threads[0].join()
    assert read_bundle(path)[0] == {"n": 2}


def test_a_reader_reads_again_what_was_replaced_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    write_bundle(path, {"n": 0}, {"detector": {"x": np.zeros(3)}})
    checked = bundles.manifest_of

    def check(path: Path, data: bytes, version: int | None) -> dict[str, Any]:
        manifest = checked(path, data, version)
        if manifest["about"]["n"] < 3:
            turn = manifest["about"]["n"] + 1
            write_bundle(path, {"n": turn}, {"detector": {"x": np.full(3, float(turn))}})
        return manifest

    monkeypatch.setattr(bundles, "manifest_of", check)
    assert read_bundle(path)[0] == {"n": 3}


def test_an_alarm_that_is_set_meanwhile_is_kept(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "m"
    shutil.copytree(model, path)

    other = threading.Thread(target=change_model, args=(path, set_alarm, "1%", "1h"), kwargs={"who": "me"})

    def change(settings: dict[str, Any]) -> dict[str, Any]:
        other.start()
        other.join(0.2)
        assert other.is_alive()
        return {**settings, "notes": ["a note"]}

    change_bundle(path, change)
    other.join(60)
    settings = read_bundle(path)[0]
    assert (settings["notes"], settings["false_alarms"], settings["every"]) == (["a note"], "1%", "1h")


def test_a_lock_is_given_up_by_whoever_is_killed_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    program = f"""
import time
from pathlib import Path
from harken.core.locks import locked
with locked(Path({str(path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    waited = []
    with (
        pytest.raises(HarkenError, match="is being written by another process"),
        locked(path, patience=0.1, waits=lambda: waited.append(1)),
    ):
        pass
    assert waited == [1]
    holder.kill()
    holder.wait()
    with locked(path):
        assert lock_file(path).exists()
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- memories


def test_two_scorers_with_one_memory_count_all_recordings(model: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    recordings = sorted(model.parent.glob("*.wav"))
    calls = [
        command("score", *half, "-m", model, "--memory", memory, "--workers", 1)
        for half in (recordings[:3], recordings[3:])
    ]
    assert [call.wait() for call in calls] == [0, 0]
    assert len(json.loads(memory.read_text())["heard"]) == 6


def test_a_memory_where_nothing_can_be_written_is_named_before_anything_is_scored(model: Path) -> None:
    setting = Detector.load(model).alarm
    with (
        pytest.raises(HarkenError, match=r"/proc/none/memory.json: cannot be written"),
        Sequence.remembered("/proc/none/memory.json", setting),
    ):
        raise AssertionError("not reached")


# ---------------------------------------------------------------- systems


def test_folders_are_flushed_where_the_system_can(tmp_path: Path) -> None:
    flush_folder(tmp_path)
    flush_folder(tmp_path / "none", system="win32")
    with pytest.raises(FileNotFoundError):
        flush_folder(tmp_path / "none", system="linux")


def test_windows_refuses_to_replace_a_file_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").write_text("new")
    refusals = [PermissionError(), PermissionError()]
    rename = os.replace

    def replace(source: Path, target: Path) -> None:
        if refusals:
            raise refusals.pop()
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(PermissionError):
        replace_file(tmp_path / "new", tmp_path / "old", system="linux")
    replace_file(tmp_path / "new", tmp_path / "old", system="win32")
    assert (tmp_path / "old").read_text() == "new"
