"""A run is read back, whole or copied; the page that says so runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from glob import glob
from pathlib import Path

import numpy as np
import pytest

import harken
from harken.bench.plot import plot, save_figure
from harken.cli.main import app
from harken.core.errors import HarkenError

PAGE = (Path(__file__).parents[1] / "docs" / "reading-runs.md").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every command and program of the page has run, in order."""
    folder = tmp_path_factory.mktemp("reading")
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MPLBACKEND", "agg")
        for language, text in re.findall(r"```(\w*)\n(.*?)```", PAGE, re.S):
            if language == "python":
                exec(text, names)
                continue
            for line in text.splitlines():
                words = [name for word in shlex.split(line)[1:] for name in (glob(word) if "*" in word else [word])]
                if words[0] == "run":
                    words += ["--workers", "1"]
                assert app(args=words, standalone_mode=False) in (0, None)
    return folder


@pytest.fixture
def folder(place: Path) -> Path:
    return next((place / "work" / "runs").iterdir())


def test_the_page_draws_its_figures(place: Path) -> None:
    for name in ("embedding.png", "det.png", "tsne.png", "roc.png"):
        assert (place / name).read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (place / "roc.svg").read_bytes()


def test_scores_are_those_of_the_files(folder: Path) -> None:
    run = harken.load_run(folder)
    rows = run.scores[(run.scores.split == "test") & (run.scores.machine == "fan")]
    (file,) = folder.glob("scores/**/anomaly_score_fan_section_00_test.csv")
    written = dict(line.split(",") for line in file.read_text().split())
    assert {name.removesuffix(".wav"): score for name, score in zip(rows.file, rows.score, strict=True)} == {
        name.removesuffix(".wav"): float(score) for name, score in written.items()
    }
    assert set(rows.condition) == {"normal", "anomaly"}
    assert set(rows.marks) == {""}


def test_vectors_belong_to_their_clips(folder: Path) -> None:
    run = harken.load_run(folder)
    every_ND, clips = run.embeddings("embed")
    fan_ND, fan = run.embeddings("embed", machine="fan")
    assert len(every_ND) == len(clips)
    assert set(fan.machine) == {"fan"}
    np.testing.assert_array_equal(every_ND[(clips.machine == "fan").to_numpy()], fan_ND)


def test_objects_name_what_they_read(folder: Path) -> None:
    run = harken.load_run(folder)
    objects = run.tasks.set_index("task")["object"]
    key = objects["nearest/plant/fan"]
    about = json.loads((run.workspace / "objects" / key[:2] / key / "stage.json").read_text())
    assert [read["key"] for read in about["inputs"]["embeddings"]] == [objects["embed/plant/fan"]]


def test_a_copied_run_says_what_needs_the_workspace(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "a" / "b" / "copy")
    copy = harken.load_run(tmp_path / "a" / "b" / "copy")
    assert len(copy.scores) == len(harken.load_run(folder).scores)
    assert copy.recipe == harken.load_run(folder).recipe
    with pytest.raises(HarkenError, match=r"not in the workspace .*Give the workspace"):
        copy.embeddings("embed")
    again = harken.load_run(copy.folder, workspace=folder.parent.parent)
    assert len(again.embeddings("embed", machine="valve")[0])


def test_mistakes_name_the_nearest(folder: Path, tmp_path: Path) -> None:
    run = harken.load_run(folder)
    with pytest.raises(HarkenError, match=r"no stage 'embd'.*Did you mean embed"):
        run.embeddings("embd")
    with pytest.raises(HarkenError, match=r"no machine 'fam'.*Did you mean fan"):
        run.embeddings("embed", machine="fam")
    with pytest.raises(HarkenError, match=r"no stage of the kind train"):
        plot(run, "history")
    with pytest.raises(HarkenError, match=r"no figure 'rok'.*Did you mean roc"):
        plot(run, "rok")
    with pytest.raises(HarkenError, match=r"ends in \.png or \.svg"):
        save_figure(plot(run, "roc"), tmp_path / "figure.jpeg")
    with pytest.raises(HarkenError, match="is not a run"):
        harken.load_run(tmp_path)
