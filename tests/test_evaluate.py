"""Official scores: equal to the published ones, and refused where anything is wrong."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import hmean

from harken.cli.main import app
from harken.core.errors import HarkenError
from harken.data.truth import read_truth
from harken.evaluation.bootstrap import bootstrap
from harken.evaluation.evaluate import Evaluation, average_ranks, evaluate
from harken.evaluation.evaluator import evaluator_machines, evaluator_numbers
from harken.evaluation.metrics import SectionResult, harmonic_mean, official_score


def write(folder: Path, name: str, rows: Iterable[tuple[str, object]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(f"{clip},{value}\n" for clip, value in rows))
    return folder


def truth_name(machine: str) -> str:
    return f"ground_truth_{machine}_section_00_test.csv"


def dev_rows(section: str = "00", seed: int = 0, clips: int = 10) -> list[tuple[str, float]]:
    """Scores of labelled clips of one section; anomalies are higher by one standard deviation."""
    rng = np.random.default_rng(seed)
    return [
        (f"section_{section}_{domain}_test_{condition}_{n:04d}_x_1.wav", float(rng.normal() + (condition == "anomaly")))
        for domain in ("source", "target")
        for condition in ("normal", "anomaly")
        for n in range(clips)
    ]


@pytest.fixture
def evaluator(tmp_path: Path) -> tuple[Path, Path]:
    """(scores, truth) of a small evaluation set in the layout of the official evaluators."""
    rng = np.random.default_rng(1)
    scores, truth = tmp_path / "Team_task2_1", tmp_path / "truth"
    for machine in ("fan", "ToyCar"):
        clips = [f"section_00_{n:04d}.wav" for n in range(40)]
        anomaly, target = rng.permutation(np.arange(40) % 2), rng.permutation(np.arange(40) % 2)
        domains = [("source", "target")[t] for t in target]
        labelled = [
            f"section_00_{d}_test_{('normal', 'anomaly')[a]}_{n + 7:04d}_spd_{n}"
            for n, (a, d) in enumerate(zip(anomaly, domains, strict=True))
        ]
        values = {"data": anomaly, "domain": target, "attributes": labelled}
        for what, column in values.items():
            write(truth / f"ground_truth_{what}", truth_name(machine), zip(clips, column, strict=True))
        write(scores, f"anomaly_score_{machine}_section_00_test.csv", zip(clips, rng.normal(size=40), strict=True))
    return scores, truth


def test_every_number_of_the_2022_evaluator(shared: Path) -> None:
    golden = shared / "golden" / "2022_eval"
    expected = json.loads((golden / "expected.json").read_text())
    done = evaluate(golden / "scores", golden)
    assert [result.system for result in done.results] == [f"Xiao_HEU-HIT_task2_{n}" for n in (4, 3, 2, 1)]
    assert not done.broken
    for result in done.results:
        theirs = expected[result.system]
        assert result.official_score == theirs["official score"]
        for key, row in theirs["sections"].items():
            ours = {**result.numbers[tuple(key.split("/"))], **result.extra[tuple(key.split("/"))]}  # type: ignore[index]
            columns = ["auc_all", "auc_source", "auc_target", "pauc"]
            columns += [f"{measure}_{d}" for measure in ("precision", "recall", "f1") for d in ("source", "target")]
            assert [ours[column] for column in columns] == row
    result = done.results[-1]
    further = evaluator_numbers(result)
    assert further == {name: expected[result.system][name] for name in further}
    assert len(further) == 6
    fan = np.array([expected[result.system]["sections"][f"fan/0{n}"] for n in (3, 4, 5)])
    auc = np.r_[fan[:, 1], fan[:, 2]]
    means = {name: row[0] for name, row in evaluator_machines(result)["fan"].items()}
    # Its evaluator splits behind the first of the six numbers.
    assert means == {
        "arithmetic mean": np.mean(auc), "harmonic mean": hmean(auc),
        "source harmonic mean": auc[0], "target harmonic mean": pytest.approx(hmean(auc[1:]), rel=1e-15),
    }  # fmt: skip


@pytest.mark.parametrize(("name", "scores"), [("2025_dev", ""), ("2022_dev", "scores.csv.gz")])
def test_development_results(shared: Path, name: str, scores: str) -> None:
    folder = shared / "golden" / name
    with (folder / "expected.csv").open(newline="") as handle:
        expected = {row["system"]: row for row in csv.DictReader(handle)}
    done = evaluate(folder / scores)
    assert {result.system for result in done.results} == expected.keys()
    for result in done.results:
        row = expected[result.system]
        columns = {"auc_source": "hmean_auc_s", "auc_target": "hmean_auc_t", "pauc": "hmean_pauc"}
        assert result.summary == {
            "official_score": float(row["official_score"]),
            **{ours: float(row[theirs]) for ours, theirs in columns.items()},
        }
        assert len(result.numbers) == int(row["n_sections"])


def test_published_totals_of_the_baseline(shared: Path) -> None:
    published = json.loads((shared / "golden" / "baseline_eval_published.json").read_text())
    for systems in published.values():
        for row in systems.values():
            machines = sorted(row["AUC (source)"].keys() - {"hmean", "amean"})
            measures = ("AUC (source)", "AUC (target)", "pAUC (source, target)")
            rows = [SectionResult(*(row[measure][machine] for measure in measures)) for machine in machines]
            assert official_score(rows) == row["TOTAL score"]["hmean"]


def test_labelled_names_are_mapped_back(evaluator: tuple[Path, Path], tmp_path: Path) -> None:
    """Copies of the evaluation clips carry labels in other numbers; positions would mix them up."""
    scores, truth = evaluator
    renamed = tmp_path / "renamed"
    for file in scores.iterdir():
        machine = file.name.split("_")[2]
        with (truth / "ground_truth_attributes" / truth_name(machine)).open(newline="") as handle:
            alias = dict(csv.reader(handle))
        with file.open(newline="") as handle:
            rows = [(f"{alias[clip]}.wav", value) for clip, value in csv.reader(handle)]
        write(renamed, file.name, rows)  # type: ignore[arg-type]
    assert evaluate(renamed, truth).results[0].numbers == evaluate(scores, truth).results[0].numbers


@pytest.mark.parametrize(
    "spelling",
    [
        "anomaly_score_{m}_section_00_test.csv",
        "anomaly_score_{m}_section_00.csv",
        "anomaly_score_DCASE2023T2{m}_section_00_test_seed13711_id(0_)_Eval.csv",
        "anomaly_score_DCASE2025T2{m}_section_00_test_seed13711.csv",
    ],
)
def test_accepted_spellings(evaluator: tuple[Path, Path], tmp_path: Path, spelling: str) -> None:
    scores, truth = evaluator
    for file in scores.iterdir():
        (tmp_path / "again").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "again" / spelling.format(m=file.name.split("_")[2]))
    assert evaluate(tmp_path / "again", truth).results[0].numbers == evaluate(scores, truth).results[0].numbers


def test_two_seeds_in_a_folder_are_two_systems(tmp_path: Path) -> None:
    for seed in (1, 2):
        write(tmp_path, f"anomaly_score_DCASE2023T2fan_section_00_test_seed{seed}.csv", dev_rows(seed=seed))
    done = evaluate(tmp_path)
    assert len(done.results) == 2
    assert done.results[0].official_score > done.results[1].official_score


def test_2021_is_scored_within_domains(tmp_path: Path) -> None:
    rows = dev_rows()
    for domain in ("source", "target"):
        write(tmp_path, f"anomaly_score_fan_section_00_{domain}_test.csv", [row for row in rows if domain in row[0]])
    (result,) = evaluate(tmp_path).results
    assert result.rule == "domain_adaptation"
    extra, numbers = result.extra["fan", "00"], result.numbers["fan", "00"]
    four = [
        value
        for domain in ("source", "target")
        for value in (extra[f"auc_{domain}_within_domain"], extra[f"pauc_{domain}_within_domain"])
    ]
    assert [numbers["auc_source"], numbers["pauc_source"], numbers["auc_target"], numbers["pauc_target"]] == four
    assert result.official_score == harmonic_mean(four)
    rows_NR = np.reshape(four, (2, 2))
    assert list(evaluator_numbers(result).values()) == [rows_NR.mean(axis=0).tolist(), hmean(rows_NR).tolist()]
    assert list(evaluator_machines(result)["fan"].values()) == list(evaluator_numbers(result).values())
    # The rule of another year on the same files is another number.
    assert evaluate(tmp_path, year=2022).results[0].official_score != result.official_score


def test_2020_is_averaged_over_ids_and_ranked_by_ranks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = ["fan"]
    rows: dict[str, list[str]] = {}
    for section in ("01", "03"):
        rows[section] = [f"id_{section}_{n:08d}.wav" for n in range(20)]
        for n, clip in enumerate(rows[section]):
            label = "anomaly" if n % 3 == 0 else "normal"
            truth.append(f"{clip},{label}_id_{section}_{n:08d}.wav,{int(n % 3 == 0)}")
    (tmp_path / "eval_data_list.csv").write_text("\n".join(truth) + "\n")
    for system in ("a", "b"):
        for section, clips in rows.items():
            scored = zip(clips, rng.normal(size=20), strict=True)
            write(tmp_path / "teams" / system, f"anomaly_score_fan_id_{section}.csv", scored)
    done = evaluate(tmp_path / "teams", tmp_path / "eval_data_list.csv")
    for result in done.results:
        assert result.rule == "machine_id"
        means = [np.mean([row[name] for row in result.numbers.values()]) for name in ("auc", "pauc")]
        assert result.official_score == np.mean(means)
        assert evaluator_numbers(result) == {}
        assert evaluator_machines(result) == {"fan": {"Average": means}}
    ranks = average_ranks(done.results)
    assert ranks == sorted(ranks)
    assert sum(ranks) == 3.0


def test_labels_that_are_known_to_be_wrong_are_not_used(tmp_path: Path) -> None:
    """The 2022 list mixes up the toys; the evaluator's folders do not."""
    lines, rows = ["ToyCar"], []
    for n in range(8):
        label = ("source", "target")[n % 2], ("normal", "anomaly")[n // 4]
        lines.append(f"section_03_{n:04d}.wav,section_03_{label[0]}_test_{label[1]}_{n:04d}_x.wav")
        rows.append((f"section_03_{n:04d}.wav", float(n)))
    (tmp_path / "eval_data_list_2022.csv").write_text("\n".join(lines))
    write(tmp_path / "s", "anomaly_score_ToyCar_section_03_test.csv", rows)
    with pytest.raises(HarkenError, match="wrong labels"):
        evaluate(tmp_path / "s", tmp_path / "eval_data_list_2022.csv")


BROKEN = {
    "missing": (lambda rows: rows[1:], "has no scores for section_00_0000"),
    "extra": (lambda rows: [*rows, ("section_00_9999.wav", 1.0)], "clips unknown to the truth: section_00_9999"),
    "twice": (lambda rows: [*rows, rows[3]], "section_00_0003 occurs twice"),
    "nan": (lambda rows: [(rows[0][0], float("nan")), *rows[1:]], "the score of section_00_0000 is nan"),
    "infinite": (lambda rows: [(rows[0][0], float("inf")), *rows[1:]], "the score of section_00_0000 is inf"),
    "text": (lambda rows: [("file", "score"), *rows], "has no number"),
    "other section": (lambda rows: [("section_01_0000.wav", 0.0), *rows[1:]], "is of section 01"),
    "empty": (lambda rows: [], "is empty"),
    "wrong label": (
        lambda rows: [("section_00_source_test_anomaly_0007_spd_0.wav", 0.5), *rows[1:]],
        "the truth does not know|contradict|no scores",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_with_its_reason(evaluator: tuple[Path, Path], case: str) -> None:
    scores, truth = evaluator
    change, message = BROKEN[case]
    file = scores / "anomaly_score_fan_section_00_test.csv"
    with file.open(newline="") as handle:
        rows = [(clip, float(value)) for clip, value in csv.reader(handle)]
    write(scores, file.name, change(rows))  # type: ignore[no-untyped-call]
    with pytest.raises(HarkenError, match=message):
        evaluate(scores, truth)


def test_a_missing_section_is_no_reason_to_score_the_rest(evaluator: tuple[Path, Path]) -> None:
    scores, truth = evaluator
    (scores / "anomaly_score_fan_section_00_test.csv").unlink()
    with pytest.raises(HarkenError, match="no scores of fan section 00"):
        evaluate(scores, truth)
    assert len(evaluate(scores, truth, machines=["ToyCar"]).results[0].numbers) == 1


def test_names_without_labels_need_a_truth(evaluator: tuple[Path, Path]) -> None:
    with pytest.raises(HarkenError, match="does not say whether"):
        evaluate(evaluator[0])


def test_truth_that_contradicts_itself(evaluator: tuple[Path, Path]) -> None:
    _, truth = evaluator
    domain = truth / "ground_truth_domain" / "ground_truth_fan_section_00_test.csv"
    domain.write_text("section_00_0000.wav,0\n")
    with pytest.raises(HarkenError, match="other clips than ground_truth_data"):
        read_truth(truth)


def test_one_broken_system_among_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("good", "better"):
        write(tmp_path / name, "anomaly_score_fan_section_00_test.csv", dev_rows(seed=len(name)))
    clip = "section_00_source_test_normal_0000.wav"
    write(tmp_path / "bad", "anomaly_score_fan_section_00_test.csv", [(clip, float("nan"))])
    done = evaluate(tmp_path)
    assert isinstance(done, Evaluation)
    assert len(done.results) == 2
    assert done.broken[0].name == "bad"
    assert app(args=["evaluate", str(tmp_path), "--json"], standalone_mode=False) == 2
    printed = json.loads(capsys.readouterr().out)
    assert [row["system"] for row in printed["systems"]] == [result.system for result in done.results]
    assert "nan" in printed["failed"][0]["error"]


def test_the_json_of_one_system(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "anomaly_score_fan_section_00_test.csv", dev_rows())
    decided = [(clip, int(value > 0.5)) for clip, value in dev_rows()]
    write(tmp_path, "decision_result_fan_section_00_test.csv", decided)
    app(args=["evaluate", str(tmp_path), "--json", "--full", "--bootstrap", "100"], standalone_mode=False)
    data = json.loads(capsys.readouterr().out)
    section = data["machines"]["fan"]["section_00"]
    assert data["official_score"] == harmonic_mean([section["auc_source"], section["auc_target"], section["pauc"]])
    assert data["auc_source"] == pytest.approx(section["auc_source"], rel=1e-15)
    assert 0 < section["f1_source"] <= 1
    low, high = data["official_score_interval"]
    assert low < data["official_score"] < high
    assert len(data["evaluator"]["arithmetic mean over all machine types, sections, and domains"]) == 5


def test_the_interval_is_as_wide_as_the_score_spreads(tmp_path: Path) -> None:
    """Over many draws of clips the official score spreads about as widely as one interval says."""
    scores, widths = [], []
    for seed in range(60):
        write(tmp_path / str(seed), "anomaly_score_fan_section_00_test.csv", dev_rows(seed=seed, clips=50))
        (result,) = evaluate(tmp_path / str(seed)).results
        interval = bootstrap(result, draws=300, seed=seed)
        scores.append(result.official_score)
        widths.append((interval.high - interval.low) / (2 * 1.96))
    assert np.mean(widths) == pytest.approx(np.std(scores), rel=0.25)


def test_resampled_numbers_are_those_of_resampled_clips() -> None:
    """The counting shortcut against scikit-learn with weights, ties included."""
    from sklearn.metrics import roc_auc_score

    from harken.evaluation.bootstrap import _areas

    rng = np.random.default_rng(0)
    scores = -np.sort(-rng.integers(0, 12, size=60).astype(float))
    anomaly = rng.integers(0, 2, size=60).astype(bool)
    counts = rng.integers(0, 3, size=(5, 60)).astype(float)
    levels = np.r_[0, np.flatnonzero(np.diff(scores)) + 1]
    for partial in (False, True):
        ours = _areas(counts, anomaly, levels, partial)
        limit = 0.1 if partial else None
        theirs = [roc_auc_score(anomaly, scores, sample_weight=row, max_fpr=limit) for row in counts]
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
