"""That one process of a computer is a monitor."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harken.core.errors import writing
from harken.core.files import write_atomically
from harken.core.locks import locked
from harken.service.configuration.model import Configuration
from harken.service.store.engine import shown_url, store_url

log = logging.getLogger(__name__)


@contextmanager
def alone(configuration: Configuration) -> Iterator[str]:
    """Within it, no other process of this computer is this monitor: windows and messages would be numbered twice.

    Gives what a PostgreSQL store knows it by (`store.lease`): whoever has the same later knows that this one has ended,
    since it has the same lock; a copy of the folder has another one. Empty where there can be none. Raises HarkenError
    where another process is.
    """
    url = store_url(configuration.store)
    if url.get_backend_name() == "sqlite":
        store = Path(url.database or "memory")
        with writing(store.parent, "Choose another place for the store"):
            store.parent.mkdir(parents=True, exist_ok=True)
        place = store.with_name(f"{store.name}.{configuration.monitor}")
        with locked(place, patience=0, busy="is the store of a monitor that runs, started"):
            yield ""
        return
    digest = hashlib.sha256(f"{shown_url(url)} {configuration.monitor}".encode()).hexdigest()
    file = configuration.evidence_folder / f".monitor-{digest[:16]}"
    with ExitStack() as held:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(file, patience=0, busy="is held by a monitor of this name that runs, started"))
            if not (file.exists() and file.read_text()):
                write_atomically(file, uuid.uuid4().hex.encode(), sync=True)
            owner = _owner(file)
        except (OSError, UnicodeDecodeError) as error:
            log.warning("%s: cannot be written (%s); after a crash, the name is free after a while only", file, error)
            owner = ""
        yield owner


def _owner(file: Path) -> str:
    """What the file holds, at this place of this computer: what was copied, restored or moved is another's."""
    place = (file.read_text(), os.path.realpath(file), file.stat().st_ino)
    return hashlib.sha256(repr((*place, *_computer())).encode()).hexdigest()


def _computer() -> tuple[str, ...]:
    """What distinguishes this computer from others; cloned disks and containers may share some of it, or have none."""
    try:
        identity = Path("/etc/machine-id").read_text().strip()
    except (OSError, UnicodeDecodeError):
        identity = ""
    address = uuid.getnode()
    # Without a network interface it is random, with this bit: another one in each process.
    return identity, socket.gethostname(), "" if address >> 40 & 1 else f"{address:012x}"
