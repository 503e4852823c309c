"""Words to systemd, of sd_notify(3): ready, alive, stopping. Nothing where it did not ask for them."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(*states: str) -> None:
    """Send `READY=1`, `WATCHDOG=1`, `STATUS=...` and the like."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    # An address that begins with @ is in the abstract name space.
    place = "\0" + address[1:] if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto("\n".join(states).encode(), place)
