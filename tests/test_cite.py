"""What to cite comes from recipes and catalogues."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from harken.bench.cite import bibtex
from harken.bench.recipe import list_recipes, load_recipe
from harken.core.version import __version__


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_gives_whole_entries(name: str) -> None:
    text = bibtex(load_recipe(name, profile="full"))
    assert text.count("{") == text.count("}")
    keys = re.findall(r"^@misc\{(\w+),$", text, re.M)
    assert len(keys) == len(set(keys))
    assert keys[0] == "harken"
    assert re.search(rf"^@misc\{{{name}(_1)?,$", text, re.M) or not load_recipe(name).reference


def test_system_encoders_and_data_are_named() -> None:
    text = bibtex(load_recipe("nwpu_fusion", profile="full"))
    assert "title = {{BEATs: Audio Pre-Training with Acoustic Tokenizers}}" in text
    assert "author = {W. Chen and Y. Liang and Z. Ma and Z. Zheng and X. Chen}" in text
    assert "https://zenodo.org/records/15097779" in text
    assert "dasheng" not in text


def test_the_citation_file_is_of_this_version() -> None:
    root = Path(__file__).parents[1]
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert str(citation["version"]) == __version__
    assert citation["license"] == project["license"]
