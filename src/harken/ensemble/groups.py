"""Two steps: seeds of one model first, then different models."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.detection.normalise import Normalise
from harken.ensemble.bag import Bag, BagMember, entry_of
from harken.ensemble.member import Member
from harken.ensemble.mix import mix
from harken.evaluation.scores import Scores

Float64 = NDArray[np.float64]
#: name -> the members (row numbers) that are mixed evenly before groups are weighed
Groups = tuple[tuple[str, tuple[int, ...]], ...]

#: end of a name by which seeds and checkpoints of one model differ
SEEDS = r"[/_.\- ]?(?:seed|checkpoint|ckpt|epoch|fold)[_\-= ]?\d+[^/]*$"


def grouped(names: Sequence[str], pattern: str | None) -> Groups:
    """Groups of members whose names are equal without what matches the pattern; None: one per member; `auto`: SEEDS.

    Raises HarkenError for an invalid regular expression.
    """
    if pattern is None:
        return singly(names)
    rows_of: dict[str, list[int]] = {}
    try:
        for row, name in enumerate(names):
            rows_of.setdefault(re.sub(SEEDS if pattern == "auto" else pattern, "", name) or name, []).append(row)
    except re.error as error:
        raise HarkenError(f"{pattern!r} is not a regular expression ({error})", next_step="Correct --group") from None
    return tuple((names[rows[0]] if len(rows) == 1 else name, tuple(rows)) for name, rows in sorted(rows_of.items()))


def singly(names: Sequence[str]) -> Groups:
    """One group per member."""
    return tuple((name, (row,)) for row, name in enumerate(names))


def mixed_groups(members: Sequence[Member], groups: Groups, normalise: Normalise) -> list[Scores]:
    """The mixed scores of each group."""
    mixed = []
    for name, inside in groups:
        if len(inside) == 1:
            mixed.append(members[inside[0]].scores)
            continue
        of = {members[row].name: members[row] for row in inside}
        bag = Bag(name=name, normalise=normalise, members=tuple(BagMember(name=member) for member in of))
        mixed.append(mix(bag, lambda entry, of=of: of[entry.name]))  # type: ignore[misc]
    return mixed


def as_bag(members: Sequence[Member], groups: Groups, weights_G: Float64, normalise: Normalise, name: str) -> Bag:
    """The bag of weighted groups; those without weight are left out."""
    entries = []
    for (group, inside), weight in zip(groups, weights_G.tolist(), strict=True):
        leaves = tuple(entry_of(members[row], 1.0) for row in inside)
        if weight > 0 and len(inside) == 1:
            entries.append(leaves[0].model_copy(update={"weight": weight}))
        elif weight > 0:
            inner = Bag(name=group, normalise=normalise, members=leaves)
            entries.append(BagMember(name=group, weight=weight, bag=inner))
    return Bag(name=name, normalise=normalise, members=tuple(entries))
