"""Weights and the evidence of whether they help: best single, uniform and fitted, in sample and held out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harken.core.errors import HarkenError, and_more
from harken.core.threads import one_thread
from harken.data.names import parse_name
from harken.data.truth import Truth, label_of_name
from harken.detection.normalise import Normalise
from harken.ensemble.bag import Bag, Members, Origin
from harken.ensemble.groups import as_bag, grouped, mixed_groups
from harken.ensemble.label_free import compared
from harken.ensemble.member import Member
from harken.ensemble.mix import check_same_clips, clip_digests, mix
from harken.ensemble.problem import (
    LABEL_FREE,
    METHODS,
    FittedWeights,
    Gate,
    Method,
    Problem,
    check_method,
    choose_normalisation,
    labelled,
    without_labels,
)
from harken.ensemble.report import Report, report
from harken.ensemble.search import SearchSettings
from harken.ensemble.selection import Selection
from harken.evaluation.evaluate import Result, evaluate_system
from harken.evaluation.scores import SEEN, TRANSDUCTIVE, TUNED, Scores

#: methods whose search is too long to be repeated dozens of times unless requested
_SLOW = frozenset({"bayes"})


@dataclass(frozen=True)
class Number:
    """An official score, and the marks that are shown wherever it is."""

    value: float
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One way to weigh. in_sample: on the clips of the fit; held_out: each machine by weights fitted on the others;
    transfer: on another set, by the same weights. None: not available, or too slow unless requested."""

    name: str
    in_sample: Number
    held_out: Number | None
    transfer: Number | None
    detail: str = ""


