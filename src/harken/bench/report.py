"""The report of a run: one HTML file with official tables, spread over seeds, and distributions of scores."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harken.bench.marks import use_of_labels
from harken.core.pages import data_url, render
from harken.evaluation.evaluate import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from harken.bench.result import Run, SystemScores

#: (domain, condition) -> colour of its bars: blue for normal clips, red for anomalies, light for the target domain
_COLOURS = {
    ("source", "normal"): "#2b5f96",
    ("target", "normal"): "#8fbbe3",
    ("unknown", "normal"): "#2b5f96",
    ("source", "anomaly"): "#b3372a",
    ("target", "anomaly"): "#f0a35e",
    ("unknown", "anomaly"): "#b3372a",
}


def report_page(run: Run) -> str:
    """The report of a run as one HTML page without external files."""
    from harken.bench.result import grouped

    groups = grouped(run.systems)
    sets = []
    for label in dict.fromkeys(scored.set for scored in run.systems):
        systems = {system: seeds for (of, system), seeds in groups.items() if of == label}
        sets.append(
            {
                "title": label,
                "ranking": _ranking(systems),
                "why": next(seeds[0].why for seeds in systems.values()),
                "mixes": _mixes([seeds[0] for seeds in systems.values()], list(run.recipe.systems)),
                "systems": [
                    {
                        "title": system,
                        "label": seeds[0].label,
                        "machines": _machines(seeds),
                        "picture": data_url(_picture(run, seeds[0]), "image/png"),
                    }
                    for system, seeds in systems.items()
                ],
            }
        )
    return render(
        "harken.bench",
        "report.html",
        title=run.recipe.title,
        summary=run.recipe.summary,
        reference=run.recipe.reference,
        remarks=_notes(run),
        sets=sets,
        recipe=run.recipe.as_yaml(),
        use_of_labels=use_of_labels(scored.marks for scored in run.systems),
    )


def _notes(run: Run) -> list[str]:
    notes = [f"set aside: {row.clip_id}: {row.reason}" for row in run.quarantined]
    notes += [f"left out: {text}" for text in run.notes]
    for label, clips in run.unscored.items():
        notes.append(f"{label}: {len(clips)} test clips have no score; the numbers leave them out: {clips[0]}")
    notes += [f"failed: {failure.name}: {failure.error}" for failure in run.failures]
    marks = {
        f"{scored.system}, {scored.set}: {mark}: {reason}": None
        for scored in run.systems
        for mark, reason in scored.marks.items()
    }
    notes += marks
    notes += [f"data: {finding}" for finding in run.findings]
    return [*notes, run.caution] if run.caution else notes


def _ranking(systems: dict[str, list[SystemScores]]) -> dict[str, Any] | None:
    """Head and rows of the table of systems, the best first; None without official scores."""
    rows = []
    for system, seeds in systems.items():
        results = [scored.result for scored in seeds if scored.result is not None]
        if not results:
            continue
        names = [name for name in results[0].summary if name != "official_score"]
        rows.append((system, results, ["official_score", *names]))
    if not rows:
        return None
    rows.sort(key=lambda row: -np.mean([result.official_score for result in row[1]]))
    return {
        "head": ["system", *map(_shown, rows[0][2]), "seeds"],
        "rows": [
            [system, *(_spread([result.summary[name] for result in results]) for name in names), len(results)]
            for system, results, names in rows
        ],
    }


def _mixes(systems: Sequence[SystemScores], order: Sequence[str]) -> list[dict[str, str]]:
    """Ensembles: official scores, in sample and with each machine left out of the search for weights; members in the
    order of the recipe."""
    place = {name: number for number, name in enumerate(order)}
    return [
        {
            "name": mixed.shown,
            "score": "-" if mixed.result is None else f"{mixed.result.official_score:.4f}",
            "left_out": "-" if mixed.left_out is None else f"{mixed.left_out:.4f}",
            "source": mixed.mix.source,
            "weights": ", ".join(
                f"{name} {weight:.3f}"
                for name, weight in sorted(
                    mixed.mix.weights.items(), key=lambda entry: (place.get(entry[0], len(place)), entry[0])
                )
                if weight > 0
            ),
        }
        for mixed in systems
        if mixed.mix is not None
    ]


def _machines(seeds: Sequence[SystemScores]) -> dict[str, Any] | None:
    """Head and rows of the table of machines and sections; None without an official result."""
    results = [scored.result for scored in seeds if scored.result is not None]
    if not results:
        return None
    keys = list(results[0].numbers)
    names = list(results[0].numbers[keys[0]])
    further = [name for name in ("f1_source", "f1_target") if name in results[0].extra[keys[0]]]
    rows = []
    for key in keys:
        cells = [_spread([result.numbers[key][name] for result in results]) for name in names]
        cells += [_spread([result.extra[key][name] for result in results]) for name in further]
        rows.append([*key, *cells])
    return {"head": ["machine", "section", *map(_shown, (*names, *further))], "rows": rows}


def _shown(name: str) -> str:
    """`auc_source` as a head of a column: `AUC source`."""
    return name.replace("_", " ").replace("auc", "AUC").replace("f1", "F1")


def _spread(values: Sequence[float]) -> str:
    """Mean and, of several seeds, standard deviation."""
    spread = f" ± {np.std(values):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def _picture(run: Run, system: SystemScores) -> bytes:
    """PNG: the scores of each machine; normal clips above the line and anomalies below where conditions are known."""
    from matplotlib.figure import Figure

    test = system.scores.test
    machines = sorted(set(test.machine))
    columns = min(3, len(machines))
    lines = -(-len(machines) // columns)
    width, height = 3.6 * columns + 0.4, 2.4 * lines + 0.5
    figure = Figure(figsize=(width, height))
    # Margins in inches, known beforehand: a layout that looks for them draws everything twice.
    top = 0.8 if columns == 1 else 0.6
    margins = {"left": 0.5 / width, "right": 1 - 0.1 / width, "bottom": 0.45 / height, "top": 1 - top / height}
    grid = figure.add_gridspec(lines, columns, **margins, wspace=0.15, hspace=0.3)
    groups = _groups(run, system.result)
    scores: dict[str, dict[str, float]] = {machine: {} for machine in machines}
    for row in test.rows():
        scores[row.machine][row.clip_id] = row.score
    handles: dict[str, Any] = {}
    for number, machine in enumerate(machines):
        axes = figure.add_subplot(grid[divmod(number, columns)])
        edges = np.histogram_bin_edges(list(scores[machine].values()), bins=24)
        _mirrored(axes, scores[machine], edges, groups)
        axes.set_title(machine, fontsize=10, loc="left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if number >= len(machines) - columns:
            axes.set_xlabel("anomaly score", fontsize=8)
        if number % columns == 0:
            axes.set_ylabel("clips", fontsize=8)
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(), handles.keys(), loc="upper left", ncols=min(4, 2 * columns), frameon=False, fontsize=8
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _mirrored(
    axes: Axes, scores: dict[str, float], edges: np.ndarray, groups: Sequence[tuple[str, str, str, list[str]]]
) -> None:
    """Stacked bars of each group: anomalies downwards, everything else upwards."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    heights = {"normal": np.zeros(len(edges) - 1), "anomaly": np.zeros(len(edges) - 1)}
    for name, condition, colour, clips in groups or [("all clips", "normal", "#777777", list(scores))]:
        counts = np.histogram([scores[clip] for clip in clips if clip in scores], edges)[0]
        sign = -1 if condition == "anomaly" else 1
        bottom = heights[condition]
        heights[condition] = bottom + counts
        # One outline for all bars: each bar as an object of its own takes ten times as long.
        axes.stairs(sign * heights[condition], edges, baseline=sign * bottom, fill=True, color=colour, label=name)
    axes.axhline(0, color="#222222", linewidth=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):.0f}"))


def _groups(run: Run, result: Result | None) -> list[tuple[str, str, str, list[str]]]:
    """(name, condition, colour, clips) of test clips by domain and condition; empty where labels are not known."""
    if result is None:
        return []
    groups = []
    for (domain, condition), colour in _COLOURS.items():
        clips = [
            clip.clip_id
            for clip in run.clips
            if clip.split == "test" and clip.domain == domain and clip.condition == condition
        ]
        if clips:
            name = condition if domain == "unknown" else f"{domain} {condition}"
            groups.append((name, condition, colour, clips))
    return groups
