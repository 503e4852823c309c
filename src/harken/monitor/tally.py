"""What a report needs of verdicts, counted one after the other: those of years need little memory."""

from __future__ import annotations

import heapq
import math
from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import numpy as np
from markupsafe import Markup

from harken.core.names import shown
from harken.core.strip import Bar, strip
from harken.monitor.verdict import GRAVITY, Kind, Verdict

#: recordings that could not be read, by name
_MOST_PROBLEMS = 20
#: alarms and suspects that are listed
_MOST_LISTED = 200
#: bars of the strip of scores, at most
_MOST_BARS = 200


class Tally:
    """Counts, scores and the most unusual of verdicts. most: how many of these are kept.

    counts: by kind. listed: name, verdict and sentence of alarms and suspects, in order; of many the first ones.
    scores: of groups for a legend, by truth where it is known, else by kind. problems: why recordings could not be
    scored.
    """

    def __init__(self, most: int) -> None:
        self.counts: Counter[str] = Counter()
        self.scores: dict[str, array[float]] = {}
        self.problems: list[str] = []
        self.listed: list[tuple[str, str, str]] = []
        self._most, self._unread = most, 0
        self._unusual: list[tuple[tuple[float, ...], int, Verdict]] = []
        #: nan where nothing was judged
        self._in_order = array("d")
        self._alarms = array("b")

    def add(self, verdict: Verdict, anomalous: bool | None = None) -> None:
        """Count one more. anomalous: the truth, where it is known."""
        number = len(self._in_order)
        self.counts[verdict.kind] += 1
        judged = verdict.kind != "not judged" and verdict.score is not None
        self._in_order.append(verdict.score if judged and verdict.score is not None else math.nan)
        self._alarms.append(verdict.kind == "alarm")
        if verdict.error is not None:
            self._unread += 1
            if self._unread <= _MOST_PROBLEMS:
                self.problems.append(str(verdict.error))
        if verdict.score is None:
            return
        group = verdict.kind if anomalous is None else "anomaly" if anomalous else "normal"
        self.scores.setdefault(group, array("d")).append(verdict.score)
        if verdict.kind in ("alarm", "suspect") and len(self.listed) < _MOST_LISTED:
            self.listed.append((shown(Path(verdict.name).name), verdict.kind, verdict.why or ""))
        # By verdict and p-value, since events and tones make alarms of low scores of the whole sound.
        rarity = 1.0 if verdict.p_value is None else verdict.p_value
        heapq.heappush(self._unusual, ((GRAVITY[verdict.kind], -rarity, verdict.score), -number, verdict))
        if len(self._unusual) > self._most:
            heapq.heappop(self._unusual)

    @property
    def count(self) -> int:
        """Of all verdicts."""
        return len(self._in_order)

    @property
    def unusual(self) -> list[Verdict]:
        """The most unusual verdicts, the most unusual first: alarms before suspects, then the rarest."""
        return [verdict for *_, verdict in sorted(self._unusual, key=lambda entry: entry[:2], reverse=True)]

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
        """`19 alarm, 3 suspect, 38 normal`."""
        kinds = sorted(get_args(Kind), key=lambda kind: -GRAVITY[kind])
        return ", ".join(f"{self.counts[kind]} {kind}" for kind in kinds if self.counts[kind])

    def groups(self) -> dict[str, list[float]]:
        """Scores under the names that the legend shows, in its order."""
        order = ("normal", "suspect", "alarm", "not judged", "anomaly")
        return {name: list(self.scores[name]) for name in order if name in self.scores}

    def strip(self, limit: float) -> Markup:
        """The scores in order; several recordings share a bar where there are many."""
        scores_N, alarms_N = np.asarray(self._in_order), np.asarray(self._alarms, dtype=bool)
        places = max(1, min(len(scores_N), _MOST_BARS))
        judged_N = scores_N[~np.isnan(scores_N)]
        lowest = float(judged_N.min()) if len(judged_N) else None
        bars = []
        groups = zip(np.array_split(scores_N, places), np.array_split(alarms_N, places), strict=True)
        for place, (group_N, alarm_N) in enumerate(groups):
            heard_N = group_N[~np.isnan(group_N)]
            heard = len(heard_N) > 0
            bars.append(
                Bar(place, lowest if heard else None, float(heard_N.max()) if heard else None, bool(alarm_N.any()))
            )
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
