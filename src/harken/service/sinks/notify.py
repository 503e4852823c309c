"""Messages to people, by any service that Apprise knows: mail, Slack, Teams, ntfy, Telegram and a hundred more."""

from __future__ import annotations

import logging
from io import StringIO
from pathlib import Path
from typing import Any

from harken.core.errors import HarkenError
from harken.core.extras import need
from harken.service.records import Message
from harken.service.sinks.base import NotDeliveredError, Sink
from harken.service.sinks.webhook import without_secrets
from harken.service.texts import title_and_text


class NotifySink(Sink):
    """Tells people in sentences.

    url: of one service, as https://github.com/caronc/apprise/wiki describes it; several services are several sinks, so
    that one that is down delays no other. attach: send files of the evidence along, where the service takes any.
    Raises HarkenError for an address that Apprise does not understand.
    """

    def __init__(self, name: str, url: str, *, attach: bool = True) -> None:
        super().__init__(name)
        self._where = url.partition(":")[0] if "@" in url else without_secrets(url)
        self._attach = attach
        self._service: Any = check_address(url)

    def deliver(self, message: Message) -> None:
        if message.payload.get("quiet"):
            return  # for those who look, and for systems
        apprise = need("apprise", "messages to people")
        title, text = title_and_text(message)
        files = [file for file in message.payload.get("evidence_files", ()) if Path(file).is_file()]
        serious = message.kind in ("alarm", "sensor") and message.payload.get("active", True)
        with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as said:
            delivered = self._service.notify(
                body=text,
                title=title,
                notify_type=apprise.NotifyType.WARNING if serious else apprise.NotifyType.INFO,
                attach=files if files and self._attach else None,
            )
            lines = said.getvalue().strip().split("\n") if isinstance(said, StringIO) else []
        if not delivered:
            why = f" ({lines[-1].strip(' .')[:200]})" if lines and lines[-1] else ""
            raise NotDeliveredError(f"{self._where} does not take the message{why}", next_step="Check the service")


def check_address(url: str) -> Any:
    """The service of an address. Raises HarkenError where Apprise understands none."""
    apprise = need("apprise", "messages to people")
    service = apprise.Apprise(asset=apprise.AppriseAsset(app_id="Harken", app_desc="listens to machines"))
    if not service.add(url):
        raise HarkenError(
            f"the address {url.partition(':')[0]}:... is none that Apprise understands",
            next_step="See https://github.com/caronc/apprise/wiki for the form of addresses",
        )
    return service
