"""What is written is what is read, for any name: every file that Harken reads again.

| file | writer and reader |
|---|---|
| clips table | `data.table` |
| attribute tables | `plant.simulate`, `data.attributes` |
| ground truth: folders, lists, tables of clips | `data.truth` |
| classes of clips | `data.labels` |
| tables of scores, and score files | `evaluation.scores`, `evaluation.score_files` (also `test_scores.py`) |
| tables of several systems | `core.tables`, `evaluation.score_tables` (`test_score_tables.py`) |
| YAML of submissions, ensembles and recipes | `core.plain_yaml` |
| ensembles | `ensemble.bag` |
| recipes | `bench.recipe` |
| names and tags of runs, clips of a stage, objects | `bench.run_names`, `bench.stages.tables`, `bench.workspace` |
| models | `monitor.bundle`, `monitor.stored` |
| memories | `monitor.sequence` |
| embeddings | `embeddings.store` |
| checkpoints of trainings | `training.checkpoints` |
| spectrograms, recordings | `encoders.spectrogram_file`, `audio.write` |
| names of segments | `audio.segments` |
| weights | `weights.cache` |

A name that a file cannot hold is refused by its writer, and nothing is written.
"""

from __future__ import annotations

import csv
import os
import unicodedata
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from harken.audio.decode import decode
from harken.audio.health import Health
from harken.audio.quality import Finding
from harken.audio.segments import Segment, file_of_name, read_named
from harken.audio.write import write_sound
from harken.bench.recipe import load_recipe
from harken.bench.run_names import add_names, check_run_name, read_names
from harken.bench.stages.tables import Quarantined, read_clips, read_ids, write_clips, write_ids
from harken.bench.workspace import Workspace, recorded_digest
from harken.core.errors import HarkenError
from harken.core.names import joined, why_no_file_name
from harken.core.plain_yaml import read_yaml, yaml_text
from harken.data.attributes import read_attributes
from harken.data.clips import Clip
from harken.data.labels import UNUSED, ClassTable
from harken.data.names import without_suffix
from harken.data.table import read_table, write_table
from harken.data.truth import Label, read_truth
from harken.detection.sequential import Evidence
from harken.embeddings.embedder import ClipFeatures, make_spec
from harken.embeddings.store import EmbeddingStore
from harken.encoders.base import FrontEnd, Spectrogram
from harken.encoders.spectrogram_file import read_front_end, read_spectrogram, write_spectrogram
from harken.ensemble.bag import Bag, load_bag, save_bag
from harken.evaluation.score_files import read_systems, write_score_files
from harken.evaluation.scores import ScoreRow, Scores, read_scores, write_scores
from harken.monitor.bundle import read_bundle, write_bundle
from harken.monitor.detector import Detector
from harken.monitor.sequence import Sequence
from harken.plant.simulate import _attributes_csv
from harken.training.checkpoints import read_arrays, write_arrays
from harken.weights.cache import Record, cached, keep, read_checked

FOLDER = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
#: any text, and words that a table, YAML or JSON could take for something else
ODD = (
    "", " ", "null", "~", "yes", "NaN", "1e5", "0x10", "1_000", "- a", "a: b", "#", "'", '"', "a,b;c\td", "=1+1",
    "\ufeffa", "a\nb", "a\r\nb", "a\rb", "\x85", "\u2028", "e\u0301", "\u00e9", "..", "CON", "*",
    "@0:00:00-0:00:10", "%s", "{x}",
)  # fmt: skip
TEXT = st.one_of(st.sampled_from(ODD), st.text(st.characters(codec="utf-8"), max_size=12))
#: what a file of this system may be called
FILE_NAME = TEXT.filter(lambda text: not set(text) & set("/\0") and text.strip(".") and len(text.encode()) < 150)
#: YAML of Harken has no NUL
YAML_TEXT = TEXT.filter(lambda text: "\0" not in text)
#: the same as names of clips, without an ending, in the form in which names are compared
CLIP = FILE_NAME.filter(
    lambda text: text == joined(text) == text.strip() == without_suffix(text) and "\\" not in text and text != "\ufeffa"
)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)


