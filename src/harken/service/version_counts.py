"""How often each version of a model would have raised the alarm on what was heard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from harken.core.errors import HarkenError
from harken.embeddings.embedder import ClipFeatures
from harken.monitor.clip_judge import ClipJudge
from harken.monitor.detector import Detector
from harken.monitor.fitted import Fitted
from harken.monitor.judge import judge
from harken.monitor.stored import load_fitted
from harken.monitor.versions import list_versions
from harken.monitor.view_scores import ViewScores
from harken.service.episode_rule import EpisodeMemory, EpisodeRule
from harken.service.kept_features import WindowFeatures, readable
from harken.service.model_versions import VersionCount
from harken.service.store.features import kept_windows, with_data
from harken.service.store.store import Store

#: windows, and versions, the latest ones, that are looked at
MOST_WINDOWS, MOST_VERSIONS = 3000, 10
#: windows that are compared with the normal ones at once
_TOGETHER = 256


def recent_windows(store: Store, machine: str, spec: str, span: timedelta) -> list[WindowFeatures]:
    """The windows of a machine that are kept of the last `span` before the last one, with their data."""
    with store.reading() as connection:
        windows = kept_windows(connection, store.monitor, machine, spec)
        if windows:
            windows = [window for window in windows if window.start >= windows[-1].start - span][-MOST_WINDOWS:]
        return [*with_data(connection, store.monitor, windows)]


def windows_since(store: Store, machine: str, spec: str, since: datetime) -> list[WindowFeatures]:
    """The windows of a machine that are kept since a time, with their data."""
    with store.reading() as connection:
        windows = kept_windows(connection, store.monitor, machine, spec, since=since)
        return [*with_data(connection, store.monitor, windows)]


def count_versions(
    model: Path, windows: Sequence[WindowFeatures], rule_for: Callable[[Detector], EpisodeRule]
) -> dict[int, VersionCount]:
    """Counts of the latest versions by number. rule_for: the alarm of a machine with a model.

    Without a window, none; windows whose features, and versions that, cannot be read are left out. Raises BundleError
    where the model cannot.
    """
    pairs = readable(windows)
    if not pairs:
        return {}
    windows, features = [window for window, _ in pairs], [clip for _, clip in pairs]
    counts = {}
    for version in list_versions(model)[-MOST_VERSIONS:]:
        try:
            fitted = load_fitted(model, version.number)
        except HarkenError:
            continue
        counts[version.number] = count_alarms(fitted, windows, features, rule_for(Detector(fitted)))
    return counts


def count_alarms(
    fitted: Fitted, windows: Sequence[WindowFeatures], features: Sequence[ClipFeatures], rule: EpisodeRule
) -> VersionCount:
    """What a model would have said of windows, in the order in which they were heard. features: theirs.

    Windows that it learned from count by their held-out scores.
    """
    crossings = alarms = 0
    memory = EpisodeMemory()
    for first in range(0, len(windows), _TOGETHER):
        some = slice(first, first + _TOGETHER)
        for window, scores in zip(windows[some], _scores(fitted, features[some]), strict=True):
            if scores is None:
                continue
            before, memory = memory, rule.hear(memory, window.start, scores)
            alarms += memory.on and not before.on
            crossings += judge(scores, rule.setting).kind == "alarm"
    return VersionCount(windows[0].start, len(windows), crossings, alarms)


def _scores(fitted: Fitted, features: Sequence[ClipFeatures]) -> list[ViewScores | None]:
    scores: list[ViewScores | None] = []
    rows = fitted.training.rows_by_sha256
    for clip, result in zip(features, ClipJudge(fitted).scores(features), strict=True):
        row = rows.get(clip.sha256)
        if result is None or row is None:
            scores.append(None if result is None else result.scores)
        else:
            scores.append(fitted.held_out(row))
    return scores
