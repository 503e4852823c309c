"""Weights fitted to labelled members on some of the machines, and measured on the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError, did_you_mean, there_are
from harken.core.plugins import is_custom
from harken.data.catalog import Metric
from harken.data.truth import Truth
from harken.detection.normalise import Normalise
from harken.ensemble.bag import Bag
from harken.ensemble.bayes import bayes
from harken.ensemble.custom import custom_weights
from harken.ensemble.groups import Groups, as_bag, grouped, mixed_groups, singly
from harken.ensemble.label_free import agreement, compared, least_variance
from harken.ensemble.member import Member
from harken.ensemble.mix import check_same_clips, normalised_section
from harken.ensemble.objective import Objective, make_boards
from harken.ensemble.search import SearchSettings, greedy, grid, top, uniform
from harken.ensemble.selection import Selection
from harken.evaluation.evaluate import evaluate_system, join
from harken.evaluation.rules import SectionScores
from harken.evaluation.scores import UNDECIDED, USE_LABELS, ScoreRow, Scores, merged_marks

Float64 = NDArray[np.float64]
#: one of `METHODS`, or a custom search, `file.py:Class`
Method = str
#: methods that use labels: from the official score of weightings to weights
SEARCHES: dict[str, Callable[[Objective, SearchSettings], Float64]] = {
    "greedy": lambda objective, settings: greedy(objective, settings.steps),
    "bayes": bayes,
    "grid": lambda objective, settings: grid(objective, settings.step),
    "top": lambda objective, settings: top(objective, settings.best),
    "single": lambda objective, settings: top(objective, 1),
}
METHODS: tuple[Method, ...] = (*SEARCHES, "uniform", "agreement", "variance")
#: methods that use no labels
LABEL_FREE: frozenset[str] = frozenset({"uniform", "agreement", "variance"})
#: standard errors that a gain must exceed
_ERRORS = 2.0
#: shares of uniform weights that are tried for the best one
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class FittedWeights:
    """Groups of members and their weights; weights_G sums to one."""

    groups: Groups
    weights_G: Float64


@dataclass(frozen=True)
class Gate:
    """Whether fitted weights beat the plain mean on machines that they were not fitted on.

    gain: in official score; error: its standard error over machines (jackknife). A gain within two standard errors may
    be chance.
    """

    fitted: float
    uniform: float
    gain: float
    error: float

    @property
    def passed(self) -> bool:
        """Whether the gain exceeds two standard errors."""
        return self.gain > max(0.0, _ERRORS * self.error)


def search_of(method: Method) -> Callable[[Objective, SearchSettings], Float64]:
    """The search of a method that uses labels. HarkenError, naming the nearest, for an unknown one."""
    check_method(method)
    return partial(custom_weights, method) if is_custom(method) else SEARCHES[method]


def check_method(method: Method) -> None:
    """Raise HarkenError, naming the nearest, for a method that is neither known nor custom."""
    if not is_custom(method) and method not in METHODS:
        hint = did_you_mean(method, METHODS, f"{there_are(METHODS)}, or file.py:Class")
        raise HarkenError(f"unknown method {method!r}", next_step=hint)


class Problem:
    """Labelled members, in the order of their names.

    groups: pattern that is removed from names; members of the same remaining name are mixed evenly first. best: number
    of members of each group that are used, the best by their labels (top-3 checkpoints). selection: which groups
    searches weigh; chosen anew on the machines of each fit. Raises HarkenError for members
    that cannot be evaluated, score different clips, or give all clips of a section one score.
    """

    def __init__(
        self,
        members: Sequence[Member],
        truth: Truth | None,
        normalise: Normalise,
        *,
        year: int | None = None,
        machines: Sequence[str] | None = None,
        groups: str | None = None,
        best: int | None = None,
        selection: Selection | None = None,
        settings: SearchSettings = SearchSettings(),
    ) -> None:
        in_order = sorted(members, key=lambda member: member.name)
        self.members, self.labels, self.rule = labelled(in_order, truth, year, machines)
        for member in self.members:
            _refuse_constants(member)
        self.truth, self.normalise, self.settings = truth, normalise, settings
        self.year = year
        self.groups = grouped([member.name for member in self.members], groups)
        self._singly = singly([member.name for member in self.members])
        self.best, self.selection = best, selection
        self.machines = tuple(dict.fromkeys(section.machine for section in self.labels))
        self._objectives: dict[tuple[tuple[int, ...], ...], Objective] = {}
        self._fits: dict[tuple[str, frozenset[tuple[str, int]]], FittedWeights] = {}

    @property
    def everywhere(self) -> dict[str, int]:
        """Counts with every machine once."""
        return dict.fromkeys(self.machines, 1)

    def objective(self, groups: Groups) -> Objective:
        """The objective of weights of groups, on all machines."""
        key = tuple(inside for _, inside in groups)
        if key not in self._objectives:
            group_scores = mixed_groups(self.members, groups, self.normalise)
            scores = [
                np.stack([normalised_section(self.normalise, member, section.key)[0] for member in group_scores])
                for section in self.labels
            ]
            self._objectives[key] = Objective(make_boards(scores, self.labels, self.rule))
        return self._objectives[key]

    def of_all(self) -> Objective:
        """The objective of weights of single members."""
        return self.objective(self._singly)

    def fit(self, method: Method, counts: Mapping[str, int]) -> FittedWeights:
        """Weights from the labels of some machines; counts: machine -> how often it counts."""
        key = method, frozenset(counts.items())
        if key not in self._fits:
            groups = self.groups if method in LABEL_FREE else self._selected(counts)
            groups = self._singly if method == "single" else groups
            weights_G = self._weights(method, groups, counts)
            if method not in LABEL_FREE and method != "single" and self.settings.shrink:
                weights_G = self._shrunk(method, groups, weights_G, counts)
            self._fits[key] = FittedWeights(groups, weights_G)
        return self._fits[key]

    def numbers(self, fitted: FittedWeights) -> Float64:
        """(Q, numbers) of every board."""
        return np.asarray(self.objective(fitted.groups).numbers(fitted.weights_G[None])[0])

    def score(self, numbers_QK: Float64, counts: Mapping[str, int]) -> float:
        """Official score on some machines, from the numbers of the boards."""
        return float(self.of_all().of(counts).score(numbers_QK[None])[0])

    def held_out(self, fit: Callable[[Mapping[str, int]], FittedWeights], counts: Mapping[str, int]) -> Float64:
        """(Q, numbers): each machine's by weights fitted on the others."""
        machine_Q = np.array(self.of_all().boards.machine_Q)
        numbers_QK = np.zeros_like(self.numbers(self.fit("uniform", counts)))
        for machine in counts:
            numbers_QK[machine_Q == machine] = self.numbers(fit(_without(counts, machine)))[machine_Q == machine]
        return numbers_QK

    def gate(self, method: Method, counts: Mapping[str, int]) -> Gate | None:
        """The comparison with the plain mean on machines left out; None for less than two machines."""
        if len(counts) < 2:
            return None
        fitted_QK = self.held_out(lambda left: self.fit(method, left), counts)
        uniform_QK = self.numbers(self.fit("uniform", counts))
        values = [self.score(numbers, counts) for numbers in (fitted_QK, uniform_QK)]
        gains = []
        for machine in counts:
            left = _without(counts, machine)
            gains.append(self.score(fitted_QK, left) - self.score(uniform_QK, left))
        error = float(np.std(gains) * np.sqrt(len(gains) - 1))
        return Gate(values[0], values[1], values[0] - values[1], error)

    def gated(self, method: Method, counts: Mapping[str, int]) -> FittedWeights:
        """The fitted weights where they beat the plain mean on machines left out, else the plain mean."""
        gate = self.gate(method, counts)
        return self.fit(method if gate is not None and gate.passed else "uniform", counts)

    @property
    def marks(self) -> dict[str, str]:
        """Marks of the members, mark -> reason."""
        return merged_marks(member.scores.marks for member in self.members)

    @property
    def tuned_members(self) -> tuple[str, ...]:
        """Members that used labels of these machines: none of their numbers is held out."""
        return tuple(member.name for member in self.members if USE_LABELS & member.scores.marks.keys())

    @property
    def compares_test_clips(self) -> bool:
        """Whether methods that compare members use the test clips, without training clips that all have scored."""
        return compared([member.scores for member in self.members], [section.key for section in self.labels])[1]

    def bag(self, fitted: FittedWeights, name: str) -> Bag:
        """The bag of fitted weights."""
        return as_bag(self.members, fitted.groups, fitted.weights_G, self.normalise, name)

    def _selected(self, counts: Mapping[str, int]) -> Groups:
        groups = self._best_of_groups(counts)
        return groups if self.selection is None else self.selection.of(groups, self.objective(groups).of(counts))

    def _best_of_groups(self, counts: Mapping[str, int]) -> Groups:
        if self.best is None:
            return self.groups
        scores_M = self.of_all().of(counts)(np.eye(len(self.members)))
        chosen = []
        for name, inside in self.groups:
            best = sorted(inside, key=lambda row: (-scores_M[row], row))[: self.best]
            chosen.append((name, tuple(sorted(best))))
        return tuple(chosen)

    def _weights(self, method: Method, groups: Groups, counts: Mapping[str, int]) -> Float64:
        settings = self.settings
        if method == "uniform" or len(groups) == 1:
            return uniform(len(groups))
        if method in ("agreement", "variance"):
            group_scores = mixed_groups(self.members, groups, self.normalise)
            keys = [section.key for section in self.labels if section.machine in counts]
            return without_labels(method, compared(group_scores, keys)[0])
        return search_of(method)(self.objective(groups).of(counts), settings)

    def _shrunk(
        self,
        method: Method,
        groups: Groups,
        weights_G: Float64,
        counts: Mapping[str, int],
    ) -> Float64:
        """Shrunk towards uniform weights, by the share of the settings or the best one on machines left out."""
        even_G, share = uniform(len(groups)), self.settings.shrink
        if share < 0:
            share = self._best_share(method, groups, counts)
        return _between(weights_G, even_G, share)

    def _best_share(self, method: Method, groups: Groups, counts: Mapping[str, int]) -> float:
        """Of equal ones the one nearest to uniform; with a single machine, 1."""
        if len(counts) < 2:
            return 1.0
        machine_Q = np.array(self.of_all().boards.machine_Q)
        even_G = uniform(len(groups))
        tried = {share: np.zeros_like(self.numbers(FittedWeights(groups, even_G))) for share in _SHARES}
        for machine in counts:
            fitted_G = self._weights(method, groups, _without(counts, machine))
            for share, numbers_QK in tried.items():
                shrunk_QK = self.numbers(FittedWeights(groups, _between(fitted_G, even_G, share)))
                numbers_QK[machine_Q == machine] = shrunk_QK[machine_Q == machine]
        return max(_SHARES, key=lambda share: (self.score(tried[share], counts), share))


