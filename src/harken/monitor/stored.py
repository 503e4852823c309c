"""What was learned, as the settings and arrays of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from harken.audio.health import STATISTICS
from harken.core.errors import BundleError
from harken.core.plugins import custom_names
from harken.core.threads import one_thread
from harken.core.version import __version__
from harken.detection import AnomalyDetector, create_detector
from harken.detection.calibration import Calibration
from harken.detection.events import EventView
from harken.embeddings.embedder import EmbeddingSpec
from harken.monitor.bundle import change_bundle, read_bundle, write_bundle
from harken.monitor.fitted import Fitted
from harken.monitor.length import LengthEffect
from harken.monitor.normal_set import Training
from harken.monitor.off import OffRecordings
from harken.monitor.public_weights import public_arrays, without_public
from harken.monitor.stored_checks import check_content, check_spec, check_trial, effective_counts


def save_fitted(path: str | Path, fitted: Fitted, *, embed_weights: bool = False) -> None:
    """Write the bundle: a directory, whole or not at all. The same content gives the same bytes.

    embed_weights: copy large weights of the catalogue too, which are else named (`public_weights`).
    """
    training = fitted.training
    widths = np.array([sketch.shape[1] for sketch in training.sketches_NBC], dtype=np.int64)
    parts: dict[str, dict[str, np.ndarray]] = {
        "detector": {name: _compact(array) for name, array in fitted.detector.state().items()},
        "training": {
            "embeddings": training.embeddings_ND,
            "sketches": np.concatenate(training.sketches_NBC, axis=1),
            "sketch_widths": widths,
            "scores": training.scores_N,
            "levels_db": training.levels_db_N,
            "seconds": training.seconds_N,
        },
    }
    if training.health_NCK is not None:
        parts["health"] = {"health": training.health_NCK}
    if fitted.events is not None:
        parts["events"] = {name: _compact(array) for name, array in fitted.events.detector.state().items()}
        parts["training"]["event_scores"] = fitted.events.scores_N
    if fitted.off is not None:
        parts["off"] = {"embeddings": fitted.off.embeddings_MD, "levels_db": fitted.off.levels_db_M}
    references: list[dict[str, str]] = []
    if fitted.weights is not None:
        copied = dict(fitted.weights)
        if not embed_weights:
            copied, references = without_public(copied, grouped=bool(fitted.spec.more))
        if copied:
            parts["encoder"] = copied
    settings: dict[str, Any] = {
        "harken": __version__,
        "spec": fitted.spec.model_dump(),
        "detector": fitted.detector.name,
        "parameters": fitted.detector.get_params(),
        "false_alarms": fitted.false_alarms,
        "every": fitted.every,
        "block": fitted.block,
        "effective_clips": fitted.calibration.effective,
        "least_effective_clips": fitted.calibration.least_effective,
        "length": None if fitted.length is None else asdict(fitted.length),
        "names": list(training.names),
        "domains": list(training.domains),
        "sha256s": list(training.sha256s),
        "notes": list(fitted.notes),
    }
    if training.health_NCK is not None:
        settings["health_statistics"] = list(STATISTICS)
    if fitted.events is not None:
        settings["events"] = {
            "detector": fitted.events.detector.name,
            "effective_clips": fitted.events.calibration.effective,
            "least_effective_clips": fitted.events.calibration.least_effective,
        }
    if fitted.off is not None:
        settings["off"] = list(fitted.off.names)
    if references:
        settings["public_weights"] = references
    write_bundle(path, settings, parts, references=bool(references))


def load_fitted(path: str | Path) -> Fitted:
    """What a bundle holds. Raises BundleError where it is missing, damaged or newer."""
    settings, parts = read_bundle(path)
    try:
        for name in custom_names(
            [settings["spec"], settings["detector"], settings["parameters"], settings.get("events")]
        ):
            raise BundleError(
                f"names custom code, {name}, which a model never runs",
                file=path,
                next_step="Ask who made it; fit the model again",
            )
        check_content(settings, parts)
        spec = EmbeddingSpec(**settings["spec"])
        check_spec(spec)
        detector = _restored(settings, parts["detector"])
        check_trial(detector, parts["training"]["embeddings"].shape[1])
        kept = parts["training"]
        edges = np.cumsum(kept["sketch_widths"])[:-1]
        training = Training(
            names=tuple(settings["names"]),
            domains=tuple(settings["domains"]),
            embeddings_ND=kept["embeddings"],
            sketches_NBC=np.split(kept["sketches"], edges, axis=1),
            scores_N=kept["scores"],
            levels_db_N=kept["levels_db"],
            seconds_N=kept["seconds"],
            sha256s=tuple(settings.get("sha256s", ())),
            # Absent in models of earlier versions; other statistics are those of another version.
            health_NCK=parts["health"]["health"] if settings.get("health_statistics") == list(STATISTICS) else None,
        )
        calibration = Calibration(np.sort(training.scores_N), *effective_counts(settings, len(training.names)))
        weights = dict(parts.get("encoder", {}))
        for reference in settings.get("public_weights", []):
            weights |= public_arrays(reference, path)
        return Fitted(
            spec=spec,
            weights=weights or None,
            detector=detector,
            calibration=calibration,
            training=training,
            false_alarms=settings["false_alarms"],
            # Absent in models of earlier versions.
            every=settings.get("every"),
            block=settings.get("block", 1),
            events=_events(settings, parts),
            length=LengthEffect(**settings["length"]) if settings.get("length") else None,
            off=_off(settings, parts),
            notes=tuple(settings["notes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        lacks = f"lacks {error}" if isinstance(error, KeyError) else f"has {' '.join(str(error).split())[:200]}"
        raise BundleError(f"is no model: {lacks}", file=path, next_step="Fit the model again") from None


def _restored(detector_settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> AnomalyDetector:
    """The detector of these settings with this state."""
    with one_thread():
        detector = create_detector(detector_settings["detector"], detector_settings.get("parameters"))
        detector.check_parameters()
        return detector.restored({name: _wide(array) for name, array in arrays.items()})


def _events(settings: Mapping[str, Any], parts: Mapping[str, Mapping[str, np.ndarray]]) -> EventView | None:
    """The view of short events; None in models without one."""
    if "events" not in settings:
        return None
    detector_settings = settings["events"]
    detector = _restored(detector_settings, parts["events"])
    check_trial(detector, detector.dimensions)
    held_out_N = np.sort(detector.train_scores_)
    calibration = Calibration(held_out_N, *effective_counts(detector_settings, len(held_out_N)))
    return EventView(detector, calibration, parts["training"]["event_scores"])


def _off(settings: Mapping[str, Any], parts: Mapping[str, Mapping[str, np.ndarray]]) -> OffRecordings | None:
    """Recordings of the machine switched off; None in models without."""
    if "off" not in settings:
        return None
    return OffRecordings(parts["off"]["embeddings"], parts["off"]["levels_db"], tuple(settings["off"]))


def store_alarm(path: str | Path, false_alarms: str, every: str | None) -> None:
    """Change what the alarm of a bundle is set to, and nothing else. Raises BundleError as `load_fitted`."""
    change_bundle(path, lambda settings: {**settings, "false_alarms": false_alarms, "every": every})


def _compact(array: np.ndarray) -> np.ndarray:
    """float64 that holds float32 values, stored as float32: embeddings come as such."""
    if array.dtype == np.float64 and array.ndim == 2:
        single = array.astype(np.float32)
        if np.array_equal(single.astype(np.float64), array):
            return single
    return array


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype == np.float32 else array
