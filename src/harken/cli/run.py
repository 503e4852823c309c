"""harken run: run a recipe on data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harken.cli.console import emit, key_values, progress, say
from harken.cli.recipe_options import Json, Machines, Profile, Recipe, Set, machine_names
from harken.cli.recording_options import Workers


def run(
    recipe: Recipe,
    data: Annotated[Path, typer.Option(help="Folder of DCASE data, or a clips table.", show_default=False)],
    workspace: Annotated[Path, typer.Option(help="Folder of results; reused by later runs.", show_default=False)],
    profile: Profile = "full",
    machines: Machines = None,
    set_: Set = None,
    truth: Annotated[Path | None, typer.Option(help="Ground truth of evaluation clips.")] = None,
    workers: Workers = None,
    executor: Annotated[Literal["local", "ray"], typer.Option(help="Where stages run.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: host:port, ray://host:port or auto (default: on this machine).")
    ] = None,
    task_cpus: Annotated[float, typer.Option(help="With ray: CPUs per task, such as 0.5.")] = 1.0,
    task_gpus: Annotated[float, typer.Option(help="With ray: GPUs per task that runs a network, such as 0.25.")] = 0.0,
    label: Annotated[str, typer.Option(help="Also write submission.zip with this label: Lastname_ABBR_task2.")] = "",
    meta: Annotated[Path | None, typer.Option(help="Its authors and system names (YAML); see harken submit.")] = None,
    json: Json = False,
) -> None:
    """Run a recipe: finished stages are reused, interrupted ones resume. Writes scores, results and a report."""
    from harken.bench.executor import Event
    from harken.bench.recipe import load_recipe
    from harken.bench.run import run_recipe
    from harken.bench.workspace import Workspace
    from harken.cli.submit import submit
    from harken.data.truth import read_truth
    from harken.evaluation.submission import read_meta

    if meta is not None:
        read_meta(meta)  # report errors in it before hours of work
    chosen = load_recipe(recipe, profile=profile, changes=key_values(set_ or []))
    made: list[str] = []

    def watch(event: Event) -> None:
        if event.state == "under way":
            bar(event.done, event.total)
            return
        count = f"[{event.done}/{event.total}]"
        if event.state == "done":
            made.append(event.task.name)
            say(f"{count} {event.task.name}: {event.seconds:.1f} s")
        elif event.state in ("failed", "left out"):
            say(f"{count} {event.task.name}: {event.state}")

    with progress("running") as bar:
        done = run_recipe(
            chosen,
            data,
            Workspace(workspace),
            machines=machine_names(machines),
            truth=read_truth(truth) if truth else None,
            executor=_executor(executor, workers, address, task_cpus, task_gpus),
            watch=watch,
        )
    for finding in done.findings:
        say(f"note: {finding}")
    for row in done.quarantined:
        say(f"set aside: {row.clip_id}: {row.reason}")
    for text in done.notes:
        say(f"left out: {text}")
    for data_set, clips in done.unscored.items():
        say(f"note: {data_set}: {len(clips)} test clips have no score")
    if json:
        emit({"folder": str(done.folder), **done.as_json()})
    else:
        _print_results(done)
        _print_ensembles(done)
    if done.caution:
        say(f"note: {done.caution}")
    say(f"{len(made)} stages run, {done.folder / 'report.html'}")
    if label:
        submit(done.folder, done.folder / "submission.zip", label=label, meta=meta)
    for failure in done.failures:
        say(f"failed: {failure.name}: {failure.error}")
    if done.failures:
        raise typer.Exit(2)


def _executor(kind: str, workers: int | None, address: str | None, task_cpus: float, task_gpus: float) -> Any:
    from harken.bench.local import LocalProcesses
    from harken.bench.ray_cluster import RayCluster
    from harken.core.errors import HarkenError

    if kind == "local":
        if address is not None or task_cpus != 1 or task_gpus:
            raise HarkenError(
                "--address, --task-cpus and --task-gpus are for a Ray cluster", next_step="Add --executor ray"
            )
        return LocalProcesses(workers)
    if address is not None and workers is not None:
        raise HarkenError("--workers is for this machine, not for a cluster", next_step="Leave it out")
    return RayCluster(address, task_cpus, task_gpus, workers)


def _print_results(done: Any) -> None:
    from harken.bench.result import grouped

    for (label, system), seeds in grouped(done.systems).items():
        results = [scored.result for scored in seeds if scored.result is not None]
        if not results:
            print(f"{label}, {system}: scores of {len(seeds[0].scores.test)} clips; {seeds[0].why}")
            continue
        print(f"{label}, {system}" + (f", mean of {len(results)} seeds and spread" if len(results) > 1 else ""))
        for key in results[0].numbers:
            cells = [f"{name} {_spread([r.numbers[key][name] for r in results])}" for name in results[0].numbers[key]]
            print(f"  {key[0]:<18}{key[1]:<4}{'  '.join(cells)}")
        print(f"  official score {_spread([result.official_score for result in results], exact=True)}")


def _print_ensembles(done: Any) -> None:
    mixed = [system for system in done.systems if system.mix is not None]
    if not mixed:
        return
    several = len({system.set for system in mixed}) > 1
    names = [f"{system.set}, {system.shown}" if several else system.shown for system in mixed]
    width = max(46, *map(len, names)) + 2
    print(f"{'ensemble':<{width}}{'official score':<18}{'machines left out':<20}weights")
    for name, system in zip(names, mixed, strict=True):
        score = "-" if system.result is None else f"{system.result.official_score:.4f}"
        left_out = "-" if system.left_out is None else f"{system.left_out:.4f}"
        print(f"{name:<{width}}{score:<18}{left_out:<20}{system.mix.source}")


def _spread(values: list[float], *, exact: bool = False) -> str:
    import statistics

    if len(values) == 1:
        return str(values[0]) if exact else f"{values[0]:.4f}"
    return f"{statistics.fmean(values):.4f}±{statistics.pstdev(values):.4f}"
