"""Open pages that follow sound: columns of its picture, and its level in words, twice a second."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from harken.audio.decode import decode
from harken.core.errors import AudioError
from harken.core.json_text import json_text
from harken.page.security import same_site
from harken.page.texts import Texts
from harken.page.views import state_of, words
from harken.service.live_sound import BANDS, FLOOR_DB, LiveSound, SoundColumns

router = APIRouter(include_in_schema=False)
#: seconds between two messages, and pages that may follow
EVERY_S, MOST_PAGES = 0.5, 20


@router.get("/machines/{key}/live")
def machine_live(request: Request, key: str) -> Response:
    """The sound of a machine of the monitor in this process."""
    state, t = state_of(request), words(request)
    with state.store.reading() as connection:
        view = state.machines.find(connection, key, state.now())
    if view is None:
        return JSONResponse({"error": "unknown machine"}, 404)
    monitor, machine = view.monitor, view.machine
    if state.settings.live(monitor, machine) is None:
        return JSONResponse({"error": "its monitor runs elsewhere"}, 404)
    last = None if "live" not in view.sounds else state.evidence_path(view.sounds["live"], "sound")

    def begin(live: LiveSound) -> None:
        """Sound may come in minutes only: the last that was kept is shown until then."""
        if last is not None and view.last is not None and not live.since(0).next:
            with suppress(AudioError):
                audio = decode(last)
                live.hear(audio.samples_CS, audio.sample_rate, view.last.end - timedelta(seconds=audio.seconds))

    return following(request, lambda: state.settings.live(monitor, machine), lambda columns: {}, t, begin)


def following(
    request: Request,
    live: Callable[[], LiveSound | None],
    more: Callable[[SoundColumns | None], Mapping[str, Any]],
    t: Texts,
    begin: Callable[[LiveSound], None] = lambda live: None,
) -> Response:
    """Events `sound` while the page is open.

    live: asked each time, for a machine may be taken up anew. more: what else a message holds. begin: called when sound
    is watched from now on. Both run in a thread.
    """
    state = state_of(request)
    # Another site cannot read it, but would take places, and keep a source open.
    if not same_site(dict(request.headers)):
        return Response(status_code=403)
    if state.live_pages >= MOST_PAGES:
        return Response(status_code=503)

    async def news() -> AsyncIterator[str]:
        state.live_pages += 1
        watching, watched, number = ExitStack(), None, 0
        try:
            while not state.ended.is_set() and not await request.is_disconnected():
                sound = live()
                if sound is not watched:
                    watching.close()
                    watched, number = sound, 0
                    if sound is not None:
                        watching.enter_context(sound.watched())
                        await asyncio.to_thread(begin, sound)
                columns = None if sound is None else sound.since(number)
                number = 0 if columns is None else columns.next
                message, further = sound_message(columns, t), await asyncio.to_thread(more, columns)
                message = {**message, **further, "texts": {**message["texts"], **further.get("texts", {})}}
                yield f"event: sound\ndata: {json_text(message)}\n\n"
                await asyncio.sleep(EVERY_S)
        finally:
            watching.close()
            state.live_pages -= 1

    return StreamingResponse(news(), media_type="text/event-stream")


def sound_message(columns: SoundColumns | None, t: Texts) -> dict[str, Any]:
    """JSON-able: columns as Base64, bands of each, level, and the level in words."""
    if columns is None:
        return {"columns": "", "bands": BANDS, "level": FLOOR_DB, "texts": {}}
    texts = {"live-level": level_text(columns, t)}
    if columns.sample_rate:
        texts["live-axis"] = t("live.axis", top=_hertz(columns.sample_rate / 2))
    return {
        "first": columns.first, "columns": base64.b64encode(columns.levels_TM.tobytes()).decode(), "bands": BANDS,
        "level": round(columns.level_db, 1), "texts": texts,
    }  # fmt: skip


def level_text(columns: SoundColumns, t: Texts) -> str:
    """The picture in a sentence."""
    if columns.end is None or columns.level_db <= FLOOR_DB:
        return t("live.nothing")
    key = "live.clipped" if columns.clipped > 1e-3 else "live.level"
    values = {"level": round(columns.level_db), "peak": round(columns.peak_db), "near": _hertz(columns.strongest_hz)}
    return t(key, **values).replace("-", "\N{MINUS SIGN}")


def _hertz(frequency: float) -> str:
    return f"{frequency:.0f} Hz" if frequency < 950 else f"{frequency / 1000:.1f} kHz"
