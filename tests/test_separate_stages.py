"""Stages around separation: separators of a plant, separated clips of train and test, synthetic clips; in a run."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from conftest import SIZES
from harken.audio.decode import decode
from harken.bench.derived import check_derived
from harken.bench.plan import make_plan
from harken.bench.plot import plot
from harken.bench.reading import load_run
from harken.bench.recipe import load_recipe
from harken.bench.run import load_clips
from harken.bench.stages import Context, stage_class
from harken.bench.stages.tables import read_clips, read_ids
from harken.bench.stages.train_separator import write_separators
from harken.core.errors import HarkenError
from harken.data.clips import Clip
from harken.plant.simulate import simulate
from harken.separation.separator import Separator
from harken.separation.sepreformer import SepReformer
from test_finetune import objects
from test_pipeline import run
from test_sepreformer import SMALL

PAGE = (Path(__file__).parents[1] / "docs" / "separation.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The page's code in a language."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.S | re.M)
    return str(code)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant")
    sizes = {**SIZES, "test_per_condition": 2, "supplemental": 2}
    simulate(root, machines=["fan", "pump", "slider"], **sizes)  # type: ignore[arg-type]
    for file in root.glob("slider/supplemental/*"):
        file.unlink()
    return root


@pytest.fixture
def separators(tmp_path: Path, plant: Path) -> Path:
    """A separator with random weights, for the fan."""
    folder = tmp_path / "separators"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SepReformer(SMALL).eval()
    Separator(network).write(folder / "guided.safetensors")
    key = next(f"{clip.corpus}/fan" for clip in load_clips(plant)[0])
    write_separators(folder, {key: "guided.safetensors"})
    return folder


def context(clips: list[Clip], folder: Path, inputs: dict[str, tuple[Path, ...]] | None = None) -> Context:
    out, scratch = folder / "out", folder / "scratch"
    out.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(exist_ok=True)
    return Context(clips, inputs or {}, out, scratch, folder, folder, seed=0, workers=1)


def made(name: str, used: Context, **parameters: Any) -> list[Clip]:
    cls = stage_class(name)
    cls.run(cls.Parameters.model_validate(parameters), used)
    rows = read_clips(used.out)
    check_derived(rows, used.clips, cls, used.out)
    return rows


def of_machine(plant: Path, machine: str) -> list[Clip]:
    """Clips of a machine, as stages get them."""
    clips = [clip for clip in load_clips(plant)[0] if clip.machine == machine]
    hidden: dict[str, Any] = {"condition": "unknown", "domain": "unknown", "attributes": {}}
    return [replace(clip, **hidden) if clip.split == "test" else clip for clip in clips]


def test_a_run_learns_from_separated_and_synthetic_clips(plant: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(block("yaml"))
    done, _ = run(plant, tmp_path / "w", str(file))
    assert not done.failures
    clips = {clip.clip_id: clip for clip in load_clips(plant)[0]}
    (folder,) = objects(tmp_path / "w", "train_separator")
    machines = json.loads((folder / "separators.json").read_text())
    assert sorted((key.rpartition("/")[2], name) for key, name in machines.items()) == [
        ("fan", "guided.safetensors"), ("pump", "invariant.safetensors"),
    ]  # fmt: skip
    history = load_run(done.folder).history("separators")
    assert [*zip(history["mode"], history["round"], history["step"], strict=True)][-1] == ("invariant", 1, 2)
    assert set(history["mode"]) == {"guided", "invariant"}
    assert np.isfinite(history["loss"]).all()
    panels = plot(load_run(done.folder), "history", stage="separators").axes
    lines = {panel.get_title(loc="left"): [line.get_label() for line in panel.lines] for panel in panels}
    assert lines["loss"] == ["guided 1", "invariant 1"]
    separated = [clip for folder in objects(tmp_path / "w", "separate") for clip in read_clips(folder)]
    expected = {row.clip_id for row in clips.values() if row.machine != "slider" and row.split != "supplemental"}
    assert {clip.parents[0] for clip in separated} == expected
    for clip in separated:
        parent, audio = clips[clip.parents[0]], decode(clip.path)
        assert (audio.sample_rate, audio.samples_CS.shape) == (16_000, decode(parent.path).samples_CS.shape)
        assert clip.condition == ("normal" if clip.split == "train" else "unknown")
    (folder,) = objects(tmp_path / "w", "remix")
    synthetic = read_clips(folder)
    assert Counter((clip.machine, clip.domain) for clip in synthetic) == {
        ("fan", "source"): 8, ("fan", "target"): 2, ("pump", "source"): 8, ("pump", "target"): 2,
    }  # fmt: skip
    (training,) = objects(tmp_path / "w", "train")
    assert set(read_ids(training)[0]) >= {clip.clip_id for clip in synthetic}
    # Official scores are of recordings, of all machines.
    (system,) = done.systems
    assert set(system.scores.test.clip_id) == {clip.clip_id for clip in clips.values() if clip.split == "test"}
    assert run(plant, tmp_path / "w", str(file))[1] == []


def test_separation_goes_on_where_it_was_killed(plant: Path, separators: Path, tmp_path: Path) -> None:
    clips = of_machine(plant, "fan")
    inputs = {"separator": (separators,)}
    whole = {clip.clip_id: clip.path.read_bytes() for clip in made("separate", context(clips, tmp_path / "a", inputs))}
    assert len(whole) == sum(clip.split in ("train", "test") for clip in clips)
    used = context(clips, tmp_path / "b", inputs)

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == 5:
            raise Killed

    killed = Context(**{**used.__dict__, "progress": kill})
    with pytest.raises(Killed):
        made("separate", killed)
    times = {file.name: file.stat().st_mtime_ns for file in used.scratch.iterdir()}
    assert len(times) == 10
    again = made("separate", used)
    assert {file.name: file.stat().st_mtime_ns for file in used.scratch.iterdir()}.items() >= times.items()
    assert {clip.clip_id: clip.path.read_bytes() for clip in again} == whole
    # Shards do the same.
    cls, shared = stage_class("separate"), context(clips, tmp_path / "c", inputs)
    for index in range(3):
        cls.run_shard(cls.Parameters(), shared, index, 3)
    assert {clip.clip_id: clip.path.read_bytes() for clip in made("separate", shared)} == whole


def test_machines_without_separator_are_left_as_they_are(plant: Path, separators: Path, tmp_path: Path) -> None:
    inputs = {"separator": (separators,)}
    assert made("separate", context(of_machine(plant, "slider"), tmp_path, inputs)) == []
    assert read_ids(tmp_path / "out") == ([], [])


def test_odd_clips_are_separated_or_set_aside(plant: Path, separators: Path, tmp_path: Path) -> None:
    first, *_ = of_machine(plant, "fan")
    rng = np.random.default_rng(0)
    clips = []
    for name, samples_TC, rate in (
        ("short", rng.normal(size=4800) / 20, 16_000),
        ("stereo", rng.normal(size=(8000, 2)) / 20, 16_000),
        ("fast", rng.normal(size=24_000) / 20, 48_000),
        ("loud", 1.5 * np.sin(np.arange(8000) / 20), 16_000),
        ("silent", np.zeros(8000), 16_000),
    ):
        file = tmp_path / f"{name}.wav"
        sf.write(file, samples_TC, rate, subtype="FLOAT")
        clips.append(Clip(name, file, corpus=first.corpus, machine="fan", split="train", condition="normal"))
    inputs = {"separator": (separators,)}
    rows = made("separate", context(clips, tmp_path / "x", inputs))
    forms = {row.parents[0]: (row.sample_rate, row.channels, row.frames) for row in rows}
    assert forms == {
        "short": (16_000, 1, 4800), "stereo": (16_000, 2, 8000), "fast": (48_000, 1, 24_000), "loud": (16_000, 1, 8000),
    }  # fmt: skip
    for row in rows:
        assert decode(row.path).samples_CS.shape == (row.channels, row.frames)
    _, aside = read_ids(tmp_path / "x" / "out")
    assert [row.clip_id for row in aside] == ["silent"]
    assert "is silent" in aside[0].reason


def test_synthetic_clips_have_the_labels_of_their_parent(plant: Path, separators: Path, tmp_path: Path) -> None:
    clips = of_machine(plant, "fan") + of_machine(plant, "pump")
    separated = made("separate", context(clips, tmp_path / "a", {"separator": (separators,)}))
    used = context([*clips, *separated], tmp_path / "b")
    rows = made("remix", used, clips=25, snr_db=[3, 9])
    of_id = {clip.clip_id: clip for clip in used.clips}
    mixes = json.loads((used.out / "mixes.json").read_text())
    assert Counter(row.domain for row in rows) == {"source": 20, "target": 5}
    for row in rows:
        parent, noise = (of_id[name] for name in row.parents)
        assert (row.kind, row.attributes, row.domain) == ("generated", parent.attributes, parent.domain)
        assert (parent.kind, noise.kind) == ("separated", "noise")
        sound_CS, mixed_CS = decode(parent.path).samples_CS, decode(row.path).samples_CS
        snr_db = 10 * np.log10(np.square(sound_CS).mean() / np.square(mixed_CS - sound_CS).mean())
        assert abs(snr_db - mixes[row.clip_id]["snr_db"]) < 0.1
    assert len({mix["snr_db"] for mix in mixes.values()}) == 25
    # A clip is the same whatever else is made.
    few = made("remix", context([*clips, *separated], tmp_path / "c"), clips=25, snr_db=[3, 9])
    assert [row.path.read_bytes() for row in few] == [row.path.read_bytes() for row in rows]
    with pytest.raises(HarkenError, match="no separated training clips"):
        made("remix", context(clips, tmp_path / "d"))


def test_plans_know_what_separation_costs(plant: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(block("yaml"))
    for data in (plant, None):
        plan = make_plan(load_recipe(str(file), profile="tiny"), data, None)
        rows = {row["stage"]: row for row in plan["stages"]}
        assert rows["separators"]["steps"] == 4
        assert rows["separators"]["network_parameters"] > 10_000
        assert rows["separated"]["seconds"] > 0
        assert rows["synthetic"]["clips"] == 20
        assert not any(row["unknown"] for row in rows.values())


def test_the_program_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Separator(SepReformer(SMALL).eval()).write(tmp_path / "guided.safetensors")
    wave_CS = np.random.default_rng(0).normal(size=(1, 8000)).astype(np.float32) / 20
    sf.write("pump.wav", wave_CS[0], 16_000)
    names: dict[str, Any] = {"wave_CS": wave_CS}
    exec(block("python"), names)
    assert names["machine_CS"].shape == (1, 8000)
    assert sorted(file.name for file in (tmp_path / "separated").iterdir()) == ["pump_machine.flac", "pump_noise.flac"]
