"""Packages that only a part of Harken needs: what each extra is for, and one error where one is missing."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

from harken.core.errors import HarkenError


class Extra(NamedTuple):
    """purpose: what it is for. packages: what it installs, by the name that is imported."""

    purpose: str
    packages: tuple[str, ...]


#: `pip install 'harken[NAME]'`
EXTRAS = {
    "bench": Extra(
        "DCASE data, recipes, runs, ensembles and submissions", ("imblearn", "pandas", "pyarrow", "requests")
    ),
    "torch": Extra("neural encoders and their weights", ("torch", "requests")),
    "train": Extra("training and adapters", ("torch", "accelerate", "peft", "tensorboard")),
    "onnx": Extra("export of encoders, and running them without torch", ("onnx", "onnxruntime", "onnxscript")),
    "search": Extra("Bayesian search for the weights of an ensemble", ("optuna", "torch")),
    "ray": Extra("a cluster of machines", ("ray",)),
}


def need(package: str, purpose: str) -> ModuleType:
    """The module of that name. Raises HarkenError with the command that installs it where it is missing.

    purpose: what cannot be done without it, in the plural: `downloads`.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.split(".")[0]:
            raise
        raise missing(package.split(".")[0], purpose) from None


def require_packages(packages: tuple[str, ...], purpose: str) -> None:
    """HarkenError with the command that installs the first of these that is missing; imports nothing."""
    for package in packages:
        if find_spec(package) is None:
            raise missing(package, purpose)


def missing(package: str, purpose: str) -> HarkenError:
    """What to say of a package that is not installed. purpose: what cannot be done without it."""
    extra = next((name for name, entry in EXTRAS.items() if package in entry.packages), None)
    return HarkenError(
        f"{purpose} {'needs' if purpose.startswith('this ') else 'need'} {package}",
        next_step=f"Install it with: {install_command(extra or package)}",
    )


def install_command(extra: str) -> str:
    """What to run to get an extra, or a package that is in none."""
    return f"pip install 'harken[{extra}]'" if extra in EXTRAS else f"pip install {extra}"
