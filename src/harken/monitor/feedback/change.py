"""A changed model: what was made, with who, when and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from harken.monitor.feedback.effect import Effect, effect_of
from harken.monitor.fitted import Fitted
from harken.monitor.judged import alarm_of
from harken.monitor.versions import ChangeKind, Version, check_texts, json_effect


@dataclass(frozen=True, eq=False)
class ModelChange:
    """A changed model, with its `version`, and what the change does."""

    fitted: Fitted
    effect: Effect

    @property
    def version(self) -> Version:
        """Who, when and why."""
        return self.fitted.version


def changed(
    before: Fitted,
    after: Fitted,
    effect: Effect,
    kind: ChangeKind,
    who: str,
    why: str,
    origin: str,
    now: datetime | None,
    *,
    forced: bool = False,
) -> ModelChange:
    """`after`, as the next version of `before`. The other arguments: see `Version`."""
    version = Version(
        number=before.version.number + 1,
        kind=kind,
        who=who,
        when=time_text(now),
        why=why,
        recordings=len(after.training.names),
        added=effect.learned,
        origin=origin,
        parent=before.version.number,
        forced=forced,
        effect=json_effect(effect.as_json()),
    )
    return ModelChange(replace(after, version=version), effect)


def time_text(now: datetime | None) -> str:
    """A time (default: now) in UTC, to the second."""
    return (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def set_alarm(
    fitted: Fitted,
    false_alarms: str,
    every: str | None,
    *,
    who: str,
    why: str = "",
    now: datetime | None = None,
) -> ModelChange:
    """Set the alarm to a rate of false alarms, and nothing else. Raises HarkenError where it is not understood."""
    check_texts(who, why)
    after = replace(fitted, false_alarms=false_alarms, every=every)
    alarm_of(after)
    return changed(fitted, after, effect_of(fitted, after, "set-alarm"), "set-alarm", who, why, "", now)
