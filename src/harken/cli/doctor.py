"""harken doctor: what is installed, what is missing and how to get it."""

from __future__ import annotations

import os
import platform
import re
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from typing import Annotated

import typer

from harken.cli.console import emit, line
from harken.core.extras import EXTRAS, install_command
from harken.core.version import __version__

#: what a package is called where it is installed from, if that is not what is imported
_DISTRIBUTIONS = {
    "imblearn": "imbalanced-learn",
    "mlflow": "mlflow-skinny",
    "paho": "paho-mqtt",
    "prometheus_client": "prometheus-client",
}


def doctor(json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> None:
    """Check this installation: packages, sound library, encoders and their weights, cores and disk."""
    import soundfile

    from harken.encoders import list_encoders
    from harken.weights.cache import cache_dir, status
    from harken.weights.catalog import catalog

    packages = {name: _version(name) for name in _required()}
    extras = {
        name: {package: _version(_DISTRIBUTIONS.get(package, package)) for package in extra.packages}
        for name, extra in EXTRAS.items()
    }
    weights = {entry.name: status(entry) for entry in catalog()}
    cache = cache_dir()
    free = shutil.disk_usage(next(p for p in (cache, *cache.parents) if p.exists())).free
    findings = {
        "harken": __version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "libsndfile": soundfile.__libsndfile_version__,
        "packages": packages,
        "extras": {
            name: {"purpose": EXTRAS[name].purpose, "installed": all(installed.values()), "packages": installed}
            for name, installed in extras.items()
        },
        "encoders": list(list_encoders()),
        "weights": weights,
        "cache": str(cache),
        "free_gib": round(free / 2**30, 1),
    }
    if json:
        emit(findings)
    else:
        line(f"harken {__version__}, Python {platform.python_version()}, {os.cpu_count()} cores")
        line(f"libsndfile {soundfile.__libsndfile_version__} decodes WAV and FLAC by default")
        for name, installed in packages.items():
            line(f"  {'ok     ' if installed else 'MISSING'} {name} {installed or ''}")
        for name, versions in extras.items():
            absent = [package for package, installed in versions.items() if installed is None]
            hint = f" ({', '.join(absent)} missing; {install_command(name)})" if absent else ""
            line(f"  {'absent ' if absent else 'ok     '} extra {name}: {EXTRAS[name].purpose}{hint}")
        line(f"weights in {cache} ({free / 2**30:.0f} GiB free)")
        for name, where in weights.items():
            missing_hint = f": harken weights fetch {name}" if where == "missing" else f" ({where})"
            line(f"  {'absent ' if where == 'missing' else 'ok     '} {name}{missing_hint}")
    missing = [name for name, installed in packages.items() if installed is None]
    if missing:
        raise typer.Exit(2)


def _required() -> list[str]:
    """Distributions required by the core, from the package metadata."""
    declared = [line for line in requires("harken") or [] if "extra ==" not in line]
    return sorted(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in declared)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?" if find_spec(package) else None
