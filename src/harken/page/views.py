"""The pages that people see."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse

from harken.core.errors import HarkenError
from harken.core.pages import render
from harken.page import actions, details
from harken.page.headlines import headline, picture, summary
from harken.page.machines import key_of
from harken.page.scores import SPANS
from harken.page.security import COOKIE, session_of
from harken.page.state import PageState
from harken.page.texts import LANGUAGES, Texts, chosen_language, texts
from harken.page.wording import did, refusal, said
from harken.service.store.rows import alarm_of_id
from harken.service.store.versions import machine_versions

router = APIRouter(include_in_schema=False)
#: seconds a browser keeps name and language, and a log-in
_YEAR, _LOGIN = 365 * 86400, 30 * 86400
#: seconds between two looks at the store for open pages, and pages that may follow
_LOOK_S, _MOST_LISTENERS = 2.0, 100


def state_of(request: Request) -> PageState:
    """What the application keeps."""
    state: PageState = request.app.state.page
    return state


def words(request: Request) -> Texts:
    """In the language of the person."""
    asked = request.query_params.get("lang") or request.cookies.get("harken_language")
    return texts(chosen_language(asked, request.headers.get("accept-language")))


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Render a template of the page with the words, the time and what every page shows."""
    t, now = words(request), state_of(request).now()
    common = {
        "t": t, "now": now, "languages": LANGUAGES, "path": request.url.path,
        "when": lambda time, real=False: t.when(time, datetime.now(UTC) if real else now),
        "ago": lambda time: t.ago(time, now),
        "said": lambda text: said(text, t, state_of(request)), "did": lambda name: did(name, t, state_of(request)),
        "refusal": lambda text: refusal(text, t, state_of(request)),
        "who": request.cookies.get("harken_name", ""), "has_token": bool(state_of(request).settings.token),
        "set_up": state_of(request).settings.set_up,
    }  # fmt: skip
    response = HTMLResponse(render("harken.page", template, **common, **values), status)
    if (asked := request.query_params.get("lang")) in LANGUAGES:
        response.set_cookie("harken_language", asked, max_age=_YEAR, httponly=True, samesite="strict")
    return response


def problem(request: Request, status: int, text: str, back: str = "/") -> Response:
    """A page that says why there is none. back: where it leads."""
    return page(request, "error.html", status, title=words(request)("error.title"), text=text, back=back)


def refused(request: Request, error: Exception, back: str = "/") -> Response:
    """A page that says why what was asked for is not done. back: where it leads."""
    t = words(request)
    return problem(request, 400, t("error.form", cause=t.error(error)), back)


def answer_of(request: Request) -> actions.Answer | None:
    """What became of the request that the address names, waited for if it was just made."""
    number = request.query_params.get("asked", "")
    if not (number.isascii() and number.isdigit() and len(number) < 16):
        return None
    return actions.answered(state_of(request).store, int(number))


@router.get("/")
def machines(request: Request) -> Response:
    """All machines, or the list alone for a page that is open."""
    state, t = state_of(request), words(request)
    # First, since it changes what follows.
    asked = answer_of(request)
    now = state.now()
    with state.store.reading() as connection:
        views = state.machines.all(connection, now)
        down = state.monitors_down(connection)
    set_up = state.settings.set_up
    if not views and set_up is not None and not set_up.place.configuration.exists():
        return RedirectResponse("/setup", 303)
    lines = [(view, headline(view, t, now), picture(view, t, now)) for view in views]
    template = "machine_list.html" if request.headers.get("hx-request") else "machines.html"
    title = summary(views, t) if views else t("title")
    return page(request, template, title=title, lines=lines, down=down, asked=asked)


@router.get("/machines/{key}")
def machine(request: Request, key: str) -> Response:
    """One machine."""
    state, t = state_of(request), words(request)
    # First, since it changes what follows.
    asked = answer_of(request)
    now = state.now()
    with state.store.reading() as connection:
        view = state.machines.find(connection, key, now)
        if view is None:
            return problem(request, 404, t("error.unknown_machine"))
        alarms = details.alarms(connection, view.monitor, view.machine)
        lines = details.history(connection, view.monitor, view.machine)
        versions = machine_versions(connection, view.monitor, view.machine)
    span = request.query_params.get("span", "week")
    return page(
        request, "machine.html", title=view.machine, view=view, headline=headline(view, t, now),
        picture=picture(view, t, now), alarms=alarms, history=lines, asked=asked, spans=list(SPANS), versions=versions,
        span=span if span in SPANS else "week",
        live=state.settings.live(view.monitor, view.machine) is not None,
    )  # fmt: skip


