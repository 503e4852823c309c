"""harken plan: what a run would do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, key_values, say
from harken.cli.recipe_options import Json, Machines, Profile, Recipe, Set, machine_names


def plan(
    recipe: Recipe,
    data: Annotated[Path | None, typer.Option(help="Folder of DCASE data, or a clips table.")] = None,
    workspace: Annotated[Path | None, typer.Option(help="Tell what is there already.")] = None,
    profile: Profile = "full",
    machines: Machines = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """What a run would do: stages, clips, what is there already, what is missing."""
    from harken.pipeline.plan import make_plan
    from harken.pipeline.recipe import load_recipe

    chosen = load_recipe(recipe, profile=profile, changes=key_values(set_ or []))
    told = make_plan(chosen, data, workspace, machines=machine_names(machines))
    if json:
        emit(told)
        return
    print(f"{chosen.name}: {chosen.title}")
    print(f"{'stage':<16}{'kind':<14}{'reads':<26}{'tasks':>6}{'there':>7}  parameters")
    for row in told["stages"]:
        shown = " ".join(f"{key}={value}" for key, value in row["parameters"].items())
        there = "-" if row["cached"] is None else str(row["cached"])
        print(f"{row['stage']:<16}{row['kind']:<14}{', '.join(row['reads']):<26}{row['tasks']:>6}{there:>7}  {shown}")
    for unit in told["units"]:
        print(f"{unit['set']}: {unit['machine']:<20} {unit['train']:>6} training clips, {unit['test']:>5} test clips")
    for text in told["missing"]:
        say(f"missing: {text}")
