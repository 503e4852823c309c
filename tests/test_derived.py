"""Clips that stages make: noisy copies at their SNR, clips of other programs; learned from, and never scored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import yaml

from conftest import SIZES
from harken.audio.decode import decode
from harken.audio.mix import power
from harken.bench.derived import check_derived, with_derived
from harken.bench.graph import Unit, make_common, make_tasks, make_units
from harken.bench.recipe import load_recipe
from harken.bench.run import load_clips
from harken.bench.stages import Context, Input, Stage, match_inputs, stage_class
from harken.bench.stages.tables import read_clips, read_ids, write_clips
from harken.core.errors import HarkenError
from harken.data.clips import Clip, derive, origins
from harken.data.labels import ClassTable
from harken.data.table import read_table, write_table
from harken.plant.simulate import simulate
from test_finetune import objects
from test_pipeline import run

NOISY = """
name: noisy
title: Learned with noisy copies
stages:
  copies: {use: mix, snr_db: [0, 6], copies: 2}
  labels: {use: labels, from: copies}
  train:
    use: train
    from: [labels, copies]
    model: {branches: [{encoder: efficientat, size: tiny}]}
    training: {steps: 4, batch: 4, evaluate_every: 2, seconds: 1.0, held_out: 0.2}
  embed: {use: embed_trained, from: [train, copies]}
  with_copies: {use: detect, from: [embed, copies], detector: knn, model: machine}
  without: {use: detect, from: embed, detector: knn, model: machine}
