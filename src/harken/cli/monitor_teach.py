"""harken monitor normal, fault, rebaseline, rollback, versions: the model of a machine learns what people know."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harken.cli.console import emit, line
from harken.cli.monitor_asked import (
    ConfigOption,
    JsonOption,
    MachineArgument,
    StoreOption,
    TextOption,
    WhoOption,
    ask,
    check_machine,
    opened,
)
from harken.cli.monitor_run import DEFAULT_STORE
from harken.core.errors import HarkenError

if TYPE_CHECKING:
    from harken.service.model_versions import VersionCount
    from harken.service.requests import ModelDemand
    from harken.service.store.store import Store

#: seconds to wait for a new version of a model
_LEARNING_S = 60.0

SinceOption = Annotated[
    str | None,
    typer.Option("--since", help="Not the last alarm, but what was heard since a time (UTC) or a period (2h)."),
]
UntilOption = Annotated[str | None, typer.Option("--until", help="End of that time (default: now).")]


def normal(
    machine: MachineArgument,
    since: SinceOption = None,
    until: UntilOption = None,
    force: Annotated[bool, typer.Option("--force", help="Although it is like a known fault.")] = False,
    by: WhoOption = None,
    note: TextOption = "",
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
) -> None:
    """What the last alarm was raised for is normal: the model learns it."""
    store_of = opened(store, config)
    _teach(store_of, machine, "normal", by, note, **_windows(store_of, machine, since, until), force=force)


def fault(
    machine: MachineArgument,
    since: SinceOption = None,
    until: UntilOption = None,
    by: WhoOption = None,
    note: TextOption = "",
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
) -> None:
    """What the last alarm was raised for is a fault: the model keeps it, and later versions must find it."""
    store_of = opened(store, config)
    _teach(store_of, machine, "fault", by, note, **_windows(store_of, machine, since, until))


def rebaseline(
    machine: MachineArgument,
    since: Annotated[str, typer.Option("--since", help="End of the maintenance: a time (UTC), or a period (2h).")],
    until: UntilOption = None,
    by: WhoOption = None,
    note: TextOption = "",
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
) -> None:
    """Only what was heard since a time is normal, as after maintenance: the model learns anew."""
    span = {"since": time_of(since), "until": None if until is None else time_of(until)}
    _teach(opened(store, config), machine, "rebaseline", by, note, **span)


def rollback(
    machine: MachineArgument,
    to: Annotated[int | None, typer.Option("--to", help="Version (default: that before the last change).")] = None,
    by: WhoOption = None,
    note: TextOption = "",
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
) -> None:
    """Use an earlier version of the model again. Known faults stay known."""
    _teach(opened(store, config), machine, "rollback", by, note, version=to)


def versions(
    machine: MachineArgument,
    since: Annotated[
        str | None,
        typer.Option("--since", help="Count again, on all that is kept since a time (UTC) or a period (30d)."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """List the versions of the model of a machine: who, when, why, and how many alarms each would have raised."""
    from harken.service.store.versions import machine_versions

    store_of = opened(store, config)
    check_machine(store_of, machine)
    with store_of.reading() as connection:
        listed = machine_versions(connection, store_of.monitor, machine)
    if since is not None:
        counts = _counted(store_of, machine, time_of(since), config)
        listed = [replace(version, counted=counts.get(version.number)) for version in listed]
    for version in listed:
        if json:
            emit({"record": "version", **version.to_json()})
        else:
            line(version.sentence)


def _counted(store: Store, machine: str, since: datetime, config: Path | None) -> dict[int, VersionCount]:
    """What each version would have said of the windows since a time, at the alarm that is configured."""
    from harken.monitor.detector import Detector
    from harken.service.configuration.read import read_configuration
    from harken.service.episode_rule import EpisodeRule
    from harken.service.kept_features import features_name
    from harken.service.machine import rule_of
    from harken.service.store.overview import overview
    from harken.service.version_counts import count_versions, windows_since

    (model,) = (Path(each.model) for each in overview(store).machines if each.machine == machine)
    windows = windows_since(store, machine, features_name(Detector.load(model).spec), since)
    if config is None:
        return count_versions(
            model, windows, lambda detector: EpisodeRule.of(detector, hop_s=detector.alarm.interval_s)
        )
    configuration = read_configuration(config)
    entry = configuration.machines[machine]
    # Sound that is no folder of recordings is.
    continuous = getattr(configuration.sources[entry.source], "continuous", True)
    return count_versions(model, windows, lambda detector: rule_of(entry, detector, continuous=continuous))


def _teach(store: Store, machine: str, demand: ModelDemand, by: str | None, note: str, **more: Any) -> None:
    ask(store, machine, demand, by, note, patience_s=_LEARNING_S, **more)


def _windows(store: Store, machine: str, since: str | None, until: str | None) -> dict[str, Any]:
    """What a request is about: a span of time, or the last alarm."""
    from harken.service.store.overview import alarms

    check_machine(store, machine)
    if since is not None:
        return {"since": time_of(since), "until": None if until is None else time_of(until)}
    if until is not None:
        raise HarkenError("--until comes with --since", next_step="Give both, or neither")
    last = alarms(store, machine=machine, limit=1)
    if not last:
        raise HarkenError(f"{machine} had no alarm", next_step="Say which time you mean: --since")
    return {"alarm": last[0].id}


def time_of(text: str) -> datetime:
    """A time in ISO 8601, in UTC unless it names a zone, or a period before now. Raises HarkenError for neither."""
    from harken.detection.rates import parse_period

    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            return datetime.now(UTC) - timedelta(seconds=parse_period(text))
        except HarkenError:
            raise HarkenError(f"{text!r} is no time", next_step='Write "2026-03-02 14:20", or 2h') from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
