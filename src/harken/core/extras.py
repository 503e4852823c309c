"""Optional dependencies: the extras, and the error for a package that is not installed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

from harken.core.errors import HarkenError


class Extra(NamedTuple):
    """An optional set of packages. purpose: what it is needed for. packages: their import names."""

    purpose: str
    packages: tuple[str, ...]


#: `pip install 'harken[NAME]'`
EXTRAS = {
    "bench": Extra(
        "DCASE data, recipes, runs, ensembles and submissions", ("imblearn", "pandas", "pyarrow", "requests")
    ),
    "torch": Extra("neural encoders and their weights", ("torch", "requests")),
    "train": Extra("training", ("torch", "accelerate", "tensorboard")),
    "onnx": Extra("export of encoders, and running them without torch", ("onnx", "onnxruntime", "onnxscript")),
    "search": Extra("Bayesian search for the weights of an ensemble", ("optuna", "torch")),
    "ray": Extra("a cluster of machines", ("ray",)),
    "generate": Extra("generation of sound", ("diffusers", "transformers", "torch")),
    "service": Extra(
        "the monitor that stays with a machine",
        ("sqlalchemy", "alembic", "watchfiles", "paho", "apprise", "prometheus_client", "requests"),
    ),
    "page": Extra("the page of the monitor", ("fastapi", "uvicorn")),
    "microphone": Extra("sound from a sound card", ("sounddevice",)),
    "stream": Extra("sound from a network", ("av",)),
    "postgres": Extra("a store in PostgreSQL", ("psycopg",)),
    "mlflow": Extra("runs in MLflow", ("mlflow",)),
}


def need(package: str, purpose: str) -> ModuleType:
    """Import a package that an extra installs. Raises HarkenError with the install command if it is missing.

    purpose: what needs it, a plural noun such as `downloads`.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.split(".")[0]:
            raise
        raise missing(package.split(".")[0], purpose) from None


def require_packages(packages: tuple[str, ...], purpose: str) -> None:
    """Raise HarkenError with the install command for the first missing package; imports nothing."""
    for package in packages:
        if find_spec(package) is None:
            raise missing(package, purpose)


def missing(package: str, purpose: str) -> HarkenError:
    """Error for a package that is not installed. purpose: what needs it."""
    extra = next((name for name, entry in EXTRAS.items() if package in entry.packages), None)
    return HarkenError(
        f"{purpose} {'needs' if purpose.startswith('this ') else 'need'} {package}",
        next_step=f"Install it with: {install_command(extra or package)}",
    )


def install_command(extra: str) -> str:
    """Shell command that installs an extra, or a package that belongs to none."""
    return f"pip install 'harken[{extra}]'" if extra in EXTRAS else f"pip install {extra}"
