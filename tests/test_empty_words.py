"""An empty word on the command line is a variable that is not set, and not the current folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import harken


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit", "", "-o", "m.harken"], "an argument is empty"),
        (["fit", "normal", "-o", ""], "-o is empty"),
        (["fit", "normal", "--output="], "--output is empty"),
        (["score", "", "-m", "m.harken"], "an argument is empty"),
        (["score", "x.wav", "-m", ""], "-m is empty"),
        (["data", "index", ""], "an argument is empty"),
        (["run", "spectral_knn", "--data", "", "--workspace", "w"], "--data is empty"),
        (["run", "spectral_knn", "--data", ".", "--workspace="], "--workspace is empty"),
        (["recipe", "show", ""], "an argument is empty"),
    ],
)
def test_empty_words_are_no_paths(words: list[str], said: str, tmp_path: Path) -> None:
    done = harken(*words, code=2, folder=tmp_path)
    assert done.stderr.startswith(f"harken: {said}, as a variable that is not set is. Give a name")
    assert not [*tmp_path.iterdir()]


def test_options_of_text_may_be_empty(tmp_path: Path) -> None:
    words = ("recipe", "show", "spectral_knn")
    done = harken(*words, "--set", "stages.nearest.detector=", code=2, folder=tmp_path)
    assert done.stderr.startswith("harken: --set stages.nearest.detector=null: ")
    harken("cite", "--format", "", code=2, folder=tmp_path)
    harken(*words, "--profile", "", folder=tmp_path)
