"""The bytes of a safetensors file, piece by piece: arrays are not copied."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: in the order of `safetensors::Dtype`: arrays of the last come first in a file
_TYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16", "float16": "F16", "int32": "I32",
    "uint32": "U32", "float32": "F32", "float64": "F64", "int64": "I64", "uint64": "U64",
}  # fmt: skip
_ORDER = {name: place for place, name in enumerate(_TYPES)}
#: headers end at multiples of so many bytes
_ALIGNMENT = 8


def serialised(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """Pieces of the file that `safetensors.numpy.save` makes of arrays of numbers, with the same bytes.

    Raises ValueError for another type.
    """
    for name, array in arrays.items():
        if array.dtype.name not in _TYPES:
            raise ValueError(f"{name} is of {array.dtype}, which safetensors files do not hold")
    names = sorted(arrays, key=lambda name: (-_ORDER[arrays[name].dtype.name], name.encode()))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    place = 0
    for name in names:
        array = arrays[name]
        end = place + array.nbytes
        header[name] = {"dtype": _TYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        # In C order and little-endian; most arrays are already.
        array = np.asarray(arrays[name], dtype=arrays[name].dtype.newbyteorder("<"), order="C")
        yield array.reshape(-1).view(np.uint8).data
