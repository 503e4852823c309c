"""Which members a search weighs: those that are required, and the best few of the others, by labels."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError, did_you_mean, there_are
from harken.ensemble.groups import Groups
from harken.ensemble.objective import Objective

Float64 = NDArray[np.float64]
#: `score`: the official score; `worst_machine`: the official score of the machine on which a member scores least
Criterion = Literal["score", "worst_machine"]


@dataclass(frozen=True)
class Selection:
    """Required members and the best of the others, as SJTU-AITHU's Systems 3 and 4 (sec. 3): the baseline with its two
    most robust, or its two best, systems.

    required: names or patterns (`*`, `?`), weighed whatever they score. best: how many of the others. by: what makes
    them the best.
    """

    required: tuple[str, ...] = ()
    best: int = 2
    by: Criterion = "score"

    def __post_init__(self) -> None:
        if self.best < 0 or (not self.best and not self.required):
            raise HarkenError("no member would be selected", next_step="Select one or more, or require some")
        if self.by not in get_args(Criterion):
            hint = did_you_mean(self.by, get_args(Criterion))
            raise HarkenError(f"members are not selected by {self.by!r}", next_step=hint)

    def of(self, groups: Groups, objective: Objective) -> Groups:
        """The selected ones of `groups`, in their order; objective: of weights of these groups, on the machines whose
        labels select. Of equally good ones the first. Raises HarkenError for a pattern without a member."""
        names = [name for name, _ in groups]
        required: set[int] = set()
        for pattern in self.required:
            rows = {row for row, name in enumerate(names) if name == pattern or fnmatchcase(name, pattern)}
            if not rows:
                raise HarkenError(f"no member is named {pattern!r}", next_step=there_are(names))
            required |= rows
        quality_G = self.quality(objective)
        others = [row for row in np.argsort(-quality_G, kind="stable").tolist() if row not in required]
        chosen = sorted(required | set(others[: self.best]))
        return tuple(groups[row] for row in chosen)

    def quality(self, objective: Objective) -> Float64:
        """(G,) what members are ranked by, each alone; higher is better."""
        alone_GG = np.eye(objective.members)
        if self.by == "score":
            return objective(alone_GG)
        return np.min([objective.of({machine: 1})(alone_GG) for machine in objective.counts], axis=0)
