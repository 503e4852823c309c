"""The pages on which a machine is set up. They ask `SetUp` for everything; without one there are none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, RedirectResponse, Response

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.page.live import following, level_text
from harken.page.security import same_site
from harken.page.texts import Texts
from harken.page.views import page, problem, refused, state_of, words
from harken.service.live_sound import SoundColumns
from harken.service.set_up.choices import microphones
from harken.service.set_up.enough import LEAST, SESSIONS
from harken.service.set_up.fitting import RATES
from harken.service.set_up.set_up import LEAST_TO_FIT, MOST_RECORDINGS, SetUp
from harken.service.set_up.state import SetUpState

router = APIRouter(include_in_schema=False)
#: that are offered: recordings of one go, and seconds from one to the next
COUNTS, EVERY_S = (60, 200, 600, MOST_RECORDINGS), (0, 60, 600)
#: the step of the way that each phase belongs to
_STEPS = {"source": 1, "paused": 2, "listening": 2, "recording": 2, "fitting": 3, "fitted": 4}


@router.get("/setup")
def set_up(request: Request) -> Response:
    """How far it is, and the next step."""
    asked = _asked(request)
    if asked is None:
        return _none(request)
    t, state = words(request), asked.state()
    columns = None if asked.live is None else asked.live.since(2**62)
    choices = (microphones(), asked.place.folders()) if state.phase == "source" else ([], [])
    decided = {name: "keep" for name in state.kept_outliers} | {name: "leave" for name in state.left_out}
    return page(
        request, "set_up.html", title=t("setup.title"), state=state, step=_STEPS[state.phase], places=choices,
        folder=str(asked.place.folder), level=None if columns is None else columns.level_db, counts=COUNTS,
        every=EVERY_S, rates=RATES, least=LEAST_TO_FIT, texts=texts_of(state, columns, t), outliers=asked.outliers(),
        decided=decided, enough=LEAST, limits=limits(state, t), alarm=alarm_sentences(state, t),
    )  # fmt: skip


@router.get("/setup/live")
def live(request: Request) -> Response:
    """Sound and progress, for an open page."""
    asked, t = _asked(request), words(request)
    if asked is None:
        return _none(request)

    def more(columns: SoundColumns | None) -> Mapping[str, Any]:
        asked.looked()
        state = asked.state()
        values = {"recording": state.kept, "fitting": state.done, "enough": state.recorded.recordings}
        return {"phase": state.phase, "texts": texts_of(state, columns, t), "values": values, "most": state.count}

    return following(request, lambda: asked.live, more, t)


@router.get("/setup/outliers/{number}")
def outlier(request: Request, number: int) -> Response:
    """The sound of a recording that stands out."""
    asked = _asked(request)
    file = None if asked is None else asked.outlier_file(number)
    return problem(request, 404, words(request)("error.unknown")) if file is None else FileResponse(file)


@router.post("/setup/{step}")
async def take(request: Request, step: str) -> Response:
    """A button was pressed."""
    asked, t = _asked(request), words(request)
    if asked is None:
        return _none(request)
    form = parse_qs((await request.body()).decode("utf-8", "replace"))
    client = request.client.host if request.client is not None else "?"
    by = f"{request.cookies.get('harken_name') or 'somebody'} at {client}"
    do = _steps(asked, form, by).get(step)
    if do is None:
        return problem(request, 404, t("error.unknown"))
    try:
        await asyncio.to_thread(do)
    except (HarkenError, ValueError) as error:
        return refused(request, error, back="/setup")
    return RedirectResponse("/" if step == "start" else "/setup", 303)


def _steps(asked: SetUp, form: dict[str, list[str]], by: str) -> dict[str, Callable[[], None]]:
    def last(name: str, default: str = "") -> str:
        return form.get(name, [default])[-1]

    def choose() -> None:
        kind, _, choice = last("source").partition(":")
        if kind not in ("microphone", "stream", "folder"):
            raise HarkenError(Sentence("no source was chosen"), next_step=Sentence("Choose one"))
        asked.choose(last("machine"), kind, last("url") if kind == "stream" else choice, by)  # type: ignore[arg-type]

    def fit() -> None:
        names = asked.outliers()
        chosen = {name: last(f"outlier{row}") for row, name in enumerate(names)}
        left_out = tuple(name for name, choice in chosen.items() if choice == "leave")
        kept = tuple(name for name, choice in chosen.items() if choice == "keep")
        asked.fit(left_out if kept else (), kept, by)

    def record() -> None:
        asked.record(int(last("count", "60")), float(last("every", "0")), existing=bool(last("existing")), by=by)

    return {
        "choose": choose, "listen": lambda: asked.listen(by), "record": record, "stop": lambda: asked.stop(by),
        "fit": fit, "cancel": lambda: asked.cancel(by), "start": lambda: asked.start(last("rate", RATES[-1]), by),
        "again": lambda: asked.discard(by),
    }  # fmt: skip


def texts_of(state: SetUpState, columns: SoundColumns | None, t: Texts) -> dict[str, str]:
    """Words of the page that change while it is open, by the id of their place."""
    recorded, texts = state.recorded, {}
    texts["recorded"] = t("setup.recorded", count=recorded.recordings, least=LEAST, time=_duration(recorded.seconds, t))
    sessions = {0: "sessions_none", 1: "sessions_one"}.get(recorded.sessions, "sessions")
    texts["sessions"] = t(
        f"setup.{sessions}", count=recorded.sessions,
        days=recorded.days, needed=SESSIONS,
    )  # fmt: skip
    texts["worth"] = (
        t("setup.worth", time=_duration(recorded.false_alarm_s, t)) if recorded.recordings >= LEAST_TO_FIT else ""
    )
    if state.heard is not None:
        texts["sensor"] = "; ".join(t(f"concern.{_key(kind)}") for kind in state.heard.concerns) or t("concern.good")
        if columns is not None:
            texts["live-level"] = level_text(columns, t)
    if state.source is not None and state.source.error and not state.source.good:
        texts["sensor"] = t("setup.source_error", cause=state.source.error)
    unfit = ", ".join(f"{count} {t(f'unfit.{_key(kind)}')}" for kind, count in state.unfit.items())
    texts["unfit"] = t("setup.unfit", kinds=unfit) if unfit else ""
    if state.most:
        ended = f"setup.ended_{state.ended}" if state.ended else "setup.recording"
        texts["recording"] = t(ended, count=state.kept, most=state.most)
    texts["waiting"] = t("setup.waiting", count=state.waiting)
    texts["fitting"] = t("setup.fitting_count" if state.count else "setup.fitting", done=state.done, count=state.count)
    return texts


def alarm_sentences(state: SetUpState, t: Texts) -> list[str]:
    """What the model says of its alarm."""
    return _said([] if state.result is None else state.result.get("alarm", []), t)


def limits(state: SetUpState, t: Texts) -> dict[str, str]:
    """What an alarm is set to at each rate, but for the limit of single windows, which is a number."""
    rates = {} if state.result is None else state.result.get("rates", {})
    return {rate: ". ".join(_said(sentences[1:], t)) for rate, sentences in rates.items()}


def _said(made_of: Sequence[Mapping[str, Any]], t: Texts) -> list[str]:
    sentences = [Sentence.from_json(each) for each in made_of]
    return [t.sentence(each) or each for each in sentences]


def _key(kind: str) -> str:
    return kind.replace(" ", "_")


def _duration(seconds: float, t: Texts) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return t(f"duration.{unit}", count=round(seconds / size))
    return t("duration.seconds", count=round(seconds))


def _asked(request: Request) -> SetUp | None:
    """The set-up that a person looks at; a request that another site makes the browser send is none."""
    asked = state_of(request).settings.set_up
    if asked is not None and same_site(dict(request.headers)):
        asked.looked()
    return asked


def _none(request: Request) -> Response:
    return problem(request, 404, words(request)("setup.none"))
