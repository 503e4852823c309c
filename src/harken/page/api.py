"""The interface for programs, `/v1`: what the page shows, as JSON."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from harken.core.errors import HarkenError
from harken.core.json_text import json_text
from harken.page import actions, details
from harken.page.api_models import Alarm, Ask, Asked, MachineState, ScoresOverTime, StoreHealth, VersionOfModel
from harken.page.machines import MachineView
from harken.page.state import PageState
from harken.service.store.rows import alarm_of_id
from harken.service.store.versions import machine_versions

router = APIRouter()
#: stands for a machine: `key` of /v1/machines
Key = Annotated[str, Path(pattern="^[0-9a-f]{12}$")]
AlarmId = Annotated[str, Path(pattern="^[0-9A-Za-z_-]{1,64}$")]
_BINARY = {"type": "string", "format": "binary"}
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such thing."}}


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
    _state(request).versions()
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
            store, view.monitor, view.machine, body.demand, who=body.who, text=body.text, hours=body.hours,
            alarm=body.alarm, since=body.since, until=body.until, version=body.version, force=body.force,
        )  # fmt: skip
    except HarkenError as error:
        raise HTTPException(400, str(error)) from None
    return Asked(number=number, answer=None)


@router.get("/v1/machines/{key}/models", responses=_UNKNOWN)
def models(request: Request, key: Key) -> list[VersionOfModel]:
    """The versions of its model, the latest first."""
    view = _find(request, key)
    with _state(request).store.reading() as connection:
        return [VersionOfModel.of(each) for each in machine_versions(connection, view.monitor, view.machine)]


@router.get("/v1/requests/{number}")
def asked(request: Request, number: Annotated[int, Path(ge=1, lt=2**53)]) -> Asked:
    """What became of a request."""
    return Asked(number=number, answer=_state(request).store.answer(number))


@router.get("/v1/alarms/{alarm_id}", responses=_UNKNOWN)
def alarm(request: Request, alarm_id: AlarmId) -> Alarm:
    """One alarm."""
    with _state(request).store.reading() as connection:
        located = alarm_of_id(connection, alarm_id)
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
