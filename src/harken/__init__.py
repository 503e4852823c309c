"""Harken listens to machines: from normal recordings it learns to tell when a machine starts to sound wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harken.core.version import __version__

__all__ = [
    "Detector",
    "HarkenError",
    "Verdict",
    "__version__",
    "compare",
    "list_detectors",
    "list_encoders",
    "load",
    "load_run",
    "why_figure",
]

if TYPE_CHECKING:
    from harken.bench.compare import compare
    from harken.bench.reading import load_run
    from harken.core.errors import HarkenError
    from harken.detection import list_detectors
    from harken.encoders import list_encoders
    from harken.monitor.detector import Detector, load
    from harken.monitor.plot import why_figure
    from harken.monitor.verdict import Verdict

_HOMES = {
    "Detector": "harken.monitor.detector",
    "HarkenError": "harken.core.errors",
    "Verdict": "harken.monitor.verdict",
    "compare": "harken.bench.compare",
    "list_detectors": "harken.detection",
    "list_encoders": "harken.encoders",
    "load": "harken.monitor.detector",
    "load_run": "harken.bench.reading",
    "why_figure": "harken.monitor.plot",
}


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that `import harken` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'harken' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
