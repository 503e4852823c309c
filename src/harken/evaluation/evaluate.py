"""From score files and truth to official results."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harken.core.errors import HarkenError
from harken.data import catalog
from harken.data.catalog import Metric
from harken.data.names import is_id_name, parse_name
from harken.data.truth import Label, Section, Truth, label_of_name, read_truth
from harken.evaluation.metrics import decisions, f1_best, f1_expected
from harken.evaluation.rules import Numbers, SectionScores, machine_means, section_numbers, summary, within_domain
from harken.evaluation.score_files import Broken, System, read_systems


@dataclass(frozen=True)
class Result:
    """One evaluated system. numbers: official, a section; extra: within-domain, decisions, thresholds."""

    system: str
    rule: Metric
    numbers: dict[Section, Numbers]
    extra: dict[Section, Numbers]
    summary: Numbers
    sections: list[SectionScores] = field(repr=False)

    @property
    def official_score(self) -> float:
        return self.summary["official_score"]

    def as_json(self) -> dict[str, Any]:
        """`{"official_score": x, "machines": {"fan": {"section_00": {...}}}, "auc_source": ...}`."""
        word = "id" if self.rule == "machine_id" else "section"
        machines: dict[str, dict[str, Numbers]] = {}
        for (machine, section), row in self.numbers.items():
            machines.setdefault(machine, {})[f"{word}_{section}"] = {**row, **self.extra[machine, section]}
        return {"system": self.system, "rule": self.rule, **self.summary, "machines": machines}


@dataclass(frozen=True)
class Evaluation:
    """Systems from the best to the worst, and those that could not be evaluated."""

    results: list[Result]
    broken: list[Broken]


def evaluate(
    scores: Path, truth: Path | None = None, *, year: int | None = None, machines: Collection[str] | None = None
) -> Evaluation:
    """Official results of one system or of every system below a folder.

    scores: see `read_systems`. truth: see `read_truth`; None when the clip names carry labels. year: whose rule
    applies; told from the spelling of the files when None. machines: leave out the others.
    Raises HarkenError when the truth cannot be read or no system can be evaluated.
    """
    systems, broken, own_truth = read_systems(scores)
    labels = read_truth(truth) if truth is not None else own_truth
    results = []
    for system in systems:
        try:
            results.append(evaluate_system(system, labels, year=year, machines=machines))
        except HarkenError as error:
            broken.append(Broken(system.name, error))
    if not results:
        raise broken[0].error
    return Evaluation(ranked(results), broken)


def evaluate_system(
    system: System, truth: Truth | None, *, year: int | None = None, machines: Collection[str] | None = None
) -> Result:
    """Official results of one system; every clip joined on its name. Raises HarkenError as `join` does."""
    rule = catalog.year(year).metric if year is not None else _told_rule(system)
    sections = join(system, truth, machines)
    numbers = {}
    for section in sections:
        try:
            numbers[section.key] = section_numbers(rule, section)
        except ValueError as error:
            raise HarkenError(
                f"{section.machine} section {section.section}: {error}", file=system.name,
                next_step="Check the truth, or leave the machine out with --machine",
            ) from error  # fmt: skip
    totals = summary(rule, list(numbers.items()), by_rows=truth is None or not truth.official)
    extra = {section.key: _extra(section) for section in sections}
    return Result(system.name, rule, numbers, extra, totals, sections)


def join(system: System, truth: Truth | None, machines: Collection[str] | None = None) -> list[SectionScores]:
    """Scores and labels of each section, in the evaluators' order.

    Without truth the labels are those in the clip names. Raises HarkenError for sections or clips that are missing
    from either side, and for labels known to be wrong.
    """
    wanted = {key for key in system.scores if machines is None or key[0] in machines}
    if truth is not None:
        expected = {key for key in truth.labels if machines is None or key[0] in machines}
        for key in sorted(wanted - expected):
            raise HarkenError(
                f"{truth.source} has no labels of {key[0]} section {key[1]}", file=system.name,
                next_step="Name the right --truth, or the machines to evaluate with --machine",
            )  # fmt: skip
        for key in sorted(expected - wanted):
            raise HarkenError(
                f"there are no scores of {key[0]} section {key[1]}", file=system.name,
                next_step="Add them, or name the machines to evaluate with --machine",
            )  # fmt: skip
    if not wanted:
        raise HarkenError("there are no scores of these machines", file=system.name, next_step="Check --machine")
    return [_join_section(system, key, truth) for key in sorted(wanted)]


def ranked(results: Sequence[Result]) -> list[Result]:
    """Best first: by official score; by average rank over machines and measures where the year ranked so (2020)."""
    if len(results) > 1 and all(result.rule == "machine_id" for result in results):
        ranks = average_ranks(results)
        return [result for _, result in sorted(zip(ranks, results, strict=True), key=lambda pair: pair[0])]
    return sorted(results, key=lambda result: -result.official_score)


def average_ranks(results: Sequence[Result]) -> list[float]:
    """Mean over machine types and AUC, pAUC of each system's rank (1 = best; ties share)."""
    from scipy.stats import rankdata

    means = [machine_means(list(result.numbers.items())) for result in results]
    columns = [
        [-row.get(machine, {}).get(name, 0.0) for row in means]
        for machine in dict.fromkeys(machine for row in means for machine in row)
        for name in ("auc", "pauc")
    ]
    return [float(rank) for rank in np.mean([rankdata(column) for column in columns], axis=0)]


