"""What is said of an alarm: its message for people and systems."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from harken.service.alarm_state import Action, Announcement
from harken.service.changes import AlarmRecord
from harken.service.records import Message

#: what a lasting change may be
LASTING = (
    "The change lasts: a fault, a new operating state, a moved microphone or other surroundings. If the "
    "machine is healthy, call it normal, and its model learns the new sound."
)
#: action -> headline and sentence
_WORDS: dict[Action, tuple[str, str]] = {
    "raised": ("alarm", "The machine sounds abnormal."),
    "noted": ("sounds abnormal, not annunciated", "The machine sounds abnormal while its alarm is {display}."),
    "recurred": ("sounds abnormal again", "The alarm has come back, and is not acknowledged."),
    "lasting": ("lasting change", LASTING),
    "acknowledged": ("alarm acknowledged", "The alarm is acknowledged."),
    "returned": ("normal again", "The machine sounds as usual again."),
    "closed": ("normal again", "The alarm is over."),
    "shelved": ("alarm shelved", "Nothing is annunciated until {until}."),
    "unshelved": ("shelving has ended", "Alarms are annunciated again; the alarm is {phase}."),
    "out of service": ("out of service", "Nothing is annunciated until it is in service again."),
    "in service": ("in service again", "Alarms are annunciated again; the alarm is {phase}."),
    "suppressed": ("alarm suppressed", "The sensor is not good: nothing is said of the machine."),
    "unsuppressed": ("alarm not suppressed any more", "The sensor is good again; the alarm is {phase}."),
}
#: what people who are called must know; the rest is for those who look, and for systems
_LOUD = ("raised", "returned")


def alarm_message(
    machine: str,
    said: Announcement,
    record: AlarmRecord | None,
    *,
    who: str,
    text: str,
    files: Sequence[str],
    lasting: bool = False,
) -> Message:
    """The message of an announcement, without a number. record: of its alarm, if there is one.

    payload: `event`: the action; `annunciation`: whether it is one; `quiet`: whether people need not be called;
    `state`, `phase`, `active`: after it, where `active` is that the machine sounds abnormal and nothing hides it; the
    words, with what a lasting change may be where an alarm is raised for one; of the alarm its id, highest score, and
    files of evidence, which may be gone.
    """
    state = said.state
    headline, sentence = _WORDS[said.action]
    if lasting and said.action in ("raised", "noted"):
        sentence = f"{sentence} {LASTING}"
    until = "" if state.shelved_until is None else f"{state.shelved_until:%Y-%m-%d %H:%M} UTC"
    payload: dict[str, Any] = {
        "event": said.action,
        "annunciation": said.action == "raised",
        "quiet": said.action not in _LOUD,
        "headline": headline,
        "sentence": sentence.format(display=state.display, until=until, phase=state.phase),
        "state": state.display,
        "phase": state.phase,
        "active": state.on and not state.hidden,
        "alarm": said.alarm,
        "person": who,
        "note": text,
    }
    if record is not None and record.id == said.alarm:
        payload |= {"why": record.sentence.rstrip("."), "since": f"{record.onset:%Y-%m-%d %H:%M} UTC",
                    "score": record.highest, "evidence_files": list(files)}  # fmt: skip
    return Message(uuid.uuid4().hex, 0, "alarm", machine, said.time, payload)
