"""The table of scores: refused where it is wrong, the same after files; its marks are said by every verb."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harken.bench.recipe import load_recipe, recipe_text
from harken.bench.result import Run
from harken.bench.run import run_recipe
from harken.bench.workspace import Workspace
from harken.cli.main import app
from harken.core.errors import HarkenError
from harken.core.names import joined
from harken.data.names import without_suffix
from harken.ensemble.fit import fit
from harken.ensemble.members import read_members
from harken.evaluation.evaluate import evaluate
from harken.evaluation.score_files import read_system_folder, read_systems, write_score_files
from harken.evaluation.scores import TUNED, ScoreRow, Scores, read_scores, write_scores
from harken.plant.simulate import simulate

WHY = {TUNED: "its checkpoint was chosen by the labels of these clips"}


def rows_of(seed: int, count: int = 6) -> list[ScoreRow]:
    """Labelled test clips and training clips of two machines."""
    rng = np.random.default_rng(seed)
    rows = []
    for machine in ("fan", "pump"):
        for domain in ("source", "target"):
            for n in range(count):
                for split, condition in (("test", "normal"), ("test", "anomaly"), ("train", "normal")):
                    file = f"section_00_{domain}_{split}_{condition}_{n:04d}_x_1.wav"
                    score = float(rng.normal() + (condition == "anomaly"))
                    decision = int(score > 0.5) if split == "test" else -1
                    rows.append(ScoreRow(f"{machine}/{file}", file, machine, "00", split, score, decision))  # type: ignore[arg-type]
    return rows


@pytest.fixture
def systems(tmp_path: Path) -> Path:
    """Score files of three systems, of which `b` is tuned on test."""
    for seed, name in enumerate("abc"):
        marks = WHY if name == "b" else {}
        write_score_files(Scores.of_rows(rows_of(seed), name, marks=marks), tmp_path / "systems" / name)
    return tmp_path / "systems"


# --- the table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "x: the score of c1 is nan. Scores are finite"),
        ({"file": "c2.flac"}, "x: c2 occurs twice. Keep one row per clip"),
        ({"clip_id": "2"}, "c1 occurs twice|c2 occurs twice"),
        ({"decision": 7}, "c1 has the decision 7"),
        ({"split": "dev"}, "the split 'dev'"),
    ],
)
def test_wrong_tables_are_refused_by_name(change: dict[str, object], message: str) -> None:
    one = ScoreRow("1", "c1.wav", "fan", "00", "test", 0.5)
    other = one._replace(clip_id="2", file="c2.wav")
    with pytest.raises(HarkenError, match=message):
        Scores.of_rows([one._replace(**change), other], "x")  # type: ignore[arg-type]


def test_tables_are_the_same_after_parquet(tmp_path: Path) -> None:
    tables = [
        Scores.of_rows(rows_of(seed), "a", set="s dev", seed=seed, marks=WHY, digest="d", fitted_on="machine")
        for seed in (0, 1)
    ]
    write_scores(tables, tmp_path / "scores.parquet")
    assert read_scores(tmp_path / "scores.parquet") == tables
    assert tables[0] != tables[1]
    assert tables[0].to_arrow().column("marks").unique().to_pylist() == [TUNED]
    (tmp_path / "scores.parquet").write_bytes(b"no")
    with pytest.raises(HarkenError, match="is not a table of scores"):
        read_scores(tmp_path / "scores.parquet")


#: what a file on disk may be called, without the signs that separate folders, as names are compared
NAMES = (
    st.text(st.characters(exclude_characters="/\\\0\ufeff", exclude_categories=["Cs"]), min_size=1, max_size=12)
    .map(joined)
    .filter(
        lambda name: name == name.strip() and without_suffix(name + ".wav") == name and not name.startswith("section_")
    )
)


@given(st.dictionaries(NAMES, st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_name_survives_score_files(tmp_path: Path, scores: dict[str, float]) -> None:
    """Commas, quotes and line ends in the names of clips included."""
    rows = [
        ScoreRow(f"{split}/{name}", f"{name}.wav", "fan", "00", split, score)  # type: ignore[arg-type]
        for split in ("test", "train")
        for name, score in scores.items()
    ]
    table = Scores.of_rows(rows, "s", marks=WHY, fitted_on="machine")
    write_score_files(table, tmp_path / "s")
    (again,) = read_system_folder(tmp_path / "s")
    assert again.by_name(("fan", "00")) == again.by_name(("fan", "00"), "train") == dict(sorted(scores.items()))
    assert (again.marks, again.fitted_on) == (WHY, "machine")


def test_ordinary_names_are_written_as_the_challenge_writes_them(tmp_path: Path) -> None:
    row = ScoreRow("1", "section_00_0000.wav", "fan", "00", "test", 0.1, 1)
    names = write_score_files(Scores.of_rows([row], "s"), tmp_path)
    assert names == ["anomaly_score_fan_section_00_test.csv", "decision_result_fan_section_00_test.csv", "marks.json"]
    assert (tmp_path / names[0]).read_bytes() == b"section_00_0000.wav,0.1\n"
    assert (tmp_path / names[1]).read_bytes() == b"section_00_0000.wav,1\n"


@pytest.mark.parametrize(
    ("machines", "reason"),
    [
        (["../../fan"], "has a slash"),
        (["fan:1"], "which Windows does not allow"),
        (["fan\n"], "which Windows does not allow"),
        (["Fan", "fan"], "two names of files that are one where case does not count"),
        (["f" * 300], "longer than 255 bytes"),
    ],
)
def test_machines_that_cannot_be_part_of_a_file_name(tmp_path: Path, machines: list[str], reason: str) -> None:
    """Tables of strangers name machines, and machines name files and entries of a zip."""
    rows = [ScoreRow(machine, "c.wav", machine, "00", "test", 0.5) for machine in machines]
    with pytest.raises(HarkenError, match=reason):
        write_score_files(Scores.of_rows(rows, "s"), tmp_path / "s")
    assert not (tmp_path / "s").exists()


# --- marks


def call(*words: object) -> int | None:
    return app(args=[str(word) for word in words], standalone_mode=False)


def test_evaluate_prints_marks_and_ranks_several_paths(systems: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("evaluate", systems / "b")
    printed = capsys.readouterr()
    assert "(tuned on test)" in printed.out.splitlines()[-1]
    assert "b: tuned on test: its checkpoint" in printed.err
    call("evaluate", systems / "a", systems / "b", systems / "c")
    table = capsys.readouterr().out
    assert [table.count(f" {name} ") for name in ("a", "b (tuned on test)", "c")] == [1, 1, 1]
    call("evaluate", systems / "a", systems / "b", "--json")
    marks = {row["system"]: row.get("marks") for row in json.loads(capsys.readouterr().out)["systems"]}
    assert marks == {"a": None, "b": WHY}
    # A copy and an archive keep them.
    shutil.make_archive(str(systems.parent / "all"), "zip", systems)
    assert [one.marks for one in read_systems(systems.parent / "all.zip")[0]] == [{}, WHY, {}]
    # Paths of one name are distinguished by the folders above, and one that is broken costs no other.
    shutil.copytree(systems / "a", systems.parent / "more" / "a")
    done = evaluate([systems / "a", systems.parent / "more" / "a", systems / "nowhere"])
    assert {result.system for result in done.results} == {"systems/a", "more/a"}
    assert "no such file" in str(done.broken[0].error)


def test_an_ensemble_with_a_marked_member_is_marked(
    systems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members, _ = read_members([systems])
    proof = fit(members, method="uniform", draws=0)
    assert all(TUNED in row.in_sample.marks for row in proof.rows if row.name == "uniform")
    assert all(row.held_out is None for row in proof.rows)
    assert "but b used labels of these machines" in proof.why
    clean = fit([member for member in members if member.name != "b"], method="uniform", draws=0)
    assert clean.rows[1].in_sample.marks == ()
    assert clean.rows[1].held_out is not None
    call("ensemble", "fit", systems, "--method", "uniform", "-o", tmp_path / "bag.yaml", "--bootstrap", 0)
    printed = capsys.readouterr()
    assert "* tuned on test" in printed.out
    assert "no number here is of machines left out" in printed.err
    call("ensemble", "score", tmp_path / "bag.yaml", "-o", tmp_path / "out")
    assert "note: tuned on test: b: its checkpoint" in capsys.readouterr().err
    (result,) = evaluate(tmp_path / "out").results
    assert TUNED in result.marks


def test_fitted_weights_mark_the_clips_that_they_were_fitted_on(systems: Path, tmp_path: Path) -> None:
    shutil.rmtree(systems / "b")
    call("ensemble", "fit", systems, "--keep-fitted", "-o", tmp_path / "bag.yaml", "--bootstrap", 0)
    call("ensemble", "score", tmp_path / "bag.yaml", "-o", tmp_path / "here")
    assert TUNED in evaluate(tmp_path / "here").results[0].marks
    # The same weights on other clips are not.
    for name in "ac":
        (table,) = read_system_folder(systems / name)
        others = [
            row._replace(clip_id=f"{row.clip_id} new", file=row.file.replace("x_1", "x_2")) for row in table.rows()
        ]
        write_score_files(Scores.of_rows(others, name), tmp_path / "new" / name)
    call("ensemble", "score", tmp_path / "bag.yaml", tmp_path / "new", "-o", tmp_path / "there")
    assert TUNED not in evaluate(tmp_path / "there").results[0].marks


# --- runs


def recipe_of(tmp_path: Path, **changes: object) -> str:
    """A file: two detectors of one embedding, and what is changed."""
    data = yaml.safe_load(recipe_text("spectral_knn"))
    data["stages"]["wide"] = {"use": "detect", "from": "embed", "detector": "mahalanobis", "model": "machine"}
    data["systems"] = {"near": "nearest", "wide": "wide"}
    for key, value in changes.items():
        data.setdefault(key, {}).update(value)  # type: ignore[arg-type]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    return str(tmp_path / "mine.yaml")


def two_sections(tmp_path: Path) -> Path:
    """A tree of 2022 of two sections, the second with test clips only."""
    sizes = {"train_source": 6, "train_target": 2, "test_per_condition": 2, "supplemental": 1, "seconds": 1.0}
    simulate(tmp_path / "plant", machines=["fan"], **sizes)  # type: ignore[arg-type]
    for section in ("00", "01"):
        for clip in (tmp_path / "plant" / "fan").rglob("*.wav"):
            if clip.parent.name != "supplemental" and (section == "00" or clip.parent.name == "test"):
                link = tmp_path / "dcase2022" / "fan" / clip.parent.name
                link.mkdir(parents=True, exist_ok=True)
                (link / clip.name.replace("section_00", f"section_{section}")).symlink_to(clip)
    return tmp_path / "dcase2022"


def run(recipe: str, data: Path, tmp_path: Path) -> Run:
    return run_recipe(load_recipe(recipe, profile="tiny"), data, Workspace(tmp_path / "w"), workers=1)


def test_scores_of_unlike_sections_are_refused_before_any_work(tmp_path: Path) -> None:
    data = two_sections(tmp_path)
    mixed = {"both": {"members": {"near": 1, "wide": 1}}}
    with pytest.raises(
        HarkenError, match=r"ensemble both mixes scores of different .* fan section 01, nearest has too few"
    ):
        run(recipe_of(tmp_path, ensembles=mixed), data, tmp_path)
    stages = {"sum": {"use": "combine", "from": ["nearest", "wide"]}}
    with pytest.raises(HarkenError, match=r"stage sum mixes scores of different sections"):
        run(recipe_of(tmp_path, stages=stages, systems={"sum": "sum"}), data, tmp_path)
    assert not any((tmp_path / "w" / "objects").iterdir())


def test_a_model_for_a_section_and_one_for_the_machine_are_combined(tmp_path: Path) -> None:
    data = two_sections(tmp_path)
    for clip in (data / "fan" / "train").iterdir():
        (clip.parent / clip.name.replace("section_00", "section_01")).symlink_to(clip.resolve())
    stages = {"sum": {"use": "combine", "from": ["nearest", "wide"]}}
    done = run(recipe_of(tmp_path, stages=stages, systems={"sum": "sum"}), data, tmp_path)
    assert not done.failures
    of = {one.system: one.scores for one in done.systems}
    for key in (("fan", "00"), ("fan", "01")):
        near, wide = (of[name].held_out(key).score_N for name in ("near", "wide"))
        assert (len(near), len(wide)) == (8, 16)
        first = of["sum"].of_section(key).rows()[0]
        expected = sum(
            0.5 * (of[name].by_name(key)[without_suffix(first.file)] - train.mean()) / train.std()
            for name, train in (("near", near), ("wide", wide))
        )
        assert first.score == pytest.approx(expected)


def test_a_run_survives_a_system_without_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each section has too few training clips for a model of its own, both have enough for one of the machine."""
    data = two_sections(tmp_path)
    clips = sorted((data / "fan" / "train").iterdir())
    for number, clip in enumerate(clips):
        clip.unlink() if number >= 4 else None
    for clip in clips[2:4]:
        clip.rename(clip.parent / clip.name.replace("section_00", "section_01"))
    recipe = recipe_of(tmp_path)
    done = run(recipe, data, tmp_path)
    assert [one.system for one in done.systems] == ["wide"]
    assert [failed.name for failed in done.failures] == ["near"]
    assert "near" in (done.folder / "report.html").read_text()
    assert {table.system for table in read_scores(done.folder / "scores.parquet")} == {"wide"}
    words = [
        "run",
        recipe,
        "--profile",
        "tiny",
        "--data",
        str(data),
        "--workspace",
        str(tmp_path / "w"),
        "--workers",
        "1",
    ]
    assert app(args=words, standalone_mode=False) == 2
    assert "failed: near: dcase2022 dev: no test clip could be scored" in capsys.readouterr().err


def test_a_submission_says_its_marks(systems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    (table,) = read_system_folder(systems / "b")
    test = replace(table.test, marks=WHY)
    for row in test.rows():
        place = data / "dcase2025" / row.machine / "test"
        place.mkdir(parents=True, exist_ok=True)
        (place / row.file).write_bytes(b"RIFF")
    (tmp_path / "meta.yaml").write_text(
        "submission: {name: T, abbreviation: T, authors: [{lastname: A, firstname: B, affiliation: {institute: I}}]}"
    )
    words = ["submit", systems / "b", "--data", data, "--label", "Doe_EX_task2", "--meta", tmp_path / "meta.yaml"]
    call(*words, "-o", tmp_path / "s.zip")
    printed = capsys.readouterr().err
    assert "Doe_EX_task2_1: b (tuned on test)" in printed
    assert "b: tuned on test: its checkpoint" in printed
    assert evaluate(tmp_path / "s.zip").results[0].marks == WHY
