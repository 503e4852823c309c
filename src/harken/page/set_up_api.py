"""The set-up of a machine for programs: its state, and its steps."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from harken.core.errors import HarkenError
from harken.service.set_up.choices import LONGEST_ADDRESS, LONGEST_NAME, microphones
from harken.service.set_up.set_up import LONGEST_EVERY_S, MOST_RECORDINGS, SetUp
from harken.service.set_up.state import Phase, SetUpState

router = APIRouter()
_ANSWERS: dict[int | str, dict[str, Any]] = {
    404: {"description": "Machines cannot be set up here: it was not started with --setup."},
    400: {"description": "That cannot be done, and why."},
}


class SetUpProgress(BaseModel):
    """How far the set-up of a machine is. level_db: dBFS. concerns: with its sound, none where it is good.

    recordings, seconds, sessions, days: of normal sound. kept, most: of the recording that goes on, or was last.
    done, count: of the fit. result: of the last one.
    """

    phase: Phase
    machine: str
    source: str
    level_db: float | None
    concerns: list[str]
    recordings: int
    seconds: float
    sessions: int
    days: int
    kept: int
    most: int
    unfit: dict[str, int]
    done: int
    count: int
    result: dict[str, Any] | None
    problem: str

    @classmethod
    def of(cls, state: SetUpState) -> SetUpProgress:
        """As the page shows it."""
        heard, recorded = state.heard, state.recorded
        return cls(
            phase=state.phase, machine=state.machine, source=state.place,
            level_db=None if heard is None else heard.level_db, concerns=[] if heard is None else [*heard.concerns],
            recordings=recorded.recordings, seconds=recorded.seconds, sessions=recorded.sessions, days=recorded.days,
            kept=state.kept, most=state.most, unfit=state.unfit, done=state.done, count=state.count,
            result=state.result, problem=state.problem,
        )  # fmt: skip


class Sources(BaseModel):
    """What can be listened to: devices, and folders below that of the set-up; streams by their address."""

    microphones: list[str]
    folders: list[str]


class Step(BaseModel):
    """A step of the set-up. machine, kind, choice: of `choose`; choice: a device (empty: the default), an address or a
    folder. most, every_s, existing: of `record`. left_out, kept: of `fit`. rate: of `start`."""

    model_config = ConfigDict(extra="forbid")
    step: Literal["choose", "listen", "record", "stop", "fit", "cancel", "start", "again"]
    machine: str = Field("", max_length=LONGEST_NAME)
    kind: Literal["microphone", "stream", "folder"] = "microphone"
    choice: str = Field("", max_length=LONGEST_ADDRESS)
    most: int = Field(60, ge=1, le=MOST_RECORDINGS)
    every_s: float = Field(0.0, ge=0, le=LONGEST_EVERY_S, allow_inf_nan=False)
    existing: bool = False
    left_out: list[Annotated[str, Field(max_length=300)]] = Field([], max_length=100)
    kept: list[Annotated[str, Field(max_length=300)]] = Field([], max_length=100)
    rate: Literal["1/week", "1/month", "1/quarter"] = "1/quarter"


@router.get("/v1/setup", responses={404: _ANSWERS[404]})
def progress(request: Request) -> SetUpProgress:
    """How far it is. Who asks now and then keeps the source open."""
    asked = _set_up(request)
    asked.looked()
    return SetUpProgress.of(asked.state())


@router.get("/v1/setup/sources", responses={404: _ANSWERS[404]})
def sources(request: Request) -> Sources:
    """What can be chosen."""
    return Sources(microphones=microphones(), folders=_set_up(request).place.folders())


@router.post("/v1/setup", responses=_ANSWERS)
def take(request: Request, body: Step) -> SetUpProgress:
    """Take a step."""
    asked = _set_up(request)
    by = f"a program at {request.client.host if request.client is not None else '?'}"
    steps = {
        "choose": lambda: asked.choose(body.machine, body.kind, body.choice, by),
        "listen": lambda: asked.listen(by),
        "record": lambda: asked.record(body.most, body.every_s, existing=body.existing, by=by),
        "stop": lambda: asked.stop(by),
        "fit": lambda: asked.fit(tuple(body.left_out), tuple(body.kept), by),
        "cancel": lambda: asked.cancel(by),
        "start": lambda: asked.start(body.rate, by),
        "again": lambda: asked.discard(by),
    }
    try:
        steps[body.step]()
    except HarkenError as error:
        raise HTTPException(400, str(error)) from None
    return SetUpProgress.of(asked.state())


def _set_up(request: Request) -> SetUp:
    asked: SetUp | None = request.app.state.page.settings.set_up
    if asked is None:
        raise HTTPException(404, "machines cannot be set up here")
    return asked
