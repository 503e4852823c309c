"""Every request passes here first: address, token, site, rate and size."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from harken.page.security import COOKIE, HEADERS, RequestRate, known_host, permits, same_site
from harken.page.settings import PageSettings
from harken.page.texts import chosen_language, texts

#: bytes of a body: of recordings to be scored, and of all else
MOST_RECORDING, MOST_BODY = 256 * 2**20, 64 * 2**10
#: requests per second and client, and at once; of log-ins and recordings far fewer
PER_SECOND, BURST = 20.0, 200
COSTLY_PER_SECOND, COSTLY_BURST = 0.5, 10
#: reached without a token
OPEN = ("/healthz", "/login", "/static/")


class Guard:
    """ASGI middleware. A refusal is JSON for programs (`/v1`), and plain text for people."""

    def __init__(self, app: ASGIApp, settings: PageSettings) -> None:
        self._app, self._settings = app, settings
        self._rate, self._costly = RequestRate(PER_SECOND, BURST), RequestRate(COSTLY_PER_SECOND, COSTLY_BURST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # A web socket, which there is none of, is closed by the application.
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    sent[name] = value
                sent.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(guarded, scope["path"], *refusal)
            return
        most = MOST_RECORDING if _is_costly(scope) and scope["path"] != "/login" else MOST_BODY
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > most:
            await _answer(guarded, scope["path"], 413, self._say(headers, "error.large", most=most))
            return
        await self._app(scope, _limited(receive, most), guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | tuple[int, str, dict[str, str]] | None:
        path, settings = scope["path"], self._settings
        client = (scope.get("client") or ("",))[0]
        rate = self._costly if scope["method"] == "POST" and _is_costly(scope) else self._rate
        if wait_s := rate.wait_s(client):
            seconds = int(wait_s) + 1
            return 429, self._say(headers, "error.busy", seconds=seconds), {"Retry-After": str(seconds)}
        names = (*settings.names, settings.host)
        if not known_host(headers.get("host"), names) and path != "/healthz":
            return 421, self._say(headers, "error.host")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not same_site(dict(headers.items())):
            return 403, self._say(headers, "error.foreign")
        if settings.token and not path.startswith(OPEN):
            cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE)
            if not permits(settings.token, headers.get("authorization"), cookie):
                if path.startswith("/v1") or path == "/openapi.json" or scope["method"] != "GET":
                    return 401, "a token is needed", {"WWW-Authenticate": "Bearer"}
                return 303, "", {"Location": f"/login?next={quote(path, safe='/')}"}
        return None

    @staticmethod
    def _say(headers: Headers, key: str, **values: object) -> str:
        return texts(chosen_language(None, headers.get("accept-language")))(key, **values)


def _is_costly(scope: Scope) -> bool:
    return scope["path"] == "/login" or (scope["path"].startswith("/v1/") and scope["path"].endswith("/score"))


def _limited(receive: Receive, most: int) -> Receive:
    """As `receive`, but a body ends with an error after `most` bytes: its length may not have been stated."""
    read = 0

    async def limited() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > most:
            raise TooLargeError(most)
        return message

    return limited


class TooLargeError(Exception):
    """A body of more bytes than are taken."""


async def _answer(send: Send, path: str, status: int, text: str, extra: dict[str, str] | None = None) -> None:
    as_json = path.startswith("/v1")
    body = json.dumps({"error": text}).encode() if as_json else f"{text}\n".encode()
    kind = b"application/json" if as_json else b"text/plain; charset=utf-8"
    headers: list[tuple[bytes, bytes]] = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in (extra or {}).items()]
    start: dict[str, Any] = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
