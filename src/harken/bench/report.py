"""The report of a run: one HTML file with official tables, spread over seeds, and distributions of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harken.bench.marks import use_of_labels
from harken.bench.score_bars import Group, score_bars
from harken.core.pages import data_url, render
from harken.evaluation.evaluate import Result

if TYPE_CHECKING:
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
                        "picture": data_url(_picture(run, seeds[0]), "image/svg+xml"),
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
    """SVG: the scores of each machine, by domain and condition where they are known."""
    scores: dict[str, dict[str, float]] = {}
    for row in system.scores.test.rows():
        scores.setdefault(row.machine, {})[row.clip_id] = row.score
    return score_bars(scores, _groups(run, system.result))


def _groups(run: Run, result: Result | None) -> list[Group]:
    """Test clips by domain and condition; empty where labels are not known."""
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
            groups.append(Group(name, condition, colour, clips))
    return groups
