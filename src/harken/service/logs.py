"""What the monitor writes about itself on standard error: text for people, or JSON for collectors of logs."""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime
from typing import Literal

from harken.core.json_text import json_text
from harken.core.names import shown

LogForm = Literal["text", "json"]

#: level -> priority of syslog, which journald reads from the beginning of a line
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class TextFormatter(logging.Formatter):
    """`2026-03-01T12:00:00Z warning: sentence`; for the journal of systemd, with a priority and without the time."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback of an error."""
        text = shown(record.getMessage())
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if self._journal:
            return f"<{_PRIORITIES.get(record.levelno, 6)}>{text}"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        level = "" if record.levelno == logging.INFO else f" {record.levelname.lower()}:"
        return f"{stamp}{level} {text}"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and `fields` of the record."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json_text(entry, default=str)


def set_up_logs(form: LogForm, *, journal: bool = False, verbose: bool = False) -> None:
    """Send what the program logs to standard error. verbose: every window too. journal: systemd reads it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(journal=journal))
    logger = logging.getLogger("harken")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
