"""Two steps: seeds of one model first, then different models."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.detection.normalise import Normalise
from harken.ensemble.bag import Bag, Entry, entry_of
from harken.ensemble.member import Member
from harken.ensemble.mix import mix
from harken.evaluation.scores import Scores

Float64 = NDArray[np.float64]
#: name -> the members (numbers) that are mixed evenly before groups are weighed
Groups = tuple[tuple[str, tuple[int, ...]], ...]

#: what seeds and checkpoints of one model differ in, at the end of their names
SEEDS = r"[/_.\- ]?(?:seed|checkpoint|ckpt|epoch|fold)[_\-= ]?\d+[^/]*$"


def grouped(names: Sequence[str], pattern: str | None) -> Groups:
    """Members whose names are the same once what matches the pattern is cut off; None: each for itself; `auto`: SEEDS.

    Raises HarkenError for a pattern that cannot be read.
    """
    if pattern is None:
        return singly(names)
    found: dict[str, list[int]] = {}
    try:
        for row, name in enumerate(names):
            found.setdefault(re.sub(SEEDS if pattern == "auto" else pattern, "", name) or name, []).append(row)
    except re.error as error:
        raise HarkenError(f"{pattern!r} is no regular expression ({error})", next_step="Correct --group") from None
    return tuple((names[rows[0]] if len(rows) == 1 else name, tuple(rows)) for name, rows in sorted(found.items()))


def singly(names: Sequence[str]) -> Groups:
    """Each member for itself."""
    return tuple((name, (row,)) for row, name in enumerate(names))


def mixed_groups(members: Sequence[Member], groups: Groups, normalise: Normalise) -> list[Scores]:
    """The scores of each group."""
    mixed = []
    for name, inside in groups:
        if len(inside) == 1:
            mixed.append(members[inside[0]].scores)
            continue
        of = {members[row].name: members[row] for row in inside}
        bag = Bag(name=name, normalise=normalise, members=tuple(Entry(name=one) for one in of))
        mixed.append(mix(bag, lambda entry, of=of: of[entry.name]))  # type: ignore[misc]
    return mixed


def as_bag(members: Sequence[Member], groups: Groups, weights_G: Float64, normalise: Normalise, name: str) -> Bag:
    """As a file says it; what has no weight is left out."""
    entries = []
    for (group, inside), weight in zip(groups, weights_G.tolist(), strict=True):
        leaves = tuple(entry_of(members[row], 1.0) for row in inside)
        if weight > 0 and len(inside) == 1:
            entries.append(leaves[0].model_copy(update={"weight": weight}))
        elif weight > 0:
            inner = Bag(name=group, normalise=normalise, members=leaves)
            entries.append(Entry(name=group, weight=weight, bag=inner))
    return Bag(name=name, normalise=normalise, members=tuple(entries))