@router.get("/machines/{key}/scores/{span}")
def scores(request: Request, key: str, span: str) -> Response:
    """Numbers of the chart."""
    state = state_of(request)
    now = state.now()
    if span not in SPANS:
        return JSONResponse({"error": "unknown span"}, 404)
    with state.store.reading() as connection:
        view = state.machines.find(connection, key, now)
        if view is None:
            return JSONResponse({"error": "unknown machine"}, 404)
        values = details.scores(connection, view.monitor, view.machine, span, now)
    bands = [(start.timestamp(), end.timestamp()) for start, end in view.bands]
    return JSONResponse(values | {"limit": view.limit, "alarms": bands})


@router.post("/machines/{key}/ask")
async def ask(request: Request, key: str) -> Response:
    """A button was pressed; the page comes again, with what became of it."""
    form = {name: values[-1] for name, values in parse_qs((await request.body()).decode("utf-8", "replace")).items()}
    who = form.get("who", "")

    def leave() -> int | None:
        state = state_of(request)
        now = state.now()
        with state.store.reading() as connection:
            view = state.machines.find(connection, key, now)
        if view is None:
            return None
        demand = form.get("demand", "")
        hours = 8.0 if demand == "shelve" else None
        return actions.ask(
            state.store, view.monitor, view.machine, demand, who=who, text=form.get("text", ""), hours=hours
        )

    try:
        number = await asyncio.to_thread(leave)
    except HarkenError as error:
        return refused(request, error)
    if number is None:
        return problem(request, 404, words(request)("error.unknown_machine"))
    place = "/" if form.get("back") == "list" else f"/machines/{key}"
    return keep_name(RedirectResponse(f"{place}?asked={number}", 303), who)


def keep_name(response: Response, who: str) -> Response:
    """Have the browser know the person's name the next time."""
    if who.strip():
        response.set_cookie("harken_name", who[: actions.LONGEST_NAME], max_age=_YEAR, httponly=True, samesite="strict")
    return response


@router.get("/alarms/{alarm_id}")
def alarm(request: Request, alarm_id: str) -> Response:
    """The link of a message leads to the machine of its alarm."""
    with state_of(request).store.reading() as connection:
        located = alarm_of_id(connection, alarm_id)
    if located is None:
        return problem(request, 404, words(request)("error.unknown"))
    monitor, record = located
    return RedirectResponse(f"/machines/{key_of(monitor, record.machine)}#alarm-{record.id}", 303)


@router.get("/evidence/{evidence_id}/{content}")
def evidence(request: Request, evidence_id: str, content: str) -> Response:
    """Sound or picture."""
    return state_of(request).evidence_file(evidence_id, content) or problem(
        request, 404, words(request)("error.unknown")
    )


@router.get("/help")
def on_paper(request: Request) -> Response:
    """What words, colours and buttons mean: one page of A4 when printed."""
    t = words(request)
    states = ("alarm", "returned", "suspect", "sensor", "silent", "normal", "off")
    buttons = [
        (t("action.acknowledge"), "seen"), (t("teach.normal"), "learn"), (t("teach.fault"), "fault"),
        (t("action.shelve"), "mute"), (t("action.out_of_service"), "service"),
    ]  # fmt: skip
    return page(request, "help.html", title=t("help.title"), states=states, buttons=buttons)


@router.get("/events")
async def events(request: Request) -> Response:
    """Tells open pages when something is new."""
    state = state_of(request)
    if state.listeners >= _MOST_LISTENERS:
        return Response(status_code=503)

    async def news() -> AsyncIterator[str]:
        state.listeners += 1
        try:
            seen = happened = ""
            while not state.ended.is_set() and not await request.is_disconnected():
                version, last = await asyncio.to_thread(state.versions)
                if happened and last != happened:
                    yield f"event: happened\ndata: {last}\n\n"
                happened = last
                if version != seen:
                    yield f"event: changed\ndata: {version}\n\n"
                    seen = version
                else:
                    yield ": waiting\n\n"
                await asyncio.sleep(_LOOK_S)
        finally:
            state.listeners -= 1

    return StreamingResponse(news(), media_type="text/event-stream")


@router.get("/login")
def login(request: Request) -> Response:
    """Asks for the token."""
    return page(request, "login.html", title=words(request)("login.title"), wrong=False, next=_own(request))


@router.post("/login")
async def enter(request: Request) -> Response:
    """Takes the token."""
    form = parse_qs((await request.body()).decode("utf-8", "replace"))
    token = state_of(request).settings.token
    if not token or not hmac.compare_digest(form.get("token", [""])[-1].strip().encode(), token.encode()):
        return page(
            request, "login.html", 401, title=words(request)("login.title"), wrong=True, next=_own(request)
        )  # fmt: skip
    response = RedirectResponse(_own(request), 303)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, session_of(token), max_age=_LOGIN, httponly=True, samesite="strict", secure=secure)
    return response


def _own(request: Request) -> str:
    """Where to go after the log-in: a path of this page, nothing else."""
    path = request.query_params.get("next", "/")
    return path if path.startswith(("/machines/", "/alarms/")) else "/"
