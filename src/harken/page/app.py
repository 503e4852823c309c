"""The application: pages, interface for programs, files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from harken.core.errors import HarkenError
from harken.core.version import __version__
from harken.page import api, live, set_up, set_up_api, teaching, views
from harken.page.guard import MOST_BODY, Guard, TooLargeError
from harken.page.settings import PageSettings
from harken.page.state import PageState


def create_app(settings: PageSettings) -> FastAPI:
    """The ASGI application. Raises HarkenError where the store cannot be used."""
    state = PageState(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        state.ended.set()
        state.store.close()

    app = FastAPI(
        title="Harken", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False,
        summary="Machines that are listened to: states, scores, alarms, evidence.",
    )  # fmt: skip
    app.state.page = state
    app.add_middleware(Guard, settings=settings)
    own_files = StaticFiles(directory=str(files("harken.page") / "static"), packages=[("harken.core", "static")])
    app.mount("/static", own_files, name="static")
    for module in (api, set_up_api, views, teaching, live, set_up):
        app.include_router(module.router)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        if request.url.path.startswith("/v1"):
            return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)
        response = views.problem(request, error.status_code, views.words(request)("error.unknown"))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(HarkenError)
    async def failed(request: Request, error: HarkenError) -> Response:
        if request.url.path.startswith("/v1"):
            return JSONResponse({"error": error.cause, "next_step": error.next_step}, 503)
        t = views.words(request)
        return views.problem(request, 503, t("error.store", cause=t.error(error)))

    @app.exception_handler(TooLargeError)
    async def too_large(request: Request, error: TooLargeError) -> Response:
        return JSONResponse({"error": f"more than {error.args[0] if error.args else MOST_BODY} bytes"}, 413)

    return app
