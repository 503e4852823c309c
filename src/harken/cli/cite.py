"""harken cite: what to cite for a recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from harken.cli.console import line
from harken.cli.recipe_options import Trust


def cite(
    recipe: Annotated[str, typer.Argument(help="A recipe name or a YAML file.", show_default=False)],
    trust: Trust = False,
) -> None:
    """Print BibTeX entries for a recipe's system, its encoders and its data."""
    from harken.bench.cite import bibtex
    from harken.bench.recipe import load_recipe
    from harken.core.plugins import without_custom_code

    with without_custom_code(not trust):
        chosen = load_recipe(recipe, profile="full")
    line(bibtex(chosen), end="")
