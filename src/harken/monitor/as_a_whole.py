"""Recordings of one call judged as a whole: few normal recordings show sooner that all are different than which."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harken.detection.rank_test import higher_p
from harken.detection.rates import one_in
from harken.monitor.alarm import AlarmSetting
from harken.monitor.verdict import LEARNED, Verdict

#: of sets of new normal recordings, so many are said to score higher as a whole
RATE = 0.001
#: fewest recordings that are judged as a whole, and fewest normal ones with which they are not: lasting changes are
#: then reported soon, and held-out scores that are lower by a little would count
_FEWEST, _ENOUGH = 5, 30
#: rarer is not said: held-out scores of few recordings depend on each other
_RAREST = 1e-5


class AsAWhole:
    """Judges all recordings that are added as a whole, in any order, see `detection.rank_test.higher_p`.

    Each counts once; those that were learned from, are not judged, or are segments of longer ones, do not. Nothing is
    said by models of many normal recordings, of such that are alike in time and say less than they count, or of several
    domains or states: a call may hold one of them only. domains: of the normal recordings.
    """

    def __init__(self, alarm: AlarmSetting, domains: Iterable[str]) -> None:
        calibration = alarm.calibration
        self._held_out_N = calibration.scores
        independent = alarm.block == 1 and calibration.effective == len(calibration.scores)
        self._judges = independent and len(calibration.scores) < _ENOUGH and len(set(domains)) == 1
        self._scores: dict[str | int, float] = {}

    def add(self, verdict: Verdict) -> None:
        """One more recording."""
        counts = verdict.kind != "not judged" and verdict.start_s is None and LEARNED not in verdict.warnings
        if counts and verdict.score is not None:
            self._scores.setdefault(verdict.sha256 or len(self._scores), verdict.score)

    @property
    def p_value(self) -> float | None:
        """That they are normal ones; None where nothing can be said."""
        if not self._judges or len(self._scores) < _FEWEST:
            return None
        return higher_p(list(self._scores.values()), self._held_out_N)

    @property
    def differ(self) -> bool:
        """Whether they score higher than `RATE` of sets of normal recordings do."""
        return self.p_value is not None and self.p_value <= RATE

    @property
    def sentence(self) -> str:
        """For people, where they differ."""
        p = self.p_value or 0.0
        rarity = one_in(p) if p >= _RAREST else f"fewer than {one_in(_RAREST)}"
        return (
            f"these {len(self._scores)} recordings score higher than the {len(self._held_out_N)} normal ones: {rarity} "
            f"sets of new normal recordings would. A fault, a new operating state, a moved microphone "
            "or other surroundings: listen to them"
        )

    def as_json(self) -> dict[str, Any]:
        """JSON-able fields."""
        return {
            "record": "as a whole",
            "recordings": len(self._scores),
            "p_value": self.p_value,
            "why": self.sentence,
        }
