"""Arguments shared by harken run and harken plan."""

from __future__ import annotations

from typing import Annotated

import typer

Recipe = Annotated[str, typer.Argument(help="A name from harken recipe list, or a YAML file.", show_default=False)]
Machines = Annotated[
    list[str] | None, typer.Option("--machines", "--machine", help="Only these machines; comma-separated or repeated.")
]
Profile = Annotated[str, typer.Option(help="Profile of the recipe, such as tiny.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change one value: stages.NAME.KEY=VALUE; repeat.")]
Trust = Annotated[bool, typer.Option("--trust", help="Also load the custom code that the recipe names; read it first.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def machine_names(given: list[str] | None) -> list[str] | None:
    """Names given comma-separated or by repeating the option; None if there are none."""
    return [name for text in given for name in text.split(",") if name] if given else None
