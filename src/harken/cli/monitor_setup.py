"""harken monitor --setup: machines are set up on the page, from an empty folder on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harken.cli.console import say
from harken.core.errors import HarkenError

if TYPE_CHECKING:
    from harken.service.set_up.run import SetUpRun

#: variable of the environment with the token of the page
TOKEN = "HARKEN_TOKEN"


def run_set_up(folder: Path, port: int, host: str | None, stopping: Callable[[SetUpRun], None]) -> None:
    """Serve the page until it is stopped, and run the monitor as soon as there is one.

    host: None: as configured, else this computer alone. stopping: see `monitor_run`. Raises HarkenError where others
    reach the host, and there is no token.
    """
    if not port:
        raise HarkenError("machines are set up on the page, and there is none", next_step="Give --page a port")
    from harken.page.server import PageServer
    from harken.page.settings import PageSettings
    from harken.service.configuration.read import read_configuration
    from harken.service.set_up.folder import SetUpFolder
    from harken.service.set_up.run import SetUpRun
    from harken.service.set_up.set_up import SetUp

    place, token = SetUpFolder(folder), os.environ.get(TOKEN, "")
    store, evidence, names = str(place.store), place.evidence, tuple[str, ...]()
    if place.configuration.exists():
        configuration = read_configuration(place.configuration)
        store, evidence = configuration.store, configuration.evidence_folder
        if (entry := configuration.page) is not None:
            token, names, host = entry.token or token, entry.names, host or entry.host
    host = host or "127.0.0.1"
    page: dict[str, Any] = {"port": port, "host": host} | ({"token": f"${{{TOKEN}}}"} if token else {})
    # Checked before anything is listened to.
    PageSettings(store, evidence, host, port, token, names)
    set_up = SetUp(folder, page=page)
    try:
        run = SetUpRun(set_up)
        server = PageServer(PageSettings(store, evidence, host, port, token, names, live=run.live, set_up=set_up))
        server.start()
        try:
            say(f"set up machines at {server.url}/setup; what is made is in {set_up.place.folder}")
            stopping(run)
            run.run()
        finally:
            server.stop()
    finally:
        set_up.close()
