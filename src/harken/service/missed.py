"""What a monitor could not do, as it is said when it has ended."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from harken.core.errors import HarkenError
from harken.service.feed import SourceStatus
from harken.service.recorder import Recorder
from harken.service.records import HeardWindow

log = logging.getLogger(__name__)


#: different reasons that are counted of a machine, for which a monitor may run for years
_MOST_REASONS = 50


class UnjudgedWindows:
    """Counts windows that were not judged.

    A window could be used where it was scored, also if what was heard is a machine that is off, or a sensor that is at
    fault: that is said. One of another form, one that is damaged, and one that is too short for the model could not.
    """

    def __init__(self) -> None:
        self._heard: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = {}
        self._usable: set[str] = set()

    def note(self, heard: HeardWindow) -> None:
        """A window of a machine was heard."""
        machine, verdict = heard.machine, heard.verdict
        self._heard[machine] += 1
        if verdict.score is not None:
            self._usable.add(machine)
        if verdict.kind == "not judged":
            reason = (verdict.not_judged if verdict.error is None else verdict.error.cause) or ""
            reasons = self._reasons.setdefault(machine, Counter())
            if reason in reasons or len(reasons) < _MOST_REASONS:
                reasons[reason] += 1
            else:
                reasons["other reasons"] += 1

    def tell(self) -> None:
        """Log them, with the most frequent reason."""
        for machine, reasons in self._reasons.items():
            count, reason = reasons.total(), reasons.most_common(1)[0][0]
            log.warning("machine %s: not judged: %d of %d windows; %s", machine, count, self._heard[machine], reason)

    @property
    def error(self) -> HarkenError | None:
        """Of a machine of which no window could be used."""
        for machine, reasons in self._reasons.items():
            if machine not in self._usable:
                return HarkenError(
                    f"no window could be judged: {reasons.most_common(1)[0][0]}",
                    file=machine,
                    next_step="Record as the model was recorded, or fit another one",
                )
        return None


def missed(recorder: Recorder, sources: Iterable[SourceStatus], not_judged: UnjudgedWindows) -> HarkenError | None:
    """An error where the store did not take what was judged, a source could not be listened to at all, or nothing that
    a machine was heard in could be used."""
    if recorder.waiting:
        return HarkenError(
            f"{recorder.waiting} windows and messages could not be stored",
            next_step="See that the database runs and has space; files are judged again at the next start",
        )
    failed = [status for status in sources if status.state == "failed"]
    if failed:
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        problem = "gave no sound" if failed[0].last_sound is None else "cannot be listened to any more"
        return HarkenError(f"a source {problem}{more}: {failed[0].error}")
    return not_judged.error
