"""A clock that is set back an hour, and on again: what came last is what is shown, whatever its time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from command_line import harken
from harken.page import details
from harken.page.machines import Machines, key_of
from harken.page.server import PageServer
from harken.page.settings import PageSettings
from harken.page.state import PageState
from harken.service.changes import (
    AlarmRecord,
    Changes,
    EvidenceRecord,
    HistoryEntry,
    ModelInUse,
    SensorRecord,
    WindowScore,
)
from harken.service.kept_features import WindowFeatures
from harken.service.store import migrate, tables
from harken.service.store.features import kept_windows
from harken.service.store.overview import alarms, overview
from harken.service.store.running import Running
from harken.service.store.store import Store
from test_page import Browser

NOW = datetime.now(UTC).replace(microsecond=0)
#: on the wall clock, in the order in which they came: the clock is set back an hour, then on
TIMES = [NOW - timedelta(minutes=5), NOW - timedelta(minutes=64), NOW - timedelta(minutes=3)]


def event(number: int, time: datetime) -> Changes:
    """What one moment leaves: a window, an alarm after the one before is over, another model, status of the sensor,
    sound."""
    changes = Changes(states={"pump": {"number": number}})
    changes.windows.append(
        WindowScore(
            "pump", number, 160_000 * number, time, time + timedelta(seconds=10), "normal", number, None, None, "m"
        )
    )
    changes.models.append(ModelInUse("pump", f"m{number}", f"{number}.harken", time, 10.0 + number))
    changes.sensors.append(SensorRecord("pump", "good", time, f"reason {number}"))
    changes.alarms[f"a{number}"] = AlarmRecord(
        f"a{number}", "pump", "returned", time, time, time, sentence=f"hum {number}"
    )
    changes.history.append(HistoryEntry("pump", time, f"raised {number}"))
    changes.evidence.append(EvidenceRecord(f"e{number}", "pump", "", time, 1, sound="x.flac", kind="live"))
    return changes


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path / "monitor.db")) as store:
        yield store


@pytest.mark.parametrize("last", [1, 2])
def test_the_last_is_what_came_last(store: Store, tmp_path: Path, last: int) -> None:
    """Overview, command line, page and the interface for programs, after the clock was set back, and on again."""
    versions, state = set(), PageState(PageSettings(store=store.name, evidence=tmp_path))
    for number in range(last + 1):
        store.commit(event(number, TIMES[number]))
        versions.add(state.versions())
    assert len(versions) == last + 1, "open pages see each of them"
    order = list(range(last, -1, -1))

    assert [alarm.id for alarm in alarms(store)] == [f"a{number}" for number in order]
    (machine,) = overview(store).machines
    assert (machine.model, machine.reason, machine.score) == (f"{last}.harken", f"reason {last}", last)
    assert machine.alarm is not None
    assert machine.alarm.id == f"a{last}"
    assert store.load().sensors["pump"].reason == f"reason {last}"

    lines = harken("monitor", "alarms", "pump", "--store", tmp_path).stdout.splitlines()
    assert [line.split()[-1] for line in lines] == [str(number) for number in order]
    status = harken("monitor", "status", "--store", tmp_path, "--json").stdout.splitlines()
    assert f'"score": {last}' in next(line for line in status if '"machine"' in line)

    with store.reading() as connection:
        view = Machines().view(connection, "monitor", "pump", TIMES[last] + timedelta(minutes=1))
        assert [row.action for row in details.history(connection, "monitor", "pump")] == [
            f"raised {number}" for number in order
        ]
    assert (view.limit, view.reason, view.sounds["live"]) == (10.0 + last, f"hum {last}", f"e{last}")
    # Times are where they belong: the scores of an hour are those heard in it.
    assert sum(period.count for period in view.strip) == last + 1

    server = PageServer(PageSettings(store=store.name, evidence=tmp_path, port=0))
    server.start()
    try:
        browser, key = Browser(server), key_of("monitor", "pump")
        assert [alarm["id"] for alarm in browser.json(f"/v1/machines/{key}/alarms")] == [f"a{n}" for n in order]
        assert f"a{last}" in json.dumps(browser.json("/v1/machines"))
        page = browser.text(f"/machines/{key}")
        assert sorted(range(last + 1), key=lambda number: page.rindex(f"raised {number}")) == order
    finally:
        server.stop()


def test_an_alarm_keeps_its_place_when_it_changes(store: Store) -> None:
    for number in (0, 1):
        store.commit(event(number, TIMES[number]))
    first = next(alarm for alarm in alarms(store) if alarm.id == "a0")
    store.commit(Changes(alarms={"a0": replace(first, acknowledged_by="Ada")}, requests_done={1: "acknowledged"}))
    assert [(alarm.id, alarm.acknowledged_by) for alarm in alarms(store)] == [("a1", ""), ("a0", "Ada")]
    store.commit(event(2, TIMES[2]))
    assert [alarm.id for alarm in alarms(store)] == ["a2", "a1", "a0"]


def test_a_store_of_an_earlier_release_is_numbered_by_its_times(store: Store) -> None:
    for number, time in enumerate(sorted(TIMES)):
        store.commit(event(number, time))
    config = migrate._config()
    with store.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "006")
    migrate.migrate(store.engine, "store")
    store.commit(event(3, TIMES[1] + timedelta(seconds=1)))
    assert [alarm.id for alarm in alarms(store)] == ["a3", "a2", "a1", "a0"]
    with store.reading() as connection:
        rows = connection.execute(sa.select(tables.models.c.number).order_by(tables.models.c.number)).scalars().all()
    assert rows[:3] == [1, 2, 3]
    assert rows[3] > 3


def test_what_an_alarm_was_raised_for_is_what_was_heard_then(store: Store) -> None:
    """The clock is set back before its onset, or while it is on: neither an hour earlier nor nothing is learned."""

    def kept(number: int, minute: int, alarm: str) -> WindowFeatures:
        start = NOW + timedelta(minutes=minute)
        return WindowFeatures("pump", number, start, start, "spec", "0", "alarm", 1.0, alarm, True, b"")

    minutes = [0, 10, 20, 30, -20, -10, 0, 10, 20, -30, -20, -10]
    alarm = ["a" if number in (7, 8, 9, 10) else "" for number in range(len(minutes))]
    store.commit(Changes(features=[kept(*row) for row in zip(range(12), minutes, alarm, strict=True)]))
    with store.reading() as connection:
        windows = kept_windows(
            connection, "monitor", "pump", "spec", since=NOW, until=NOW - timedelta(minutes=20), alarm="a"
        )
        of_alarm = kept_windows(connection, "monitor", "pump", "spec", alarm="a")
    assert [window.number for window in windows] == [6, 7, 8, 9, 10]
    assert [window.number for window in of_alarm] == [7, 8, 9, 10]


def test_a_sign_of_life_from_the_future_is_an_old_one() -> None:
    seen = Running("monitor", NOW + timedelta(hours=1))
    assert not seen.runs(NOW)
    assert seen.runs(NOW + timedelta(hours=1, seconds=5))


def test_a_clock_that_is_behind_the_monitors_calls_no_monitor_stopped() -> None:
    """Of the computer of whoever looks."""
    seen = Running("monitor", NOW)
    assert seen.runs(NOW - timedelta(minutes=9))
    assert not seen.runs(NOW - timedelta(minutes=11))
    assert seen.runs(NOW + timedelta(seconds=29))
    assert not seen.runs(NOW + timedelta(seconds=31))


def test_hours_read_while_the_clock_was_ahead_are_read_again(store: Store) -> None:
    machines, hour = Machines(), timedelta(hours=1)
    ahead = NOW + 1.5 * hour
    store.commit(event(0, ahead - timedelta(minutes=1)))
    with store.reading() as connection:
        machines.view(connection, "monitor", "pump", ahead)
    store.commit(event(1, NOW))
    with store.reading() as connection:
        view = machines.view(connection, "monitor", "pump", NOW + 4 * hour)
    assert sum(period.count for period in view.strip) == 2
