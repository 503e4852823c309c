"""The last sound of a machine and normal sound of it, kept so that people can compare them at the same gain."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from harken.service.changes import Changes, EvidenceRecord
from harken.service.evidence import EvidenceFolder
from harken.service.records import HeardWindow

#: seconds after which the last sound, and normal sound, are replaced
RENEWED_S = {"live": 60.0, "normal": 86_400.0}
#: seconds for which that is put off while windows wait to be judged
_PUT_OFF_S = 600.0
#: normal sound has at least this p-value: it is no rare one
_USUAL_P = 0.2


class RecentSound:
    """Of one machine. evidence: where files go; a new one takes the place of the last of its kind.

    busy: whether there is more urgent work.
    """

    def __init__(self, evidence: EvidenceFolder, busy: Callable[[], bool] = lambda: False) -> None:
        self._evidence, self._busy = evidence, busy
        self._begun = time.monotonic()
        #: when on the monotonic clock, since an archive is heard faster than it was recorded
        self._kept: dict[str, tuple[float, EvidenceRecord]] = {}

    def hear(self, heard: HeardWindow, changes: Changes) -> None:
        """Keep the sound of a window if it is time for that, and add its record to `changes`."""
        self._keep("live", heard, changes)
        verdict = heard.verdict
        if verdict.kind == "normal" and (verdict.p_value or 0.0) >= _USUAL_P:
            self._keep("normal", heard, changes)

    def _keep(self, kind: Literal["live", "normal"], heard: HeardWindow, changes: Changes) -> None:
        now, before = time.monotonic(), self._kept.get(kind)
        if before is not None and now - before[0] < RENEWED_S[kind]:
            return
        due = self._begun if before is None else before[0] + RENEWED_S[kind]
        if now < due + _PUT_OFF_S and self._busy():
            return
        record = self._evidence.save(heard, kind=kind)
        if record is None:
            return
        if before is not None:
            self._evidence.remove(before[1])
        self._kept[kind] = now, record
        changes.evidence.append(record)
