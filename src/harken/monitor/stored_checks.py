"""Whether settings and arrays of a bundle are those of a model: finite, and of shapes that fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from harken.audio.decode import Limits
from harken.core.threads import one_thread
from harken.detection import AnomalyDetector
from harken.embeddings.embedder import EmbeddingSpec, sketch_bands
from harken.monitor.basis import Stating
from harken.monitor.length import MOST_POWER
from harken.monitor.off import LEAST_OFF

Parts = Mapping[str, Mapping[str, np.ndarray]]

_PARTS = frozenset({"detector", "training", "health", "events", "tones", "encoder", "off", "basis", "faults"})
#: of spectrogram files the level is not known, of others the time, of faults of earlier versions steady levels
_MAY_BE_NAN = frozenset(
    {("training", "levels_db"), ("off", "levels_db"), ("basis", "recorded_s"), ("faults", "steady")}
)

#: lengths in seconds and levels in dB that no recording has, and numbers that no detector learns
_LONGEST_S, _HIGHEST_DB, _LARGEST = 1e8, 1e4, 1e30
#: what detectors divide by, and what is a length, power or gain
_POSITIVE, _NOT_NEGATIVE = frozenset({"scale_", "spread_", "covariances_"}), frozenset({"radius_", "gain_", "rest_"})


def check_content(settings: Mapping[str, Any], parts: Parts) -> None:
    """Raise ValueError, TypeError or KeyError where a part is unknown, a number not finite or a shape another one."""
    for part, arrays in parts.items():
        if part not in _PARTS:
            raise ValueError(f"a part {part!r}")
        for name, array in arrays.items():
            if array.dtype.kind not in "fiub":
                raise ValueError(f"{part} {name} of type {array.dtype}")
            # Encoders check their weights as they are built.
            if part != "encoder" and (part, name) not in _MAY_BE_NAN and not np.isfinite(array).all():
                raise ValueError(f"{part} {name} that is not finite")
            if part != "encoder":
                _check_numbers(f"{part} {name}", array)
    kept, count = parts["training"], len(_texts(settings, "names"))
    dimensions = kept["embeddings"].shape[-1]
    widths, columns = kept["sketch_widths"], kept["sketches"].shape[-1]
    shapes = {
        "embeddings": (count, dimensions),
        "sketches": (len(kept["sketches"]), columns),
        **dict.fromkeys(("sketch_widths", "scores", "levels_db", "seconds"), (count,)),
    }
    for view, name in (("events", "event_scores"), ("tones", "tone_scores")):
        if view in settings:
            shapes[name] = (count,)
    if "tones" in settings and "events" not in settings:
        raise ValueError("a view of tones without one of events")
    for name in ("counted", "event_counted", "tone_counted"):
        if name in kept:
            shapes[name] = (count,)
            if kept[name].dtype != np.bool_ or not kept[name].any():
                raise ValueError(f"training {name} of no recording")
    for name, shape in shapes.items():
        if kept[name].shape != shape:
            raise ValueError(f"training {name} of shape {kept[name].shape}")
    if widths.dtype.kind not in "iu" or (widths < 0).any() or int(widths.sum()) != columns:
        raise ValueError("sketch widths that do not fit")
    if kept["sketches"].dtype != np.uint8 or (kept["seconds"] <= 0).any() or count == 0:
        raise ValueError("recordings of no length")
    levels_N = np.nan_to_num(kept["levels_db"].astype(np.float64), nan=0.0)
    if (kept["seconds"] > _LONGEST_S).any() or (np.abs(levels_N) > _HIGHEST_DB).any():
        raise ValueError("recordings of impossible lengths or levels")
    if len(_texts(settings, "domains")) != count or len(_texts(settings, "sha256s")) not in (0, count):
        raise ValueError(f"other numbers of names than of recordings, {count}")
    _texts(settings, "notes")
    if type(settings["false_alarms"]) is not str or type(settings.get("every")) not in (str, type(None)):
        raise ValueError("an alarm that is not set")
    if type(block := settings.get("block", 1)) is not int or not 1 <= block <= count:
        raise ValueError(f"{count} recordings in blocks of {block}")
    for power in (settings.get("length") or {}).values():
        if not 0 <= float(power) <= MOST_POWER:
            raise ValueError(f"scores that depend on length by a power of {power}")
    if "off" in settings or "off" in parts:
        off = parts["off"]
        shapes = {
            "embeddings": (len(_texts(settings, "off")), dimensions),
            "levels_db": (len(_texts(settings, "off")),),
        }
        if {name: array.shape for name, array in off.items()} != shapes or len(off["embeddings"]) < LEAST_OFF:
            raise ValueError("other recordings of the machine switched off than it names")
    if "basis" in settings or "basis" in parts:
        _check_basis(settings["basis"], parts["basis"], count)
    if "faults" in settings or "faults" in parts:
        short_time = parts["basis"]["short_time"].shape[1]
        _check_faults(settings["faults"], parts["faults"], dimensions, short_time, len(kept["sketches"]))
    if "health" in parts and (parts["health"]["health"].ndim != 3 or len(parts["health"]["health"]) != count):
        raise ValueError(f"health of shape {parts['health']['health'].shape}")


def _check_basis(stored: Mapping[str, Any], rows: Mapping[str, np.ndarray], count: int) -> None:
    """Raise ValueError unless a model can learn again from these rows."""
    shapes = {name: (count,) for name in ("recorded_s", "sequences", "strata", "versions", "picked")}
    wide = {name: array.shape for name, array in rows.items() if name != "short_time"}
    if wide != shapes or rows["short_time"].ndim != 2 or len(rows["short_time"]) != count:
        raise ValueError("other rows to learn again from than recordings")
    kinds = [rows[name].dtype.kind for name in ("short_time", "recorded_s", "sequences", "strata", "versions")]
    if "".join(kinds) != "ffiii" or rows["picked"].dtype != np.bool_:
        raise ValueError("rows to learn again from of other types")
    if rows["versions"].min() < 1 or not (rows["versions"] == stored["base"]).any():
        raise ValueError("recordings of no version")
    types = [type(stored[name]) for name in ("keep_outliers", "ordered", "timed", "base")]
    if stored["stating"] not in get_args(Stating) or types != [bool, bool, bool, int]:
        raise ValueError("other states and orders than there are")
    _texts(stored, "usual")
    if not isinstance(stored["source"], str):
        raise ValueError("an order that is not text")


def _check_faults(
    stored: Mapping[str, Any], arrays: Mapping[str, np.ndarray], width: int, short_time: int, bands: int
) -> None:
    """Raise ValueError unless these are known faults of a model. width, short_time, bands: of its vectors."""
    count = len(_texts(stored, "names"))
    shapes: dict[str, tuple[int, ...]] = {name: (count,) for name in ("seconds", "versions", "old")}
    shapes |= {"embeddings": (count, width), "short_time": (count, short_time)}
    if "steady" in arrays:  # Absent in models of earlier versions.
        shapes["steady"] = (count, bands)
    if {name: array.shape for name, array in arrays.items()} != shapes or len(_texts(stored, "sha256s")) != count:
        raise ValueError("other known faults than it names")
    if not count or (arrays["seconds"] <= 0).any() or arrays["old"].dtype != np.bool_:
        raise ValueError("known faults of no length")


def _check_numbers(label: str, array: np.ndarray) -> None:
    """Raise ValueError for numbers that are finite and yet nothing that can be learned."""
    learned = label.rpartition(" ")[2].rpartition(".")[2]
    if array.dtype.kind == "f" and (np.abs(np.nan_to_num(array)) > _LARGEST).any():
        raise ValueError(f"{label} of up to {np.abs(np.nan_to_num(array)).max():.0e}")
    if (learned in _POSITIVE and (array <= 0).any()) or (learned in _NOT_NEGATIVE and (array < 0).any()):
        raise ValueError(f"{label} that is {'not positive' if learned in _POSITIVE else 'negative'}")


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
