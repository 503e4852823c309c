"""Serves the page from a thread, or until it is stopped."""

from __future__ import annotations

import threading
import time

from harken.core.errors import HarkenError
from harken.core.extras import need
from harken.page.settings import PageSettings

#: until the server is up, and until it has ended
_START_S, _STOP_S = 20.0, 4.0


class PageServer:
    """The page in a thread of its own, beside a running monitor.

    Raises HarkenError where a package is missing, the store cannot be used or the address is taken.
    """

    def __init__(self, settings: PageSettings) -> None:
        need("fastapi", "pages")
        uvicorn = need("uvicorn", "pages")
        from harken.page.app import create_app

        self.settings = settings
        self._app = create_app(settings)
        config = uvicorn.Config(
            self._app, host=settings.host, port=settings.port, log_config=None, access_log=False, server_header=False,
            timeout_graceful_shutdown=2, limit_concurrency=256, h11_max_incomplete_event_size=32 * 2**10,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self._error = ""

    @property
    def url(self) -> str:
        """Where it is, with the port that was given where 0 was asked for."""
        port = self.settings.port
        if self._server.started and self._server.servers:
            port = self._server.servers[0].sockets[0].getsockname()[1]
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{port}"

    def start(self) -> None:
        """Return when requests are answered."""
        self._thread.start()
        end = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                address = f"{self.settings.host}:{self.settings.port}"
                raise HarkenError(
                    f"the page cannot be served at {address}{self._error}",
                    next_step="Give another port, or end what listens there",
                )
            time.sleep(0.01)
        threading.Thread(target=self._app.state.page.warm, name="first page", daemon=True).start()

    def stop(self) -> None:
        """Answer no more."""
        self._app.state.page.ended.set()
        self._server.should_exit = True
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        try:
            self._server.run()
        except SystemExit:
            # That is how uvicorn tells of an address that is taken.
            self._error = " (the address is taken)"
        except OSError as error:
            self._error = f" ({error.strerror})"
