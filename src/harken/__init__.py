"""Harken listens to machines: from normal recordings it learns to tell when a machine starts to sound wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["Detector", "HarkenError", "Verdict", "list_detectors", "list_encoders", "load"]

if TYPE_CHECKING:
    from harken.deploy.detector import Detector, load
    from harken.deploy.verdict import Verdict
    from harken.detection import list_detectors
    from harken.encoders import list_encoders
    from harken.errors import HarkenError

_HOMES = {
    "Detector": "harken.deploy.detector",
    "HarkenError": "harken.errors",
    "Verdict": "harken.deploy.verdict",
    "list_detectors": "harken.detection",
    "list_encoders": "harken.encoders",
    "load": "harken.deploy.detector",
}


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that `import harken` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'harken' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
