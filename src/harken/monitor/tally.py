"""What a report needs of verdicts, counted one after the other: those of years need little memory."""

from __future__ import annotations

import heapq
import math
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import get_args

import numpy as np
from markupsafe import Markup

from harken.core.strip import Bar, strip
from harken.monitor.verdict import Kind, Verdict

#: recordings that could not be read, by name
_MOST_PROBLEMS = 20
#: bars of the strip of scores, at most
_MOST_BARS = 200


class Tally:
    """Counts, scores and the highest of verdicts. most: how many of the highest are kept.

    counts: by kind. scores: of groups for a legend, by truth where it is known, else by kind. problems: why recordings
    could not be scored.
    """

    def __init__(self, most: int) -> None:
        self.counts: Counter[str] = Counter()
        self.scores: dict[str, array[float]] = {}
        self.problems: list[str] = []
        self._most, self._unread = most, 0
        self._highest: list[tuple[float, int, Verdict]] = []
        #: nan where nothing was judged
        self._in_order = array("d")

    def add(self, verdict: Verdict, anomalous: bool | None = None) -> None:
        """Count one more. anomalous: the truth, where it is known."""
        number = len(self._in_order)
        self.counts[verdict.kind] += 1
        judged = verdict.kind != "not judged" and verdict.score is not None
        self._in_order.append(verdict.score if judged and verdict.score is not None else math.nan)
        if verdict.error is not None:
            self._unread += 1
            if self._unread <= _MOST_PROBLEMS:
                self.problems.append(str(verdict.error))
        if verdict.score is None:
            return
        group = verdict.kind if anomalous is None else "anomaly" if anomalous else "normal"
        self.scores.setdefault(group, array("d")).append(verdict.score)
        heapq.heappush(self._highest, (verdict.score, -number, verdict))
        if len(self._highest) > self._most:
            heapq.heappop(self._highest)

    @property
    def count(self) -> int:
        """Of all verdicts."""
        return len(self._in_order)

    @property
    def highest(self) -> list[Verdict]:
        """Verdicts of the highest scores, the highest first."""
        return [verdict for *_, verdict in sorted(self._highest, key=lambda entry: (-entry[0], -entry[1]))]

    @property
    def notes(self) -> list[str]:
        """On recordings that could not be scored; of many the first ones."""
        more = self._unread - len(self.problems)
        return [*self.problems, *([f"{more} further recordings could not be scored"] if more else [])]

    @property
    def state(self) -> str:
        """The worst kind, by which the section is coloured; `unknown` where nothing was judged."""
        return next((kind for kind in ("alarm", "suspect", "normal") if self.counts[kind]), "unknown")

    @property
    def sentence(self) -> str:
        """`38 normal, 3 suspect, 19 alarm`."""
        return ", ".join(f"{self.counts[kind]} {kind}" for kind in get_args(Kind) if self.counts[kind])

    def groups(self) -> dict[str, list[float]]:
        """Scores under the names that the legend shows, in its order."""
        order = ("normal", "suspect", "alarm", "not judged", "anomaly")
        return {name: list(self.scores[name]) for name in order if name in self.scores}

    def strip(self, limit: float) -> Markup:
        """The scores in order; several recordings share a bar where there are many."""
        scores_N = np.asarray(self._in_order)
        places = max(1, min(len(scores_N), _MOST_BARS))
        judged_N = scores_N[~np.isnan(scores_N)]
        lowest = float(judged_N.min()) if len(judged_N) else None
        bars = []
        for place, group_N in enumerate(np.array_split(scores_N, places)):
            heard_N = group_N[~np.isnan(group_N)]
            heard = len(heard_N) > 0
            bars.append(Bar(place, lowest if heard else None, float(heard_N.max()) if heard else None))
        label = f"scores of {len(scores_N)} recordings in order; the line is the alarm limit"
        return strip(bars, [], places=places, limit=limit, label=label)


def tallied(verdicts: Iterable[Verdict], truth: Iterable[bool] | None, most: int) -> Tally:
    """Of these verdicts. truth: whether each is of an anomaly, where known."""
    tally = Tally(most)
    if truth is None:
        for verdict in verdicts:
            tally.add(verdict)
    else:
        for verdict, anomalous in zip(verdicts, truth, strict=True):
            tally.add(verdict, anomalous)
    return tally
