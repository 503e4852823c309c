"""harken plan: what a run would do and cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from harken.cli.console import emit, key_values, line, say
from harken.cli.recipe_options import Json, Machines, Profile, Recipe, Set, Trust, machine_names

GIB = 2**30
#: with more stages than this, similar stages of one kind share a line
MANY = 40


def plan(
    recipe: Recipe,
    data: Annotated[Path | None, typer.Option(help="Folder of DCASE data, or a clips table.")] = None,
    workspace: Annotated[Path | None, typer.Option(help="Show what is already done in this workspace.")] = None,
    profile: Profile = "full",
    machines: Machines = None,
    set_: Set = None,
    device: Annotated[str, typer.Option(help="GPU of the estimate: h100 or h200.")] = "h200",
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Estimate a run: stages, clips, classes, steps, time and memory; what is done already, what is missing."""
    from harken.bench.plan import make_plan
    from harken.bench.recipe import load_recipe
    from harken.core.plugins import without_custom_code

    with without_custom_code(not trust):
        chosen = load_recipe(recipe, profile=profile, changes=key_values(set_ or []))
        estimate = make_plan(chosen, data, workspace, machines=machine_names(machines), device=device)
    if json:
        emit(estimate)
        return
    line(f"{chosen.name}: {chosen.title}")
    for row in (*_stages(estimate), "", *_units(estimate), "", *_total(estimate)):
        line(row)
    for text in estimate["missing"]:
        say(f"missing: {text}")


def _stages(estimate: Mapping[str, Any]) -> Iterator[str]:
    rows = _grouped(estimate["stages"])
    name = max(len("stage"), *(len(row["stage"]) for row in rows))
    kind = max(len("kind"), *(len(row["kind"]) for row in rows))
    device = estimate["device"]
    yield (f"{'stage':<{name}} {'kind':<{kind}} {'tasks':>6} {'done':>6} {'this machine':>13} {'memory':>9} "
           f"{device.upper():>11} {'memory':>9}  what")  # fmt: skip
    for row in rows:
        done = "-" if row["cached"] is None else str(row["cached"])
        gpu = row["devices"][device] or {"seconds": {"recipe": None}, "memory": None}
        seconds = "unknown" if row["unknown"] else duration(row["seconds"])
        costs = (seconds, _gib(row["memory"]), duration(gpu["seconds"]["recipe"]), _gib(gpu["memory"]))
        cells = "{:>13} {:>9} {:>11} {:>9}".format(*costs)
        begin = f"{row['stage']:<{name}} {row['kind']:<{kind}} {row['tasks']:>6} {done:>6}"
        yield f"{begin} {cells}  {_what(row, estimate['expected'])}".rstrip()


