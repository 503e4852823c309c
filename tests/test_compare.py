"""Runs compared: the same clips, the same resamples, and marks beside every number that needs them."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harken
from command_line import called
from command_line import harken as command
from harken.bench.run_names import add_names
from harken.core.errors import HarkenError
from harken.data.clips import Clip
from harken.data.table import read_table, write_table
from harken.evaluation.bootstrap import bootstrap, draws_over_clips, paired_draws
from harken.evaluation.evaluate import Result, evaluate_system
from harken.evaluation.rules import SectionScores, section_numbers, summary
from harken.evaluation.scores import TRANSDUCTIVE, TUNED, ScoreRow, Scores, write_scores


def clips_of(machine: str, year: int = 2025, each: int = 12) -> list[Clip]:
    return [
        Clip(
            f"{machine}/{domain}/{condition}/{number}",
            Path(f"/nowhere/{machine}/section_00_{domain}_test_{condition}_{number:04d}.wav"),
            "plant", year, "test", machine, "00", domain, condition, sample_rate=16_000, channels=1, frames=16_000,
        )
        for domain in ("source", "target")
        for condition in ("normal", "anomaly")
        for number in range(each)
    ]  # fmt: skip


CLIPS = [*clips_of("fan"), *clips_of("valve")]


def scores_of(
    clips: Sequence[Clip], gap: float, system: str = "knn", data_set: str = "plant", noise: int = 0, **fields: Any
) -> Scores:
    """Scores in which anomalies are `gap` standard deviations above normal clips."""
    rng = np.random.default_rng(noise)
    values = rng.normal(size=len(clips)) + gap * np.array([clip.condition == "anomaly" for clip in clips])
    rows = [
        ScoreRow(clip.clip_id, clip.path.name, clip.machine, clip.section, "test", float(value))
        for clip, value in zip(clips, values, strict=True)
    ]
    return Scores.of_rows(rows, system, set=data_set, **fields)


def write_run(
    folder: Path, tables: Sequence[Scores], clips: Sequence[Clip] = CLIPS, settings: Mapping[str, Any] | None = None
) -> Path:
    """The files of a run that are compared."""
    folder.mkdir(parents=True)
    write_scores(tables, folder / "scores.parquet")
    write_table(clips, folder / "clips.parquet")
    recipe = {"name": "r", "title": folder.name, "seeds": [0], "stages": {"knn": settings or {"use": "detect"}}}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    (folder / "results.json").write_text("{}")
    return folder


def result_of(gaps: Mapping[str, float], rule: str = "domain_generalization", noise: int = 0) -> Result:
    """A result of sections whose anomalies are that far above; of gap 0 all scores are the same."""
    rng = np.random.default_rng(noise)
    sections = []
    for machine, gap in gaps.items():
        anomaly = np.tile([False, True], 20)
        domain = np.repeat([0, 1], 20)
        scores = gap * anomaly + (rng.normal(size=40) if 0 < gap < 10 else 0)
        names = tuple(f"{number:02d}" for number in range(40))
        sections.append(SectionScores(machine, "00", names, scores.astype(float), anomaly, domain))
    numbers = {section.key: section_numbers(rule, section) for section in sections}  # type: ignore[arg-type]
    totals = summary(rule, list(numbers.items()))  # type: ignore[arg-type]
    return Result("s", rule, numbers, {}, totals, sections)  # type: ignore[arg-type]


# --- the page


def test_the_page_prints_what_it_says(tmp_path: Path) -> None:
    """Its commands and its program run in order; the first comparison prints the tables that stand below it."""
    page = (Path(__file__).parents[1] / "docs" / "comparing-runs.md").read_text(encoding="utf-8")
    printed = []
    for language, text in re.findall(r"```(\w*)\n(.*?)```", page, re.S):
        if language == "python":
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(tmp_path)
                exec(text, {})
        for line in text.splitlines() if not language else ():
            _, *words = shlex.split(line)
            if "*" in words[-2]:
                words = [words[0], *map(str, sorted(tmp_path.glob(words[1]))), words[-1]]
            printed.append(command(*words, *(["--workers", 1] if words[0] == "run" else []), folder=tmp_path).stdout)
    (table,) = re.findall(r"```text\n(.*?)```", page, re.S)
    assert [line.rstrip() for line in printed[4].splitlines()] == table.splitlines()
    assert len(list(csv.DictReader(io.StringIO(printed[5])))) == 4
    assert printed[6].count(r"\begin{tabular}") == 1


# --- the bootstrap


def test_all_systems_get_the_same_resamples() -> None:
    good, bad = result_of({"fan": 2.0, "valve": 1.0}), result_of({"fan": 1.0, "valve": 0.5}, noise=1)
    for over_machines in (False, True):
        options: dict[str, Any] = {"draws": 50, "seed": 3, "over_machines": over_machines}
        together = paired_draws([good, bad, good], **options)
        np.testing.assert_array_equal(together[0], together[2])
        np.testing.assert_array_equal(together[1], paired_draws([bad], **options)[0])
        assert len(np.unique(together[0])) > 40
    all_SB, alone = draws_over_clips([good, bad], draws=50, seed=3)
    # Of the harmonic mean of all numbers: three of each machine.
    np.testing.assert_allclose(2 / all_SB, 1 / alone["fan"] + 1 / alone["valve"])
    np.testing.assert_array_equal(bootstrap(good, draws=50, seed=3).draws_B, paired_draws([good], draws=50, seed=3)[0])


@pytest.mark.parametrize(
    ("rule", "both"), [("domain_generalization", 2 / 3), ("domain_adaptation", 2 / 3), ("machine_id", 0.75)]
)
def test_machines_are_drawn_with_replacement(rule: str, both: float) -> None:
    """Of a machine that is always right (1) and one that knows nothing (0.5), two draws give one of three means."""
    draws_B = paired_draws([result_of({"fan": 10.0, "valve": 0.0}, rule)], draws=4000, over_machines=True)[0]
    expected = {0.5: 0.25, both: 0.5, 1.0: 0.25}
    assert {value: np.mean(np.isclose(draws_B, value)) for value in expected} == pytest.approx(expected, abs=0.03)


def test_machines_add_to_the_width() -> None:
    unlike = result_of({f"m{number}": gap for number, gap in enumerate((0.2, 0.5, 1.0, 2.0, 3.0))})
    over_clips, over_both = (paired_draws([unlike], draws=500, over_machines=both)[0] for both in (False, True))
    assert np.std(over_both) > 1.5 * np.std(over_clips)


def test_the_interval_of_a_difference_is_as_wide_as_differences_spread() -> None:
    """Over many draws of clips the difference of two systems that hear alike spreads as widely as one interval says."""
    differences, widths = [], []
    for seed in range(60):
        first = result_of({"fan": 1.0, "valve": 1.5}, noise=seed)
        rng = np.random.default_rng(1000 + seed)
        sections = [
            replace(section, scores_N=section.scores_N + 0.5 * rng.normal(size=40)) for section in first.sections
        ]
        numbers = {section.key: section_numbers("domain_generalization", section) for section in sections}
        totals = summary("domain_generalization", list(numbers.items()))
        second = replace(first, sections=sections, numbers=numbers, summary=totals)
        draws = paired_draws([first, second], draws=200, seed=seed)
        widths.append(np.std(draws[0] - draws[1]))
        differences.append(first.official_score - second.official_score)
        unpaired = np.std(draws[0] - paired_draws([second], draws=200, seed=seed + 999)[0])
        assert unpaired > np.std(draws[0] - draws[1])
    assert np.mean(widths) == pytest.approx(np.std(differences), rel=0.3)


def test_other_clips_are_not_paired() -> None:
    first = result_of({"fan": 1.0})
    for other in (result_of({"valve": 1.0}), result_of({"fan": 1.0}, "machine_id")):
        with pytest.raises(HarkenError, match="not scored on the same clips"):
            paired_draws([first, other], draws=2)


# --- runs


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs in a workspace, named `base` and `wide`; the second hears more and was tuned on test."""
    marks = {TUNED: "stage knn chose by labels"}
    runs = (
        write_run(tmp_path / "runs" / "r-1", [scores_of(CLIPS, 0.5)], settings={"use": "detect", "k": 1, "x": [1, 2]}),
        write_run(
            tmp_path / "runs" / "r-2", [scores_of(CLIPS, 2.0, marks=marks)],
            settings={"use": "detect", "k": 3, "x": [1, 2], "branches": [{"size": "a_b"}]},
        ),
    )  # fmt: skip
    for run, name in zip(runs, ("base", "wide"), strict=True):
        add_names(run, name, ["two"])
    return runs


