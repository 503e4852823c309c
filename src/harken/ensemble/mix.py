"""Members and weights to the scores of the ensemble."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.data.truth import Section
from harken.detection.normalise import Normalise, normalised
from harken.ensemble.bag import Bag, Entry
from harken.ensemble.member import Member
from harken.evaluation.scores import (
    PUBLISHED,
    TRANSDUCTIVE,
    TUNED,
    UNDECIDED,
    ScoreRow,
    Scores,
    digest_of,
    merged_marks,
)

Float64 = NDArray[np.float64]

#: training clips that all members have scored, to mix their scores
_FEWEST = 3


def mix(bag: Bag, find: Callable[[Entry], Member]) -> Scores:
    """The scores of a bag; bags within are mixed first, then normalised like any other member.

    The same members and weights give the same bits, in whatever order they are listed. Held-out scores are mixed too,
    of the training clips of which all members have one. The marks are those of its members and of its weights.
    Raises HarkenError for members that differ in their clips or cannot be normalised.
    """
    parts: list[tuple[str, Scores, float]] = []
    for entry in sorted((entry for entry in bag.members if entry.weight > 0), key=lambda entry: entry.name):
        scores = mix(entry.inner, find) if entry.inner is not None else find(entry).scores
        parts.append((entry.name, replace(scores, system=entry.name), entry.weight))
    members = [scores for _, scores, _ in parts]
    check_same_clips(members)
    total = math.fsum(weight for *_, weight in parts)
    shares = [weight / total for *_, weight in parts]
    rows: list[ScoreRow] = []
    held_out: dict[str, ScoreRow] = {}
    for key in members[0].sections():
        both = [normalised_section(bag.normalise, member, key) for member in members]
        mixed_N = _sum(shares, [test_N for test_N, _ in both])
        for row, score, vote in zip(members[0].part(key).rows(), mixed_N, _voted(shares, members, key), strict=True):
            rows.append(row._replace(score=float(score), decision=int(vote)))
        of_key = _mixed_train(shares, [member.held_out(key) for member in members], [train_N for _, train_N in both])
        held_out |= {row.clip_id: row for row in of_key}
    wide = all(member.fitted_on == "machine" for member in members)
    made = [
        bag.normalise,
        [[name, share, scores.digest] for (name, scores, _), share in zip(parts, shares, strict=True)],
    ]
    return Scores.of_rows(
        [*rows, *held_out.values()],
        bag.name,
        set=members[0].set,
        marks=merged_marks([_marks_of_weights(bag, members[0]), *map(_marks_of_member, members)]),
        digest=digest_of(made),
        fitted_on="machine" if wide else "section",
        layout=members[0].layout,
    )


def _marks_of_member(scores: Scores) -> dict[str, str]:
    return {mark: f"{scores.system}: {reason}" for mark, reason in scores.marks.items()}


def _marks_of_weights(bag: Bag, scores: Scores) -> dict[str, str]:
    marks = {}
    origin = bag.weights_from
    if origin is not None and origin.tuned_on is not None:
        if set(clip_digests(scores).values()) & set(origin.clips):
            marks[TUNED] = f"the weights of {bag.name} were chosen by {origin.tuned_on}"
        elif origin.method == PUBLISHED:
            marks[PUBLISHED] = f"the weights of {bag.name} were chosen by {origin.tuned_on}"
    if bag.normalise.startswith("transductive"):
        marks[TRANSDUCTIVE] = f"{bag.name} is normalised by the test clips themselves"
    return marks


def clip_digests(scores: Scores) -> dict[str, str]:
    """Machine -> digest of the names of its test clips: whether weights meet again what they were found on."""
    names: dict[str, list[list[str]]] = {}
    for machine, section in scores.sections():
        names.setdefault(machine, []).append([section, *scores.part((machine, section)).names])
    return {machine: digest_of([machine, *of])[:12] for machine, of in names.items()}


def normalised_section(how: Normalise, scores: Scores, key: Section) -> tuple[Float64, Float64 | None]:
    """Normalised scores of test clips, and of the training clips of `Scores.held_out`, None where there are none.
    Raises HarkenError where that cannot be."""
    train_N = scores.held_out(key).score_N
    try:
        return normalised(how, scores.part(key).score_N, train_N if len(train_N) else None)
    except ValueError as error:
        step = "Leave it out"
        if "no scores" in str(error):
            step = "Put train_score_<machine>_section_<nn>.csv beside its score files, or normalise transductive"
        raise HarkenError(
            f"{key[0]} section {key[1]}: the member {error}", file=scores.system, next_step=step
        ) from error


def check_same_clips(members: Sequence[Scores]) -> None:
    """Raises HarkenError for the first member that scores other sections or clips than the first one."""
    first = members[0]
    for member in members[1:]:
        for one, other in ((first, member), (member, first)):
            for key in sorted(set(one.sections()) - set(other.sections())):
                raise HarkenError(
                    f"has no scores of {key[0]} section {key[1]}, which {one.system} has", file=other.system,
                    next_step="Add them, or leave the member or the machine out",
                )  # fmt: skip
            for key in one.sections():
                missing = set(one.part(key).names) - set(other.part(key).names)
                if missing:
                    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                    raise HarkenError(
                        f"{key[0]} section {key[1]} has no score of {min(missing)}{more}, which {one.system} has",
                        file=other.system,
                        next_step="Members of an ensemble score the same clips: score it again, or leave it out",
                    )


def _sum(shares: Sequence[float], rows: Sequence[Float64]) -> Float64:
    """One after the other, so that the last bit does not depend on a library's way of adding up."""
    mixed = np.zeros_like(rows[0])
    for share, row in zip(shares, rows, strict=True):
        mixed += share * row
    return mixed


def _mixed_train(
    shares: Sequence[float], held_out: Sequence[Scores], normalised_MN: Sequence[Float64 | None]
) -> list[ScoreRow]:
    """Training clips that all members have scored, joined on their names; none where they are too few."""
    columns: list[Mapping[tuple[str, str], float]] = []
    for table, scores_N in zip(held_out, normalised_MN, strict=True):
        if scores_N is None:
            return []
        columns.append(dict(zip(zip(table.section, table.names, strict=True), scores_N.tolist(), strict=True)))
    of_name = dict(zip(zip(held_out[0].section, held_out[0].names, strict=True), held_out[0].rows(), strict=True))
    names = sorted(name for name in of_name if all(name in column for column in columns))
    if len(names) < _FEWEST:
        return []
    mixed_N = _sum(shares, [np.array([column[name] for name in names]) for column in columns])
    return [of_name[name]._replace(score=score) for name, score in zip(names, mixed_N.tolist(), strict=True)]


def _voted(shares: Sequence[float], members: Sequence[Scores], key: Section) -> NDArray[np.int8]:
    """Decisions by weighted vote, where all members made some."""
    votes_MN = [member.part(key).decision_N for member in members]
    if any((votes_N < 0).any() for votes_N in votes_MN):
        return np.full(len(votes_MN[0]), UNDECIDED, dtype=np.int8)
    return (_sum(shares, [votes_N.astype(np.float64) for votes_N in votes_MN]) > 0.5).astype(np.int8)
