"""How far a set-up is, as pages and programs see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from harken.service.feed import SourceStatus
from harken.service.set_up.ear import Ear, SoundNow
from harken.service.set_up.enough import Recorded
from harken.service.set_up.fit_run import FitRun

Phase = Literal["source", "paused", "listening", "recording", "fitting", "fitted"]


@dataclass(frozen=True)
class SetUpState:
    """How far it is.

    machine, kind, place: that is set up, and its source. heard: how it sounds; None while nobody listens. source: its
    status. recorded: normal sound so far. kept, most, unfit, ended: of the recording that goes on, or was last, see
    `NormalRecorder`. waiting: files that are there and could be recorded. done, count: of the fit that goes on.
    result: of the last fit, see `fitting.fitted`. problem: why the last step was not possible. machines: that are set
    up already.
    """

    phase: Phase
    machine: str = ""
    kind: str = ""
    place: str = ""
    heard: SoundNow | None = None
    source: SourceStatus | None = None
    recorded: Recorded = field(default_factory=Recorded)
    kept: int = 0
    most: int = 0
    unfit: dict[str, int] = field(default_factory=dict)
    ended: str = ""
    waiting: int = 0
    done: int = 0
    count: int = 0
    result: dict[str, Any] | None = None
    left_out: tuple[str, ...] = ()
    kept_outliers: tuple[str, ...] = ()
    problem: str = ""
    machines: tuple[str, ...] = ()


def values_of(ear: Ear | None, fit: FitRun | None) -> dict[str, Any]:
    """Fields of the state that tell of listening, recording and fitting, where these go on."""
    values: dict[str, Any] = {}
    if ear is not None:
        values |= {"heard": ear.heard(), "source": ear.status, "waiting": len(ear.given)}
        if (recorder := ear.recorder) is not None:
            values |= {
                "kept": recorder.kept, "most": recorder.most, "unfit": dict(recorder.unfit), "ended": recorder.ended,
            }  # fmt: skip
    if fit is not None:
        values |= {"done": fit.done, "count": fit.count}
    return values
