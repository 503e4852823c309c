"""Whether settings and arrays of a bundle are those of a model: finite, and of shapes that fit together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from harken.audio.decode import Limits
from harken.core.arrays import Stored, check_arrays
from harken.core.threads import one_thread
from harken.detection import AnomalyDetector
from harken.embeddings.embedder import EmbeddingSpec, sketch_bands
from harken.monitor.basis import Stating
from harken.monitor.length import MOST_POWER
from harken.monitor.off import LEAST_OFF

Parts = Mapping[str, Mapping[str, np.ndarray]]

#: lengths in seconds and levels in dB that no recording has
_LONGEST_S, _HIGHEST_DB = 1e8, 1e4
_FLOATS, _WHOLE = "float32 float64", "int64 int32"
_EMBEDDINGS, _SECONDS, _FLAGS = (
    Stored("N D", _FLOATS),
    Stored("N", _FLOATS, over=0, most=_LONGEST_S),
    Stored("N", "bool"),
)
#: of spectrogram files the level is not known
_LEVELS = Stored("N", _FLOATS, least=-_HIGHEST_DB, most=_HIGHEST_DB, unknown=True)
#: arrays of each part but those of detectors, which declare theirs, and the encoder, which checks its weights as it is
#: built. N: recordings of the part
_DECLARED: dict[str, dict[str, Stored]] = {
    "training": {
        "embeddings": _EMBEDDINGS,
        "sketches": Stored("B C", "uint8"),
        "sketch_widths": Stored("N", _WHOLE, least=0),
        "scores": Stored("N", _FLOATS),
        **dict.fromkeys(("event_scores", "tone_scores"), Stored("N", _FLOATS, optional=True)),
        **dict.fromkeys(("counted", "event_counted", "tone_counted"), replace(_FLAGS, optional=True)),
        "levels_db": _LEVELS,
        "seconds": _SECONDS,
    },
    "health": {"health": Stored("N M S", _FLOATS)},
    "off": {"embeddings": _EMBEDDINGS, "levels_db": _LEVELS},
    "basis": {
        "short_time": Stored("N E", _FLOATS, empty=True),
        # Of other files than recordings the time is not known.
        "recorded_s": Stored("N", _FLOATS, unknown=True),
        **dict.fromkeys(("sequences", "strata"), Stored("N", _WHOLE)),
        "versions": Stored("N", _WHOLE, least=1),
        "picked": _FLAGS,
    },
    "faults": {
        "embeddings": _EMBEDDINGS,
        "short_time": Stored("N E", _FLOATS, empty=True),
        # Of faults of earlier versions it is not known, or absent.
        "steady": Stored("N B", _FLOATS, optional=True, unknown=True),
        "seconds": _SECONDS,
        "versions": Stored("N", _WHOLE),
        "old": _FLAGS,
    },
}
_LEARNED = frozenset({"detector", "events", "tones", "encoder"})


def check_content(settings: Mapping[str, Any], parts: Parts) -> None:
    """Raise ValueError, TypeError or KeyError where a part is unknown, an array not as declared or a number of texts
    another one."""
    for part in parts:
        if part not in _LEARNED and part not in _DECLARED:
            raise ValueError(f"a part {part!r}")
    kept, count = parts["training"], len(_texts(settings, "names"))
    sizes = _check_part("training", kept, N=count)
    for view, name in (("events", "event_scores"), ("tones", "tone_scores")):
        if view in settings and name not in kept:
            raise KeyError(name)
    if "tones" in settings and "events" not in settings:
        raise ValueError("a view of tones without one of events")
    for name in ("counted", "event_counted", "tone_counted"):
        if name in kept and not kept[name].any():
            raise ValueError(f"training {name} of no recording")
    if int(kept["sketch_widths"].sum()) != sizes["C"]:
        raise ValueError("sketch widths that do not fit")
    if len(_texts(settings, "domains")) != count or len(_texts(settings, "sha256s")) not in (0, count):
        raise ValueError(f"other numbers of names than of recordings, {count}")
    _texts(settings, "notes")
    if type(settings["false_alarms"]) is not str or type(settings.get("every")) not in (str, type(None)):
        raise ValueError("an alarm that is not set")
    if type(block := settings.get("block", 1)) is not int or not 1 <= block <= count:
        raise ValueError(f"{count} recordings in blocks of {block}")
    for power in (settings.get("length") or {}).values():
        if power is not None and not 0 <= float(power) <= MOST_POWER:
            raise ValueError(f"scores that depend on length by a power of {power}")
    dimensions = sizes["D"]
    if "off" in settings or "off" in parts:
        names = _texts(settings, "off")
        if len(names) < LEAST_OFF:
            raise ValueError(f"{len(names)} recordings of the machine switched off")
        _check_part("off", parts["off"], "recordings of the machine switched off:", N=len(names), D=dimensions)
    if "basis" in settings or "basis" in parts:
        _check_basis(settings["basis"], parts["basis"], count)
    if "faults" in settings or "faults" in parts:
        stored, short_time = settings["faults"], parts["basis"]["short_time"].shape[1]
        names = _texts(stored, "names")
        if len(_texts(stored, "sha256s")) != len(names):
            raise ValueError("other known faults than it names")
        lengths = {"N": len(names), "D": dimensions, "E": short_time, "B": sizes["B"]}
        _check_part("faults", parts["faults"], "known faults:", **lengths)
    if "health" in parts:
        _check_part("health", parts["health"], N=count)


def _check_part(part: str, arrays: Mapping[str, np.ndarray], label: str = "", **lengths: int) -> dict[str, int]:
    """See `check_arrays`."""
    try:
        return check_arrays(_DECLARED[part], arrays, lengths)
    except ValueError as error:
        raise ValueError(f"{label or part} {error}") from None


def _check_basis(stored: Mapping[str, Any], rows: Mapping[str, np.ndarray], count: int) -> None:
    """Raise ValueError unless a model can learn again from these rows."""
    _check_part("basis", rows, "rows to learn again from:", N=count)
    if not (rows["versions"] == stored["base"]).any():
        raise ValueError("recordings of no version")
    types = [type(stored[name]) for name in ("keep_outliers", "ordered", "timed", "base")]
    if stored["stating"] not in get_args(Stating) or types != [bool, bool, bool, int]:
        raise ValueError("other states and orders than there are")
    _texts(stored, "usual")
    if not isinstance(stored["source"], str):
        raise ValueError("an order that is not text")


def check_spec(spec: EmbeddingSpec) -> None:
    """Raise ValueError for recordings that nobody listens to, and for embeddings within each other."""
    lowest, highest = Limits().sample_rate
    if not (lowest <= spec.sample_rate <= highest and 1 <= spec.channels <= 1000):
        raise ValueError(f"recordings of {spec.sample_rate} Hz with {spec.channels} channels")
    for further in spec.more:
        if further.more:
            raise ValueError("embeddings within embeddings")
        check_spec(further)


def check_sketches(spec: EmbeddingSpec, sketches_BC: np.ndarray, widths_N: np.ndarray) -> None:
    """Raise ValueError for sketches of other bands than those of recordings to be scored, and for empty ones."""
    bands = sketch_bands(spec).bands
    if len(sketches_BC) != bands or not widths_N.all():
        raise ValueError(f"sketches of {len(sketches_BC)} bands, with {int((widths_N == 0).sum())} empty, not {bands}")


def check_trial(detector: AnomalyDetector, dimensions: int) -> None:
    """Raise ValueError unless the detector scores a vector of that many dimensions, and its state is what it needs."""
    try:
        with one_thread():
            scores_N = detector.score(detector.mean_[None])
    except (AttributeError, IndexError, TypeError) as error:
        raise ValueError(f"a detector that cannot score: {error}") from None
    if detector.train_scores_.ndim != 1 or not len(detector.train_scores_):
        raise ValueError(f"held-out scores of shape {detector.train_scores_.shape}")
    if detector.dimensions != dimensions or scores_N.shape != (1,) or not np.isfinite(scores_N).all():
        raise ValueError(f"a detector of {detector.dimensions} dimensions for {dimensions}")


def effective_counts(settings: Mapping[str, Any], clips: int) -> tuple[float, float]:
    """Effective number of clips and its lower bound. Raises ValueError for numbers that `clips` cannot have."""
    effective = float(settings["effective_clips"])
    # Absent in models of earlier versions.
    least = float(settings.get("least_effective_clips", effective))
    if not 0 < least <= effective <= clips:
        raise ValueError(f"{clips} recordings that count as {effective:g}")
    return effective, least


def _texts(settings: Mapping[str, Any], name: str) -> list[str]:
    texts = settings.get(name, []) if name == "sha256s" else settings[name]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} that are not text")
    return texts
