"""What a monitor could not do, as it is said when it has ended."""

from __future__ import annotations

from collections.abc import Iterable

from harken.core.errors import HarkenError
from harken.service.feed import SourceStatus
from harken.service.recorder import Recorder


def missed(recorder: Recorder, sources: Iterable[SourceStatus]) -> HarkenError | None:
    """An error where the store did not take what was judged, or a source could not be listened to at all."""
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
    return None
