"""harken recipe: the recipes that harken run takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, key_values, line, say
from harken.cli.recipe_options import Trust
from harken.core.names import shown

app = typer.Typer(help="Recipes: list, show, copy.", no_args_is_help=True)


@app.command("list")
def list_(json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the recipes that come with Harken."""
    from harken.bench.recipe import list_recipes, load_recipe

    recipes = [load_recipe(name) for name in list_recipes()]
    if json:
        emit([{"name": recipe.name, "title": recipe.title, "summary": recipe.summary} for recipe in recipes])
        return
    for recipe in recipes:
        line(f"{recipe.name:<16} {recipe.title}")


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(help="A recipe name or a YAML file.", show_default=False)],
    profile: Annotated[str | None, typer.Option(help="Show it resolved with this profile.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Show it resolved with key=value.")] = None,
    trust: Trust = False,
) -> None:
    """Print the YAML of a recipe with its comments; with --profile or --set, as it would run."""
    from harken.bench.recipe import DEFAULT_PROFILE, load_recipe, recipe_text
    from harken.core.plugins import UntrustedError, custom_names, without_custom_code

    as_written = profile is None and not set_
    try:
        with without_custom_code(not trust):
            resolved = load_recipe(recipe, profile=profile or DEFAULT_PROFILE, changes=key_values(set_ or []))
    except UntrustedError as error:
        if not as_written:
            raise
        say(f"note: not all of it is checked: {error}")
    else:
        custom = sorted(set(custom_names(resolved.model_dump(mode="json"))))
        if custom and not trust:
            say(f"note: names custom code, {', '.join(map(shown, custom))}, which was not loaded")
    line(recipe_text(recipe) if as_written else resolved.as_yaml(), end="")


@app.command()
def copy(
    recipe: Annotated[str, typer.Argument(help="A recipe name.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
) -> None:
    """Copy a recipe to a file, to edit it and run it by its path."""
    from harken.bench.recipe import recipe_text
    from harken.core.errors import HarkenError
    from harken.core.files import write_atomically

    text = recipe_text(recipe)
    if file.exists():
        raise HarkenError("is there already", file=file, next_step="Name another file or remove it")
    if not file.parent.is_dir():
        raise HarkenError("there is no such folder", file=file.parent, next_step="Create it first")
    write_atomically(file, text.encode())
    say(f"{file}: a copy of {recipe}. Run it: harken run {file} --data ROOT --workspace DIR")
