"""The report of a run: one HTML file with official tables, spread over seeds, and distributions of scores."""

from __future__ import annotations

import base64
import io
import string
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from harken.evaluation.evaluate import Result

if TYPE_CHECKING:
    from harken.bench.result import Run, SystemScores

_PAGE = string.Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
 h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd }
 table { border-collapse: collapse; margin: .6rem 0 } td, th { padding: .15rem .9rem .15rem 0; text-align: left }
 td.n { text-align: right; font-variant-numeric: tabular-nums }
 .note { background: #fff6df; padding: .5rem .8rem; border-left: 4px solid #e0a800; margin: .4rem 0 }
 img { max-width: 100% } pre { background: #f6f6f6; padding: .8rem; overflow-x: auto } small { color: #666 }
</style></head><body><h1>$title</h1>
$body
<p><small>Harken $version. Detectors and thresholds learned from training clips only; labels of test clips were used
for the numbers above and nothing else.</small></p></body></html>
""")


def report_page(run: Run) -> str:
    """The page, self-contained."""
    from harken.bench.result import grouped
    from harken.core.version import __version__

    recipe = run.recipe
    body = [f"<p>{escape(recipe.summary)}</p>"]
    if recipe.reference:
        body.append(f"<p><small>{escape(recipe.reference)}</small></p>")
    body += [f'<p class="note">{escape(note)}</p>' for note in _notes(run)]
    groups = grouped(run.systems)
    for label in dict.fromkeys(one.set for one in run.systems):
        body.append(f"<h2>{escape(label)}</h2>")
        here = {system: seeds for (of, system), seeds in groups.items() if of == label}
        body.append(_ranking(here) + _mixes([seeds[0] for seeds in here.values()]))
        for (of, system), seeds in groups.items():
            if of == label:
                body.append(f"<h3>{escape(system)}</h3>" + _machines(seeds) + _picture(run, seeds[0]))
    body.append(f"<h2>Recipe</h2><pre>{escape(recipe.as_yaml())}</pre>")
    return _PAGE.substitute(title=escape(recipe.title), body="\n".join(body), version=__version__)


def _notes(run: Run) -> list[str]:
    notes = [f"set aside: {row.clip_id}: {row.reason}" for row in run.quarantined]
    notes += [f"left out: {text}" for text in run.notes]
    for label, clips in run.unscored.items():
        notes.append(f"{label}: {len(clips)} test clips have no score; the numbers are about the others: {clips[0]}")
    notes += [f"failed: {failure.task.name}: {failure.error}" for failure in run.failures]
    notes += [f"data: {finding}" for finding in run.findings]
    return [*notes, run.caution] if run.caution else notes


def _ranking(systems: dict[str, list[SystemScores]]) -> str:
    rows = []
    for system, seeds in systems.items():
        results = [one.result for one in seeds if one.result is not None]
        if not results:
            continue
        names = [name for name in results[0].summary if name != "official_score"]
        rows.append((system, results, ["official_score", *names]))
    if not rows:
        why = next(seeds[0].why for seeds in systems.values())
        return f"<p>Scores only: {escape(why)}.</p>"
    rows.sort(key=lambda row: -np.mean([result.official_score for result in row[1]]))
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in rows[0][2])
    lines = [
        f"<tr><td>{escape(system)}</td>"
        + "".join(_cell([result.summary[name] for result in results]) for name in names)
        + f'<td class="n">{len(results)}</td></tr>'
        for system, results, names in rows
    ]
    return f"<table><tr><th>system</th>{head}<th>seeds</th></tr>{''.join(lines)}</table>"


def _mixes(systems: Sequence[SystemScores]) -> str:
    """Ensembles: what they are worth here, and on machines that their weights were not found on."""
    lines = []
    for one in systems:
        if one.mix is None:
            continue
        here = "-" if one.result is None else f"{one.result.official_score:.4f}"
        left_out = "-" if one.left_out is None else f"{one.left_out:.4f}"
        weights = ", ".join(f"{name} {weight:.3f}" for name, weight in one.mix.weights.items() if weight > 0)
        lines.append(
            f'<tr><td>{escape(one.shown)}</td><td class="n">{here}</td><td class="n">{left_out}</td>'
            f"<td>{escape(one.mix.source)}</td><td>{escape(weights)}</td></tr>"
        )
    if not lines:
        return ""
    head = "<th>ensemble</th><th>official score</th><th>machines left out</th><th>weights</th><th></th>"
    return (
        f"<h3>Ensembles</h3><table><tr>{head}</tr>{''.join(lines)}</table>"
        "<p><small>Machines left out: each machine scored by weights found on the others.</small></p>"
    )


def _machines(seeds: Sequence[SystemScores]) -> str:
    results = [one.result for one in seeds if one.result is not None]
    if not results:
        return ""
    keys = list(results[0].numbers)
    names = list(results[0].numbers[keys[0]])
    further = [name for name in ("f1_source", "f1_target") if name in results[0].extra[keys[0]]]
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in (*names, *further))
    lines = []
    for key in keys:
        cells = [_cell([result.numbers[key][name] for result in results]) for name in names]
        cells += [_cell([result.extra[key][name] for result in results]) for name in further]
        lines.append(f"<tr><td>{escape(key[0])}</td><td>{escape(key[1])}</td>{''.join(cells)}</tr>")
    return f"<table><tr><th>machine</th><th>section</th>{head}</tr>{''.join(lines)}</table>"


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values):.4f}" if len(values) > 1 else ""
    return f'<td class="n">{np.mean(values):.4f}{spread}</td>'


def _picture(run: Run, one: SystemScores) -> str:
    """Distribution of the scores of each machine, by domain and condition where they are known."""
    from matplotlib.figure import Figure

    machines = sorted({row.machine for row in one.rows})
    columns = min(4, len(machines))
    lines = -(-len(machines) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.3 * lines), layout="constrained")
    groups = _groups(run, one.result)
    for number, machine in enumerate(machines, start=1):
        axes = figure.add_subplot(lines, columns, number)
        scores = {row.clip_id: row.score for row in one.rows if row.machine == machine}
        parts = [
            (name, colour, [scores[clip] for clip in clips if clip in scores]) for name, colour, clips in groups
        ] or [("all", "#777777", list(scores.values()))]
        edges = np.histogram_bin_edges(list(scores.values()), bins=24)
        for name, colour, values in parts:
            if values:
                axes.hist(values, bins=list(edges), histtype="step", color=colour, label=name)
        axes.set_title(machine, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.set_yticks([])
        if number == 1:
            axes.legend(fontsize=6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="distribution of scores of {escape(one.label)}" src="data:image/png;base64,{data}">'


def _groups(run: Run, result: Result | None) -> list[tuple[str, str, list[str]]]:
    if result is None:
        return []
    colours = {
        ("source", "normal"): "#2b6cb0",
        ("target", "normal"): "#63b3ed",
        ("unknown", "normal"): "#2b6cb0",
        ("source", "anomaly"): "#c8442f",
        ("target", "anomaly"): "#f6ad55",
        ("unknown", "anomaly"): "#c8442f",
    }
    found = []
    for (domain, condition), colour in colours.items():
        clips = [
            clip.clip_id
            for clip in run.clips
            if clip.split == "test" and clip.domain == domain and clip.condition == condition
        ]
        if clips:
            name = condition if domain == "unknown" else f"{domain} {condition}"
            found.append((name, colour, clips))
    return found
