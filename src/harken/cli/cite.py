"""harken cite: what to cite for a recipe."""

from __future__ import annotations

from typing import Annotated

import typer


def cite(recipe: Annotated[str, typer.Argument(help="A recipe name or a YAML file.", show_default=False)]) -> None:
    """Print BibTeX entries for a recipe's system, its encoders and its data."""
    from harken.bench.cite import bibtex
    from harken.bench.recipe import load_recipe

    print(bibtex(load_recipe(recipe, profile="full")), end="")