def test_what_differs_and_by_how_much(pair: tuple[Path, Path]) -> None:
    done = harken.compare(pair)
    assert done.runs == ("base", "wide")
    assert done.parameters == {"stages.knn.k": (1, 3), "stages.knn.branches.0.size": (None, "a_b")}
    (data_set,) = done.sets
    base, wide = data_set.systems
    assert (data_set.name, data_set.clips, data_set.machines) == ("plant", 96, ("fan", "valve"))
    assert base.difference is None
    assert wide.difference is not None
    assert base.score is not None
    assert wide.score is not None
    assert wide.difference.against == ("base", "knn")
    assert wide.difference.value == wide.score - base.score > 0.2
    for low, high in (wide.difference.clips, wide.difference.machines or (0, 0)):
        assert 0 < low < wide.difference.value < high
    assert wide.difference.share == 1.0
    assert set(wide.difference.marks) == {TUNED}
    for machine, (value, (low, high)) in wide.difference.by_machine.items():
        assert value == wide.machines[machine] - base.machines[machine]
        assert low < value < high
    assert harken.compare(pair).as_json() == done.as_json()
    assert harken.compare(pair, seed=1).as_json()["sets"] != done.as_json()["sets"]
    assert harken.compare(pair, draws=0).sets[0].systems[1].difference is None