def clips(names: st.SearchStrategy[str] = FILE_NAME) -> st.SearchStrategy[list[Clip]]:
    clip = st.builds(
        Clip,
        clip_id=TEXT, path=names.map(lambda name: Path("/data") / f"{name}.wav"), corpus=TEXT,
        year=st.none() | st.integers(0, 3000), split=st.sampled_from([None, "train", "test", "supplemental"]),
        machine=TEXT, section=TEXT, domain=st.sampled_from(["source", "target", "unknown"]),
        condition=st.sampled_from(["normal", "anomaly", "unknown"]),
        kind=st.sampled_from(["machine", "clean", "noise", "generated", "separated", "mixed"]),
        attributes=st.dictionaries(TEXT, TEXT, max_size=3), sample_rate=st.none() | st.integers(1, 10**6),
        channels=st.none() | st.integers(1, 9), frames=st.none() | st.integers(0, 2**40),
        parents=st.lists(TEXT, max_size=2).map(tuple), payload=st.sampled_from(["sound", "spectrogram"]),
    )  # fmt: skip
    return st.lists(clip, max_size=4, unique_by=lambda clip: clip.clip_id)


@given(clips())
@FOLDER
def test_clips(tmp_path: Path, rows: list[Clip]) -> None:
    write_table(rows, tmp_path / "clips.parquet")
    assert read_table(tmp_path / "clips.parquet") == rows
    inside = [replace(clip, path=tmp_path / "stage" / clip.path.name) for clip in rows]
    aside = [Quarantined(clip.clip_id, clip.machine) for clip in rows]
    write_clips(tmp_path / "stage", inside, aside)
    (tmp_path / "moved").exists() or (tmp_path / "stage").rename(tmp_path / "moved")
    moved = tmp_path / "moved" if not (tmp_path / "stage").exists() else tmp_path / "stage"
    assert read_clips(moved) == [replace(clip, path=moved / clip.path.name) for clip in rows]
    assert read_ids(moved) == ([clip.clip_id for clip in rows], aside)


def test_a_name_that_is_no_text_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    for clip in (Clip("a", Path(f"/{odd}.wav")), Clip(odd, Path("/a.wav")), Clip("a", Path("/a.wav"), machine=odd)):
        with pytest.raises(HarkenError, match="UTF-8"):
            write_table([clip], tmp_path / "clips.parquet")
    for fields in ({"clip_id": odd}, {"file": f"{odd}.wav"}, {"machine": odd}, {"section": odd}):
        row = ScoreRow("a", "a.wav", "fan", "00", "test", 0.0)._replace(**fields)
        with pytest.raises(HarkenError, match="UTF-8"):
            write_scores(Scores.of_rows([row]), tmp_path / "scores.parquet")
    assert not list(tmp_path.iterdir())


@given(st.lists(st.tuples(CLIP, st.dictionaries(CLIP, CLIP, max_size=3)), max_size=4))
@FOLDER
def test_attributes(tmp_path: Path, rows: list[tuple[str, dict[str, str]]]) -> None:
    text = _attributes_csv([(f"fan/train/{name}.wav", attributes) for name, attributes in rows])
    (tmp_path / "attributes_00.csv").write_bytes(text.encode())
    assert [(row.name, row.attributes, row.problem) for row in read_attributes(tmp_path / "attributes_00.csv")] == [
        (name, attributes, "") for name, attributes in rows
    ]


@given(st.dictionaries(CLIP, st.tuples(st.booleans(), st.sampled_from(["source", "target"])), min_size=1, max_size=4))
@FOLDER
def test_truth(tmp_path: Path, labels: dict[str, tuple[bool, str]]) -> None:
    for folder, column in (("ground_truth_data", 0), ("ground_truth_domain", 1)):
        (tmp_path / folder).mkdir(exist_ok=True)
        with (tmp_path / folder / "ground_truth_my pump_section_00_test.csv").open("w", newline="") as handle:
            values = {name: (int(label[0]), int(label[1] == "target"))[column] for name, label in labels.items()}
            csv.writer(handle).writerows((f"{name}.wav", value) for name, value in values.items())
    expected = {("my pump", "00"): {name: Label(*label) for name, label in labels.items()}}
    assert read_truth(tmp_path).labels == expected
    table = [
        Clip(
            name, Path(f"/{name}.wav"), split="test", machine="my pump", section="00", domain=domain,  # type: ignore[arg-type]
            condition="anomaly" if anomaly else "normal",
        )
        for name, (anomaly, domain) in labels.items()
    ]  # fmt: skip
    write_table(table, tmp_path / "truth.parquet")
    assert read_truth(tmp_path / "truth.parquet").labels == expected


@given(st.dictionaries(TEXT, st.integers(-1, 2), max_size=5), st.lists(TEXT, min_size=3, max_size=3, unique=True), TEXT)
@FOLDER
def test_classes(tmp_path: Path, class_of: dict[str, int], names: list[str], policy: str) -> None:
    assert UNUSED == -1
    counts = tuple(list(class_of.values()).count(index) for index in range(3))
    fields: dict[str, Any] = {"attribute_free": (True, False, True), "counts": counts, "class_of": class_of}
    table = ClassTable(harken_labels=1, policy=policy, classes=tuple(names), **fields)
    table.write(tmp_path / "classes.json")
    assert ClassTable.read(tmp_path / "classes.json") == table


