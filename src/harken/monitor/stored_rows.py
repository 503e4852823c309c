"""What is kept per normal recording, as arrays of a bundle: rows that never change, and what a version makes of them.

`training` (and `health`) hold the rows of the last fit or rebaseline, `added_...` those of updates since, `scores` the
held-out scores of all. Those of an update are a part of their own, and of `_CHUNK` updates together one part once there
are so many: so versions share the files of nearly all rows. In bundles of schema 1 and 2 the scores are in
`training`, and there is nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harken.data.chronology import Chronology
from harken.monitor.basis import Basis, KnownFaults
from harken.monitor.fitted import Fitted

Arrays = dict[str, np.ndarray]
Parts = dict[str, Arrays]

_ADDED = "added_"
#: updates whose rows are in one part
_CHUNK = 16
#: held-out scores, and whether each counts for a threshold
_SCORES = ("scores", "event_scores", "tone_scores", "counted", "event_counted", "tone_counted")
#: of the recordings, of which learning again needs more than their embeddings
_BASIS = ("short_time", "recorded_s", "sequences", "strata", "versions", "picked")


def row_parts(fitted: Fitted) -> Parts:
    """The parts `training`, `health`, `added_...` and `scores`."""
    training, basis = fitted.training, fitted.basis
    count = len(training.names)
    scores: Arrays = {"scores": training.scores_N}
    if fitted.counted_N is not None:
        scores["counted"] = fitted.counted_N
    if fitted.events is not None:
        scores["event_scores"] = fitted.events.scores_N
        scores["event_counted"] = fitted.events.counted_N
    if fitted.tones is not None:
        scores["tone_scores"] = fitted.tones.scores_N
        scores["tone_counted"] = fitted.tones.counted_N
    version_N = np.ones(count, dtype=np.int64) if basis is None else basis.version_N
    rows_N = version_N == (1 if basis is None else basis.base)
    parts = {"scores": scores, "training": _rows(fitted, np.flatnonzero(rows_N))}
    if training.health_NCK is not None:
        parts["health"] = {"health": training.health_NCK[rows_N]}
    first_N = np.where(rows_N, -1, _first_of_chunk(version_N, fitted.version.number))
    for first in np.unique(first_N[~rows_N]):
        rows = np.flatnonzero(first_N == first)
        parts[f"{_ADDED}{first:07d}"] = arrays = _rows(fitted, rows)
        if training.health_NCK is not None:
            arrays["health"] = training.health_NCK[rows]
    return parts


def _first_of_chunk(version_N: np.ndarray, current: int) -> np.ndarray:
    """(N,) the first version of the part that rows of a version are in; current: the version that is stored."""
    first_N = version_N - version_N % _CHUNK
    return np.where(first_N + _CHUNK <= current, first_N, version_N)


def _rows(fitted: Fitted, rows: np.ndarray) -> Arrays:
    training, basis = fitted.training, fitted.basis
    sketches = [training.sketches_NBC[row] for row in rows]
    arrays: Arrays = {
        "embeddings": training.embeddings_ND[rows],
        "sketches": np.concatenate(sketches, axis=1),
        "sketch_widths": np.array([sketch.shape[1] for sketch in sketches], dtype=np.int64),
        "levels_db": training.levels_db_N[rows],
        "seconds": training.seconds_N[rows],
    }
    if basis is None:
        return arrays
    when = basis.when
    unknown_N = np.full(len(training.names), np.nan)
    return {
        **arrays,
        "short_time": basis.short_time_NE[rows],
        "recorded_s": (unknown_N if when.seconds_N is None else when.seconds_N)[rows],
        "sequences": _codes(when.sequences_N)[rows],
        "strata": _codes(basis.strata_N)[rows],
        "versions": basis.version_N[rows],
        "picked": basis.picked_N[rows],
    }


def _codes(labels_N: np.ndarray) -> np.ndarray:
    """(N,) numbers in place of labels; those that are numbers stay, so that rows do not change with later ones."""
    labels = labels_N.tolist()
    codes = {
        label: int(label) for label in labels if len(label) < 10 and label.isdecimal() and label == str(int(label))
    }
    following = max(codes.values(), default=-1) + 1
    for label in labels:
        if label not in codes:
            codes[label] = following
            following += 1
    return np.array([codes[label] for label in labels], dtype=np.int64)


def joined_rows(parts: Mapping[str, Mapping[str, np.ndarray]]) -> Parts:
    """All parts, with rows and scores of all recordings in `training`, `health` and, for learning again, `basis`.

    Raises KeyError and ValueError for what does not fit together.
    """
    if "basis" in parts:
        raise ValueError("a part 'basis'")
    added_parts = sorted(part for part in parts if part.startswith(_ADDED))
    joined: Parts = {part: dict(arrays) for part, arrays in parts.items() if part not in ("scores", *added_parts)}
    training = joined["training"]
    for part in added_parts:
        added = dict(parts[part])
        health = added.pop("health", None)
        if (health is not None) != ("health" in joined) or set(added) != set(training):
            raise ValueError("other arrays of added recordings")
        for name, array in added.items():
            training[name] = _joined(training[name], array, axis=1 if name == "sketches" else 0)
        if health is not None:
            joined["health"] = {"health": _joined(joined["health"]["health"], health, axis=0)}
    scores = parts.get("scores", {})
    if set(scores) - set(_SCORES) or set(scores) & set(training):
        raise ValueError("other scores than there are")
    training |= scores
    if "short_time" in training:
        joined["basis"] = {name: training.pop(name) for name in _BASIS}
    return joined


def _joined(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
    if first.dtype != second.dtype:
        raise ValueError(f"{first.dtype} and {second.dtype} in one array")
    return np.concatenate([first, second], axis=axis)


def stored_basis(basis: Basis | None) -> dict[str, Any]:
    """The entry of a bundle's settings; none without a basis."""
    if basis is None:
        return {}
    return {
        "basis": {
            "stating": basis.stating,
            "keep_outliers": basis.keep_outliers,
            "base": basis.base,
            "usual": list(basis.usual),
            "source": basis.when.source,
            "ordered": basis.when.ordered,
            "timed": basis.when.seconds_N is not None,
        }
    }


