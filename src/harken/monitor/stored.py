"""What was learned, as the settings and arrays of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from harken.audio.health import STATISTICS
from harken.core.errors import BundleError
from harken.core.plugins import custom_names
from harken.core.settings import explained
from harken.core.threads import one_thread
from harken.core.version import __version__
from harken.detection import AnomalyDetector, create_detector
from harken.detection.calibration import Calibration
from harken.detection.details import DetailView
from harken.embeddings.embedder import EmbeddingSpec
from harken.monitor.bundle import Content, add_version, read_bundle, write_bundle
from harken.monitor.fitted import Fitted
from harken.monitor.length import LengthEffect
from harken.monitor.manifests import SCHEMA
from harken.monitor.normal_set import Training
from harken.monitor.off import OffRecordings
from harken.monitor.public_weights import public_arrays, without_public
from harken.monitor.relearn import learned_again
from harken.monitor.stored_checks import check_content, check_sketches, check_spec, check_trial, effective_counts
from harken.monitor.stored_rows import basis_of, fault_parts, faults_of, joined_rows, row_parts, stored_basis
from harken.monitor.versions import stored_version, version_of


def save_fitted(path: str | Path, fitted: Fitted, *, embed_weights: bool = False) -> None:
    """Write the bundle: a directory, whole or not at all. The same content gives the same bytes.

    embed_weights: copy large weights of the catalogue too, which are else named (`public_weights`).
    """
    settings, parts = content_of(fitted)
    references: list[dict[str, str]] = []
    if fitted.weights is not None:
        copied = dict(fitted.weights)
        if not embed_weights:
            copied, references = without_public(copied, grouped=bool(fitted.spec.more))
        if copied:
            parts["encoder"] = copied
    if references:
        settings["public_weights"] = references
    write_bundle(path, settings, parts, schema=SCHEMA)


def add_fitted(path: str | Path, change: Callable[[Fitted], Fitted]) -> Fitted:
    """Put what `change` makes of the version in use in its place, and keep that one; the new version.

    Weights stay as they are stored. No other process writes the bundle meanwhile. Raises BundleError as `load_fitted`,
    and what `change` raises: nothing is written then.
    """
    made: list[Fitted] = []

    def content(current: Content) -> Content:
        fitted = change(fitted_of(*current, path))
        made.append(fitted)
        settings, parts = content_of(fitted)
        if "public_weights" in current[0]:
            settings["public_weights"] = current[0]["public_weights"]
        if "encoder" in current[1]:
            parts["encoder"] = current[1]["encoder"]
        return settings, parts

    add_version(path, content)
    return made[0]


def content_of(fitted: Fitted) -> Content:
    """Settings and arrays, but for the encoder's weights."""
    training = fitted.training
    fault_settings, fault_arrays = fault_parts(fitted.faults)
    parts: dict[str, dict[str, np.ndarray]] = {
        "detector": {name: _compact(array) for name, array in fitted.detector.state().items()},
        **row_parts(fitted),
        **fault_arrays,
    }
    details = {"events": fitted.events, "tones": fitted.tones}
    for name, view in details.items():
        if view is not None:
            parts[name] = {key: _compact(array) for key, array in view.detector.state().items()}
    if fitted.off is not None:
        parts["off"] = {"embeddings": fitted.off.embeddings_MD, "levels_db": fitted.off.levels_db_M}
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
        **stored_basis(fitted.basis),
        **stored_version(fitted.version),
        **fault_settings,
    }
    if training.health_NCK is not None:
        settings["health_statistics"] = list(STATISTICS)
    for name, view in details.items():
        if view is not None:
            settings[name] = {
                "detector": view.detector.name,
                "parameters": view.detector.get_params(),
                "effective_clips": view.calibration.effective,
                "least_effective_clips": view.calibration.least_effective,
            }
    if fitted.off is not None:
        settings["off"] = list(fitted.off.names)
    return settings, parts


def load_fitted(path: str | Path, version: int | None = None) -> Fitted:
    """What a bundle holds: the version in use, or an earlier one. Raises BundleError where it is missing, damaged or
    newer."""
    return fitted_of(*read_bundle(path, version), path)