ROWS = st.lists(
    st.tuples(CLIP, TEXT, TEXT, st.sampled_from(["train", "test"]), NUMBER, st.integers(-1, 1)),
    max_size=4, unique_by=lambda row: row[0],
)  # fmt: skip


@given(st.lists(st.tuples(TEXT, TEXT, st.none() | st.integers(0, 2**40), ROWS), max_size=3), TEXT)
@FOLDER
def test_stored_scores(tmp_path: Path, systems: list[tuple[str, str, int | None, Any]], reason: str) -> None:
    tables = [
        Scores.of_rows(
            [ScoreRow(name, f"{name}.wav", *row) for name, *row in rows], system,
            set=data_set, seed=seed, marks={"tuned on test": reason}, digest=reason, layout="id",
        )
        for system, data_set, seed, rows in systems
    ]  # fmt: skip
    write_scores(tables, tmp_path / "scores.parquet")
    assert read_scores(tmp_path / "scores.parquet") == tables


@given(
    ROWS.filter(len),
    FILE_NAME.filter(lambda text: why_no_file_name(f"anomaly_score_{joined(text)}_section_00.csv") is None),
    st.sampled_from(["section", "id", "domain"]),
)
@FOLDER
def test_score_files(tmp_path_factory: pytest.TempPathFactory, rows: Any, machine: str, layout: Any) -> None:
    machine = joined(machine)
    assume("_section_" not in machine and "_id_" not in machine and len(machine.encode()) < 150)
    table = Scores.of_rows(
        [ScoreRow(name, f"{name}.wav", machine, "00", "test", row[3], row[4]) for name, *row in rows],
        "s",
        layout=layout,
    )
    folder = tmp_path_factory.mktemp("scores")
    names = write_score_files(table, folder / "s")
    assert all(unicodedata.is_normalized("NFC", name) for name in names)
    (again,), broken, truth = read_systems(folder / "s")
    assert (broken, truth) == ([], None)
    assert again.by_name((machine, "00")) == table.by_name((machine, "00"))
    assert again.decisions((machine, "00")) == table.decisions((machine, "00"))


@given(
    st.lists(
        st.tuples(YAML_TEXT.filter(bool), st.floats(0.1, 9), FILE_NAME),
        min_size=1,
        max_size=3,
        unique_by=lambda row: row[0],
    ),
    YAML_TEXT,
)
@FOLDER
def test_ensembles(tmp_path: Path, members: list[tuple[str, float, str]], system: str) -> None:
    entries = [
        {"name": name, "weight": weight, "scores": str(tmp_path / path / "s"), "system": system or None}
        for name, weight, path in members
    ]
    inner = Bag.model_validate({"name": "inner", "members": entries})
    outer = {"name": members[0][0], "members": [{"name": "x", "bag": inner.as_json()}, *entries]}
    outer["weights_from"] = {"method": system, "considered": 2, "settings": {"k": system}, "clips": [system, "a"]}
    if "x" in {name for name, *_ in members}:
        outer["members"] = entries
    bag = Bag.model_validate(outer)
    save_bag(bag, tmp_path / "bag.yaml")
    assert load_bag(tmp_path / "bag.yaml") == bag


@given(st.dictionaries(YAML_TEXT, st.one_of(YAML_TEXT, NUMBER, st.booleans(), st.integers()), max_size=4), YAML_TEXT)
@FOLDER
def test_recipes(tmp_path: Path, meta: dict[str, Any], description: str) -> None:
    data = {
        "name": "mine", "description": description, "meta": meta,
        "stages": {"embed": {"use": "embed"}, "detect": {"use": "detect", "from": "embed"}},
        "systems": {"only": "detect"},
    }  # fmt: skip
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    try:
        recipe = load_recipe(str(tmp_path / "a.yaml"))
    except HarkenError:
        return
    (tmp_path / "b.yaml").write_text(recipe.as_yaml(), encoding="utf-8")
    assert load_recipe(str(tmp_path / "b.yaml")) == recipe


@given(TEXT, st.lists(TEXT, max_size=3))
@FOLDER
def test_names_of_runs(tmp_path_factory: pytest.TempPathFactory, name: str, tags: list[str]) -> None:
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    with suppress(HarkenError):
        check_run_name(name, folder)
    add_names(folder, name, tags)
    assert read_names(folder) == read_names(folder).__class__((name,), tuple(sorted(set(tags))))


