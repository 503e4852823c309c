"""The scores of an ensemble, from members and weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError, and_more
from harken.data.truth import Section
from harken.detection.normalise import Normalise, normalised
from harken.ensemble.bag import Bag, BagMember
from harken.ensemble.member import Member
from harken.evaluation.scores import (
    PUBLISHED,
    SEEN,
    TRANSDUCTIVE,
    TUNED,
    UNDECIDED,
    ScoreRow,
    Scores,
    digest_of,
    merged_marks,
)

Float64 = NDArray[np.float64]

#: fewest training clips scored by all members whose held-out scores are mixed
_FEWEST = 3


def mix(bag: Bag, find: Callable[[BagMember], Member]) -> Scores:
    """The scores of a bag; bags within are mixed first, then normalised like any other member.

    The same members and weights give the same bits, in any order. Held-out scores of training clips that all members
    have are mixed too. The marks are those of the members and of the weights.
    Raises HarkenError for members that score different clips or cannot be normalised.
    """
    weighed: list[tuple[str, Scores, float]] = []
    for entry in sorted((entry for entry in bag.members if entry.weight > 0), key=lambda entry: entry.name):
        scores = mix(entry.inner, find) if entry.inner is not None else find(entry).scores
        weighed.append((entry.name, replace(scores, system=entry.name), entry.weight))
    members = [scores for _, scores, _ in weighed]
    check_same_clips(members)
    total = math.fsum(weight for *_, weight in weighed)
    shares = [weight / total for *_, weight in weighed]
    rows: list[ScoreRow] = []
    held_out: dict[str, ScoreRow] = {}
    for key in members[0].sections():
        both = [normalised_section(bag.normalise, member, key) for member in members]
        mixed_N = _sum(shares, [test_N for test_N, _ in both])
        for row, score, vote in zip(
            members[0].of_section(key).rows(), mixed_N, _voted(shares, members, key), strict=True
        ):
            rows.append(row._replace(score=float(score), decision=int(vote)))
        of_key = _mixed_train(shares, [member.held_out(key) for member in members], [train_N for _, train_N in both])
        held_out |= {row.clip_id: row for row in of_key}
    wide = all(member.fitted_on == "machine" for member in members)
    made = [
        bag.normalise,
        [[name, share, scores.digest] for (name, scores, _), share in zip(weighed, shares, strict=True)],
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
        digests = clip_digests(scores)
        reason = f"the weights of {bag.name} were chosen by {origin.tuned_on}"
        if set(digests.values()) & set(origin.clips):
            marks[TUNED] = reason
        else:
            if seen := sorted(digests.keys() & set(origin.machines)):
                marks[SEEN] = f"{reason}, other clips of {', '.join(seen)} among them"
            if origin.method == PUBLISHED:
                marks[PUBLISHED] = reason
    if bag.normalise.startswith("transductive"):
        marks[TRANSDUCTIVE] = f"{bag.name} is normalised by the test clips themselves"
    return marks


def clip_digests(scores: Scores) -> dict[str, str]:
    """Machine -> digest of the names of its test clips: to recognise the clips that weights were fitted on."""
    names: dict[str, list[list[str]]] = {}
    for machine, section in scores.sections():
        names.setdefault(machine, []).append([section, *scores.of_section((machine, section)).names])
    return {machine: digest_of([machine, *of])[:12] for machine, of in names.items()}


def normalised_section(how: Normalise, scores: Scores, key: Section) -> tuple[Float64, Float64 | None]:
    """(N,) normalised scores of the test clips, and of the training clips of `Scores.held_out`, None without any.

    Raises HarkenError for scores that cannot be normalised.
    """
    train_N = scores.held_out(key).score_N
    try:
        return normalised(how, scores.of_section(key).score_N, train_N if len(train_N) else None)
    except ValueError as error:
        step = "Leave the member out"
        if "no scores" in str(error):
            step = "Put train_score_<machine>_section_<nn>.csv beside its score files, or normalise transductive"
        raise HarkenError(
            f"{key[0]} section {key[1]}: the member {error}", file=scores.system, next_step=step
        ) from error


def check_same_clips(members: Sequence[Scores]) -> None:
    """Raise HarkenError for the first member that scores other sections or clips than the first one."""
    first = members[0]
    for member in members[1:]:
        for complete, partial in ((first, member), (member, first)):
            for key in sorted(set(complete.sections()) - set(partial.sections())):
                raise HarkenError(
                    f"has no scores of {key[0]} section {key[1]}, which {complete.system} has", file=partial.system,
                    next_step="Add them, or leave the member or the machine out",
                )  # fmt: skip
            for key in complete.sections():
                missing = set(complete.of_section(key).names) - set(partial.of_section(key).names)
                if missing:
                    raise HarkenError(
                        f"{key[0]} section {key[1]} has no score of {and_more(missing)}, which {complete.system} has",
                        file=partial.system,
                        next_step="Members of an ensemble score the same clips: score it again, or leave it out",
                    )


def _sum(shares: Sequence[float], rows: Sequence[Float64]) -> Float64:
    """In sequence, so that the last bit does not depend on the summation order of a library."""
    mixed = np.zeros_like(rows[0])
    for share, row in zip(shares, rows, strict=True):
        mixed += share * row
    return mixed


def _mixed_train(
    shares: Sequence[float], held_out: Sequence[Scores], normalised_MN: Sequence[Float64 | None]
) -> list[ScoreRow]:
    """Mixed scores of training clips that all members have scored, joined on their names; none below `_FEWEST`."""
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
    """Decisions by weighted vote, undecided where a member has no decisions."""
    votes_MN = [member.of_section(key).decision_N for member in members]
    if any((votes_N < 0).any() for votes_N in votes_MN):
        return np.full(len(votes_MN[0]), UNDECIDED, dtype=np.int8)
    return (_sum(shares, [votes_N.astype(np.float64) for votes_N in votes_MN]) > 0.5).astype(np.int8)
