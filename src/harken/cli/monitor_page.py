"""The page beside a monitor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from harken.cli.console import say
from harken.core.errors import HarkenError

if TYPE_CHECKING:
    from harken.page.server import PageServer
    from harken.service.configuration.model import Configuration
    from harken.service.live_sound import LiveSound

#: seconds for a page that is still starting when it is stopped
_STOP_S = 2.0


class PageBeside:
    """Serves the page of a configuration, if it is to have one, from now until `stop`.

    It starts in a thread, since listening need not wait for it, and the monitor does not depend on it: a page that
    cannot be is said. live, replayed: see `PageSettings`.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        live: Callable[[str, str], LiveSound | None] = lambda monitor, machine: None,
        replayed: bool = False,
    ) -> None:
        self._configuration, self._live, self._replayed = configuration, live, replayed
        self._server: PageServer | None = None
        self._thread = threading.Thread(target=self._start, name="page starts", daemon=True)
        if configuration.page is not None:
            self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)
        if self._server is not None:
            self._server.stop()

    def _start(self) -> None:
        configuration, entry = self._configuration, self._configuration.page
        assert entry is not None
        try:
            from harken.page.server import PageServer
            from harken.page.settings import PageSettings

            server = PageServer(
                PageSettings(
                    configuration.store,
                    configuration.evidence_folder,
                    entry.host,
                    entry.port,
                    entry.token,
                    entry.names,
                    self._replayed,
                    self._live,
                )
            )
            server.start()
        except HarkenError as error:
            say(f"note: no page: {error}")
            return
        self._server = server
        say(f"page: {server.url}")
