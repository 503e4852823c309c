"""From score files and truth to official results."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from harken.core.errors import HarkenError, and_more
from harken.data import catalog
from harken.data.catalog import Metric
from harken.data.names import is_id_name, parse_name
from harken.data.truth import Label, Section, Truth, label_of_name, read_truth
from harken.evaluation.metrics import decisions, f1_best, f1_expected
from harken.evaluation.rules import Numbers, SectionScores, machine_means, section_numbers, summary, within_domain
from harken.evaluation.score_files import Broken, read_systems
from harken.evaluation.scores import Scores
from harken.evaluation.system_names import distinct_names


@dataclass(frozen=True)
class Result:
    """One evaluated system. numbers: official, of each section; extra: within-domain, decisions, thresholds. marks:
    shown wherever its numbers are, mark -> reason."""

    system: str
    rule: Metric
    numbers: dict[Section, Numbers]
    extra: dict[Section, Numbers]
    summary: Numbers
    sections: list[SectionScores] = field(repr=False)
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def official_score(self) -> float:
        """The score by which the challenge ranks, by the rule of the year."""
        return self.summary["official_score"]

    def as_json(self) -> dict[str, Any]:
        """`{"official_score": x, "machines": {"fan": {"section_00": {...}}}, "auc_source": ...}`."""
        word = "id" if self.rule == "machine_id" else "section"
        machines: dict[str, dict[str, Numbers]] = {}
        for (machine, section), row in self.numbers.items():
            machines.setdefault(machine, {})[f"{word}_{section}"] = {**row, **self.extra[machine, section]}
        marks = {"marks": dict(self.marks)} if self.marks else {}
        return {"system": self.system, "rule": self.rule, **marks, **self.summary, "machines": machines}


@dataclass(frozen=True)
class Evaluation:
    """Systems from the best to the worst, and those that could not be evaluated."""

    results: list[Result]
    broken: list[Broken]


def evaluate(
    scores: Path | Sequence[Path],
    truth: Path | None = None,
    *,
    year: int | None = None,
    machines: Collection[str] | None = None,
) -> Evaluation:
    """Official results of one system, or of every system below folders, ranked together.

    scores: see `read_systems`. truth: see `read_truth`; None when the clip names carry labels. year: of the
    official rule; inferred from the names of the files when None. machines: leave out the others. Systems of the same
    name have folders of their paths in front, as far as these differ.
    Raises HarkenError when the truth cannot be read or no system can be evaluated.
    """
    paths = [scores] if isinstance(scores, Path) else list(scores)
    given_truth = read_truth(truth) if truth is not None else None
    broken: list[Broken] = []
    read: list[tuple[Path, Scores, Truth | None]] = []
    for path in paths:
        try:
            tables, refused, own_truth = read_systems(path)
        except HarkenError as error:
            if len(paths) == 1:
                raise
            broken.append(Broken(str(path), error))
            continue
        broken += refused
        read += [(path, table, given_truth or own_truth) for table in tables]
    names = distinct_names([table.system for _, table, _ in read], [path for path, _, _ in read])
    results = []
    for name, (_, table, labels) in zip(names, read, strict=True):
        try:
            results.append(evaluate_system(replace(table, system=name), labels, year=year, machines=machines))
        except HarkenError as error:
            broken.append(Broken(name, error))
    if not results:
        raise broken[0].error
    return Evaluation(ranked(results), broken)


def evaluate_system(
    scores: Scores, truth: Truth | None, *, year: int | None = None, machines: Collection[str] | None = None
) -> Result:
    """Official results of one system; every clip joined on its name. Raises HarkenError as `join` does."""
    rule = catalog.year(year).metric if year is not None else _rule_of_names(scores)
    sections = join(scores, truth, machines)
    numbers = {}
    for section in sections:
        try:
            numbers[section.key] = section_numbers(rule, section)
        except ValueError as error:
            raise HarkenError(
                f"{section.machine} section {section.section}: {error}", file=scores.system,
                next_step="Check the truth, or leave the machine out with --machine",
            ) from error  # fmt: skip
    totals = summary(rule, list(numbers.items()), by_rows=truth is None or not truth.official)
    extra = {section.key: _extra(section) for section in sections}
    return Result(scores.system, rule, numbers, extra, totals, sections, dict(scores.marks))


def join(scores: Scores, truth: Truth | None, machines: Collection[str] | None = None) -> list[SectionScores]:
    """Scores and labels of each section, in the evaluators' order.

    Without truth the labels are those in the clip names. Raises HarkenError for sections or clips that are missing
    from either side, and for labels known to be wrong.
    """
    wanted = {key for key in scores.sections() if machines is None or key[0] in machines}
    if truth is not None:
        expected = {key for key in truth.labels if machines is None or key[0] in machines}
        for key in sorted(wanted - expected):
            raise HarkenError(
                f"{truth.source} has no labels of {key[0]} section {key[1]}", file=scores.system,
                next_step="Give the right --truth, or the machines to evaluate with --machine",
            )  # fmt: skip
        for key in sorted(expected - wanted):
            raise HarkenError(
                f"there are no scores of {key[0]} section {key[1]}", file=scores.system,
                next_step="Add them, or give the machines to evaluate with --machine",
            )  # fmt: skip
    if not wanted:
        raise HarkenError("there are no scores of these machines", file=scores.system, next_step="Check --machine")
    return [_join_section(scores, key, truth) for key in sorted(wanted)]


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


def _rule_of_names(scores: Scores) -> Metric:
    """The rule of the years whose files are named so."""
    test = scores.test
    if not len(test):
        raise HarkenError("there are no scores of test clips", file=scores.system, next_step="Score some")
    if scores.layout == "id" or is_id_name(test.names[0]):
        return "machine_id"
    return "domain_adaptation" if scores.layout == "domain" else "domain_generalization"


def _join_section(scores: Scores, key: Section, truth: Truth | None) -> SectionScores:
    where = f"{key[0]} section {key[1]}"
    values = scores.by_name(key)
    if truth is None:
        labels = {clip: _label_in_name(scores, clip, where) for clip in values}
    else:
        if key[0] in truth.errata:
            raise HarkenError(
                truth.errata[key[0]], file=truth.source, next_step="Give ground_truth_data of the evaluator"
            )
        labels = truth.labels[key]
    values = _published(scores, values, key, truth)
    _same_clips(scores, values, labels, where, "scores")
    decided: dict[str, float] | None = None
    if made := scores.decisions(key):
        decided = _published(scores, made, key, truth)
        _same_clips(scores, decided, labels, where, "decisions")
    names = sorted(values)
    number = {"source": 0, "target": 1}
    return SectionScores(
        machine=key[0],
        section=key[1],
        names=tuple(names),
        scores_N=np.array([values[name] for name in names]),
        anomaly_N=np.array([labels[name].anomaly for name in names]),
        domain_N=np.array([number.get(labels[name].domain, -1) for name in names]),
        decisions_N=None if decided is None else np.array([decided[name] == 1 for name in names]),
    )


def _published(scores: Scores, rows: Mapping[str, float], key: Section, truth: Truth | None) -> dict[str, float]:
    """Rows under the published names; two rows of the same clip are refused."""
    if truth is None:
        return dict(rows)
    published: dict[str, float] = {}
    for clip, value in rows.items():
        name = truth.published_name(key, clip)
        label, in_name = truth.labels[key].get(name), label_of_name(parse_name(clip))
        if name in published:
            raise HarkenError(
                f"{key[0]} section {key[1]}: {clip} is {name}, which has a row too", file=scores.system,
                next_step="Keep one row per clip",
            )  # fmt: skip
        if label is not None and in_name is not None and in_name.anomaly != label.anomaly:
            raise HarkenError(
                f"{key[0]} section {key[1]}: the name {clip} and the truth contradict each other", file=scores.system,
                next_step="Check that scores and truth are of the same year",
            )  # fmt: skip
        published[name] = value
    return published


def _label_in_name(scores: Scores, clip: str, where: str) -> Label:
    label = label_of_name(parse_name(clip))
    if label is None:
        raise HarkenError(
            f"{where}: the name {clip} does not say whether the clip is normal", file=scores.system,
            next_step="Give the ground truth: --truth FOLDER",
        )  # fmt: skip
    return label


def _same_clips(scores: Scores, rows: Collection[str], labels: Collection[str], where: str, kind: str) -> None:
    missing, extra = set(labels) - set(rows), set(rows) - set(labels)
    for clips, text in ((missing, f"has no {kind} for"), (extra, f"has {kind} for clips unknown to the truth:")):
        if clips:
            raise HarkenError(
                f"{where} {text} {and_more(clips)}",
                file=scores.system,
                next_step="Give each test clip one row",
            )


def _extra(section: SectionScores) -> Numbers:
    numbers = within_domain(section)
    if section.anomaly_N.any() and not section.anomaly_N.all():
        numbers["f1_expected"] = f1_expected(section.anomaly_N, section.scores_N)
        numbers["f1_best_tuned_on_test"] = f1_best(section.anomaly_N, section.scores_N)
    if section.decisions_N is not None:
        domains = (("source", section.domain_N == 0), ("target", section.domain_N == 1))
        if not (section.domain_N >= 0).any():
            domains = (("all", np.ones(len(section.names), dtype=bool)), ("target", np.zeros(0, dtype=bool)))
        for name, inside in domains:
            if inside.any():
                made = decisions(section.anomaly_N[inside], section.decisions_N[inside])
                numbers |= {f"{measure}_{name}": value for measure, value in asdict(made).items()}
    return numbers
