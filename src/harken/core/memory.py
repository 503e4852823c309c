"""Settings of the C library's allocator."""

from __future__ import annotations

import ctypes
import sys

#: parameters of glibc's mallopt (malloc.h)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: allocations below this come from the heap, bytes: the highest value that glibc takes
_MMAP_BYTES = 32 << 20
#: freed memory at the top of the heap that is kept, bytes
_KEPT_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Keep up to 64 MiB of freed memory in this process for the next recording, where its C library is glibc.

    Arrays of a recording are larger than glibc's limit for memory that goes back to the system when freed. Getting it
    again, page by page, took a fifth of the time of `harken fit`. For processes of our own, not for those of others
    that import Harken. True if it was set.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MMAP_BYTES) and mallopt(_TRIM_THRESHOLD, _KEPT_BYTES))
