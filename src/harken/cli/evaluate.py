"""harken evaluate: official metrics of score files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harken.cli.console import emit, line, say


def evaluate(
    scores: Annotated[
        list[Path],
        typer.Argument(help="Folders of anomaly_score_*.csv, or of such folders, or tables.", show_default=False),
    ],
    truth: Annotated[
        Path | None, typer.Option(help="Folder with ground_truth_data; not needed where names carry labels.")
    ] = None,
    year: Annotated[int | None, typer.Option(help="Year of the official metric (default: detected).")] = None,
    machine: Annotated[list[str] | None, typer.Option(help="Evaluate this machine only; repeat.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Add the other metrics of the official evaluators.")] = False,
    bootstrap: Annotated[int, typer.Option(help="Bootstrap draws for a 95 % interval; 0: none.", min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Compute the official score of a system, or rank several. Clips are matched by file name."""
    from harken.evaluation.bootstrap import bootstrap as resample
    from harken.evaluation.evaluate import Result
    from harken.evaluation.evaluate import evaluate as run
    from harken.evaluation.evaluator import evaluator_machines, evaluator_numbers

    done = run(scores, truth, year=year, machines=machine)

    def as_json(result: Result) -> dict[str, Any]:
        data = result.as_json()
        if bootstrap:
            interval = resample(result, draws=bootstrap)
            data["official_score_interval"] = [interval.low, interval.high]
        if full:
            data["evaluator"] = evaluator_numbers(result)
            data["evaluator_machines"] = evaluator_machines(result)
        return data

    if json and len(done.results) == 1 and not done.broken:
        emit(as_json(done.results[0]))
    elif json:
        failed = [{"system": broken.name, "error": str(broken.error)} for broken in done.broken]
        emit({"systems": [as_json(result) for result in done.results], "failed": failed})
    elif len(done.results) == 1:
        _print_system(as_json(done.results[0]))
    else:
        _print_ranking([as_json(result) for result in done.results])
    for result in done.results:
        for mark, reason in result.marks.items():
            say(f"note: {result.system}: {mark}: {reason}")
    for broken in done.broken:
        say(f"not evaluated: {broken.name}: {broken.error}")
    if done.broken:
        raise typer.Exit(2)


def _print_system(data: dict[str, Any]) -> None:
    from harken.evaluation.scores import in_brackets

    sections = [(machine, name, row) for machine, rows in data["machines"].items() for name, row in rows.items()]
    columns = list(dict.fromkeys(key for *_, row in sections for key in row if not key.endswith("_within_domain")))
    width = max(len(machine) for machine, *_ in sections) + 1
    line(f"{'machine':<{width}}{'section':<11}" + "".join(f"{_short(name):>9}" for name in columns))
    for machine, name, row in sections:
        numbers = "".join(f"{row[column]:>9.4f}" if column in row else f"{'-':>9}" for column in columns)
        line(f"{machine:<{width}}{name:<11}{numbers}")
    for name, value in data.items():
        if name in ("system", "rule", "machines", "official_score", "marks"):
            continue
        if name == "evaluator_machines":
            for machine, means in value.items():
                for mean, numbers in means.items():
                    line(f"{machine} {mean}: {' '.join(map(str, numbers))}")
        elif isinstance(value, dict):
            for measure, number in value.items():
                line(f"{measure}: {' '.join(map(str, number)) if isinstance(number, list) else number}")
        else:
            line(f"{name}: {value}")
    if any("f1_best_tuned_on_test" in row for *_, row in sections):
        line("F1*: at the best threshold, chosen with the labels of these clips")
    line(f"official score ({data['rule']}): {data['official_score']}{in_brackets(data.get('marks', ()))}")


def _short(name: str) -> str:
    if name == "f1_best_tuned_on_test":
        return "F1*"
    words = {"source": "src", "target": "tgt", "precision": "prec", "recall": "rec", "expected": "exp"}
    return " ".join(words.get(word, word) for word in name.split("_"))


def _print_ranking(rows: list[dict[str, Any]]) -> None:
    from harken.evaluation.scores import in_brackets

    systems = [row["system"] + in_brackets(row.get("marks", ())) for row in rows]
    width = max(map(len, systems)) + 2
    names = [name for name in rows[0] if name in ("auc_source", "auc_target", "auc", "pauc", "official_score_interval")]
    line(f"{'':<4}{'system':<{width}}{'official score':<20}" + "  ".join(names))
    for rank, (system, row) in enumerate(zip(systems, rows, strict=True), start=1):
        cells = "  ".join(
            f"{row[name][0]:.4f}-{row[name][1]:.4f}" if isinstance(row[name], list) else f"{row[name]:<{len(name)}.4f}"
            for name in names
        )
        line(f"{rank:<4}{system:<{width}}{row['official_score']!s:<20}{cells}")
