"""Pages on which people say what a sound was: normal, a fault; and choose a version of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.engine import Connection

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.page import actions
from harken.page.machines import MachineView
from harken.page.views import keep_name, page, problem, refused, state_of, words
from harken.service.changes import AlarmRecord
from harken.service.requests import MODEL_DEMANDS
from harken.service.store.features import count_kept
from harken.service.store.rows import alarm_of_id
from harken.service.store.versions import machine_versions, sharing_machines

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Subject:
    """What something is said of; times in a form of a page are in the zone of this computer.

    Raises HarkenError for what is none.
    """

    alarm: str = ""
    since: datetime | None = None
    until: datetime | None = None
    version: int | None = None

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Subject:
        """From a query or a form."""
        version = fields.get("version", "")
        if version and not (version.isascii() and version.isdigit() and len(version) < 10):
            raise HarkenError(Sentence("this is no version"), next_step=Sentence("Give its number"))
        return cls(
            fields.get("alarm", "")[:64], _time(fields.get("since")), _time(fields.get("until")),
            int(version) if version else None,
        )  # fmt: skip

    @property
    def hidden(self) -> list[tuple[str, str]]:
        """Fields of a form that says it again."""
        times = [(name, time.isoformat()) for name in ("since", "until") if (time := getattr(self, name)) is not None]
        alarm = [("alarm", self.alarm)] if self.alarm else []
        return [*alarm, *times, *([("version", str(self.version))] if self.version is not None else [])]


@router.get("/machines/{key}/teach")
def question(request: Request, key: str) -> Response:
    """Asks once more, with what there is to hear."""
    state, t = state_of(request), words(request)
    demand = request.query_params.get("demand", "")
    try:
        subject = Subject.of(request.query_params)
    except HarkenError as error:
        return refused(request, error)
    if demand not in MODEL_DEMANDS:
        return problem(request, 404, t("error.unknown"))
    with state.store.reading() as connection:
        view = state.machines.find(connection, key, state.now())
        if view is None:
            return problem(request, 404, t("error.unknown_machine"))
        alarm = _alarm(connection, view, subject.alarm)
        if subject.alarm and alarm is None:
            return problem(request, 404, t("error.unknown"))
        count = _count(connection, view, alarm, subject)
        sharing = sharing_machines(connection, view.monitor, view.machine)
        versions = machine_versions(connection, view.monitor, view.machine)
    version = next((each for each in versions if each.number == subject.version), None)
    if subject.version is not None and version is None:
        return problem(request, 404, t("error.unknown"), f"/machines/{key}")
    return page(
        request, "teach.html", title=f"{view.machine}: {t(f'teach.{demand}_question')}", view=view, demand=demand,
        alarm=alarm, since=subject.since, until=subject.until, hidden=subject.hidden, count=count, sharing=sharing,
        target=version,
    )  # fmt: skip


@router.post("/machines/{key}/teach")
async def teach(request: Request, key: str) -> Response:
    """Leaves it to the monitor; the page of the machine comes, with what became of it."""
    body = (await request.body()).decode("utf-8", "replace")
    form = {name: values[-1] for name, values in parse_qs(body).items()}
    who = form.get("who", "")

    def leave() -> int | None:
        state = state_of(request)
        subject = Subject.of(form)
        with state.store.reading() as connection:
            view = state.machines.find(connection, key, state.now())
        if view is None:
            return None
        return actions.ask(
            state.store, view.monitor, view.machine, form.get("demand", ""), who=who, text=form.get("text", ""),
            alarm=subject.alarm, since=subject.since, until=subject.until, version=subject.version,
            force=form.get("force") == "1",
        )  # fmt: skip

    try:
        number = await asyncio.to_thread(leave)
    except HarkenError as error:
        return refused(request, error)
    if number is None:
        return problem(request, 404, words(request)("error.unknown_machine"))
    return keep_name(RedirectResponse(f"/machines/{key}?asked={number}", 303), who)


def _alarm(connection: Connection, view: MachineView, alarm_id: str) -> AlarmRecord | None:
    located = alarm_of_id(connection, alarm_id) if alarm_id else None
    if located is None or (located[0], located[1].machine) != (view.monitor, view.machine):
        return None
    return located[1]


def _count(connection: Connection, view: MachineView, alarm: AlarmRecord | None, subject: Subject) -> int:
    """Windows whose features are kept of what it is about."""
    since, until = (subject.since, subject.until) if alarm is None else (alarm.onset, alarm.ended)
    return count_kept(
        connection, view.monitor, view.machine, since=since, until=until, alarm="" if alarm is None else alarm.id
    )


def _time(text: Any) -> datetime | None:
    """A time in ISO 8601; in the zone of this computer unless it names one. Raises HarkenError for other text."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(str(text).strip()).astimezone()
    except (ValueError, OverflowError, OSError):
        raise HarkenError(Sentence("this is no time"), next_step=Sentence("Write it as 2026-03-02 14:20")) from None