@given(st.dictionaries(FILE_NAME, st.binary(max_size=9), min_size=1, max_size=3), TEXT)
@FOLDER
def test_objects_of_workspaces(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], parameter: str
) -> None:
    assume("stage.json" not in files)
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    made = workspace.new("ab12")
    for name, data in files.items():
        (made / name).write_bytes(data)
    kept = workspace.keep("ab12", made, {"stage": "detect", "parameters": {parameter: parameter}})
    again = workspace.get("ab12")
    assert again is not None
    assert again.digest == kept.digest == recorded_digest(kept.folder)
    assert {name: (again.folder / name).read_bytes() for name in files} == files


@given(st.lists(TEXT, max_size=3), st.lists(st.tuples(TEXT, TEXT), max_size=3))
@FOLDER
def test_ids(tmp_path: Path, kept: list[str], aside: list[tuple[str, str]]) -> None:
    left_out = [Quarantined(*row) for row in aside]
    write_ids(tmp_path, kept, left_out)
    assert read_ids(tmp_path) == (kept, left_out)


JSON = st.recursive(
    st.one_of(TEXT, NUMBER, st.booleans(), st.none(), st.integers()),
    lambda inside: st.lists(inside, max_size=2) | st.dictionaries(TEXT, inside, max_size=2),
    max_leaves=5,
)
#: names of files as this system gives them, some of bytes that are not UTF-8
ANY_NAME = st.one_of(
    FILE_NAME, st.binary(min_size=1, max_size=6).filter(lambda name: not set(name) & set(b"/\0")).map(os.fsdecode)
)


@given(st.dictionaries(TEXT, JSON, max_size=3), st.lists(ANY_NAME, max_size=3), st.lists(TEXT, max_size=2, unique=True))
@FOLDER
def test_models(tmp_path: Path, about: dict[str, Any], names: list[str], arrays: list[str]) -> None:
    part = {
        name: np.arange(3, dtype=np.float32) + number for number, name in enumerate(arrays) if name != "__metadata__"
    }
    write_bundle(tmp_path / "m.harken", {**about, "names": names}, {"training": part})
    read, parts = read_bundle(tmp_path / "m.harken")
    assert read == {**about, "names": names}
    assert {name: array.tolist() for name, array in parts["training"].items()} == {
        name: array.tolist() for name, array in part.items()
    }


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    folder = tmp_path_factory.mktemp("normal")
    rng = np.random.default_rng(0)
    for number in range(4):
        sf.write(folder / f"{number}.wav", 0.1 * rng.normal(size=8_000), 16_000)
    return Detector.fit(folder, workers=0)


@given(st.lists(ANY_NAME, min_size=4, max_size=4), TEXT)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_models_of_recordings(tmp_path: Path, fitted: Detector, names: list[str], note: str) -> None:
    inside = fitted.fitted
    training = replace(inside.training, names=tuple(names), domains=(note, "", "source", "target"))
    named = Detector(replace(inside, training=training, notes=(note,)))
    named.save(tmp_path / "m.harken")
    again = Detector.load(tmp_path / "m.harken").fitted
    assert (again.training.names, again.training.domains, again.notes) == (tuple(names), training.domains, (note,))
    np.testing.assert_array_equal(again.training.scores_N, inside.training.scores_N)


YAML_VALUES = st.recursive(
    st.one_of(YAML_TEXT, NUMBER, st.booleans(), st.none(), st.integers()),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(YAML_TEXT, inside, max_size=3), max_leaves=8,
)  # fmt: skip


@given(YAML_VALUES)
def test_yaml(value: Any) -> None:
    assert read_yaml(yaml_text(value)) == value


@given(ANY_NAME, st.lists(ANY_NAME, max_size=1), st.lists(TEXT, max_size=3, unique=True), st.floats(0, 1e9))
@FOLDER
def test_memories(
    tmp_path: Path, fitted: Detector, since: str, latest: list[str], heard: list[str], value: float
) -> None:
    sequence = Sequence(fitted.alarm)
    sequence._evidence = Evidence(value, True, 3, 1, value, value, 2)
    sequence._since, sequence._heard = since, dict.fromkeys(heard)
    sequence._latest.extend(latest)
    sequence.save(tmp_path / "memory.json")
    again = Sequence.load(tmp_path / "memory.json", fitted.alarm)
    assert (again._evidence, again.changed, list(again._latest), list(again._heard)) == (
        sequence._evidence, since, latest, heard
    )  # fmt: skip