def test_the_score_of_a_machine_is_its_official_score_alone(pair: tuple[Path, Path]) -> None:
    alone = write_run(pair[0].parent / "fan", [scores_of(CLIPS, 0.5).take(range(48))], CLIPS[:48])
    whole = harken.compare([pair[0]]).sets[0].systems[0]
    assert harken.compare([alone]).sets[0].systems[0].score == pytest.approx(whole.machines["fan"], rel=1e-15)


def test_runs_are_found_by_name_and_tag(pair: tuple[Path, Path]) -> None:
    workspace = pair[0].parent.parent
    expected = harken.compare(pair).as_json()
    assert harken.compare(["base", "wide"], workspace=workspace).as_json() == expected
    assert harken.compare(tags=["two"], workspace=workspace).as_json() == expected
    assert harken.compare(["wide"], tags=["two"], workspace=workspace).runs == ("wide", "base")
    with pytest.raises(HarkenError, match="is given twice"):
        harken.compare(["base", pair[0]], workspace=workspace)
    with pytest.raises(HarkenError, match="there are no runs to compare"):
        harken.compare([])
    with pytest.raises(HarkenError, match="tags are of runs in a workspace"):
        harken.compare(tags=["two"])


def test_marks_stand_beside_every_number(pair: tuple[Path, Path]) -> None:
    done = command("compare", *pair)
    _, scores, differences = done.stdout.split("\n\n")
    base, wide = (line for line in scores.splitlines() if line.startswith(("base", "wide")))
    assert "*" not in base
    assert wide.count("*") == len(wide.split()) - 1 == 3
    (difference,) = (line for line in differences.splitlines() if line.startswith("wide"))
    assert difference.count("*") == 4
    assert "* tuned on test: stage knn chose by labels" in done.stdout
    latex = command("compare", *pair, "--latex").stdout
    (row,) = (line for line in latex.splitlines() if line.startswith("wide"))
    assert row.count(r"$^{\ast}$") == row.count("&") == 7
    assert row.startswith("wide (tuned on test) &")
    assert r"$^{\ast}$ tuned on test: stage knn chose by labels} \\" in latex
    data = json.loads(command("compare", *pair, "--json").stdout)
    system = data["sets"]["plant"]["systems"][1]
    assert system["marks"] == system["against"]["marks"] == {TUNED: "stage knn chose by labels"}
    (row_of_base, row_of_wide) = csv.DictReader(io.StringIO(command("compare", *pair, "--csv").stdout))
    assert (row_of_base["marks"], row_of_wide["marks"]) == ("", TUNED)
    assert row_of_wide["difference_marks"] == TUNED
    assert float(row_of_wide["official_score"]) == system["official_score"]
    assert float(row_of_wide["machines_clips_low"]) == system["against"]["interval_over_machines_and_clips"][0]
    assert row_of_wide["stages.knn.k"] == "3"


def test_the_difference_to_a_marked_run_is_marked(pair: tuple[Path, Path]) -> None:
    transductive = write_run(
        pair[0].parent / "r-3", [scores_of(CLIPS, 1.0, marks={TRANSDUCTIVE: "normalised by test clips"})]
    )
    done = harken.compare([pair[1], pair[0], transductive])
    _, base, last = done.sets[0].systems
    assert base.difference is not None
    assert last.difference is not None
    assert set(base.difference.marks) == {TUNED}
    assert set(last.difference.marks) == {TUNED, TRANSDUCTIVE}
    printed = command("compare", pair[1], pair[0], transductive).stdout
    assert "* tuned on test: stage" in printed
    assert "+ transductive: normalised by test clips" in printed


