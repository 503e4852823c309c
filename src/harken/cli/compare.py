"""harken compare: runs side by side."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harken.cli.console import emit, line, say

if TYPE_CHECKING:
    from harken.bench.comparison import ComparedSet, Comparison

#: parameters in the printed table; more are of recipes that have little in common
MOST_PARAMETERS = 40


def compare(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Folders of runs; with --workspace also names.", show_default=False)
    ] = None,
    workspace: Annotated[Path | None, typer.Option(help="Where runs are found by name and tag.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="And the runs that have this tag; repeat: all of them.")] = None,
    system: Annotated[list[str] | None, typer.Option(help="Only this system or ensemble; repeat.")] = None,
    data_set: Annotated[str | None, typer.Option(help="Only this set, such as 'dcase2025 dev'.")] = None,
    bootstrap: Annotated[int, typer.Option(help="Draws of the paired bootstrap; 0: no intervals.", min=0)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", min=0)] = 0,
    csv: Annotated[bool, typer.Option("--csv", help="Print as CSV.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print as LaTeX (booktabs).")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Compare runs: parameters that differ, official scores, intervals of differences to the first run."""
    from harken.bench.compare import compare as run
    from harken.bench.comparison_text import csv_of, latex_of
    from harken.core.errors import HarkenError

    if csv + latex + json > 1:
        raise HarkenError("--csv, --latex and --json are one choice", next_step="Give one of them")
    done = run(
        runs or [], workspace=workspace, tags=tag or [], systems=system or [], data_set=data_set, draws=bootstrap,
        seed=seed,
    )  # fmt: skip
    for note in done.notes:
        say(f"note: {note}")
    if json:
        emit(done.as_json())
    elif csv:
        line(csv_of(done), end="")
    elif latex:
        line(latex_of(done), end="")
    else:
        _print_tables(done)


def _print_tables(done: Comparison) -> None:
    from rich.console import Console

    from harken.bench.comparison_text import base_of, counted, labels_of, reasons_of, signs_of

    # Files and pipes get whole lines, terminals their width.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 10_000, highlight=False, markup=False)
    if done.parameters:
        console.print(_parameters(done))
        left = len(done.parameters) - MOST_PARAMETERS
        if left > 0:
            line(f"and {left} more: --json has all")
    elif len(done.runs) > 1:
        line("the recipes have the same parameters")
    signs = signs_of(done)
    for number, each in enumerate(done.sets):
        line(
            "\n" * (number > 0 or len(done.runs) > 1)
            + f"{each.name}: {each.clips} test clips of {counted(each)}; official score"
        )
        console.print(_scores(each, signs))
        if any(system.difference is not None for system in each.systems):
            base, labels = base_of(each), labels_of(each)
            to = "" if base is None else f" to {labels[base]}"
            line(f"\ndifferences{to}; {100 * done.level:g} % intervals of {done.draws} paired bootstrap samples")
            console.print(_differences(each, signs))
        for mark, reason in reasons_of(each).items():
            line(f"{signs[mark]} {mark}: {reason}")


def _table(*head: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="")
    for number, text in enumerate(head):
        table.add_column(text, justify="right" if number else "left", overflow="fold")
    return table


def _parameters(done: Comparison) -> Any:
    from harken.bench.comparison_text import value_text

    shown = list(done.parameters.items())[:MOST_PARAMETERS]
    if len(shown) < len(done.runs):
        table = _table("run", *(key for key, _ in shown))
        for number, name in enumerate(done.runs):
            table.add_row(name, *(value_text(values[number]) for _, values in shown))
        return table
    table = _table("parameter", *done.runs)
    for key, values in shown:
        table.add_row(key, *map(value_text, values))
    return table


def _scores(each: ComparedSet, signs: Mapping[str, str]) -> Any:
    from harken.bench.comparison_text import labels_of, signed

    labels = labels_of(each)
    table = _table("system", "all machines", *each.machines)
    for system in each.systems:
        if system.score is None:
            table.add_row(labels[system.key], *["-"] * (1 + len(each.machines)))
            continue
        spread = f"±{system.spread:.4f}" if system.seeds > 1 else ""
        numbers = [f"{system.score:.4f}{spread}", *(f"{system.machines[machine]:.4f}" for machine in each.machines)]
        table.add_row(labels[system.key], *(signed(number, system.marks, signs) for number in numbers))
    return table


def _differences(each: ComparedSet, signs: Mapping[str, str]) -> Any:
    from harken.bench.comparison_text import base_of, labels_of, signed

    labels, base = labels_of(each), base_of(each)
    head = ("difference", "over clips", "over machines and clips", "samples A > B")
    table = _table("A - B" if base is None else f"A (B: {labels[base]})", *head)
    for system in each.systems:
        difference = system.difference
        if difference is None:
            continue
        bounds = [
            "-" if pair is None else f"[{pair[0]:+.4f}, {pair[1]:+.4f}]"
            for pair in (difference.clips, difference.machines)
        ]
        numbers = [f"{difference.value:+.4f}", *bounds, f"{difference.share:.3f}"]
        cells = [number if number == "-" else signed(number, difference.marks, signs) for number in numbers]
        against = "" if base is not None else f" - {labels[difference.against]}"
        table.add_row(labels[system.key] + against, *cells)
    return table