@dataclass(frozen=True)
class Proof:
    """The result of a fit.

    bag: with the weights that are kept, the `fitted` or the `uniform` ones. gate: None where the method uses no labels,
    no machine can be left out, or a member used labels of these machines. report: of the members, with the fitted
    weights.
    """

    bag: Bag
    rows: tuple[Row, ...]
    kept: str
    why: str
    gate: Gate | None
    report: Report
    members: int
    machines: tuple[str, ...]
    sections: int
    clips: int
    rule: str
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As `harken ensemble fit --json` prints it."""
        names = [member.name for member in self.report.members]
        return {
            "members": self.members,
            "machines": list(self.machines),
            "sections": self.sections,
            "clips": self.clips,
            "rule": self.rule,
            "normalise": self.bag.normalise,
            "rows": [asdict(row) for row in self.rows],
            "kept": self.kept,
            "why": self.why,
            "gate": None if self.gate is None else {**asdict(self.gate), "passed": self.gate.passed},
            "report": {
                "members": [asdict(member) for member in self.report.members],
                "correlation": {"names": names, "ranks": self.report.correlation_GG.tolist()},
                "bootstrap_draws": self.report.draws,
                "marks": sorted({TUNED, *(mark for row in self.rows for mark in row.in_sample.marks)}),
            },
            "notes": list(self.notes),
            "bag": self.bag.as_json(),
        }


def fit(
    members: Sequence[Member],
    truth: Truth | None = None,
    *,
    method: Method = "greedy",
    compare: Collection[Method] = (),
    normalise: Normalise | None = None,
    year: int | None = None,
    machines: Sequence[str] | None = None,
    groups: str | None = None,
    best: int | None = None,
    selection: Selection | None = None,
    keep_fitted: bool = False,
    transfer: tuple[Sequence[Member], Truth | None] | None = None,
    settings: SearchSettings = SearchSettings(),
    draws: int | None = None,
    name: str = "ensemble",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Proof:
    """Fit weights to labelled members, and measure them where they were not fitted.

    method: of the search; compare: further methods for the table. normalise: None for training clips where all members
    have held-out scores, else test clips. year: of the official rule; recognised from the clips when None. groups,
    best, selection: see `Problem`. keep_fitted: keep fitted weights even where they do not beat the plain mean.
    transfer: the same members on another set, and its labels. draws: bootstrap samples of machines for the report;
    None: 20, or none where the search is slow.
    Raises HarkenError for members that cannot be evaluated, mixed or distinguished.
    """
    for each in (method, *compare):
        check_method(each)
    notes = []
    if normalise is None:
        normalise, missing = choose_normalisation(members)
        notes += [missing] if missing else []
    with one_thread():
        problem = Problem(
            members,
            truth,
            normalise,
            year=year,
            machines=machines,
            groups=groups,
            best=best,
            selection=selection,
            settings=settings,
        )
        table = _Table(problem, transfer)
        ways = [way for way in METHODS if way in compare and way not in ("single", "uniform", method)]
        ways += [way for way in compare if way not in METHODS and way != method]
        ways = ["single", "uniform", *ways, *([method] if method not in ("single", "uniform") else [])]
        rows = []
        for number, way in enumerate(ways):
            progress(number, len(ways) + 2)
            rows.append(table.row(way))
        progress(len(ways), len(ways) + 2)
        everywhere = problem.everywhere
        # Of members that used labels of these machines, no gain on machines left out is known.
        gate = problem.gate(method, everywhere) if method not in LABEL_FREE and not problem.tuned_members else None
        kept = "fitted" if method in LABEL_FREE or keep_fitted or (gate is not None and gate.passed) else "uniform"
        why = _why(method, gate, keep_fitted, normalise.startswith("transductive"), problem.tuned_members)
        if problem.tuned_members:
            notes += [
                f"{', '.join(marked)}: {mark}, so that no number here is of machines left out ({problem.marks[mark]})"
                for mark in (TUNED, SEEN)
                if (marked := [member.name for member in problem.members if mark in member.scores.marks])
            ]
        if method not in LABEL_FREE:
            rows.append(table.kept_row(method, kept, keep_fitted))
        fitted = problem.fit(method if kept == "fitted" else "uniform", everywhere)
        bag = problem.bag(fitted, name)
        progress(len(ways) + 1, len(ways) + 2)
        member_report = report(
            problem,
            method,
            problem.fit(method, everywhere),
            draws=draws if draws is not None else 0 if method in _SLOW else 20,
        )
    used = method if kept == "fitted" else "uniform"
    row = next(row for row in rows if row.name == used)
    tuned = used not in LABEL_FREE
    clips = sum(len(section.names) for section in problem.labels)
    origin = Origin(
        method=used,
        settings=_settings_of(used, settings, groups, best, selection),
        objective=f"official score, rule {problem.rule}" if tuned else None,
        considered=len(problem.members),
        tuned_on=f"the labels of {clips} clips, {len(problem.labels)} sections" if tuned else None,
        machines=problem.machines if tuned else (),
        clips=_digests(members, problem.machines) if tuned else (),
        official_score=row.in_sample.value,
        held_out=row.held_out.value if row.held_out is not None else None,
        uniform=rows[1].in_sample.value,
        marks=row.in_sample.marks,
        decision=why,
    )
    return Proof(
        bag=bag.model_copy(update={"weights_from": origin}),
        rows=tuple(rows),
        kept=kept,
        why=why,
        gate=gate,
        report=member_report,
        members=len(problem.members),
        machines=problem.machines,
        sections=len(problem.labels),
        clips=clips,
        rule=problem.rule,
        notes=tuple(notes),
    )


def _digests(members: Sequence[Member], machines: Sequence[str]) -> tuple[str, ...]:
    """Digests of the clips of each machine, as the first member names them."""
    digests = clip_digests(min(members, key=lambda member: member.name).scores)
    return tuple(digests[machine] for machine in machines)


def are_labelled(members: Sequence[Member], truth: Truth | None) -> bool:
    """Whether there is a truth, or the names of the clips contain their labels."""
    first = members[0].scores.test.names[:1]
    return truth is not None or any(label_of_name(parse_name(name)) is not None for name in first)


def fit_without_labels(
    members: Sequence[Member],
    *,
    method: Method = "uniform",
    normalise: Normalise | None = None,
    groups: str | None = None,
    name: str = "ensemble",
) -> tuple[Bag, tuple[str, ...]]:
    """A bag whose weights are found without labels, and notes. Raises HarkenError for a method that needs labels."""
    check_method(method)
    if method not in LABEL_FREE:
        raise HarkenError(
            f"{method} needs labels, and the names of these clips do not contain them",
            next_step=f"Give the ground truth (--truth), or choose {', '.join(sorted(LABEL_FREE))}",
        )
    in_order = sorted(members, key=lambda member: member.name)
    check_same_clips([member.scores for member in in_order])
    notes = []
    if normalise is None:
        normalise, missing = choose_normalisation(in_order)
        notes += [missing] if missing else []
    of = grouped([member.name for member in in_order], groups)
    with one_thread():
        group_scores = mixed_groups(in_order, of, normalise)
        correlation_GG, looked = compared(group_scores, group_scores[0].sections())
        if looked and method != "uniform":
            notes.append("members were compared on the test clips: the weights are transductive")
        bag = as_bag(in_order, of, without_labels(method, correlation_GG), normalise, name)
        mix(bag, Members(in_order))
    origin = Origin(method=method, considered=len(in_order), settings=_settings_of(method, SearchSettings(), groups))
    return bag.model_copy(update={"weights_from": origin}), tuple(notes)


class _Table:
    """Numbers of a problem, and of the same weights on another set."""

    def __init__(self, problem: Problem, transfer: tuple[Sequence[Member], Truth | None] | None) -> None:
        self.problem = problem
        self.transfer: tuple[list[Member], Truth | None] | None = None
        if transfer is not None:
            names = {member.name for member in problem.members}
            present = [member for member in transfer[0] if member.name in names]
            missing = names - {member.name for member in present}
            if missing:
                raise HarkenError(
                    f"the set of the transfer has no member {and_more(missing)}",
                    next_step="Rename its folders as those of the fit, or leave the member out",
                )
            self.transfer = labelled(present, transfer[1], problem.year, None)[0], transfer[1]
        self.same = self.transfer is not None and _share_clips(problem.members[0].scores, self.transfer[0][0].scores)

    def row(self, method: Method) -> Row:
        """The numbers of one method."""
        problem = self.problem
        fitted = problem.fit(method, problem.everywhere)
        held_out = None
        if len(problem.machines) > 1 and not problem.tuned_members:
            held_out = self._held_out(lambda counts: problem.fit(method, counts))
        marks = self._marks(method)
        in_sample = self._in_sample(fitted, method, marks)
        if method == "uniform":
            held_out_number = None if problem.tuned_members else in_sample
        else:
            held_out_number = None if held_out is None else Number(held_out, marks)
        single = fitted.groups[int(np.argmax(fitted.weights_G))][0] if method == "single" else ""
        return Row(method, in_sample, held_out_number, self._elsewhere(fitted, method, marks), single)

    def kept_row(self, method: Method, kept: str, anyway: bool) -> Row:
        """The method and the decision together: the plain mean wherever the method does not beat it."""
        problem = self.problem
        used: Method = method if kept == "fitted" else "uniform"
        fitted = problem.fit(used, problem.everywhere)
        marks = self._marks("uniform")
        held_out = None
        if len(problem.machines) > 1 and not problem.tuned_members:
            if anyway:
                held_out = Number(self._held_out(lambda counts: problem.fit(method, counts)), marks)
            elif method not in _SLOW:
                held_out = Number(self._held_out(lambda counts: problem.gated(method, counts)), marks)
        return Row("kept", self._in_sample(fitted, used, marks), held_out, self._elsewhere(fitted, used, marks), used)

    def _in_sample(self, fitted: FittedWeights, method: Method, marks: tuple[str, ...]) -> Number:
        """As `harken evaluate` computes it from the written scores, to the last digit."""
        problem = self.problem
        mixed = mix(problem.bag(fitted, "ensemble"), Members(problem.members))
        result = evaluate_system(mixed, problem.truth, year=problem.year, machines=problem.machines)
        return _number(result, (*((TUNED,) if method not in LABEL_FREE else ()), *marks), fitted, problem.members)

    def _held_out(self, fit: Callable[..., FittedWeights]) -> float:
        everywhere = self.problem.everywhere
        return self.problem.score(self.problem.held_out(fit, everywhere), everywhere)

    def _marks(self, method: Method) -> tuple[str, ...]:
        if method == "single":
            # A single member's numbers do not depend on its normalisation.
            return ()
        looked = self.problem.normalise.startswith("transductive")
        if method in ("agreement", "variance"):
            looked |= self.problem.compares_test_clips
        return (TRANSDUCTIVE,) if looked else ()

    def _elsewhere(self, fitted: FittedWeights, method: Method, marks: tuple[str, ...]) -> Number | None:
        if self.transfer is None:
            return None
        mixed = mix(self.problem.bag(fitted, "ensemble"), Members(self.transfer[0]))
        result = evaluate_system(mixed, self.transfer[1], year=self.problem.year)
        tuned = (TUNED,) if self.same and method not in LABEL_FREE else ()
        return _number(result, (*tuned, *marks), fitted, self.transfer[0])


def _number(result: Result, marks: tuple[str, ...], fitted: FittedWeights, members: Sequence[Member]) -> Number:
    """With the marks of the method, and those of the members that have a weight."""
    of_members = result.marks
    if [len(inside) for (_, inside), weight in zip(fitted.groups, fitted.weights_G, strict=True) if weight > 0] == [1]:
        # The normalisation of a single member changes no number.
        (name,) = (name for (name, _), weight in zip(fitted.groups, fitted.weights_G, strict=True) if weight > 0)
        of_members = next(member.scores.marks for member in members if member.name == name)
    return Number(result.official_score, tuple(dict.fromkeys((*marks, *of_members))))


def _share_clips(scores: Scores, other_scores: Scores) -> bool:
    """Whether two sets share clips: of the same name and score (evaluation sets share numbers, not clips)."""
    for key in set(scores.sections()) & set(other_scores.sections()):
        score_of, other_score_of = scores.by_name(key), other_scores.by_name(key)
        if any(score_of[clip] == other_score_of[clip] for clip in score_of.keys() & other_score_of.keys()):
            return True
    return False


def _why(method: Method, gate: Gate | None, keep_fitted: bool, looked: bool, tuned: Sequence[str]) -> str:
    if method in LABEL_FREE:
        saw = f", but {', '.join(tuned)} used labels of these machines" if tuned else ""
        return f"the weights use no labels{saw}"
    if gate is None:
        cause = f"as {', '.join(tuned)} used labels of these machines," if tuned else "with one machine"
        text = f"{cause} it is unknown whether {method} weights help on another"
    else:
        numbers = (
            f"{gate.fitted:.4f} against {gate.uniform:.4f}, gain {gate.gain:+.4f}, standard error {gate.error:.4f}"
        )
        numbers += f"; {TRANSDUCTIVE}" if looked else ""
        if gate.passed:
            return f"{method} beats the plain mean on machines that it was not fitted on ({numbers}): it is kept"
        if gate.gain > 0:
            text = (
                f"the gain of {method} on machines that it was not fitted on is within two standard errors ({numbers})"
            )
        else:
            text = f"{method} does not beat the plain mean on machines that it was not fitted on ({numbers})"
    return text + (": it is kept as requested" if keep_fitted else ": the plain mean is kept")


def _settings_of(
    method: Method,
    settings: SearchSettings,
    groups: str | None,
    best: int | None = None,
    selection: Selection | None = None,
) -> dict[str, Any]:
    """What the weights depend on besides the scores."""
    chosen_settings: dict[str, Any] = {}
    if method in ("greedy", "bayes"):
        chosen_settings["steps"] = settings.steps
    if method == "bayes":
        chosen_settings |= {"trials": settings.trials, "coordinates": settings.coordinates, "seed": settings.seed}
    if method == "grid":
        chosen_settings["step"] = settings.step
    if method == "top":
        chosen_settings["best"] = settings.best
    if settings.shrink and method not in (*LABEL_FREE, "single"):
        chosen_settings["shrink"] = settings.shrink if settings.shrink > 0 else "auto"
    if groups is not None:
        chosen_settings["group"] = groups
        if best is not None and method not in LABEL_FREE:
            chosen_settings["best_of_group"] = best
    if selection is not None and method not in (*LABEL_FREE, "single"):
        chosen_settings |= {"required": list(selection.required), "select": selection.best, "select_by": selection.by}
    return chosen_settings
