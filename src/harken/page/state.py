"""What the application keeps between requests."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from fastapi.responses import FileResponse, Response
from sqlalchemy.engine import Connection

from harken.core.sentences import Sentence
from harken.page import details
from harken.page.machines import Machines
from harken.page.scorer import RecordingScorer
from harken.page.settings import PageSettings
from harken.service.store import tables
from harken.service.store.columns import UtcTime
from harken.service.store.rows import sentence
from harken.service.store.running import running
from harken.service.store.store import Store, StoreError

#: sentences that are kept in memory
_MOST_SENTENCES = 10_000
_KINDS = {
    ".flac": "audio/flac",
    ".wav": "audio/wav",
    ".png": "image/png",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}


class PageState:
    """Store, settings and what was read. listeners: open pages that follow; live_pages: those that follow sound.
    ended: the server stops."""

    def __init__(self, settings: PageSettings) -> None:
        self.settings = settings
        self.store = Store.open(settings.store)
        self.machines = Machines()
        self.scorer = RecordingScorer()
        self.listeners = self.live_pages = 0
        self._sentences: dict[str, Sentence | None] = {}
        self.ended = threading.Event()

    def now(self) -> datetime:
        """The present, as the machines have it."""
        if self.settings.replayed:
            with self.store.reading() as connection:
                end = connection.scalar(sa.select(sa.func.max(tables.windows.c.end, type_=UtcTime())))
            if end is not None:
                return end
        return datetime.now(UTC)

    def warm(self) -> None:
        """Read what a first page needs; that of a year takes seconds, and later ones only what is new."""
        with suppress(StoreError), self.store.reading() as connection:
            self.machines.all(connection, self.now())

    def versions(self) -> tuple[str, str]:
        """The first changes whenever the store has something new of a machine, an alarm or a request; the second only
        where something has happened: an alarm, or what somebody did."""
        numbers = (
            sa.func.max(tables.history.c.number), sa.func.sum(tables.monitors.c.last_record),
            sa.func.max(tables.messages.c.number),
        )  # fmt: skip
        with self.store.reading() as connection:
            happened, *others = [str(connection.scalar(sa.select(number))) for number in numbers]
        return "/".join([happened, *others]), happened

    def sentence(self, text: str) -> Sentence | None:
        """What a text of the store was made as, if it is known; it never changes."""
        if text not in self._sentences:
            if len(self._sentences) >= _MOST_SENTENCES:
                self._sentences.clear()
            with self.store.reading() as connection:
                self._sentences[text] = sentence(connection, text)
        return self._sentences[text]

    def monitors_down(self, connection: Connection) -> list[tuple[str, datetime]]:
        """Monitors that do not run, and when they were last seen."""
        now = datetime.now(UTC)
        return [(each.monitor, each.seen) for each in running(connection) if not each.runs(now)]

    def evidence_file(self, evidence_id: str, content: str) -> Response | None:
        """`sound` or `picture` of a row of evidence; None where there is none."""
        path = self.evidence_path(evidence_id, content)
        kind = None if path is None else _KINDS.get(path.suffix.lower())
        if path is None or kind is None:
            return None
        # What a row of evidence holds never changes.
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "private, max-age=604800, immutable"})

    def evidence_path(self, evidence_id: str, content: str) -> Path | None:
        """The file of it. No name of a client becomes a path."""
        if content not in ("sound", "picture"):
            return None
        with self.store.reading() as connection:
            row = details.evidence(connection, evidence_id)
        name = getattr(row, content, "") if row is not None else ""
        path = self.settings.evidence / name
        if not name or Path(name).is_absolute() or ".." in Path(name).parts or not path.is_file():
            return None
        return path
