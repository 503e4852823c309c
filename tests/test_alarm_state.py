"""Alarms as ISA-18.2 has them: all transitions, and what holds over any sequence of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harken.core.json_text import json_text
from harken.service.alarm_state import (
    REJOINS,
    Acknowledge,
    AlarmState,
    Announcement,
    Clear,
    Event,
    Raise,
    Service,
    Shelve,
    Suppress,
    Tick,
    Unshelve,
    step,
)

T0 = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
NORMAL = AlarmState()
UNACKNOWLEDGED = AlarmState("unacknowledged", "a", T0, None, True)
ACKNOWLEDGED = replace(UNACKNOWLEDGED, phase="acknowledged")
RETURNED = replace(UNACKNOWLEDGED, phase="returned", ended=T0)


def run(state: AlarmState, events: Sequence[Event]) -> tuple[AlarmState, list[Announcement]]:
    announcements = []
    for event in events:
        state, more = step(state, event)
        announcements += more
    return state, announcements


@pytest.mark.parametrize(
    ("state", "event", "phase", "actions"),
    [
        (NORMAL, Raise(T0, "a"), "unacknowledged", ["raised"]),
        (NORMAL, Clear(T0), "normal", []),
        (NORMAL, Acknowledge(T0), "normal", []),
        (UNACKNOWLEDGED, Raise(T0, "b"), "unacknowledged", []),
        (UNACKNOWLEDGED, Clear(T0), "returned", ["returned"]),
        (UNACKNOWLEDGED, Acknowledge(T0), "acknowledged", ["acknowledged"]),
        (ACKNOWLEDGED, Raise(T0, "b"), "acknowledged", []),
        (ACKNOWLEDGED, Clear(T0), "normal", ["returned"]),
        (ACKNOWLEDGED, Acknowledge(T0), "acknowledged", []),
        (RETURNED, Raise(T0 + HOUR, "b"), "unacknowledged", ["recurred"]),
        (RETURNED, Raise(T0 + REJOINS + HOUR, "b"), "unacknowledged", ["closed", "raised"]),
        (RETURNED, Clear(T0), "returned", []),
        (RETURNED, Acknowledge(T0), "normal", ["acknowledged"]),
        (NORMAL, Tick(T0), "normal", []),
        (NORMAL, Unshelve(T0), "normal", []),
        (NORMAL, Shelve(T0, T0 - HOUR), "normal", []),
    ],
)
def test_transitions(state: AlarmState, event: Event, phase: str, actions: list[str]) -> None:
    after, announcements = step(state, event)
    assert after.phase == phase
    assert [each.action for each in announcements] == actions
    assert after == state or actions, "no transition without a word"


@pytest.mark.parametrize(
    ("hide", "show", "words"),
    [
        (Shelve(T0, T0 + HOUR), Tick(T0 + HOUR), ("shelved", "unshelved")),
        (Shelve(T0, T0 + HOUR), Unshelve(T0), ("shelved", "unshelved")),
        (Service(T0, True), Service(T0, False), ("out of service", "in service")),
        (Suppress(T0, True), Suppress(T0, False), ("suppressed", "unsuppressed")),
    ],
)
def test_what_began_hidden_is_annunciated_when_it_is_not_hidden_any_more(
    hide: Event, show: Event, words: tuple[str, str]
) -> None:
    hidden, first = run(NORMAL, [hide, Raise(T0, "a")])
    assert [each.action for each in first] == [words[0], "noted"]
    assert hidden.display == words[0]
    shown, second = step(hidden, show)
    assert [each.action for each in second] == [words[1], "raised"]
    assert second[-1].alarm == "a"
    assert shown.display == "unacknowledged"
    # What has gone meanwhile is not.
    over, third = run(hidden, [Clear(T0), show])
    assert [each.action for each in third] == ["closed", words[1]]
    assert over == NORMAL


def test_a_hidden_alarm_that_people_know_is_not_annunciated_again() -> None:
    state, announcements = run(UNACKNOWLEDGED, [Shelve(T0, T0 + HOUR), Tick(T0 + 2 * HOUR)])
    assert [each.action for each in announcements] == ["shelved", "unshelved"]
    assert announcements[-1].state.phase == "unacknowledged", "the word on its return says that it is still on"
    assert state == UNACKNOWLEDGED


def _event(kind: int, time: datetime, number: int, hours: float) -> Event:
    until = time + timedelta(hours=hours)
    return (
        Raise(time, f"alarm {number}"), Clear(time), Acknowledge(time), Shelve(time, until), Unshelve(time),
        Service(time, True), Service(time, False), Suppress(time, True), Suppress(time, False), Tick(time),
    )[kind]  # fmt: skip


@st.composite
def sequences(draw: st.DrawFn) -> list[Event]:
    """Events in order of time, each raising under a new id."""
    rows = draw(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 30), st.floats(-1, 48)), max_size=40))
    time, events = T0, []
    for number, (kind, hours, until) in enumerate(rows):
        time += timedelta(hours=hours)
        events.append(_event(kind, time, number, until))
    return events


@given(sequences())
def test_any_sequence_of_events(events: list[Event]) -> None:
    state, on, announcements, states = NORMAL, False, [], [NORMAL]
    for event in events:
        before = state
        state, more = step(state, event)
        again, _ = step(state, event)
        assert again == state, "an event that comes twice changes nothing more"
        states.append(state)
        announcements += more
        if isinstance(event, Raise):
            on = True
        elif isinstance(event, Clear):
            on = False
        assert state.on == on, "the phase says how the machine sounds, whatever hides it"
        assert (state.phase == "normal") == (state.alarm == "")
        assert more or state == before, "no transition without a word"
        if state.hidden and before.hidden:
            assert "raised" not in {each.action for each in more}, "nothing is annunciated while it is hidden"
        if before.phase == "acknowledged" and not state.on:
            assert [each.alarm for each in more if each.action == "returned"] == [before.alarm]
        assert state.hidden or state.phase != "unacknowledged" or state.annunciated, "nothing stays hidden"
        assert AlarmState.from_json(state.to_json()) == state
        json_text(state.to_json())
    annunciated = Counter(each.alarm for each in announcements if each.action == "raised")
    assert all(count == 1 for count in annunciated.values()), "one annunciation for one alarm"
    for before, after in pairwise(states):
        if before.phase in ("normal", "acknowledged") and after.phase == "unacknowledged":
            assert after.alarm != before.alarm, "what comes back after it was acknowledged is a new alarm"
            assert after.hidden or after.alarm in annunciated
    ended = step(state, Tick(events[-1].time + timedelta(hours=49) if events else T0))[0]
    assert ended.shelved_until is None, "shelving ends"


@given(sequences())
def test_every_alarm_is_closed_or_on(events: list[Event]) -> None:
    """Each id has a first word, and a last one if it is not the present one."""
    state, announcements = run(NORMAL, events)
    begun = [each.alarm for each in announcements if each.action in ("raised", "noted")]
    for alarm in dict.fromkeys(begun):
        words = [each for each in announcements if each.alarm == alarm]
        assert words[0].action in ("raised", "noted")
        assert alarm == state.alarm or words[-1].state.alarm != alarm