systems: {with_copies: with_copies, without: without}
profiles: {tiny: {}}
"""


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant")
    simulate(root, machines=["fan", "pump"], **{**SIZES, "supplemental": 2})  # type: ignore[arg-type]
    return root


def context(clips: list[Clip], folder: Path, seed: int = 0) -> Context:
    folder.mkdir()
    return Context(clips, {}, folder, folder, folder, folder, seed=seed, workers=1)


def made_by(name: str, clips: list[Clip], out: Path, seed: int = 0, **parameters: object) -> list[Clip]:
    cls = stage_class(name)
    cls.run(cls.Parameters.model_validate(parameters), context(clips, out, seed))
    rows = read_clips(out)
    check_derived(rows, clips, cls, out)
    return rows


def test_noisy_copies_are_learned_from_and_never_scored(plant: Path, tmp_path: Path) -> None:
    file = tmp_path / "noisy.yaml"
    file.write_text(NOISY)
    done, _ = run(plant, tmp_path / "w", str(file))
    assert not done.failures
    clips = {clip.clip_id: clip for clip in load_clips(plant)[0]}
    (folder,) = objects(tmp_path / "w", "mix")
    copies = read_clips(folder)
    trained = [clip for clip in clips.values() if clip.split == "train"]
    assert len(copies) == 2 * len(trained)
    assert {clip.parents[0] for clip in copies} == {clip.clip_id for clip in trained}
    # All are learned from, but for those of recordings that are held out.
    (labels,) = objects(tmp_path / "w", "labels")
    table = ClassTable.read(labels / "classes.json")
    assert all(table.class_of[clip.clip_id] == table.class_of[clip.parents[0]] for clip in copies)
    (training,) = objects(tmp_path / "w", "train")
    assert set(read_ids(training)[0]) >= {clip.clip_id for clip in copies}
    # Scores are of recorded test clips, by either detector, and no test clip is missing.
    tests = {clip.clip_id for clip in clips.values() if clip.split == "test"}
    scores = {}
    for one in done.systems:
        assert set(one.scores.test.clip_id) == tests
        assert one.result is not None
        scores[one.system] = one.scores.test.score_N.tolist()
    assert scores["with_copies"] != scores["without"]
    assert not done.unscored
    assert run(plant, tmp_path / "w", str(file))[1] == []


@pytest.mark.parametrize("file_format", ["flac", "wav"])
def test_the_snr_is_recovered_from_the_files(plant: Path, tmp_path: Path, file_format: str) -> None:
    clips = load_clips(plant)[0]
    copies = made_by("mix", clips, tmp_path / "a", snr_db=[-5, 15], copies=2, format=file_format)
    of_id = {clip.clip_id: clip for clip in clips}
    mixes = json.loads((tmp_path / "a" / "mixes.json").read_text())
    drawn = []
    for copy in copies:
        parent, noise = (of_id[one] for one in copy.parents)
        assert (copy.machine, copy.section, copy.domain, copy.attributes) == (
            parent.machine, parent.section, parent.domain, parent.attributes,
        )  # fmt: skip
        assert (noise.kind, noise.machine) == ("noise", "pump")
        sound_CS = decode(parent.path).samples_CS
        added_CS = decode(copy.path).samples_CS - sound_CS
        found = 10 * np.log10(power(sound_CS) / power(added_CS))
        assert abs(found - mixes[copy.clip_id]["snr_db"]) < 0.1
        drawn.append(found)
    assert min(drawn) >= -5.1
    assert max(drawn) <= 15.1
    assert max(drawn) - min(drawn) > 8


def test_copies_depend_on_seed_and_clip_alone(plant: Path, tmp_path: Path) -> None:
    clips = load_clips(plant)[0]
    whole = {clip.clip_id: clip.path.read_bytes() for clip in made_by("mix", clips, tmp_path / "a", noise="all")}
    noise = [clip for clip in clips if clip.kind == "noise"]
    some = [clip for clip in clips if clip.split == "train"][3:6]
    for clip in made_by("mix", [*reversed(some), *noise], tmp_path / "b", noise="all"):
        assert clip.path.read_bytes() == whole[clip.clip_id]
    other = {clip.parents[0]: clip for clip in made_by("mix", some + noise, tmp_path / "c", seed=1, noise="all")}
    assert not {clip.clip_id for clip in other.values()} & whole.keys()
    of_id = {clip.clip_id: clip for clip in clips}
    for clip in made_by("mix", clips, tmp_path / "d", noise="others"):
        assert of_id[clip.parents[1]].machine != clip.machine
    # What is suggested is not what was chosen.
    with pytest.raises(HarkenError, match=r"no supplemental noise clips to mix with. Choose noise: others\.$"):
        made_by("mix", some, tmp_path / "e")
    alone = [clip for clip in clips if clip.machine == some[0].machine]
    with pytest.raises(HarkenError, match=r"no training clips of other machines to mix with. Choose noise: machine or"):
        made_by("mix", alone, tmp_path / "f", noise="others")


def test_loud_copies_are_not_clipped_and_silence_is_set_aside(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sounds = {"loud": 0.9 * np.sin(np.arange(8000)), "silent": np.zeros(8000), "noise": rng.uniform(-0.9, 0.9, 3000)}
    clips = []
    for name, sound in sounds.items():
        sf.write(tmp_path / f"{name}.wav", sound.astype(np.float32), 8000, subtype="FLOAT")
        kind, split = ("noise", "supplemental") if name == "noise" else ("machine", "train")
        clips.append(Clip(name, tmp_path / f"{name}.wav", split=split, machine="fan", condition="normal", kind=kind))  # type: ignore[arg-type]
    (copy,) = made_by("mix", clips, tmp_path / "a", snr_db=[0, 0])
    assert copy.path.suffix == ".wav"
    assert np.abs(decode(copy.path).samples_CS).max() > 1
    assert [row.clip_id for row in read_ids(tmp_path / "a")[1]] == ["silent"]


# --- of other programs


def manifest(folder: Path, *rows: str, header: str = "file,id,machine,section,domain,attributes,parent") -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("a", "b"):
        sf.write(folder / f"{name}.wav", 0.1 * np.sin(np.arange(16_000) / (3 if name == "a" else 5)), 16_000)
    (folder / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_clips_of_another_program(plant: Path, tmp_path: Path) -> None:
    clips = load_clips(plant)[0]
    parent = next(clip for clip in clips if clip.split == "train" and clip.machine == "fan")
    test = next(clip for clip in clips if clip.split == "test" and clip.machine == "fan")
    common = list(make_common(clips)["unlabelled"].clips)
    rows = (
        f"a.wav,one,,,,,{parent.clip_id}",
        "b.wav,two,pump,00,source,vel=3;mic=1,",
        f"b.wav,three,,,,,{test.clip_id}",
    )
    folder = manifest(tmp_path / "made", *rows)
    one, two, three = made_by("import_clips", common, tmp_path / "out", folder=str(folder))
    assert (one.machine, one.attributes, one.parents) == ("fan", parent.attributes, (parent.clip_id,))
    assert (two.machine, two.section, two.domain, two.attributes) == ("pump", "00", "source", {"vel": "3", "mic": "1"})
    assert (two.split, two.condition, two.kind, two.year) == ("train", "normal", "generated", parent.year)
    assert (three.split, three.condition, three.recorded) == ("test", "unknown", False)
    # What is made of test clips goes where these are, and is given to nobody as one.
    units = {unit.machine: unit for unit in make_units(clips)}
    cls = stage_class("embed")
    given = {name: {c.clip_id for c in with_derived(unit, cls, [tmp_path / "out"])} for name, unit in units.items()}
    assert {"one", "three"} <= given["fan"]
    assert given["pump"] & {"one", "two", "three"} == {"two"}
    everyone = make_common(clips)["none"]
    assert {c.clip_id for c in with_derived(everyone, cls, [tmp_path / "out"])} & {"one", "two", "three"} == {
        "one",
        "two",
    }
    # The content counts, not the place.
    parameters = stage_class("import_clips").Parameters
    identity = stage_class("import_clips").identity
    known = identity(parameters.model_validate({"folder": str(folder)}))
    moved = folder.rename(tmp_path / "moved")
    assert identity(parameters.model_validate({"folder": str(moved)})) == known
    sf.write(moved / "a.wav", np.ones(100) * 0.1, 16_000)
    assert identity(parameters.model_validate({"folder": str(moved)})) != known


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a.wav,one,fun,,,,"], r"manifest.csv:2: there is no machine 'fun'. Did you mean fan"),
        (["a.wav,one,fan,00,,,", "b.wav,one,fan,00,,,"], r"manifest.csv:3: the id 'one' is there twice"),
        (["a.wav,one,fan,07,,,"], r"manifest.csv:2: fan has no section '07'. It has 00"),
        (["a.wav,one,fan,00,left,,"], r"manifest.csv:2: there is no domain 'left'"),
        (["a.wav,one,fan,00,,fast,"], r"manifest.csv:2: 'fast' are no attributes. Write them as spd=28V"),
        (["a.wav,one,,,,,nobody"], r"manifest.csv:2: there is no clip 'nobody' to be its parent"),
        (["a.wav,one,,,,,"], r"manifest.csv:2: it has neither a parent nor a machine"),
        (["c.wav,one,fan,00,,,"], r"manifest.csv:2: c.wav there is no such file"),
        (["a.wav,one,fan,00,,"], r"manifest.csv:2: has 6 cells, the header 7"),
        (["../a.wav,one,fan,00,,,"], r"manifest.csv:2: ../a.wav is not in the folder"),
        ([",one,fan,00,,,"], r"manifest.csv:2: has no file"),
        (["a\0.wav,one,fan,00,,,"], r"manifest.csv:2: its file 'a\\x00.wav' has characters that cannot be shown"),
        (["a.wav,'o\x1bne',fan,00,,,"], r"manifest.csv:2: its id .* has characters that cannot be shown"),
        (["", " "], r"manifest.csv: names no clips"),
        (["manifest.csv,one,fan,00,,,"], r"manifest.csv:2: manifest.csv cannot be decoded"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_said_with_its_line(
    plant: Path, tmp_path: Path, rows: list[str], message: str
) -> None:
    folder = manifest(tmp_path / "made", *rows)
    with pytest.raises(HarkenError, match=message):
        made_by("import_clips", load_clips(plant)[0], tmp_path / "out", folder=str(folder))


def test_ids_are_no_paths(plant: Path, tmp_path: Path) -> None:
    folder = manifest(tmp_path / "made", "a.wav,../../x,fan,00,,,")
    (tmp_path / "in").mkdir()
    made_by("import_clips", load_clips(plant)[0], tmp_path / "in" / "out", folder=str(folder))
    (file,) = (tmp_path / "in").rglob("*.wav")
    assert file.parent == tmp_path / "in" / "out" / "audio"


def test_a_manifest_with_other_columns(plant: Path, tmp_path: Path) -> None:
    folder = manifest(tmp_path / "made", "a.wav,one", header="file,name")
    with pytest.raises(HarkenError, match=r"manifest.csv:1: unknown column 'name'"):
        made_by("import_clips", load_clips(plant)[0], tmp_path / "out", folder=str(folder))


# --- what holds for every stage that makes clips


class Wrong(Stage):
    """One clip, made as `make` says."""

    makes = "clips"
    make: ClassVar[object] = None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_id": "train"}, "has the id of another clip"),
        ({"kind": "machine"}, "is of kind machine, that of recordings"),
        ({"machine": "pump"}, "has another machine than its parent"),
        ({"kind": "mixed", "attributes": {"a": "b"}}, "has another attributes than its parent"),
        ({"parents": ("test",), "split": "test", "condition": "unknown"}, "is made of a test clip, which the stage"),
        ({"parents": ("nobody",)}, "has the parent nobody, which the stage was not given"),
        ({"path": Path("elsewhere.wav")}, "has no file in the stage's folder"),
        ({"parents": (), "machine": ""}, "has neither parents, nor a machine"),
        ({"condition": "anomaly"}, "is to be trained on and anomalous"),
    ],
)
def test_wrong_clips_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    file = tmp_path / "made.wav"
    file.touch()
    parents = [
        Clip(split, tmp_path / split, split=split, machine="fan", condition="normal")  # type: ignore[arg-type]
        for split in ("train", "test")
    ]
    good = derive(parents[0], "made", file, "generated")
    check_derived([good], parents, Wrong, tmp_path)
    with pytest.raises(HarkenError, match=message):
        check_derived([replace(good, **changes)], parents, Wrong, tmp_path)  # type: ignore[arg-type]


def test_parents_and_payload_survive_the_table_and_old_tables_are_read(tmp_path: Path) -> None:
    parent = Clip("a", tmp_path / "w" / "a.wav", machine="fan", split="train")
    made = derive(parent, "b", tmp_path / "w" / "audio" / "b.npy", "generated", payload="spectrogram")
    again = derive(made, "c", tmp_path / "w" / "c.wav", "mixed", others=("n",))
    assert origins([again, made, parent]) == {"a": "a", "b": "a", "c": "a"}
    (tmp_path / "w").mkdir()
    write_clips(tmp_path / "w", [made, again])
    moved = (tmp_path / "w").rename(tmp_path / "moved")
    read = read_clips(moved)
    assert [clip.parents for clip in read] == [("a",), ("b", "n")]
    assert read[0].path == moved / "audio" / "b.npy"
    assert read[0].payload == "spectrogram"
    with pytest.raises(HarkenError, match="b is a spectrogram, and this stage reads sound only"):
        with_derived(Unit("", "all", (parent,)), stage_class("frames"), [moved])
    write_table([parent], tmp_path / "new.parquet")
    old = pq.read_table(tmp_path / "new.parquet").drop_columns(["parents", "payload"])
    pq.write_table(old.replace_schema_metadata({"harken_clips": "1"}), tmp_path / "old.parquet")
    assert read_table(tmp_path / "old.parquet") == [parent]


# --- declared inputs


def test_inputs_are_matched_by_what_they_are() -> None:
    class Two(Stage):
        """Reads a model, and any clips."""

        makes = "scores"
        inputs: ClassVar = {"model": Input("model"), "clips": Input("clips", optional=True, many=True)}

    train, mix, embed = (stage_class(name) for name in ("train", "mix", "embed"))
    matched = match_inputs("two", Two, [("noisy", mix), ("net", train), ("loud", mix)])
    assert matched == {"model": ("net",), "clips": ("noisy", "loud")}
    assert match_inputs("two", Two, [("net", train)]) == {"model": ("net",)}
    with pytest.raises(HarkenError, match=r"a two stage needs model, it reads noisy"):
        match_inputs("two", Two, [("noisy", mix)])
    with pytest.raises(HarkenError, match=r"vectors \(embeddings\) is not an input of a two stage. It reads model"):
        match_inputs("two", Two, [("net", train), ("vectors", embed)])
    with pytest.raises(HarkenError, match=r"other \(model\) is not an input"):
        match_inputs("two", Two, [("net", train), ("other", train)])


EACH = '''
import shutil
from harken.bench.stages import Stage
from harken.bench.stages.tables import write_clips
from harken.data.clips import derive

class Each(Stage):
    """A copy of each training clip, made for each machine."""
    makes = "clips"
    @classmethod
    def run(cls, parameters, context):
        rows = []
        for number, clip in enumerate(clip for clip in context.clips if clip.split == "train"):
            file = shutil.copyfile(clip.path, context.out / f"{number}{clip.path.suffix}")
            rows.append(derive(clip, f"{clip.clip_id}#copy", file, "separated"))
        write_clips(context.out, rows)
'''


def test_what_is_made_once_reads_the_clips_of_every_machine(
    plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("each.py").write_text(EACH)
    data = yaml.safe_load(NOISY)
    data["stages"]["copies"] = {"use": "each.py:Each"}
    Path("r.yaml").write_text(yaml.safe_dump(data))
    clips = [clip for clip in load_clips(plant)[0] if clip.machine == "fan" or clip.split != "test"]
    recipe = load_recipe("r.yaml")
    (unit,) = make_units(clips)
    tasks = make_tasks(recipe, [unit], make_common(clips))
    # pump has no test clips left: it is learned from, and not scored.
    assert tasks["labels/all machines"].inputs == {
        "clips": (f"copies/{unit.set}/fan", f"copies/{unit.set}/pump"),
    }
    assert {task.unit.machine for task in tasks.values() if task.stage == "embed"} == {"fan"}
    write_table(clips, Path("clips.parquet"))
    done, started = run(Path("clips.parquet"), tmp_path / "w", "r.yaml")
    assert not done.failures
    assert f"copies/{unit.set}/pump" in started
    (labels,) = objects(tmp_path / "w", "labels")
    known = ClassTable.read(labels / "classes.json").class_of
    assert {clip_id.split("/")[0] for clip_id in known if clip_id.endswith("#copy")} == {"fan", "pump"}
    # A changed file is another stage.
    Path("each.py").write_text(EACH + "\n")
    assert f"copies/{unit.set}/fan" in run(Path("clips.parquet"), tmp_path / "w", "r.yaml")[1]
    Path("each.py").write_text(EACH.replace('"separated"', "nothing"))
    with pytest.raises(HarkenError, match=r"each.py: line 15: NameError"):
        run(Path("clips.parquet"), tmp_path / "w", "r.yaml")
