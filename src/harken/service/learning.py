"""What people say of a machine's sound becomes a new version of its model: which windows, what is done, what is said.

A version keeps from which request it came (`Version.origin`), so that a request that is done again, since the monitor
was killed before its answer was stored, finds its version and makes no second one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.monitor.basis import Heard
from harken.monitor.feedback.known_faults import add_faults
from harken.monitor.feedback.on_disk import change_model, roll_back
from harken.monitor.feedback.rebaselining import rebaseline
from harken.monitor.feedback.updating import update
from harken.monitor.versions import Version, list_versions
from harken.service.changes import AlarmRecord
from harken.service.kept_features import WindowFeatures, readable
from harken.service.requests import ModelDemand, Request
from harken.service.store.features import kept_windows, with_data
from harken.service.store.rows import alarm_of_id
from harken.service.store.store import Store

#: windows that are learned from at once, of more those that are spread evenly in time
MOST_LEARNED: dict[ModelDemand, int] = {"normal": 300, "fault": 50, "rebaseline": 2000}
#: letters of a reason that a model keeps
_LONGEST = 1000


@dataclass(frozen=True)
class Taught:
    """A request that was done. version: that it made. answer: for who asked."""

    version: Version
    answer: Sentence


def teach(model: Path, request: Request, store: Store, spec: str) -> Taught:
    """Make the version of a model that a request asks for, or find it where that was done before.

    store: with the windows of the machine's monitor. spec: name of the features that the model takes.
    Raises ChangeRefused where the model is against it, HarkenError where it cannot be done.
    """
    origin = _origin(request, store.monitor)
    for version in list_versions(model):
        if version.origin == origin:
            return Taught(version, answer_of(version))
    who, why = request.who, request.text[:_LONGEST]
    if request.demand == "rollback":
        change = roll_back(model, who=who, why=why, origin=origin, to=request.version)
        return Taught(change.version, answer_of(change.version))
    heard = _heard(request, store, spec)
    match request.demand:
        case "normal":
            change = change_model(model, update, heard, who=who, why=why, origin=origin, force=request.force)
        case "fault":
            change = change_model(model, add_faults, heard, who=who, why=why, origin=origin)
        case _:
            change = change_model(model, rebaseline, heard, who=who, why=why, origin=origin)
    return Taught(change.version, answer_of(change.version))


def answer_of(version: Version) -> Sentence:
    """What a version is, for who asked for it."""
    effect, windows, number = version.effect, _windows(version.added), version.number
    match version.kind:
        case "update":
            answer = Sentence("learned from {windows}: version {version}", windows=windows, version=number)
        case "fault":
            answer = Sentence("kept as a known fault, {windows}: version {version}", windows=windows, version=number)
        case "rebaseline":
            answer = Sentence("learned anew from {windows}: version {version}", windows=windows, version=number)
        case _:
            answer = Sentence("as in version {target} again: version {version}", target=version.to or 1, version=number)
    before, after = effect.get("threshold_before"), effect.get("threshold_after")
    if before is not None and after is not None and f"{before:.3g}" != f"{after:.3g}":
        limits = Sentence("alarm limit {before:.3g} -> {after:.3g}", before=before, after=after)
        answer = Sentence("{answer}; {more}", answer=answer, more=limits)
    if effect.get("faults"):
        after_it, faults = effect["found_after"], effect["faults"]
        counted = Sentence("known faults found {found} of {faults}", found=after_it, faults=faults)
        answer = Sentence("{answer}; {more}", answer=answer, more=counted)
    if effect.get("set_aside"):
        name, reason = effect["set_aside"][0]
        aside = len(effect["set_aside"])
        left = Sentence("{count} left out, such as {name}, which {reason}", count=aside, name=name, reason=reason)
        answer = Sentence("{answer}; {more}", answer=answer, more=left)
    return answer


def _windows(count: int) -> Sentence:
    return Sentence("one window") if count == 1 else Sentence("{count} windows", count=count)


def _origin(request: Request, monitor: str) -> str:
    """Names a request: numbers begin again in a new store, times do not."""
    return f"{request.machine} as heard by {monitor}, request {request.number} of {request.time.isoformat()}"


def _heard(request: Request, store: Store, spec: str) -> list[Heard]:
    """The windows that a request is about, as many as are learned from."""
    assert request.demand in MOST_LEARNED
    since, until = request.since, request.until
    if request.alarm:
        record = _alarm(store, request)
        since, until = record.onset, record.ended
    with store.reading() as connection:
        windows = kept_windows(
            connection, store.monitor, request.machine, spec, since=since, until=until, alarm=request.alarm
        )
        if request.demand == "fault":
            windows = _abnormal(windows)
        windows = _spread(windows, MOST_LEARNED[request.demand])
        heard = heard_windows(with_data(connection, store.monitor, windows))
    if not heard:
        raise HarkenError(
            Sentence("nothing is kept of what was heard then"),
            next_step=Sentence("It has gone with age, or was judged with another encoder: name a later time"),
        )
    return heard


def heard_windows(windows: Iterable[WindowFeatures]) -> list[Heard]:
    """Windows with their data as what a model learns from; those whose features cannot be read are left out."""
    return [
        Heard(f"{window.machine} {window.start:%Y-%m-%d %H:%M:%S}", features, window.start.timestamp())
        for window, features in readable(windows)
    ]


def _alarm(store: Store, request: Request) -> AlarmRecord:
    with store.reading() as connection:
        located = alarm_of_id(connection, request.alarm)
    if located is None or located[0] != store.monitor or located[1].machine != request.machine:
        raise HarkenError(
            Sentence("{machine} has no such alarm", machine=request.machine),
            next_step=Sentence("See harken monitor alarms"),
        )
    return located[1]


def _abnormal(windows: list[WindowFeatures]) -> list[WindowFeatures]:
    """Those that sound abnormal on their own; without any, the half that sounds most so."""
    odd = [window for window in windows if window.kind != "normal"]
    if odd or not windows:
        return odd
    middle = float(np.median([window.score for window in windows]))
    return [window for window in windows if window.score >= middle]


def _spread(windows: Sequence[WindowFeatures], most: int) -> list[WindowFeatures]:
    """At most so many, evenly over all."""
    if len(windows) <= most:
        return [*windows]
    return [windows[row] for row in np.linspace(0, len(windows) - 1, most).round().astype(int)]
