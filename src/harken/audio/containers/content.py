"""Bytes of a file, in memory or on disk, and what is read of them."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, Protocol


class Content(Protocol):
    """Bytes of a file, in memory or on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: slice, /) -> bytes: ...


class FileContent:
    """Content of an open file, of which only what is asked for is read."""

    def __init__(self, handle: BinaryIO, size: int) -> None:
        self._handle, self._size = handle, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: slice) -> bytes:
        start, stop, _ = place.indices(self._size)
        self._handle.seek(start)
        return self._handle.read(max(0, stop - start))


class Spliced(io.RawIOBase):
    """A file that is read: some bytes, and behind them a part of a content."""

    def __init__(self, head: bytes, content: Content, place: slice) -> None:
        self._head, self._content, self._start = head, content, place.start
        self._size = len(head) + max(0, min(place.stop, len(content)) - place.start)
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position; see `io`."""
        self._position = max(0, (0, self._position, self._size)[whence] + offset)
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Bytes from the position on; how many."""
        count = max(0, min(len(buffer), self._size - self._position))
        head = self._head[self._position : self._position + count]
        behind = self._start + max(0, self._position - len(self._head))
        buffer[:count] = head + self._content[behind : behind + count - len(head)]
        self._position += count
        return count


class HeaderError(Exception):
    """A header that does not say where the sound is. cause, next_step: as of `HarkenError`."""

    def __init__(self, cause: str, next_step: str = "Copy it again or remove it") -> None:
        super().__init__(cause)
        self.cause, self.next_step = cause, next_step


def field(content: Content, start: int, count: int) -> bytes:
    """`count` bytes at `start`. Raises HeaderError where the file ends before."""
    data = content[start : start + count]
    if len(data) < count:
        raise HeaderError("is cut off within its header")
    return data


def read_int(content: Content, start: int, count: int, order: str = "little") -> int:
    """Unsigned number of `count` bytes. order: `little` or `big`. Raises HeaderError where the file ends before."""
    return int.from_bytes(field(content, start, count), order)  # type: ignore[arg-type]


def is_tag(content: Content, place: int) -> bool:
    """Whether a tag of titles and artists stands there, as players write behind any file."""
    begins = content[place : place + 8]
    return (begins[:3] == b"TAG" and len(content) - place == 128) or begins[:3] == b"ID3" or begins == b"APETAGEX"


def chunk_name(name: bytes) -> bool:
    """Whether four bytes can be the name of a chunk: printable ASCII."""
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)
