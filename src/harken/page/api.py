"""The interface for programs, `/v1`: what the page shows, as JSON."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from harken.core.errors import HarkenError
from harken.core.json_text import json_text
from harken.page import actions, details
from harken.page.machines import MachineView
from harken.page.state import PageState
from harken.service.changes import AlarmRecord, Demand

router = APIRouter()
#: stands for a machine: `key` of /v1/machines
Key = Annotated[str, Path(pattern="^[0-9a-f]{12}$")]
AlarmId = Annotated[str, Path(pattern="^[0-9A-Za-z_-]{1,64}$")]
_BINARY = {"type": "string", "format": "binary"}
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such thing."}}


class StoreHealth(BaseModel):
    """Whether the page can read its store."""

    healthy: bool


class Alarm(BaseModel):
    """An alarm; see ISA-18.2 for its phases."""

    id: str
    machine: str
    phase: Literal["normal", "unacknowledged", "acknowledged", "returned"]
    onset: datetime
    raised: datetime
    ended: datetime | None
    acknowledged: datetime | None
    acknowledged_by: str
    windows: int
    highest: float | None
    sentence: str
    evidence: str

    @classmethod
    def of(cls, record: AlarmRecord) -> Alarm:
        """Without what is for the monitor alone."""
        return cls(**{name: getattr(record, name) for name in cls.model_fields})


class MachineState(BaseModel):
    """The state of a machine. key: stands for it in addresses."""

    key: str
    monitor: str
    machine: str
    state: str
    since: datetime | None
    until: datetime | None
    reason: str
    sensor: str
    heard: datetime | None
    score: float | None
    p_value: float | None
    limit: float | None
    model: str | None
    alarm: Alarm | None

    @classmethod
    def of(cls, view: MachineView) -> MachineState:
        """As the first page shows it."""
        last, model = view.last, view.model
        return cls(
            key=view.key, monitor=view.monitor, machine=view.machine, state=view.state, since=view.since,
            until=view.until, reason=view.reason, sensor=view.status, heard=last.end if last is not None else None,
            score=last.score if last is not None else None, p_value=last.p_value if last is not None else None,
            limit=view.limit, model=model.digest if model is not None else None,
            alarm=Alarm.of(view.alarm) if view.alarm is not None else None,
        )  # fmt: skip


class ScoresOverTime(BaseModel):
    """Scores in equal periods, null where nothing was judged. time: beginning of each, seconds since 1970, UTC."""

    model_config = ConfigDict(populate_by_name=True)
    seconds: float
    begin: float = Field(alias="from")
    until: float
    time: list[float]
    minimum: list[float | None]
    mean: list[float | None]
    maximum: list[float | None]
    not_judged: list[int]


class Ask(BaseModel):
    """What is asked of the monitor. hours: of a shelving, and of that alone."""

    model_config = ConfigDict(extra="forbid")
    demand: Demand
    who: str = Field("", max_length=actions.LONGEST_NAME)
    text: str = Field("", max_length=actions.LONGEST_TEXT)
    hours: float | None = Field(None, gt=0, le=actions.MOST_HOURS, allow_inf_nan=False)


class Asked(BaseModel):
    """A request to the monitor. answer: null until there is one."""

    number: int
    answer: str | None


def _state(request: Request) -> PageState:
    state: PageState = request.app.state.page
    return state


def _find(request: Request, key: str) -> MachineView:
    state = _state(request)
    with state.store.reading() as connection:
        view = state.machines.find(connection, key, state.now())
    if view is None:
        raise HTTPException(404, "there is no such machine")
    return view


@router.get("/healthz")
def healthz(request: Request) -> StoreHealth:
    """Whether the store can be read; needs no token."""
    _state(request).version()
    return StoreHealth(healthy=True)


@router.get("/v1/machines")
def machines(request: Request) -> list[MachineState]:
    """All machines, worst first."""
    state = _state(request)
    with state.store.reading() as connection:
        return [MachineState.of(view) for view in state.machines.all(connection, state.now())]


@router.get("/v1/machines/{key}", responses=_UNKNOWN)
def machine(request: Request, key: Key) -> MachineState:
    """One machine."""
    return MachineState.of(_find(request, key))


@router.get("/v1/machines/{key}/alarms", responses=_UNKNOWN)
def alarms(request: Request, key: Key, most: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Alarm]:
    """Its last alarms, the latest first."""
    view = _find(request, key)
    with _state(request).store.reading() as connection:
        return [Alarm.of(each.alarm) for each in details.alarms(connection, view.monitor, view.machine, most)]


@router.get("/v1/machines/{key}/scores", responses=_UNKNOWN, response_model_by_alias=True)
def scores(request: Request, key: Key, span: Literal["day", "week", "month", "year"] = "week") -> ScoresOverTime:
    """Its scores over time."""
    view, now = _find(request, key), _state(request).now()
    with _state(request).store.reading() as connection:
        return ScoresOverTime(**details.scores(connection, view.monitor, view.machine, span, now))


@router.post("/v1/machines/{key}/requests", responses={**_UNKNOWN, 400: {"description": "Not understood."}})
def ask(request: Request, key: Key, body: Ask) -> Asked:
    """Acknowledge, shelve, take out of service ...; the monitor of the machine does it within a moment."""
    view, store = _find(request, key), _state(request).store
    try:
        number = actions.ask(
            store, view.monitor, view.machine, body.demand, who=body.who, text=body.text, hours=body.hours
        )
    except HarkenError as error:
        raise HTTPException(400, str(error)) from None
    return Asked(number=number, answer=None)


@router.get("/v1/requests/{number}")
def asked(request: Request, number: Annotated[int, Path(ge=1, lt=2**53)]) -> Asked:
    """What became of a request."""
    return Asked(number=number, answer=_state(request).store.answer(number))


@router.get("/v1/alarms/{alarm_id}", responses=_UNKNOWN)
def alarm(request: Request, alarm_id: AlarmId) -> Alarm:
    """One alarm."""
    with _state(request).store.reading() as connection:
        located = details.alarm(connection, alarm_id)
    if located is None:
        raise HTTPException(404, "there is no such alarm")
    return Alarm.of(located[1])


@router.get("/v1/evidence/{evidence_id}/{content}", responses=_UNKNOWN, response_class=Response)
def evidence(request: Request, evidence_id: AlarmId, content: Literal["sound", "picture"]) -> Response:
    """Sound or picture of an alarm."""
    response = _state(request).evidence_file(evidence_id, content)
    if response is None:
        raise HTTPException(404, "there is no such evidence")
    return response


@router.post(
    "/v1/machines/{key}/score",
    responses={**_UNKNOWN, 200: {"description": "The verdict, as of `harken score --json`."},
               400: {"description": "The recording cannot be used."}},
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": _BINARY}}}},
)  # fmt: skip
async def score(request: Request, key: Key) -> Response:
    """Judge a recording, the body, with the model of the machine. Nothing of it is kept."""
    view = await asyncio.to_thread(_find, request, key)
    if view.model is None:
        raise HTTPException(404, "the machine has no model")
    scorer = _state(request).scorer
    try:
        with scorer.file() as recording:
            async for chunk in request.stream():
                recording.write(chunk)
            recording.flush()
            verdict = await asyncio.to_thread(scorer.score, view.model.path, recording.name)
    except HarkenError as error:
        return JSONResponse({"error": error.cause, "next_step": error.next_step}, 400)
    return Response(json_text(verdict), media_type="application/json")