def test_clips_that_not_all_have_are_left_out_and_said(pair: tuple[Path, Path]) -> None:
    fan = write_run(pair[0].parent / "fan", [scores_of(CLIPS[:48], 1.0)], CLIPS[:48])
    done = command("compare", pair[0], fan, "--json")
    (data_set,) = json.loads(done.stdout)["sets"].values()
    assert (data_set["clips"], data_set["machines"]) == (48, ["fan"])
    assert "plant: compared on the 48 test clips that all have scored; 48 of base are left out, of valve" in done.stderr
    assert data_set["systems"][0]["against"] is None
    assert data_set["systems"][1]["against"]["interval_over_machines_and_clips"] is None
    valve = write_run(pair[0].parent / "valve", [scores_of(CLIPS[48:], 1.0)], CLIPS[48:])
    with pytest.raises(HarkenError, match="fan, valve have no test clips of plant in common"):
        harken.compare([fan, valve])


def test_runs_of_other_data_are_refused_by_name(pair: tuple[Path, Path], tmp_path: Path) -> None:
    elsewhere = write_run(tmp_path / "elsewhere", [scores_of(CLIPS, 1.0, data_set="dcase2025 dev")])
    with pytest.raises(HarkenError, match=r"no set of data in common\. base has plant; elsewhere has dcase2025 dev"):
        harken.compare([pair[0], elsewhere])
    both = write_run(tmp_path / "both", [scores_of(CLIPS, 1.0), scores_of(CLIPS, 1.0, data_set="dcase2025 dev")])
    done = harken.compare([both, pair[0]])
    assert [data_set.name for data_set in done.sets] == ["plant"]
    assert "both: dcase2025 dev left out, which not all runs have" in done.notes
    longer = write_run(tmp_path / "longer", [scores_of(CLIPS, 1.0)], [replace(clip, frames=32_000) for clip in CLIPS])
    with pytest.raises(
        HarkenError, match=r"base and longer are of different data: .* the frames 16000 in one and 32000"
    ):
        harken.compare([pair[0], longer])
    with pytest.raises(HarkenError, match="base: no set 'dcase2025 dev'"):
        harken.compare([pair[0], both], data_set="dcase2025 dev")


