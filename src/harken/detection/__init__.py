"""Embeddings -> anomaly scores, p-values and thresholds. Detectors are registered here by explicit name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from harken.core.errors import HarkenError, did_you_mean
from harken.core.plugins import build, is_custom, load_class
from harken.detection.base import AnomalyDetector

__all__ = ["DEFAULT_DETECTOR", "AnomalyDetector", "create_detector", "detector_class", "list_detectors"]

DEFAULT_DETECTOR = "local_density"

# Module and class, imported on use: scikit-learn takes a second to import.
_DETECTORS = {
    "beam": ("harken.detection.beam", "BEAM"),
    "fusion": ("harken.detection.fusion", "Fusion"),
    "gmm": ("harken.detection.gmm", "GMM"),
    "kmeans": ("harken.detection.kmeans", "KMeans"),
    "knn": ("harken.detection.knn", "KNN"),
    "ldn": ("harken.detection.ldn", "LDN"),
    "local_density": ("harken.detection.local_density", "LocalDensity"),
    "lof": ("harken.detection.lof", "LOF"),
    "mahalanobis": ("harken.detection.mahalanobis", "Mahalanobis"),
    "varmin": ("harken.detection.varmin", "VarMin"),
}


#: detectors of packaged models and of parts of embeddings, which are not listed
_INTERNAL = {
    "beyond": ("harken.detection.beyond", "Beyond"),
    "composite": ("harken.detection.composite", "Composite"),
    "reconstruction_error": ("harken.detection.reconstruction_error", "ReconstructionError"),
}


def list_detectors() -> tuple[str, ...]:
    """Names of all built-in detectors."""
    return tuple(sorted(_DETECTORS))


def detector_class(name: str) -> type[AnomalyDetector]:
    """Class of the detector `name`: one of `list_detectors` or custom, `file.py:Class` or `package.module:Class`.

    Raises HarkenError, suggesting the nearest name, for an unknown one; see `load_class`.
    """
    if is_custom(name):
        return load_class(name, AnomalyDetector)  # type: ignore[type-abstract]
    if name not in _DETECTORS and name not in _INTERNAL:
        hint = f"Write it as {name}:Class" if name.endswith(".py") else did_you_mean(name, list_detectors())
        raise HarkenError(f"unknown detector {name!r}", next_step=hint)
    module, attribute = (_DETECTORS | _INTERNAL)[name]
    cls: type[AnomalyDetector] = getattr(import_module(module), attribute)
    return cls


def create_detector(name: str, parameters: Mapping[str, Any] | None = None) -> AnomalyDetector:
    """Create an unfitted detector; see `detector_class`. Raises HarkenError for unknown and missing parameters."""
    return build(detector_class(name), name, parameters)
