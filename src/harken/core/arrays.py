"""Shapes, types and ranges of stored arrays, declared, and whether arrays that come from elsewhere have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from inspect import get_annotations
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

#: how far rounding may take products of directions from those of orthonormal ones, and shares from 1
_ROUNDING = 1e-3
#: a matrix of more rows is not checked for positive definiteness, which takes as long as learning it
_MOST_DEFINITE = 2048
#: numbers of larger size are learned by nothing
_LARGEST = 1e30


@dataclass(frozen=True)
class Stored:
    """What an array has to be, written beside its type: `bank_: Annotated[Float64, Stored("N D")]`.

    axes: of its shape, separated by blanks; a letter has one length in all arrays that are stored together, a number
        is a length; "" is a single number. types: names of the types it may have. over: all numbers are above it;
        least, most: at least, at most it. below: numbers are places on this axis: from 0, and below its length. empty:
        it may have no numbers at all. optional: it may be left out. unknown: numbers may be NaN.
    rule: what else holds, as a function of the array whose name says it.
    """

    axes: str
    types: str = "float64"
    over: float | None = None
    least: float | None = None
    most: float = _LARGEST
    below: str | None = None
    empty: bool = False
    optional: bool = False
    unknown: bool = False
    rule: Callable[[NDArray[Any]], bool] | None = None


@cache
def declared_arrays(cls: type) -> Mapping[str, Stored]:
    """Name -> declaration of the annotated attributes of a class and of those that it inherits from.

    What cannot be evaluated at run time, as types imported for type checkers alone, declares nothing.
    """
    declared: dict[str, Stored] = {}
    for owner in reversed(cls.__mro__):
        for name, annotation in get_annotations(owner).items():
            declared.pop(name, None)
            hint = _evaluated(owner, name, annotation)
            if get_origin(hint) is Annotated and isinstance(stored := get_args(hint)[1], Stored):
                declared[name] = stored
    return declared


def _evaluated(owner: type, name: str, annotation: Any) -> Any:
    """One annotation of a class; None where names in it are not defined, or stand for no type."""
    alone = type(owner.__name__, (), {"__module__": owner.__module__, "__annotations__": {name: annotation}})
    try:
        return get_type_hints(alone, include_extras=True)[name]
    except (NameError, AttributeError, TypeError, SyntaxError):
        return None


def check_arrays(
    declared: Mapping[str, Stored],
    arrays: Mapping[str, NDArray[Any]],
    lengths: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, int]:
    """Length of each axis. lengths: of those that are known before. Raises ValueError where an array is not what is
    declared or not declared, KeyError where it is missing."""
    for name in arrays:
        if name not in declared:
            raise ValueError(f"an array {name!r}")
    sizes = dict(lengths)
    for name, stored in declared.items():
        if name in arrays or not stored.optional:
            _check_form(name, stored, arrays[name], sizes)
    for name, array in arrays.items():
        _check_numbers(name, declared[name], array, sizes)
    return sizes


def _check_form(name: str, stored: Stored, array: NDArray[Any], sizes: dict[str, int]) -> None:
    if array.dtype.name not in stored.types.split():
        raise ValueError(f"{name} of type {array.dtype}, not {stored.types.replace(' ', ' or ')}")
    axes = stored.axes.split()
    lengths = {axis: int(axis) for axis in axes if axis.isdigit()} | sizes
    fits = array.ndim == len(axes) and (array.size > 0 or stored.empty)
    if not fits or any(lengths.setdefault(axis, size) != size for axis, size in zip(axes, array.shape, strict=True)):
        expected = ", ".join(str(sizes.get(axis, axis)) for axis in axes)
        raise ValueError(f"{name} of shape {array.shape}, not ({expected})")
    sizes |= lengths


def _check_numbers(name: str, stored: Stored, array: NDArray[Any], sizes: Mapping[str, int]) -> None:
    if stored.unknown:
        array = array[~np.isnan(array)]
    if not array.size or array.dtype == np.bool_:
        return
    if not np.isfinite(array).all():
        raise ValueError(f"{name} that is not finite")
    lowest, highest = float(array.min()), float(array.max())
    if stored.over is not None and lowest <= stored.over:
        raise ValueError(f"{name} that is not {'positive' if stored.over == 0 else f'above {stored.over:g}'}")
    least = 0.0 if stored.below is not None else -stored.most if stored.least is None else stored.least
    if lowest < least:
        raise ValueError(f"{name} that is {'negative' if least == 0 else f'as low as {lowest:.3g}'}")
    if highest > stored.most:
        raise ValueError(f"{name} of up to {highest:.3g}")
    if stored.below is not None and highest >= sizes[stored.below]:
        raise ValueError(f"{name} of up to {highest:.0f}, of {sizes[stored.below]}")
    if stored.rule is not None and not stored.rule(array):
        raise ValueError(f"{name} that is not {stored.rule.__name__.replace('_', ' ')}")


def orthonormal(basis_DR: NDArray[Any]) -> bool:
    """Whether columns are of unit length and keep the lengths of a few vectors, which is soon known."""
    if np.abs(np.sum(basis_DR**2, axis=0) - 1.0).max() > _ROUNDING:
        return False
    probes_RP = np.random.default_rng(0).normal(size=(basis_DR.shape[1], 4))
    square_P, turned_P = np.sum(probes_RP**2, axis=0), np.sum((basis_DR @ probes_RP) ** 2, axis=0)
    return bool((np.abs(turned_P - square_P) <= _ROUNDING * square_P).all())


def positive_definite(matrix_DD: NDArray[Any]) -> bool:
    """Whether a matrix is symmetric, has a positive diagonal and, unless it is very large, is positive definite."""
    size = np.abs(matrix_DD).max()
    if np.abs(matrix_DD - matrix_DD.T).max() > _ROUNDING * size or (np.diagonal(matrix_DD) <= 0).any():
        return False
    if len(matrix_DD) > _MOST_DEFINITE:
        return True
    try:
        np.linalg.cholesky(matrix_DD)
    except np.linalg.LinAlgError:
        return False
    return True


def summing_to_one(shares_K: NDArray[Any]) -> bool:
    """Whether numbers are shares of one whole."""
    return bool(abs(float(shares_K.sum()) - 1.0) <= _ROUNDING)
