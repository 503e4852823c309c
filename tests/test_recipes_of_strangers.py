"""Recipes from strangers: bounded, refused with the line of what is wrong, and never run by looking at them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from command_line import harken
from harken.bench.recipe import load_recipe, recipe_text
from harken.core.errors import HarkenError
from harken.core.names import alike, why_no_file_name
from harken.core.plain_yaml import read_yaml
from harken.core.plugins import UntrustedError, without_custom_code

RECIPE = recipe_text("spectral_knn")
LINES = RECIPE.splitlines()


def edited(tmp_path: Path, old: str, new: str) -> tuple[str, int]:
    """A recipe file with one text replaced, and the line of that text."""
    assert RECIPE.count(old) == 1
    file = tmp_path / "r.yaml"
    file.write_text(RECIPE.replace(old, new))
    return str(file), RECIPE[: RECIPE.index(old)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    encoder: spectral\n", "    encodr: spectral\n", "unknown key stages.embed.encodr. Did you mean encoder"),
        ("    encoder: spectral\n", "    encoder: spectrl\n", "unknown encoder 'spectrl'"),
        ("    use: embed\n", "    use: embedd\n", "there is no kind of stage 'embedd'"),
        ("    from: embed\n", "    from: [3, {}]\n", "stage nearest reads"),
        ("    from: embed\n", "    from: ebmed\n", "reads 'ebmed', which is not there. Did you mean embed"),
        ("    detector: knn\n", "    detector: knm\n", "unknown detector 'knm'"),
        ("    detector: knn\n", "    detector: [knn]\n", "stages.nearest.detector"),
        ("seeds: [0]", "seeds: [0, x]", "seeds.1"),
        ("seeds: [0]", 'seeds: [0, "1_000"]', "seeds.1: '1_000' is not a number"),
        ("seeds: [0]", f"seeds: {list(range(1001))}", "seeds are 1 to 1000 different"),
        ("seeds: [0]", "seeds: 3", "seeds"),
        ("  tiny: {}", "  tiny: {stages.embed.pooling: 3}", "stages.embed.pooling"),
        ("  tiny: {}", "  tiny: [3]", "tiny is .3., not a mapping of names"),
        ("  spectral_knn: nearest", "  spectral_knn: [nearest]", "systems.spectral_knn"),
        ("  spectral_knn: nearest", "  CON: nearest", "'CON' cannot be .* the name of a device"),
        ("name: spectral_knn", "name: ../../../x", "cannot be the name of a folder"),
        ("name: spectral_knn", "name: x.", "ends in a full stop"),
        ("  spectral_knn: nearest", "  a: nearest\n  A: nearest", "'a' and 'A' are one folder"),
    ],
)  # fmt: skip
def test_an_error_names_its_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    file, line = edited(tmp_path, old, new)
    with pytest.raises(HarkenError, match=message) as caught:
        load_recipe(file, profile="tiny")
    if "one folder" not in message:
        assert str(caught.value).startswith(f"{file}, line {line}: "), caught.value


def test_a_value_that_was_set_has_no_line() -> None:
    with pytest.raises(HarkenError, match="unknown encoder") as caught:
        load_recipe("spectral_knn", changes={"stages.embed.encoder": "spectrl"})
    assert "line" not in str(caught.value).split(":")[0]


ODD = {
    "a bomb": "a: &a [x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefgh")),
    "a bomb of merges": "a: &a {x: 1}\n"
    + "".join(f"{b}: &{b}\n  <<: [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefgh")),
    "a circle": "stages: &s\n  a: *s\n",
    "deep": "[" * 5000,
    "long": "x" * 5_000_000,
    "a key twice": "name: a\nstages: {}\nname: b\n",
    "a list as key": "? [a]\n: 1\n",
    "a truth as key": "stages: {}\nyes: 1\n",
    "an object": "stages: !!python/object/apply:os.system [true]\n",
    "a set": "stages: !!set {a}\n",
    "NUL": 'stages: {}\nname: "a\\0b"\n',
    "control": "stages: \x07\n",
    "nothing": "",
    "a list": "[1, 2]",
    "a text": "hello",
    "stages in a list": "stages: [a]\n",
    "a stage in a list": "stages: {a: [1]}\n",
    "repeat of everything": "repeat:\n- over: {a: [" + "1, " * 2000 + "2]}\n",
    "repeat of texts": "repeat: {over: 3}\n",
    "repeat over lists": "repeat:\n- over: {a: [[1], {}]}\n",
    "repeat of a list": "repeat:\n- over: {a: [1]}\n  stages: [x]\n",
    "when": "stages: {}\nwhen: 3\n",
    "when of a list": "stages: {}\nparameters: {a: b}\nwhen: {a: [1]}\n",
    "when of a text": "stages: {}\nparameters: {a: b}\nwhen: {a: {b: c}}\n",
    "parameters": "stages: {}\nparameters: [1]\n",
    "profiles": "stages: {}\nprofiles: [full]\n",
    "ensembles": "stages: {}\nensembles: {a: {members: {b: {}}}}\n",
    "systems": "stages: {}\nsystems: 3\n",
    "submission": "stages: {}\nname: a\ntitle: b\nsystems: {}\nsubmission: {a: 1}\n",
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_recipes_are_refused_and_soon(name: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(ODD[name])
    with pytest.raises(HarkenError) as caught:
        load_recipe(str(tmp_path / "r.yaml"))
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["1_000", "010", "0x1f", "0b1", "1:30", "00", "-1_0", "1_0.5", "!!int 1_0"])
def test_texts_that_some_readers_take_for_numbers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"line 1: .* may be a number or a text"):
        read_yaml(text)
    if "!" not in text:
        assert read_yaml(f"'{text}'") == text


def test_a_long_list_is_not_even_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harken.core.plain_yaml._MOST_VALUES", 1000)
    with pytest.raises(ValueError, match=r"line 2: it has more than 1,000 values$"):
        read_yaml("name: x\nz: [" + "1," * 2000 + "[")  # what follows would not be valid


def test_plain_values() -> None:
    text = "{a: 1e-4, b: -3, c: 1.5, d: yes, e: ~, f: 2025-01-01, 7: x, g: .5, h: '１２', i: 1.0e-05}"
    assert read_yaml(text) == {
        "a": 1e-4, "b": -3, "c": 1.5, "d": True, "e": None, "f": "2025-01-01", "7": "x", "g": 0.5, "h": "１２",
        "i": 1e-5,
    }  # fmt: skip


# ----------------------------------------------------------------- trust

CODE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from harken.bench.stages import Stage
from harken.detection.knn import KNN
class Mine(KNN):
    pass
class Parts(Stage):
    pass
"""