@given(
    st.binary(max_size=8), st.lists(st.tuples(TEXT, TEXT, st.booleans()), max_size=2),
    st.floats(-200, 50), st.booleans(),
)  # fmt: skip
@FOLDER
def test_embeddings(
    tmp_path: Path, seed: bytes, findings: list[tuple[str, str, bool]], level: float, health: bool
) -> None:
    import hashlib

    rng = np.random.default_rng(len(seed))
    features = ClipFeatures(
        rng.normal(size=5).astype(np.float32), np.arange(6, dtype=np.uint8).reshape(2, 3),
        *rng.normal(size=(2, 3)).astype(np.float32), level, 1.5, hashlib.sha256(seed).hexdigest(),
        tuple(Finding("clipped", detail, step, unusable) for detail, step, unusable in findings),  # type: ignore[arg-type]
        Health(rng.normal(size=(1, 4))) if health else None,
    )  # fmt: skip
    store = EmbeddingStore(tmp_path, make_spec("spectral", sample_rate=16_000, channels=1))
    store.put(features)
    again = store.get(features.sha256)
    assert again is not None
    for name in ("embedding", "sketch_BC", "short_time_D", "steady_B"):
        np.testing.assert_array_equal(getattr(again, name), getattr(features, name))
    assert (again.level_db, again.seconds, again.findings) == (level, 1.5, features.findings)
    assert (again.health is None) == (not health)


@given(
    st.dictionaries(
        TEXT.filter(lambda name: name != "__metadata__"), st.lists(st.floats(width=32), max_size=3), max_size=3
    ),
    st.dictionaries(TEXT, JSON, max_size=2),
)
@FOLDER
def test_checkpoints(tmp_path: Path, arrays: dict[str, list[float]], metadata: dict[str, Any]) -> None:
    written = {name: np.array(array, dtype=np.float32) for name, array in arrays.items()}
    write_arrays(tmp_path / "a.safetensors", written, metadata)
    again, recorded = read_arrays(tmp_path / "a.safetensors")
    assert recorded == metadata
    assert {name: array.tobytes() for name, array in again.items()} == {
        name: array.tobytes() for name, array in written.items()
    }


@given(FILE_NAME, TEXT, st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 2**40))
@FOLDER
def test_spectrograms(tmp_path: Path, name: str, encoder: str, frames: list[int], samples: int) -> None:
    windows = tuple(np.arange(3 * count, dtype=np.float32).reshape(count, 3) for count in frames)
    front_end = FrontEnd(encoder, 16_000, encoder)
    file = tmp_path / f"{name}.safetensors"
    write_spectrogram(file, Spectrogram(windows, samples), front_end)
    again, spectrogram = read_spectrogram(file)
    assert (again, spectrogram.samples) == (front_end, samples) == read_front_end(file)
    assert [window.tolist() for window in spectrogram.windows] == [window.tolist() for window in windows]


@given(ANY_NAME, st.integers(1, 3), st.floats(0.01, 3), st.sampled_from(["wav", "flac"]))
@FOLDER
def test_recordings(tmp_path: Path, name: str, channels: int, loudest: float, file_format: str) -> None:
    samples_CS = np.linspace(-loudest, loudest, 60, dtype=np.float32).reshape(channels, -1)
    file = write_sound(tmp_path / f"a{name}", samples_CS, 16_000, file_format)
    audio = decode(file)
    assert audio.sample_rate == 16_000
    np.testing.assert_allclose(audio.samples_CS, samples_CS, atol=0 if file.suffix == ".wav" else 2**-23)


@given(ANY_NAME, st.integers(0, 9_000), st.integers(16, 900))
@FOLDER
def test_segments(tmp_path: Path, name: str, start: int, frames: int) -> None:
    """At 1 kHz: times in names are exact to the millisecond."""
    file = tmp_path / f"a{name}.wav"
    sound = np.arange(10_000, dtype=np.int16)
    with file.open("wb") as handle:
        sf.write(handle, sound, 1_000, subtype="PCM_16", format="WAV")
    segment = Segment(file, start, frames, 1_000)
    assert file_of_name(segment.path) == file
    samples_S = read_named(segment.path).samples_CS[0]
    np.testing.assert_array_equal(samples_S * 2**15, sound[start : start + frames])


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True), TEXT, st.dictionaries(TEXT, JSON, max_size=2))
@FOLDER
def test_weights(tmp_path_factory: pytest.TempPathFactory, name: str, source: str, config: dict[str, Any]) -> None:
    import hashlib

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARKEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        data = source.encode()
        digest = hashlib.sha256(data).hexdigest()
        record = Record(
            name=name, encoder=source, config=config, sha256=digest, source_file=source, source_sha256=digest
        )
        keep(record, data)
        assert read_checked(name) == (record, data)
        assert cached() == [record]