def fitted_of(settings: Mapping[str, Any], stored: Mapping[str, Mapping[str, np.ndarray]], path: str | Path) -> Fitted:
    """From settings and arrays of the bundle `path`. Raises BundleError where they are those of no model."""
    try:
        for name in custom_names(
            [settings[key] for key in ("spec", "detector", "parameters")]
            + [settings.get(key) for key in ("events", "tones")]
        ):
            raise BundleError(
                f"names custom code, {name}, which a model never runs",
                file=path,
                next_step="Ask who made it; fit the model again",
            )
        parts = joined_rows(stored)
        check_content(settings, parts)
        spec = EmbeddingSpec(**settings["spec"])
        check_spec(spec)
        check_sketches(spec, parts["training"]["sketches"], parts["training"]["sketch_widths"])
        # Versions that are not among the latest learn from their rows again.
        is_whole = "detector" in parts or "basis" not in parts
        if is_whole:
            detector = _restored(settings, parts["detector"])
            check_trial(detector, parts["training"]["embeddings"].shape[1])
        else:
            detector = _unfitted(settings)
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
        counted_N = kept.get("counted")
        held_out_N = np.sort(training.scores_N if counted_N is None else training.scores_N[counted_N])
        calibration = Calibration(held_out_N, *effective_counts(settings, len(held_out_N)))
        weights = dict(parts.get("encoder", {}))
        for reference in settings.get("public_weights", []):
            weights |= public_arrays(reference, path)
        fitted = Fitted(
            spec=spec,
            weights=weights or None,
            detector=detector,
            calibration=calibration,
            training=training,
            false_alarms=settings["false_alarms"],
            # Absent in models of earlier versions.
            every=settings.get("every"),
            block=settings.get("block", 1),
            events=_view("event", settings, parts),
            tones=_view("tone", settings, parts),
            length=LengthEffect(**settings["length"]) if settings.get("length") else None,
            off=_off(settings, parts),
            basis=basis_of(settings, parts),
            counted_N=counted_N,
            faults=faults_of(settings, parts),
            version=version_of(settings),
            notes=tuple(settings["notes"]),
        )
        return fitted if is_whole else learned_again(fitted)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        said = explained(error).cause if isinstance(error, ValidationError) else str(error)
        lacks = f"lacks {error}" if isinstance(error, KeyError) else f"has {' '.join(said.split())[:200]}"
        raise BundleError(f"is no model: {lacks}", file=path, next_step="Fit the model again") from None


def _restored(detector_settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> AnomalyDetector:
    """The detector of these settings with this state."""
    with one_thread():
        return _unfitted(detector_settings).restored({name: _wide(array) for name, array in arrays.items()})


def _unfitted(detector_settings: Mapping[str, Any]) -> AnomalyDetector:
    detector = create_detector(detector_settings["detector"], detector_settings.get("parameters"))
    detector.check_parameters()
    return detector


def _view(kind: str, settings: Mapping[str, Any], parts: Mapping[str, Mapping[str, np.ndarray]]) -> DetailView | None:
    """The view of short events or of tones (kind: `event`, `tone`); None in models without one."""
    name = f"{kind}s"
    if name not in settings:
        return None
    detector_settings = settings[name]
    if name in parts:
        detector = _restored(detector_settings, parts[name])
        check_trial(detector, detector.dimensions)
    else:
        detector = _unfitted(detector_settings)
    scores_N = parts["training"][f"{kind}_scores"]
    # In models of earlier versions those of all that it learned from count, which are in no other order.
    counted_N = parts["training"].get(f"{kind}_counted", np.ones(len(scores_N), dtype=bool))
    learned = f"{kind}_counted" not in parts["training"]
    held_out_N = np.sort(detector.train_scores_ if learned else scores_N[counted_N])
    effective, least_effective = effective_counts(detector_settings, len(held_out_N))
    calibration = Calibration(held_out_N, effective, least_effective, detector.tail_form)
    return DetailView(detector, calibration, scores_N, counted_N)


def _off(settings: Mapping[str, Any], parts: Mapping[str, Mapping[str, np.ndarray]]) -> OffRecordings | None:
    """Recordings of the machine switched off; None in models without."""
    if "off" not in settings:
        return None
    return OffRecordings(parts["off"]["embeddings"], parts["off"]["levels_db"], tuple(settings["off"]))


def _compact(array: np.ndarray) -> np.ndarray:
    """float64 that holds float32 values, stored as float32: embeddings come as such."""
    if array.dtype == np.float64 and array.ndim == 2:
        single = array.astype(np.float32)
        if np.array_equal(single.astype(np.float64), array):
            return single
    return array


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype == np.float32 and array.ndim == 2 else array
