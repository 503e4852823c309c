"""Embeddings -> anomaly scores, p-values and thresholds. Detectors are registered here by explicit name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from harken.detection.base import AnomalyDetector
from harken.errors import HarkenError, did_you_mean

__all__ = ["DEFAULT_DETECTOR", "AnomalyDetector", "create_detector", "list_detectors"]

DEFAULT_DETECTOR = "local_density"

# Module and class, imported on use: some need scikit-learn, which takes a second to import.
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


def list_detectors() -> tuple[str, ...]:
    """Names of all detectors."""
    return tuple(sorted(_DETECTORS))


def create_detector(name: str, parameters: Mapping[str, Any] | None = None) -> AnomalyDetector:
    """An unfitted detector; HarkenError, naming the nearest, for an unknown name or parameter."""
    if name not in _DETECTORS:
        raise HarkenError(f"unknown detector {name!r}", next_step=_nearest(name, _DETECTORS))
    module, attribute = _DETECTORS[name]
    found: type[AnomalyDetector] = getattr(import_module(module), attribute)
    known = found().get_params()
    for parameter in parameters or {}:
        if parameter not in known:
            raise HarkenError(f"{name} has no parameter {parameter!r}", next_step=_nearest(parameter, known))
    return found(**(parameters or {}))


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    return did_you_mean(word, known, f"Choose one of {', '.join(sorted(known)) or 'none'}")
