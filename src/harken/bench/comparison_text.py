"""Comparisons of runs as CSV and LaTeX, and the signs of marks beside numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harken.bench.comparison import ComparedSet, ComparedSystem, Comparison
from harken.core.tables import csv_line
from harken.evaluation.scores import MARKS, in_brackets, merged_marks

#: signs of marks in the order of their first use; of a mark beyond them, more of the first
_SIGNS = ("*", "+", "#", "^")
_LATEX_SIGNS = {"*": r"\ast", "+": r"\dagger", "#": r"\ddagger", "^": r"\S"}
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def signs_of(comparison: Comparison) -> dict[str, str]:
    """mark -> sign beside the numbers of systems that have it."""
    present = {mark for each in comparison.sets for system in each.systems for mark in system.marks}
    ordered = [*(mark for mark in MARKS if mark in present), *sorted(present - {*MARKS})]
    return {mark: _SIGNS[n] if n < len(_SIGNS) else "*" * (n - len(_SIGNS) + 2) for n, mark in enumerate(ordered)}


def signed(text: str, marks: Iterable[str], signs: Mapping[str, str]) -> str:
    """A number with the signs of its marks."""
    return text + "".join(sign for mark, sign in signs.items() if mark in set(marks))


def value_text(value: Any) -> str:
    """A value of a recipe on one line; `-` for none."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def labels_of(data_set: ComparedSet) -> dict[tuple[str, str], str]:
    """(run, system) -> what to call it: the run where each has one system of the same name, the system where there is
    one run, else both."""
    keys = [system.key for system in data_set.systems]
    runs, names = {run for run, _ in keys}, {name for _, name in keys}
    if len(names) == 1:
        return {key: key[0] for key in keys}
    return {key: key[1] if len(runs) == 1 else ", ".join(key) for key in keys}


def counted(data_set: ComparedSet) -> str:
    """`1 machine`, `2 machines`."""
    number = len(data_set.machines)
    return f"{number} machine" + "s" * (number != 1)


def base_of(data_set: ComparedSet) -> tuple[str, str] | None:
    """The system with which all others are compared; None where there are several."""
    bases = {system.difference.against for system in data_set.systems if system.difference is not None}
    return bases.pop() if len(bases) == 1 else None


def reasons_of(data_set: ComparedSet) -> dict[str, str]:
    """mark -> its reasons, of all systems of a set."""
    reasons: dict[str, dict[str, None]] = {}
    for mark in merged_marks(system.marks for system in data_set.systems):
        for system in data_set.systems:
            if mark in system.marks:
                reasons.setdefault(mark, {})[system.marks[mark]] = None
    return {mark: "; ".join(texts) for mark, texts in reasons.items()}


def csv_of(comparison: Comparison) -> str:
    """One line per set and system: marks, parameters that differ, official scores, difference and its intervals."""
    machines = list(dict.fromkeys(machine for each in comparison.sets for machine in each.machines))
    head = [
        "set", "run", "system", "marks", *comparison.parameters, "seeds", "clips", "official_score",
        "official_score_std", *(f"official_score {machine}" for machine in machines), "against_run", "against_system",
        "difference", "clips_low", "clips_high", "machines_clips_low", "machines_clips_high", "share_above",
        "difference_marks",
    ]  # fmt: skip
    lines = [csv_line(head)]
    for each in comparison.sets:
        for system in each.systems:
            run = comparison.runs.index(system.run)
            parameters = [
                "" if values[run] is None else value_text(values[run]) for values in comparison.parameters.values()
            ]
            lines.append(csv_line([
                each.name, system.run, system.system, "; ".join(system.marks), *parameters, system.seeds, each.clips,
                "" if system.score is None else system.score, "" if system.score is None else system.spread,
                *(system.machines.get(machine, "") for machine in machines), *_difference_cells(system),
            ]))  # fmt: skip
    return "".join(f"{line}\n" for line in lines)


def _difference_cells(system: ComparedSystem) -> list[Any]:
    difference = system.difference
    if difference is None:
        return [""] * 9
    bounds = ("", "") if difference.machines is None else difference.machines
    marks = "; ".join(difference.marks)
    return [*difference.against, difference.value, *difference.clips, *bounds, difference.share, marks]


def latex_of(comparison: Comparison) -> str:
    """One `tabular` per set, with the rules of booktabs: official scores per machine, differences and their intervals.

    Every number has the signs of its marks, which the lines below the table explain.
    """
    signs = signs_of(comparison)
    lines = [f"% {' '.join(note.split())}" for note in comparison.notes]
    for each in comparison.sets:
        lines += _tabular(each, comparison, signs)
    return "\n".join(lines) + "\n"


def _tabular(each: ComparedSet, comparison: Comparison, signs: Mapping[str, str]) -> list[str]:
    with_differences = any(system.difference is not None for system in each.systems)
    head = ["System", "Official", *each.machines]
    percent = f"{100 * comparison.level:g}\\,\\%"
    if with_differences:
        head += ["Difference", f"{percent} over clips", f"{percent} over machines and clips", "Share above"]
    labels = labels_of(each)
    rows = [_latex_row(labels[system.key], system, each.machines, with_differences, signs) for system in each.systems]
    lines = [
        f"% {each.name}: {each.clips} test clips of {counted(each)}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(cell if "\\" in cell else escaped(cell) for cell in head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
    ]
    below = [
        f"$^{{{_latex_sign(signs[mark])}}}$ {escaped(f'{mark}: {reason}')}" for mark, reason in reasons_of(each).items()
    ]
    if with_differences:
        base = base_of(each)
        to = f"to {labels[base]}" if base is not None else f"to the same system of {each.systems[0].run}"
        below.insert(0, escaped(f"Differences {to}; intervals of {comparison.draws} paired bootstrap samples"))
    lines += [rf"\multicolumn{{{len(head)}}}{{l}}{{\footnotesize {text}}} \\" for text in below]
    return [*lines, r"\end{tabular}"]


def _latex_row(
    label: str, system: ComparedSystem, machines: Sequence[str], with_differences: bool, signs: Mapping[str, str]
) -> list[str]:
    def number(value: float | None, marks: Mapping[str, str] = system.marks, form: str = ".4f") -> str:
        if value is None:
            return "--"
        return f"${value:{form}}$" + _latex_signs(marks, signs)

    def interval(bounds: tuple[float, float] | None) -> str:
        return "--" if bounds is None else f"$[{bounds[0]:+.4f}, {bounds[1]:+.4f}]$" + _latex_signs(marks, signs)

    row = [escaped(label + in_brackets(system.marks)), number(system.score)]
    row += [number(system.machines.get(machine)) for machine in machines]
    if with_differences and system.difference is None:
        row += ["--"] * 4
    elif system.difference is not None:
        marks = system.difference.marks
        row += [number(system.difference.value, marks, "+.4f"), interval(system.difference.clips)]
        row += [interval(system.difference.machines), number(system.difference.share, marks, ".3f")]
    return row


def _latex_signs(marks: Iterable[str], signs: Mapping[str, str]) -> str:
    inside = "".join(_latex_sign(sign) for mark, sign in signs.items() if mark in set(marks))
    return f"$^{{{inside}}}$" if inside else ""


def _latex_sign(sign: str) -> str:
    return _LATEX_SIGNS.get(sign, r"\ast" * len(sign))


def escaped(text: str) -> str:
    """Text in which no character has a meaning of its own in LaTeX, on one line."""
    return "".join(_LATEX.get(char, char) for char in " ".join(text.split()))
