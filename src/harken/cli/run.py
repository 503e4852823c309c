"""harken run: run a recipe on data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harken.cli.console import emit, key_lists, key_values, line, progress, say
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
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="One run for each value: stages.NAME.KEY=1,2,3; repeat for all combinations."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run, by which harken compare finds it.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Tag of the run; repeat.")] = None,
    only: Annotated[str | None, typer.Option(help="Run this stage, and what it needs, and nothing after it.")] = None,
    log_to: Annotated[
        list[str] | None, typer.Option(help="Log parameters and numbers: tensorboard or mlflow; repeat.")
    ] = None,
    json: Json = False,
) -> None:
    """Run a recipe: finished stages are reused, interrupted ones resume. Writes scores, results and a report."""
    from harken.bench.recipe import load_recipe
    from harken.bench.run_stage import recipe_up_to
    from harken.bench.sweep import SweepPoint, sweep_points
    from harken.bench.track import check_trackers, track
    from harken.bench.workspace import Workspace
    from harken.cli.submit import submit
    from harken.core.errors import HarkenError
    from harken.data.truth import read_truth
    from harken.evaluation.submission import read_meta

    if only is not None and (name is not None or tag or label or log_to):
        raise HarkenError("--only makes a stage and no run", next_step="Leave out --name, --tag, --label and --log-to")
    check_trackers(log_to or [])
    if meta is not None:
        read_meta(meta)  # report errors in it before hours of work
    fixed = key_values(set_ or [])
    points = sweep_points(key_lists(sweep), fixed, name or "") if sweep else [SweepPoint(name or "", fixed)]
    # Every recipe before the first run, so that a wrong value costs nothing.
    recipes = [
        load_recipe(recipe, profile=profile, changes=point.changes, swept={*point.changes} - {*fixed})
        for point in points
    ]
    if only is not None:
        recipe_up_to(recipes[0], only)
    place = Workspace(workspace)
    options = {
        "machines": machine_names(machines),
        "truth": read_truth(truth) if truth else None,
        "executor": _executor(executor, workers, address, task_cpus, task_gpus),
    }
    results: list[dict[str, Any]] = []
    failed = False
    for number, (point, chosen) in enumerate(zip(points, recipes, strict=True), start=1):
        if sweep:
            say(f"run {number} of {len(points)}: {point.name}")
        try:
            if only is not None:
                printed, well = _run_stage(chosen, data, place, only, options, json=json)
            else:
                named = {"name": point.name or None, "tags": tag or []}
                done, made = _run(chosen, data, place, {**options, **named})
                printed = {"folder": str(done.folder), **({"name": point.name} if point.name else {}), **done.as_json()}
                well = not done.failures
                _report(done, made, show=not (json or sweep))
                if label:
                    submit(done.folder, done.folder / "submission.zip", label=label, meta=meta)
                for text in track(done, log_to or [], place.root):
                    say(text)
        except HarkenError as error:
            if not sweep:
                raise
            say(f"failed: {point.name}: {error}")
            printed, well = {"name": point.name, "error": str(error)}, False
        results.append(printed)
        failed |= not well
    if json:
        emit({"runs": results} if sweep else results[0])
    elif sweep and only is None:
        _print_sweep(results)
    if failed:
        raise typer.Exit(2)


def _run(recipe: Any, data: Path, workspace: Any, options: dict[str, Any]) -> tuple[Any, list[str]]:
    """The run, and the names of the tasks that it has made."""
    from harken.bench.run import run_recipe

    with _watching() as (watch, made):
        return run_recipe(recipe, data, workspace, watch=watch, **options), made


def _say_left_out(done: Any) -> None:
    """Findings, and what a run or a stage has set aside and left out."""
    for finding in done.findings:
        say(f"note: {finding}")
    for row in done.quarantined:
        say(f"set aside: {row.clip_id}: {row.reason}")
    for text in done.notes:
        say(f"left out: {text}")


def _report(done: Any, made: list[str], *, show: bool) -> None:
    """What was left out, and, where they are to be shown, the numbers."""
    _say_left_out(done)
    for data_set, clips in done.unscored.items():
        say(f"note: {data_set}: {len(clips)} test clips have no score")
    if show:
        _print_results(done)
        _print_ensembles(done)
    if done.caution:
        say(f"note: {done.caution}")
    say(f"{len(made)} stages run, {done.folder / 'report.html'}")
    for failure in done.failures:
        say(f"failed: {failure.name}: {failure.error}")


def _run_stage(
    recipe: Any, data: Path, workspace: Any, stage: str, options: dict[str, Any], *, json: bool
) -> tuple[dict[str, Any], bool]:
    """The stage as JSON, and whether nothing has failed."""
    from harken.bench.run_stage import run_stage

    with _watching() as (watch, made):
        done = run_stage(recipe, data, workspace, stage, watch=watch, **options)
    _say_left_out(done)
    for task, thing in done.objects.items():
        if not json:
            line(f"{task}: {thing.folder}")
    say(f"{len(made)} stages run, nothing after {stage}")
    for failure in done.failures:
        say(f"failed: {failure.name}: {failure.error}")
    objects = {task: {"object": thing.key, "folder": str(thing.folder)} for task, thing in done.objects.items()}
    failures = [{"task": failure.name, "error": str(failure.error)} for failure in done.failures]
    return {"stage": stage, "tasks": objects, "notes": list(done.notes), "failed": failures}, not done.failures


@contextmanager
def _watching() -> Iterator[tuple[Callable[[Any], None], list[str]]]:
    """A function that shows the events of a run, and the names of the tasks that it has made."""
    made: list[str] = []

    def watch(event: Any) -> None:
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
        yield watch, made


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


def _print_sweep(runs: list[dict[str, Any]]) -> None:
    """One line per run, set and system, in the order of the sweep."""
    from harken.evaluation.scores import in_brackets

    rows = [
        (run["name"], f"{label}, {system}{in_brackets(entry.get('marks', ()))}", entry.get("official_score"))
        for run in runs
        for label, systems in run.get("sets", {}).items()
        for system, entry in systems.items()
    ]
    width = max((len(name) for name, *_ in rows), default=0)
    for name, system, score in rows:
        line(f"{name:<{width}}  {'-' if score is None else f'{score:.4f}':<8}{system}")


def _print_results(done: Any) -> None:
    from harken.bench.result import grouped

    for (label, system), seeds in grouped(done.systems).items():
        results = [scored.result for scored in seeds if scored.result is not None]
        if not results:
            line(f"{label}, {system}: scores of {len(seeds[0].scores.test)} clips; {seeds[0].why}")
            continue
        line(f"{label}, {system}" + (f", mean of {len(results)} seeds and spread" if len(results) > 1 else ""))
        for key in results[0].numbers:
            cells = [f"{name} {_spread([r.numbers[key][name] for r in results])}" for name in results[0].numbers[key]]
            line(f"  {key[0]:<18}{key[1]:<4}{'  '.join(cells)}")
        line(f"  official score {_spread([result.official_score for result in results], exact=True)}")


def _print_ensembles(done: Any) -> None:
    mixed = [system for system in done.systems if system.mix is not None]
    if not mixed:
        return
    several = len({system.set for system in mixed}) > 1
    names = [f"{system.set}, {system.shown}" if several else system.shown for system in mixed]
    width = max(46, *map(len, names)) + 2
    line(f"{'ensemble':<{width}}{'official score':<18}{'machines left out':<20}weights")
    for name, system in zip(names, mixed, strict=True):
        score = "-" if system.result is None else f"{system.result.official_score:.4f}"
        left_out = "-" if system.left_out is None else f"{system.left_out:.4f}"
        line(f"{name:<{width}}{score:<18}{left_out:<20}{system.mix.source}")


def _spread(values: list[float], *, exact: bool = False) -> str:
    import statistics

    if len(values) == 1:
        return str(values[0]) if exact else f"{values[0]:.4f}"
    return f"{statistics.fmean(values):.4f}±{statistics.pstdev(values):.4f}"
