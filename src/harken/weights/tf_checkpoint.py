"""Variables of a TensorFlow V2 checkpoint, without TensorFlow."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_TABLE_MAGIC = 0xDB4775248B80FB57
_TF_FLOAT = 1


def read_tf_checkpoint(index: bytes, data: bytes) -> dict[str, NDArray[np.float32]]:
    """Float variables of a TensorFlow V2 checkpoint of one shard, without TensorFlow.

    The index is a LevelDB table (a footer points to an index block, that to data blocks of prefix-compressed
    keys); its values are `BundleEntryProto` messages, which say where in the data file a variable lies.
    Raises ValueError for anything that is not such a checkpoint.
    """
    try:
        if struct.unpack("<Q", index[-8:])[0] != _TABLE_MAGIC:
            raise ValueError("not a TensorFlow checkpoint index")
        footer = index[-48:]
        at = 0
        for _ in range(2):  # skip the handle of the meta index block
            _, at = _varint(footer, at)
        arrays = {}
        for _, handle in _block(index, *_handle(footer, at)):
            for key, value in _block(index, *_handle(handle, 0)):
                if not key:
                    continue  # header of the bundle
                array = _variable(value, data)
                if array is not None:
                    arrays[key.decode()] = array
        return arrays
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"not a TensorFlow checkpoint index: {error}") from None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _handle(data: bytes, at: int) -> tuple[int, int]:
    offset, at = _varint(data, at)
    size, _ = _varint(data, at)
    return offset, size


def _block(index: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table block; each key shares a prefix with the one before."""
    if index[offset + size] != 0:
        raise ValueError("compressed blocks are not supported")
    block = index[offset : offset + size]
    restarts = struct.unpack("<I", block[-4:])[0]
    end = size - 4 * (restarts + 1)
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field number and value of each field of a protocol buffer message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value: int | bytes
        if tag & 7 == 0:
            value, at = _varint(message, at)
        else:
            length = {1: 8, 5: 4}.get(tag & 7)
            if length is None:
                if tag & 7 != 2:
                    raise ValueError("an unknown wire type")
                length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        yield tag >> 3, value


def _variable(entry: bytes, data: bytes) -> NDArray[np.float32] | None:
    """Array that a BundleEntryProto describes; None if it is not a float tensor."""
    fields = dict(_fields(entry))
    if fields.get(1) != _TF_FLOAT:
        return None
    offset, size = fields.get(4, 0), fields.get(5, 0)
    if fields.get(3, 0) != 0 or not isinstance(offset, int) or not isinstance(size, int):
        raise ValueError("more than one shard")
    shape_message = fields.get(2, b"")
    if not isinstance(shape_message, bytes):
        raise ValueError("a shape that is not a message")
    shape = []
    for number, dimension in _fields(shape_message):
        if number == 2 and isinstance(dimension, bytes):
            extent = dict(_fields(dimension)).get(1, 0)
            shape.append(int(extent) if isinstance(extent, int) else -1)
    stored = np.frombuffer(data[offset : offset + size], dtype="<f4")
    return stored.astype(np.float32).reshape(shape)