def labelled(
    members: Sequence[Member], truth: Truth | None, year: int | None, machines: Sequence[str] | None
) -> tuple[list[Member], list[SectionScores], Metric]:
    """Members with their clips under the published names, their labels, and the rule of the year.

    Raises HarkenError for members that cannot be evaluated or score different clips.
    """
    result = evaluate_system(members[0].scores, truth, year=year, machines=machines)
    joined = [_published(member, truth, machines) for member in members]
    check_same_clips([member.scores for member in joined])
    return joined, result.sections, result.rule


def _published(member: Member, truth: Truth | None, machines: Sequence[str] | None) -> Member:
    """A member with its test clips under the published names, without the machines that are left out."""
    scores, rows = member.scores, []
    for section in join(scores, truth, machines):
        decided = section.decisions_N
        for number, (name, score) in enumerate(zip(section.names, section.scores_N.tolist(), strict=True)):
            decision = UNDECIDED if decided is None else int(decided[number])
            clip_id = f"{section.machine}/section_{section.section}/test/{name}"
            rows.append(ScoreRow(clip_id, f"{name}.wav", *section.key, "test", score, decision))
    train = [row for row in scores.train.rows() if machines is None or row.machine in machines]
    fields = {name: getattr(scores, name) for name in ("set", "seed", "marks", "digest", "fitted_on", "layout")}
    return replace(member, scores=Scores.of_rows([*rows, *train], scores.system, **fields))


