"""What a change of a model does: to the sound that it was changed for, to the threshold, to known faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harken.core.errors import HarkenError
from harken.monitor.fitted import Fitted
from harken.monitor.judged import FaultsFound, alarm_of
from harken.monitor.normal_set import listed
from harken.monitor.versions import ChangeKind

#: more than this share of the known faults that were found may not be lost
MOST_LOST = 0.1


@dataclass(frozen=True)
class Effect:
    """Before and after a change.

    kind: of the change. learned: recordings that are new in the model, or known faults for a fault; alarms_before,
    alarms_after: how many of these were alarms, and are, each scored by a model that learned from the others.
    set_aside: those not learned, with the reasons. dropped: earlier ones that were left out for them. recordings: all
    normal ones after it.
    threshold_..., event_threshold_..., tone_threshold_...: alarms are scores above it; they are in units of each
    version's own distances. faults: known ones; found_...: those that are alarms; lost: names of those that are none
    any more. like_faults: names of recordings that were learned as normal and are nearer to known faults.
    """

    kind: ChangeKind
    learned: int
    alarms_before: int
    alarms_after: int
    recordings: int
    threshold_before: float
    threshold_after: float
    event_threshold_before: float | None
    event_threshold_after: float | None
    tone_threshold_before: float | None = None
    tone_threshold_after: float | None = None
    faults: int = 0
    found_before: int = 0
    found_after: int = 0
    lost: tuple[str, ...] = ()
    like_faults: tuple[str, ...] = ()
    set_aside: tuple[tuple[str, str], ...] = ()
    dropped: int = 0

    def as_json(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """For who made the change."""
        lines = []
        if self.kind == "fault":
            lines.append(f"{self.alarms_after} of these {self.learned} recordings of a fault are alarms")
        elif self.learned:
            lines.append(
                f"{self.alarms_before} of these {self.learned} recordings were alarms; each by a model that learned "
                f"from the others, {self.alarms_after} are"
            )
        if self.threshold_after != self.threshold_before:
            lines.append(
                f"alarm above score {self.threshold_after:.4g}, before {self.threshold_before:.4g}"
                + _details("event", self.event_threshold_after, self.event_threshold_before)
                + _details("tone", self.tone_threshold_after, self.tone_threshold_before)
            )
        if self.faults:
            lines.append(f"known faults found: {self.found_after} of {self.faults}, before {self.found_before}")
            if self.lost:
                lines.append(f"no longer found: {listed(self.lost)}")
        elif self.kind == "update" and self.alarms_before:
            lines.append(
                "no fault is known that this could be compared with: if one of these was a fault, its like is no alarm "
                "any more until the change is rolled back"
            )
        if self.dropped:
            why = "were learned as normal, and are no more" if self.kind == "fault" else "make room for these"
            lines.append(f"{self.dropped} earlier recordings {why}")
        return lines


def _details(view: str, after: float | None, before: float | None) -> str:
    if after is None or before is None:
        return ""
    return f"; above {view} score {after:.4g}, before {before:.4g}"


def effect_of(
    before: Fitted,
    after: Fitted,
    kind: ChangeKind,
    *,
    learned: int = 0,
    alarms: tuple[int, int] = (0, 0),
    like_faults: Sequence[str] = (),
    set_aside: Sequence[tuple[str, str]] = (),
    dropped: int = 0,
) -> Effect:
    """alarms: of those learned, before and after. The known faults are those of `after`."""
    first, second = alarm_of(before), alarm_of(after)
    names: tuple[str, ...] = ()
    found_before = found_after = 0
    if after.faults is not None:
        names = after.faults.names
        was_F = FaultsFound.by(_with_faults_of(before, after)).any_F
        is_F = FaultsFound.by(after).any_F
        found_before, found_after = int(was_F.sum()), int(is_F.sum())
        lost = tuple(name for name, was, still in zip(names, was_F, is_F, strict=True) if was and not still)
    else:
        lost = ()
    return Effect(
        kind=kind,
        learned=learned,
        alarms_before=alarms[0],
        alarms_after=alarms[1],
        recordings=len(after.training.names),
        threshold_before=first.threshold,
        threshold_after=second.threshold,
        event_threshold_before=first.event_threshold,
        event_threshold_after=second.event_threshold,
        tone_threshold_before=first.tone_threshold,
        tone_threshold_after=second.tone_threshold,
        faults=len(names),
        found_before=found_before,
        found_after=found_after,
        lost=lost,
        like_faults=tuple(like_faults),
        set_aside=tuple(set_aside),
        dropped=dropped,
    )


def _with_faults_of(fitted: Fitted, after: Fitted) -> Fitted:
    return replace(fitted, faults=after.faults)


class ChangeRefused(HarkenError):
    """A change that would harm a model: it is made only if it is forced."""
