"""The state of machines in words and as a strip."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from harken.core.strip import Bar, strip
from harken.page.machines import MachineView
from harken.page.scores import SPANS
from harken.page.texts import Texts


def headline(view: MachineView, t: Texts, now: datetime) -> str:
    """The state of a machine in words."""
    values = {
        "since": t.when(view.since, now) if view.since is not None else "",
        "until": t.when(view.until, now) if view.until is not None else "",
        "ended": t.when(view.until, now) if view.until is not None else "",
        "status": t(f"status.{view.status}") if f"status.{view.status}" in t else view.status,
        "who": view.alarm.acknowledged_by if view.alarm is not None else "",
    }
    state = view.state.replace(" ", "_")
    if view.state == "alarm" and view.alarm is not None and view.alarm.phase == "acknowledged" and values["who"]:
        state = "acknowledged"
    return t(f"state.{state}", **values)


def summary(views: list[MachineView], t: Texts) -> str:
    """All machines in a sentence."""
    alarms = sum(view.state == "alarm" for view in views)
    attention = sum(view.state in ("suspect", "sensor", "silent", "returned") for view in views)
    if alarms and len(views) == 1:
        return t("list.alarm_only")
    if alarms:
        return t("list.alarm_one" if alarms == 1 else "list.alarms", count=alarms, all=len(views))
    if attention:
        return t("list.attention", count=attention, all=len(views))
    return t("list.one_well" if len(views) == 1 else "list.all_well", all=len(views))


def picture(view: MachineView, t: Texts, now: datetime) -> Any:
    """The strip of the last week."""
    span, length = SPANS["week"]
    hours = sum((min(end, now) - max(start, now - span)).total_seconds() for start, end in view.bands) / 3600
    label = t("list.strip") + (f"; {t('list.strip_alarm', count=round(hours))}" if view.bands else "")
    places = round(span / length)
    # The period that the present is in is the last.
    first = int(now.timestamp() // length.total_seconds()) - places + 1

    def place(time: datetime) -> float:
        return time.timestamp() / length.total_seconds() - first

    bars = [Bar(round(place(period.start)), period.minimum, period.maximum) for period in view.strip]
    bands = [(place(start), place(end)) for start, end in view.bands]
    return strip(bars, bands, places=places, limit=view.limit, label=label)