def without_labels(method: Method, correlation_GG: Float64) -> Float64:
    """(G,) weights of a method that uses no labels."""
    if method == "agreement":
        return agreement(correlation_GG)
    return least_variance(correlation_GG) if method == "variance" else uniform(len(correlation_GG))


def choose_normalisation(members: Iterable[Member]) -> tuple[Normalise, str]:
    """`train` where every member has scores of its training clips; else `transductive`, and which are missing."""
    for member in members:
        for key in member.scores.sections():
            if not len(member.scores.held_out(key)):
                return "transductive", (
                    f"{member.name} has no scores of the training clips of {key[0]} section {key[1]}"
                    " (train_score_*.csv beside its score files): scores are normalised by the test clips themselves"
                )
    return "train", ""


def _refuse_constants(member: Member) -> None:
    for key in member.scores.sections():
        scores_N = member.scores.of_section(key).score_N
        if np.ptp(scores_N) == 0:
            raise HarkenError(
                f"gives all {len(scores_N)} clips of {key[0]} section {key[1]} the score {scores_N[0]:g}",
                file=member.name,
                next_step="Score it again, or leave out the member (--leave-out) or the machine",
            )


def _between(fitted_G: Float64, even_G: Float64, share: float) -> Float64:
    return (1.0 - share) * fitted_G + share * even_G


def _without(counts: Mapping[str, int], machine: str) -> dict[str, int]:
    return {name: count for name, count in counts.items() if name != machine}