def _told_rule(system: System) -> Metric:
    """The rule that the spelling of the files tells."""
    first = next(iter(next(iter(system.scores.values()))))
    if system.by_id or is_id_name(first):
        return "machine_id"
    return "domain_adaptation" if system.by_domain else "domain_generalization"


def _join_section(system: System, key: Section, truth: Truth | None) -> SectionScores:
    where = f"{key[0]} section {key[1]}"
    if truth is None:
        labels = {clip: _label_in_name(system, clip, where) for clip in system.scores[key]}
    else:
        if key[0] in truth.errata:
            raise HarkenError(
                truth.errata[key[0]], file=truth.source, next_step="Name ground_truth_data of the evaluator"
            )
        labels = truth.labels[key]
    scores = _published(system, system.scores[key], key, truth)
    _same_clips(system, scores, labels, where, "scores")
    made = system.decisions.get(key)
    if made is not None:
        made = _published(system, made, key, truth)
        _same_clips(system, made, labels, where, "decisions")
    names = sorted(scores)
    number = {"source": 0, "target": 1}
    return SectionScores(
        machine=key[0],
        section=key[1],
        names=tuple(names),
        scores_N=np.array([scores[name] for name in names]),
        anomaly_N=np.array([labels[name].anomaly for name in names]),
        domain_N=np.array([number.get(labels[name].domain, -1) for name in names]),
        decisions_N=None if made is None else np.array([made[name] == 1 for name in names]),
    )


def _published(system: System, rows: dict[str, float], key: Section, truth: Truth | None) -> dict[str, float]:
    """Rows under the names of publication; two rows that turn out to be one clip are refused."""
    if truth is None:
        return rows
    found: dict[str, float] = {}
    for clip, value in rows.items():
        name = truth.published_name(key, clip)
        label, told = truth.labels[key].get(name), label_of_name(parse_name(clip))
        if name in found:
            raise HarkenError(
                f"{key[0]} section {key[1]}: {clip} is {name}, which is there too", file=system.name,
                next_step="Keep one row a clip",
            )  # fmt: skip
        if label is not None and told is not None and told.anomaly != label.anomaly:
            raise HarkenError(
                f"{key[0]} section {key[1]}: the name {clip} and the truth contradict each other", file=system.name,
                next_step="Check that scores and truth are of the same year",
            )  # fmt: skip
        found[name] = value
    return found


def _label_in_name(system: System, clip: str, where: str) -> Label:
    label = label_of_name(parse_name(clip))
    if label is None:
        raise HarkenError(
            f"{where}: the name {clip} does not say whether the clip is normal", file=system.name,
            next_step="Name the ground truth: --truth FOLDER",
        )  # fmt: skip
    return label


def _same_clips(system: System, rows: Collection[str], labels: Collection[str], where: str, what: str) -> None:
    missing, extra = set(labels) - set(rows), set(rows) - set(labels)
    for clips, text in ((missing, f"has no {what} for"), (extra, f"has {what} for clips the truth does not know:")):
        if clips:
            more = f" and {len(clips) - 1} more" if len(clips) > 1 else ""
            raise HarkenError(
                f"{where} {text} {min(clips)}{more}",
                file=system.name,
                next_step="Give each test clip one row",
            )


def _extra(section: SectionScores) -> Numbers:
    found = within_domain(section)
    if section.anomaly_N.any() and not section.anomaly_N.all():
        found["f1_expected"] = f1_expected(section.anomaly_N, section.scores_N)
        found["f1_best_tuned_on_test"] = f1_best(section.anomaly_N, section.scores_N)
    if section.decisions_N is not None:
        domains = (("source", section.domain_N == 0), ("target", section.domain_N == 1))
        if not (section.domain_N >= 0).any():
            domains = (("all", np.ones(len(section.names), dtype=bool)), ("target", np.zeros(0, dtype=bool)))
        for name, inside in domains:
            if inside.any():
                made = decisions(section.anomaly_N[inside], section.decisions_N[inside])
                found |= {f"{measure}_{name}": value for measure, value in asdict(made).items()}
    return found
