"""Members and weights to the scores of the ensemble."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.ensemble.bag import Bag, Entry
from harken.ensemble.member import Member, Scored, Train
from harken.ensemble.normalise import Normalise, normalised

Float64 = NDArray[np.float64]


def mix(bag: Bag, find: Callable[[Entry], Member]) -> Member:
    """The scores of a bag; bags within are mixed first, then normalised like any other member.

    The same members and weights give the same bits, in whatever order they are listed. Scores of training clips are
    mixed too, where all members have them by name. Raises HarkenError for members that differ in their clips or cannot
    be normalised.
    """
    parts = []
    for entry in sorted((entry for entry in bag.members if entry.weight > 0), key=lambda entry: entry.name):
        parts.append((entry.name, mix(entry.inner, find) if entry.inner is not None else find(entry), entry.weight))
    members = [member for _, member, _ in parts]
    check_same_clips(members)
    total = math.fsum(weight for *_, weight in parts)
    sections = {}
    for key in sorted(members[0].sections):
        rows = [normalised_section(bag.normalise, member, key) for member in members]
        shares = [weight / total for *_, weight in parts]
        scores_N = _sum(shares, [row for row, _ in rows])
        train = _mixed_train(shares, [member.sections[key].train for member in members], [row for _, row in rows])
        sections[key] = Scored(members[0].sections[key].clips, scores_N, train, _voted(shares, members, key))
    first = members[0]
    return Member(bag.name, sections, first.by_domain, first.by_id)


def normalised_section(how: Normalise, member: Member, key: tuple[str, str]) -> tuple[Float64, Float64 | None]:
    """Normalised scores of test and training clips. Raises HarkenError where that cannot be."""
    try:
        return normalised(how, member.sections[key])
    except ValueError as error:
        step = "Leave it out"
        if "no scores" in str(error):
            step = "Put train_score_<machine>_section_<nn>.csv beside its score files, or normalise transductive"
        raise HarkenError(f"{key[0]} section {key[1]}: the member {error}", file=member.name, next_step=step) from error


def check_same_clips(members: Sequence[Member]) -> None:
    """Raises HarkenError for the first member that scores other sections or clips than the first one."""
    first = members[0]
    for member in members[1:]:
        for one, other in ((first, member), (member, first)):
            for key in sorted(one.sections.keys() - other.sections.keys()):
                raise HarkenError(
                    f"has no scores of {key[0]} section {key[1]}, which {one.name} has", file=other.name,
                    next_step="Add them, or leave the member or the machine out",
                )  # fmt: skip
            for key in sorted(one.sections):
                mine, theirs = one.sections[key].clips, other.sections[key].clips
                if mine != theirs and set(mine) - set(theirs):
                    missing = set(mine) - set(theirs)
                    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                    raise HarkenError(
                        f"{key[0]} section {key[1]} has no score of {min(missing)}{more}, which {one.name} has",
                        file=other.name,
                        next_step="Members of an ensemble score the same clips: score it again, or leave it out",
                    )


def _sum(shares: Sequence[float], rows: Sequence[Float64]) -> Float64:
    """One after the other, so that the last bit does not depend on a library's way of adding up."""
    mixed = np.zeros_like(rows[0])
    for share, row in zip(shares, rows, strict=True):
        mixed += share * row
    return mixed


def _mixed_train(
    shares: Sequence[float], trains: Sequence[Train | None], rows: Sequence[Float64 | None]
) -> Train | None:
    """Training clips are joined on their names; None unless every member has scored the same ones."""
    names: set[str] | None = None
    columns = []
    for train, row_T in zip(trains, rows, strict=True):
        if train is None or train.names is None or row_T is None:
            return None
        of = dict(zip(train.names, row_T.tolist(), strict=True))
        if len(of) != len(row_T) or (names is not None and names != of.keys()):
            return None
        names = set(of)
        columns.append(np.array([of[name] for name in sorted(of)]))
    return Train(_sum(shares, columns), tuple(sorted(names or ())))


def _voted(shares: Sequence[float], members: Sequence[Member], key: tuple[str, str]) -> Float64 | None:
    """Decisions by weighted vote, where all members made some."""
    votes = []
    for member in members:
        made = member.sections[key].decisions_N
        if made is None:
            return None
        votes.append(made)
    return (_sum(shares, votes) > 0.5).astype(np.float64)
