"""Labels of test clips that had a part in a number are said wherever it stands: in every verb and in the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from harken.bench.marks import use_of_labels
from harken.bench.recipe import load_recipe
from harken.bench.result import Run
from harken.bench.run import run_recipe
from harken.bench.workspace import Workspace
from harken.cli.main import app
from harken.evaluation.evaluate import evaluate
from harken.evaluation.scores import PUBLISHED, SEEN, TRANSDUCTIVE, TUNED
from harken.plant.simulate import simulate

RECIPE = {
    "name": "chosen", "title": "Checkpoints chosen by labels", "summary": "A tiny network.", "seeds": [0],
    "stages": {
        "labels": {"use": "labels", "policy": "sjtu_aithu"},
        "net": {
            "use": "train", "from": "labels",
            "model": {"branches": [{"encoder": "dasheng", "size": "tiny", "head": {"kind": "mean"}}]},
            "training": {"steps": 2, "batch": 8, "seconds": 0.5, "evaluate_every": 2, "keep": 1, "choose": "dev",
                         "losses": [{"name": "arcface"}]},
        },
        "vectors": {"use": "embed_trained", "from": "net"},
        "a": {"use": "detect", "from": "vectors", "detector": "knn"},
        "b": {"use": "detect", "from": "vectors", "detector": "mahalanobis"},
    },
    "systems": {"a": "a", "b": "b"},
    "ensembles": {"even": {"members": ["a", "b"]}},
    "profiles": {"full": {}, "tiny": {}},
}  # fmt: skip
SIZES = {"train_source": 8, "train_target": 3, "test_per_condition": 3, "supplemental": 0, "seconds": 1.0}
META = "submission: {name: T, abbreviation: T, authors: [{lastname: A, firstname: B, affiliation: {institute: I}}]}"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on clips of 2022: section 00 of each machine is of the development set, 03 of the evaluation set."""
    root = tmp_path_factory.mktemp("marks")
    for seed, section in enumerate(("00", "03")):
        simulate(root / section, machines=["fan", "valve"], seed=seed, **SIZES)  # type: ignore[arg-type]
        for file in sorted((root / section).rglob("section_00*.wav")):
            place = root / "dcase2022" / file.relative_to(root / section).parent
            place.mkdir(parents=True, exist_ok=True)
            shutil.move(file, place / file.name.replace("section_00", f"section_{section}"))
    (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return run_recipe(load_recipe(str(root / "recipe.yaml")), root / "dcase2022", Workspace(root / "work"), workers=1)


def call(*words: object) -> None:
    app(args=[str(word) for word in words], standalone_mode=False)


def test_an_evaluation_set_of_the_same_machines_is_not_free_of_labels(done: Run) -> None:
    shown = {(one.set, one.system): one for one in done.systems}
    assert {(of, name): list(one.marks) for (of, name), one in shown.items()} == {
        (of, name): [mark]
        for of, mark in (("dcase2022 dev", TUNED), ("dcase2022 eval", SEEN))
        for name in ("a", "b", "even")
    }
    assert "fan, valve" in shown["dcase2022 eval", "a"].marks[SEEN]
    for of in ("dcase2022 dev", "dcase2022 eval"):
        mixed = shown[of, "even"]
        assert mixed.mix is not None
        assert not mixed.mix.label_free
        assert mixed.left_out is None
    page = (done.folder / "report.html").read_text()
    assert "and nothing else" not in page
    assert "marked “tuned on test”; labels of other test clips of the same machines chose" in page
    assert "even (machines seen with labels)" in page


def test_every_verb_says_it(done: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = tmp_path / "bag.yaml"
    call("ensemble", "fit", done.folder, "--data-set", "dcase2022 eval", "--method", "uniform", "--bootstrap", 0,
         "-o", bag)  # fmt: skip
    printed = capsys.readouterr()
    assert "machines seen with labels, so that no number here is of machines left out" in printed.err
    (line,) = [line for line in printed.out.splitlines() if line.startswith("uniform  ")]
    assert line.split()[2:] == ["#", "-"]
    assert "used labels of these machines" in printed.out
    call("ensemble", "show", bag)
    assert ", machines seen with labels; plain mean" in capsys.readouterr().out
    call("ensemble", "score", bag, "-o", tmp_path / "mixed", "--json")
    assert list(json.loads(capsys.readouterr().out)["marks"]) == [SEEN]
    call("evaluate", tmp_path / "mixed")
    assert capsys.readouterr().out.splitlines()[-1].endswith("(machines seen with labels)")
    (tmp_path / "meta.yaml").write_text(META)
    call("submit", done.folder, "--system", "even", "--label", "Doe_EX_task2", "--data-set", "dcase2022 eval",
         "--meta", tmp_path / "meta.yaml", "-o", tmp_path / "s.zip")  # fmt: skip
    assert "Doe_EX_task2_1: even (machines seen with labels)" in capsys.readouterr().err
    assert list(evaluate(tmp_path / "s.zip").results[0].marks) == [SEEN]


def test_weights_fitted_on_other_clips_of_the_same_machines(
    done: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = tmp_path / "bag.yaml"
    words = ["ensemble", "fit", done.folder, "--data-set", "dcase2022 dev", "--bootstrap", 0, "-o", bag]
    call(*words)
    # A gain of members that saw labels of these machines is no reason to keep weights.
    assert "it is unknown whether greedy weights help on another: the plain mean is kept" in capsys.readouterr().out
    call(*words, "--keep-fitted")
    call("ensemble", "score", bag, done.folder, "--data-set", "dcase2022 eval", "-o", tmp_path / "mixed")
    (result,) = evaluate(tmp_path / "mixed").results
    assert result.marks[SEEN].startswith("the weights of bag were chosen by the labels of")


def test_the_sentence_on_labels_is_made_from_the_marks() -> None:
    assert use_of_labels([{}, {}]).endswith("for the numbers above and nothing else.")
    said = use_of_labels([{TUNED: ""}, {TRANSDUCTIVE: "", PUBLISHED: ""}, {"mark of a team": ""}])
    for mark in (TUNED, TRANSDUCTIVE, PUBLISHED, "mark of a team"):
        assert f"“{mark}”" in said
    assert SEEN not in said
    assert "nothing else" not in said