def basis_of(settings: Mapping[str, Any], parts: Mapping[str, Mapping[str, np.ndarray]]) -> Basis | None:
    """From settings and joined parts that were checked; None in models that were not made to learn again."""
    if "basis" not in parts:
        return None
    stored, rows = settings["basis"], parts["basis"]
    sequences_N = rows["sequences"].astype(str)
    when = Chronology(
        source=stored["source"],
        ordered=stored["ordered"],
        order_N=np.arange(len(sequences_N)),
        sequences_N=sequences_N,
        series_N=np.zeros(len(sequences_N)).astype(str),
        seconds_N=rows["recorded_s"] if stored["timed"] else None,
    )
    return Basis(
        short_time_NE=rows["short_time"],
        when=when,
        stating=stored["stating"],
        strata_N=rows["strata"].astype(str),
        keep_outliers=stored["keep_outliers"],
        version_N=rows["versions"],
        picked_N=rows["picked"],
        base=stored["base"],
        usual=tuple(stored["usual"]),
    )


def fault_parts(faults: KnownFaults | None) -> tuple[dict[str, Any], Parts]:
    """Entry of the settings and part of known faults; none without any."""
    if faults is None or not len(faults):
        return {}, {}
    arrays: Arrays = {
        "embeddings": faults.embeddings_FD,
        "short_time": faults.short_time_FE,
        "steady": faults.steady_FB,
        "seconds": faults.seconds_F,
        "versions": faults.version_F,
        "old": faults.old_F,
    }
    return {"faults": {"names": list(faults.names), "sha256s": list(faults.sha256s)}}, {"faults": arrays}


def faults_of(settings: Mapping[str, Any], parts: Mapping[str, Mapping[str, np.ndarray]]) -> KnownFaults | None:
    """From settings and parts that were checked."""
    if "faults" not in parts:
        return None
    arrays, texts = parts["faults"], settings["faults"]
    unknown_FB = np.full((len(texts["names"]), len(parts["training"]["sketches"])), np.nan, np.float32)
    return KnownFaults(
        tuple(texts["names"]),
        arrays["embeddings"],
        arrays["short_time"],
        arrays.get("steady", unknown_FB),
        arrays["seconds"],
        tuple(texts["sha256s"]),
        arrays["versions"],
        arrays["old"],
    )