def _grouped(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group stages with equal settings if there are many, adding up their times; stages that train stay separate."""
    if len(rows) <= MANY:
        return rows
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        alone = row["kind"] in ("labels", "pseudo_labels", "pretrain", "train", "autoencoder")
        key = row["stage"] if alone else f"{row['kind']} {row['tasks']} {sorted(row['parameters'].items())}"
        groups.setdefault(key, []).append(row)
    return [group[0] if len(group) == 1 else _together(group) for group in groups.values()]


def _together(group: list[dict[str, Any]]) -> dict[str, Any]:
    def total(key: str) -> Any:
        values = [row[key] for row in group if row.get(key) is not None]
        return sum(values) if values else None

    def devices() -> dict[str, Any]:
        together: dict[str, Any] = {}
        for name in group[0]["devices"]:
            rows = [row["devices"][name] for row in group if row["devices"][name] is not None]
            memory = max((row["memory"] for row in rows if row["memory"] is not None), default=None)
            seconds = {"recipe": sum(row["seconds"]["recipe"] for row in rows)}
            together[name] = {"seconds": seconds, "memory": memory} if rows else None
        return together

    return {
        **group[0],
        "memory": max((row["memory"] for row in group if row["memory"] is not None), default=None),
        "stage": f"{len(group)} x {group[0]['stage']} ...",
        "reads": [],
        "unknown": any(row["unknown"] for row in group),
        "devices": devices(),
        **{key: total(key) for key in ("tasks", "cached", "seconds", "clips")},
    }


def _what(row: Mapping[str, Any], expected: bool) -> str:
    """The main parameters of a stage, and the resulting numbers of classes, steps and clips."""
    parameters = row["parameters"]
    words: list[str] = []
    if row["kind"] in ("labels", "pseudo_labels"):
        years = parameters.get("years")
        words = [parameters.get("policy", "thuee"), _years(years)]
        if "classes" in row:
            least = ">= " if row.get("at_least") else ""
            words += [f"{least}{row['classes']:,} classes", f"{row['clips']:,}{' expected' * expected} clips"]
    elif row["kind"] == "pretrain":
        words = [_network(parameters), _years(parameters["years"]) if parameters["years"] != [] else ""]
        words += [f"{row['steps']:,} steps of {row['batch']} x {row['accumulation']}, {parameters['clones']} clones"]
        words += [f"{row['clips']:,}{' expected' * expected} clips", *parameters["folders"]]
        words += [f"rate {parameters['learning_rate']:g}"]
        words = [word for word in words if word]
    elif row["kind"] == "train":
        words = [_network(branch) for branch in parameters["model"]["branches"]]
        training = parameters["training"]
        if "steps" in row:
            words.append(f"{row['steps']:,} steps of {row['batch']} x {row['accumulation']}")
            words.append(f"{row['clips']:,}{' expected' * expected} clips, {row['held_out']:,} held out")
        words.append(f"rate {training.get('learning_rate', 1e-4):g}")
        if "learned_parameters" in row:
            words.append(f"{row['learned_parameters'] / 1e6:.1f} M of {row['network_parameters'] / 1e6:.1f} M learn")
    else:
        words = [
            str(parameters[key]) for key in ("encoder", "weights", "layers", "detector", "mode") if parameters.get(key)
        ]
        if row["kind"] == "autoencoder" and "steps" in row:
            words.append(f"{row['steps']:,} steps of {row['batch']}")
        elif row.get("clips"):
            words.append(f"{row['clips']:,}{' expected' * expected} clips")
    read = f"from {', '.join(row['reads'])}: " if row["reads"] else ""
    return read + ", ".join(words) if words else read.rstrip(": ")


def _years(years: Sequence[int] | None) -> str:
    if not years:
        return "all years"
    return str(years[0]) if len(years) == 1 else f"{min(years)}-{max(years)}"


def _network(branch: Mapping[str, Any]) -> str:
    how = "LoRA" if branch.get("adapter") else "frozen" if branch.get("frozen") else ""
    size = branch.get("weights") or branch.get("size", "full")
    return " ".join(filter(None, (branch["encoder"], how, f"({size})")))


def _units(estimate: Mapping[str, Any]) -> Iterator[str]:
    sets: dict[str, list[Mapping[str, Any]]] = {}
    for unit in estimate["units"]:
        sets.setdefault(unit["set"], []).append(unit)
    expected = " (expected)" if estimate["expected"] else ""
    for name, units in sets.items():
        sums = {key: sum(unit[key] for unit in units) for key in ("train", "supplemental", "test")}
        clips = f"{sums['train']:,} training, {sums['supplemental']:,} supplemental, {sums['test']:,} test clips"
        yield f"{name or 'clips'}{expected}: {len(units)} machines, {clips}"
        alike: dict[tuple[int, int, int], list[str]] = {}
        for unit in units:
            alike.setdefault((unit["train"], unit["supplemental"], unit["test"]), []).append(unit["machine"])
        for (train, more, test), machines in alike.items():
            each = " each" if len(machines) > 1 else ""
            supplemental = f" + {more:,}" if more else ""
            yield f"  {', '.join(machines)}: {train:,}{supplemental} training clips, {test:,} test clips{each}"


def _total(estimate: Mapping[str, Any]) -> Iterator[str]:
    total, device = estimate["total"], estimate["device"]
    without = f", without {', '.join(total['unknown'])}, unknown" if total["unknown"] else ""
    if total["seconds"] is None:
        yield f"time and memory: not estimated{without}"
        return
    fits = {True: "fits", False: "does not fit", None: "?"}
    yield f"in all: {duration(total['seconds'])} on this machine{_remaining(total)}{without}"
    if total["memory"] is not None:
        yield (f"        {_gib(total['memory'])} at the peak of {_gib(total['machine_memory'])}: "
               f"{fits[total['fits']]}")  # fmt: skip
    gpu = total["devices"][device]
    if gpu is None:
        yield f"        no {'by_precision ' * bool(total['unknown'])}stage uses a GPU"
    else:
        seconds, remaining = gpu["seconds"], gpu["remaining_seconds"]
        left = "" if remaining == seconds else f", of which {duration(remaining['recipe'])} remain"
        others = [f"with {name} {duration(seconds[name])}" for name in ("tf32", "bf16") if name in seconds]
        by_precision = f" ({', '.join(others)})" if others else ""
        yield f"        {duration(seconds['recipe'])} on one {device.upper()}{left}{by_precision}{without}"
        if gpu["memory"] is not None:
            yield f"        {_gib(gpu['memory'])} of its {gpu['device_memory'] / 1e9:.0f} GB: {fits[gpu['fits']]}"
    for text in estimate["assumptions"]:
        yield f"        {text}"


def _remaining(total: Mapping[str, Any]) -> str:
    same = total["remaining_seconds"] == total["seconds"]
    return "" if same else f", of which {duration(total['remaining_seconds'])} remain"


def duration(seconds: float | None) -> str:
    """`3 h 20 min`; `-` for None."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 1 or seconds == 0 else "< 1 s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days:,} d {hours} h"


def _gib(size: float | None) -> str:
    return "-" if size is None else f"{size / GIB:.1f} GiB"
