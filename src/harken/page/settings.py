"""Where the page is served, and to whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harken.core.errors import HarkenError
from harken.page.security import SHORTEST_TOKEN, is_loopback
from harken.service.live_sound import LiveSound
from harken.service.set_up.set_up import SetUp

PORT = 8765


@dataclass(frozen=True)
class PageSettings:
    """store: see `Store.open`. evidence: folder of sounds and pictures. token: needed from everybody, if there is one.

    replayed: what is heard is of another time, as in a demo in fast motion; the present is then the end of the last
    window. names: further names under which this computer is reached; `*`: whatever the browser calls it.
    live: sound of a machine, by monitor and machine, as it is heard in this process. set_up: machines can be set up on
    the page; None: the operator has not started it for that.
    Raises HarkenError for an address that others reach, without a token or with a short one.
    """

    store: str | Path
    evidence: Path
    host: str = "127.0.0.1"
    port: int = PORT
    token: str = ""
    names: tuple[str, ...] = ()
    replayed: bool = False
    live: Callable[[str, str], LiveSound | None] = lambda monitor, machine: None
    set_up: SetUp | None = None

    def __post_init__(self) -> None:
        if self.token and len(self.token) < SHORTEST_TOKEN:
            raise HarkenError(
                f"the token of the page has fewer than {SHORTEST_TOKEN} characters",
                next_step='Make one: python -c "import secrets; print(secrets.token_urlsafe())"',
            )
        if not self.token and not is_loopback(self.host):
            raise HarkenError(
                f"at {self.host} others reach the page, and there is no token",
                next_step="Set a token, or serve it at 127.0.0.1 alone",
            )