def test_nothing_runs_by_looking_at_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    changes = ["--set", "stages.nearest.detector=mine.py:Mine", "--set", "stages.embed.encoder=mine.py:Mine"]
    done = harken("plan", "spectral_knn", *changes, "--json", folder=tmp_path)
    assert any("custom code, mine.py:Mine" in text for text in json.loads(done.stdout)["missing"])
    harken("recipe", "show", "spectral_knn", *changes, folder=tmp_path)
    assert not (tmp_path / "ran").exists()
    harken("plan", "spectral_knn", *changes, "--trust", folder=tmp_path)
    assert (tmp_path / "ran").exists()


def test_custom_stages_are_loaded_with_trust_only(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "r.yaml").write_text(RECIPE.replace("use: embed", "use: mine.py:Parts"))
    done = harken("recipe", "show", "r.yaml", folder=tmp_path)
    assert done.stdout == (tmp_path / "r.yaml").read_text()
    assert "note: not all of it is checked: names custom code, mine.py:Parts, which was not run" in done.stderr
    for words in (["recipe", "show", "r.yaml", "--profile", "tiny"], ["plan", "r.yaml"], ["cite", "r.yaml"]):
        done = harken(*words, code=2, folder=tmp_path)
        assert "Read it, and add --trust if you trust it" in done.stderr
    assert not (tmp_path / "ran").exists()
    harken("plan", "r.yaml", "--trust", code=2, folder=tmp_path)
    assert (tmp_path / "ran").exists()


def test_packages_are_not_imported_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger_package").mkdir()
    (tmp_path / "stranger_package" / "__init__.py").write_text("raise SystemError('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with without_custom_code(), pytest.raises(UntrustedError):
        load_recipe("spectral_knn", changes={"stages.embed.use": "stranger_package.inside:Stage"})


# ----------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name", ["CON", "nul", "com1.yaml", "LPT³", "a.", "a ", "a:b", "a*", "", "..", "a/b", "a\\b", "a\nb", "ä" * 200]
)
def test_names_that_some_system_forbids(name: str) -> None:
    assert why_no_file_name(name)


def test_names_that_all_systems_allow() -> None:
    assert [why_no_file_name(name) for name in ("a", "ä b", "console", "com0", ".hidden", "a.b-c_d")] == [None] * 6
    assert alike(["a", "b", "A"]) == ("a", "A")
    assert alike(["\u00e9", "e\u0301"]) == ("\u00e9", "e\u0301")
    assert alike(["a", "a", "b"]) is None
