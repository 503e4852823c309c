"""harken run: a recipe on data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from harken.cli.console import emit, key_values, progress, say
from harken.cli.recipe_options import Json, Machines, Profile, Recipe, Set, machine_names


def run(
    recipe: Recipe,
    data: Annotated[Path, typer.Option(help="Folder of DCASE data, or a clips table.", show_default=False)],
    workspace: Annotated[Path, typer.Option(help="Where results are kept and found again.", show_default=False)],
    profile: Profile = "full",
    machines: Machines = None,
    set_: Set = None,
    truth: Annotated[Path | None, typer.Option(help="Ground truth of evaluation clips.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default one a core.", min=1)] = None,
    json: Json = False,
) -> None:
    """Run a recipe: what is there is not made again, what was killed goes on. Ends with scores, results, report."""
    from harken.data.truth import read_truth
    from harken.pipeline.executor import Event
    from harken.pipeline.recipe import load_recipe
    from harken.pipeline.run import run_recipe
    from harken.pipeline.workspace import Workspace

    chosen = load_recipe(recipe, profile=profile, changes=key_values(set_ or []))
    started: dict[str, float] = {}

    def watch(event: Event) -> None:
        if event.what == "under way":
            bar(event.done, event.total)
            return
        count = f"[{event.done}/{event.total}]"
        if event.what == "started":
            started[event.task.name] = time.monotonic()
        elif event.what == "done":
            say(f"{count} {event.task.name}: {time.monotonic() - started[event.task.name]:.1f} s")
        elif event.what == "failed":
            say(f"{count} {event.task.name}: failed")

    with progress("running") as bar:
        done = run_recipe(
            chosen,
            data,
            Workspace(workspace),
            machines=machine_names(machines),
            truth=read_truth(truth) if truth else None,
            workers=workers,
            watch=watch,
        )
    for finding in done.findings:
        say(f"note: {finding}")
    for row in done.quarantined:
        say(f"set aside: {row.clip_id}: {row.reason}")
    for text in done.notes:
        say(f"left out: {text}")
    for label, clips in done.unscored.items():
        say(f"note: {label}: {len(clips)} test clips have no score")
    if json:
        emit({"folder": str(done.folder), **done.as_json()})
    else:
        _print_results(done)
    if done.caution:
        say(f"note: {done.caution}")
    say(f"{len(started)} stages run, {done.folder / 'report.html'}")
    for failure in done.failures:
        say(f"failed: {failure.task.name}: {failure.error}")
    if done.failures:
        raise typer.Exit(2)


def _print_results(done: Any) -> None:
    from harken.pipeline.run import grouped

    for (label, system), seeds in grouped(done.systems).items():
        results = [one.result for one in seeds if one.result is not None]
        if not results:
            print(f"{label}, {system}: scores of {len(seeds[0].rows)} clips; {seeds[0].why}")
            continue
        print(f"{label}, {system}" + (f", mean of {len(results)} seeds and spread" if len(results) > 1 else ""))
        for key in results[0].numbers:
            cells = [f"{name} {_spread([r.numbers[key][name] for r in results])}" for name in results[0].numbers[key]]
            print(f"  {key[0]:<18}{key[1]:<4}{'  '.join(cells)}")
        print(f"  official score {_spread([result.official_score for result in results], exact=True)}")


def _spread(values: list[float], *, exact: bool = False) -> str:
    import statistics

    if len(values) == 1:
        return str(values[0]) if exact else f"{values[0]:.4f}"
    return f"{statistics.fmean(values):.4f}±{statistics.pstdev(values):.4f}"
