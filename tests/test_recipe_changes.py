"""An error of a value from the command line names the option that it came by, one of the file its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from command_line import harken
from harken.bench.recipe import load_recipe, recipe_text
from harken.core.errors import HarkenError

NEAREST = "stages.nearest"


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({f"{NEAREST}.detector": "knnn"}, f"--set {NEAREST}.detector=knnn"),
        # Of what is around the value, of another place that does not fit it, and through a parameter of the recipe.
        ({f"{NEAREST}.parameters.k": 3}, f"--set {NEAREST}.parameters.k=3"),
        ({"stages.x.y": 1}, "--set stages.x.y=1"),
        ({"stages.*.encoder": "zz"}, "--set stages.*.encoder=zz"),
        ({f"{NEAREST}.parameters": {"neighbours": 0}}, f'--set {NEAREST}.parameters={{"neighbours":0}}'),
        ({"systems.mine": "gone"}, "--set systems.mine=gone"),
        ({"score_years": "all", "title": "x"}, "--set score_years=all"),
        ({"title": "x", "seeds": [1, 1], f"{NEAREST}.model": "zz"}, f"--set {NEAREST}.model=zz"),
    ],
)
def test_errors_of_changes_name_the_change(changes: dict[str, Any], option: str) -> None:
    with pytest.raises(HarkenError) as error:
        load_recipe("spectral_knn", changes=changes)
    assert error.value.file == option
    assert "the file" not in str(error.value)


def test_errors_through_a_parameter_name_it() -> None:
    with pytest.raises(HarkenError) as error:
        load_recipe("finetune", changes={"encoder": "nope"})
    assert error.value.file == "--set encoder=nope"


def test_errors_of_the_file_name_its_line_whatever_is_changed(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(recipe_text("spectral_knn").replace("detector: knn", "detector: knnn"))
    line = file.read_text().splitlines().index("    detector: knnn") + 1
    for changes in ({}, {"title": "x"}, {f"{NEAREST}.false_alarms": "5%"}):
        with pytest.raises(HarkenError, match=f"r.yaml, line {line}: .*'knnn'"):
            load_recipe(str(file), changes=changes)


@pytest.mark.parametrize(
    "words",
    [
        ["recipe", "show", "spectral_knn", "--set", "stages.nearest.parameters.k=3"],
        ["plan", "spectral_knn", "--data", ".", "--set", "stages.nearest.parameters.k=3"],
        ["run", "spectral_knn", "--data", ".", "--workspace", "w", "--sweep", "stages.nearest.parameters.k=3,4"],
    ],
)
def test_commands_show_the_option(words: list[str], tmp_path: Path) -> None:
    done = harken(*words, code=2, folder=tmp_path)
    assert done.stderr.startswith(f"harken: {words[-2]} stages.nearest.parameters.k=3: stages.nearest: knn has no")
    assert not [*tmp_path.iterdir()]