def test_recordings_of_one_name_are_listened_to(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """In two places the same file, one that is different, and one that is not at hand."""

    def placed(name: str, content: bytes | None) -> Path:
        folder = tmp_path / f"data_{name}"
        folder.mkdir()
        clips = [replace(clip, path=folder / clip.path.name) for clip in CLIPS]
        for clip in clips if content else []:
            clip.path.write_bytes(content)
        return write_run(tmp_path / name, [scores_of(CLIPS, 1.0)], clips)

    first, same, different = placed("first", b"sound"), placed("same", b"sound"), placed("different", b"noise")
    gone = placed("gone", None)
    assert not [note for note in harken.compare([first, same]).notes if "recordings" in note]
    with pytest.raises(HarkenError, match="first and different are of different data"):
        harken.compare([first, different])
    notes = harken.compare([first, gone]).notes
    assert any("not all recordings of first, gone can be read" in note for note in notes)


def test_labels_that_one_run_knows_are_used_for_all(pair: tuple[Path, Path], tmp_path: Path) -> None:
    hidden = [replace(clip, condition="unknown", domain="unknown") for clip in CLIPS]
    blind = write_run(tmp_path / "blind", [scores_of(CLIPS, 0.5)], hidden)
    base, same = harken.compare([pair[0], blind]).sets[0].systems
    assert base.score == same.score
    assert same.difference is not None
    assert (same.difference.value, same.difference.share) == (0.0, 0.0)
    alone = command("compare", blind)
    assert "no official scores: the labels of its test clips are not known" in alone.stderr
    assert alone.stdout.splitlines()[-1].split() == ["blind", "-", "-", "-"]
    assert command("compare", blind, "--latex").stdout.count("--") == 3
    swapped = [replace(clip, condition="normal" if clip.condition == "anomaly" else "anomaly") for clip in CLIPS]
    with pytest.raises(HarkenError, match="has the condition anomaly in one and normal in the other"):
        harken.compare([pair[0], write_run(tmp_path / "swapped", [scores_of(CLIPS, 1.0)], swapped)])


def test_a_system_is_compared_with_that_of_the_same_name(tmp_path: Path) -> None:
    tables = [scores_of(CLIPS, gap, system) for system, gap in (("knn", 0.5), ("gmm", 1.0))]
    first = write_run(tmp_path / "first", tables)
    second = write_run(tmp_path / "second", [*tables, scores_of(CLIPS, 1.5, "new")])
    done = harken.compare([first, second])
    against = {system.key: system.difference and system.difference.against for system in done.sets[0].systems}
    assert against == {
        ("first", "knn"): None,
        ("first", "gmm"): None,
        ("second", "knn"): ("first", "knn"),
        ("second", "gmm"): ("first", "gmm"),
        ("second", "new"): ("first", "knn"),
    }
    printed = command("compare", first, second).stdout
    assert "second, gmm - first, gmm" in printed
    assert "the recipes have the same parameters" in printed
    within = harken.compare([second]).sets[0].systems
    assert [system.difference and system.difference.against for system in within] == [
        None, ("second", "knn"), ("second", "knn"),
    ]  # fmt: skip
    assert [system.key for system in harken.compare([first, second], systems=["gmm"]).sets[0].systems] == [
        ("first", "gmm"), ("second", "gmm"),
    ]  # fmt: skip
    with pytest.raises(HarkenError, match=r"no run has the system 'lof'\. There are: knn, gmm"):
        harken.compare([first], systems=["lof"])


def test_the_number_of_several_seeds_is_their_mean(tmp_path: Path) -> None:
    tables = [scores_of(CLIPS, 1.0, noise=seed, seed=seed) for seed in range(3)]
    run = write_run(tmp_path / "seeds", tables)
    alone = [write_run(tmp_path / f"seed{table.seed}", [table]) for table in tables]
    (system,) = harken.compare([run]).sets[0].systems
    scores = [harken.compare([one]).sets[0].systems[0].score for one in alone]
    assert system.seeds == 3
    assert system.score == pytest.approx(np.mean(np.array(scores, dtype=float)))
    assert system.spread == pytest.approx(np.std(np.array(scores, dtype=float)))
    assert f"{system.score:.4f}±{system.spread:.4f}" in command("compare", run).stdout


def test_recipes_of_strangers_run_nothing(pair: tuple[Path, Path], tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    custom = write_run(tmp_path / "custom", [scores_of(CLIPS, 1.0)], settings={"use": f"{code}:Stage"})
    assert harken.compare([pair[0], custom]).parameters["stages.knn.use"] == ("detect", f"{code}:Stage")
    assert not (tmp_path / "ran").exists()


def test_a_real_run_has_the_number_that_it_printed(plant: Path, tmp_path: Path) -> None:
    words = ("run", "spectral_knn", "--data", plant, "--workspace", tmp_path / "w", "--workers", 1, "--json")
    first = json.loads(command(*words, "--name", "first").stdout)
    (data_set,) = json.loads(command("compare", "first", "--workspace", tmp_path / "w", "--json").stdout)[
        "sets"
    ].values()
    assert data_set["systems"][0]["official_score"] == first["sets"]["once_plant"]["spectral_knn"]["official_score"]
    moved = tmp_path / "moved"
    shutil.copytree(first["folder"], moved)
    assert harken.compare([moved]).sets[0].systems[0].score == data_set["systems"][0]["official_score"]
    assert {clip.split for clip in read_table(moved / "clips.parquet")} == {"train", "test", "supplemental"}


def test_latex_has_no_characters_of_its_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a_b", [scores_of(CLIPS, 1.0, "k&n_n 5% #1 {x} $y$ ^~")])
    latex = command("compare", run, "--latex", "--system", "k&n_n 5% #1 {x} $y$ ^~").stdout
    assert r"a\_b &" in latex
    both = write_run(tmp_path / "c", [scores_of(CLIPS, 1.0, "k&n_n 5% #1 {x} $y$ ^~"), scores_of(CLIPS, 1.0)])
    latex = command("compare", both, "--latex").stdout
    assert r"k\&n\_n 5\% \#1 \{x\} \$y\$ \textasciicircum{}\textasciitilde{} &" in latex


def test_one_form_is_printed(pair: tuple[Path, Path]) -> None:
    done = called("compare", *pair, "--csv", "--json")
    assert done.returncode == 2
    assert "--csv, --latex and --json are one choice" in done.stderr


def test_the_rule_is_that_of_the_year(tmp_path: Path) -> None:
    clips = clips_of("fan", 2021)
    (system,) = harken.compare([write_run(tmp_path / "r", [scores_of(clips, 1.0)], clips)]).sets[0].systems
    assert system.score == evaluate_system(scores_of(clips, 1.0), None, year=2021).official_score
