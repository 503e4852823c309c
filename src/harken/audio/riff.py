"""Headers of WAV files."""

from __future__ import annotations


def riff_frames(data: bytes) -> int:
    """Number of frames by the header of a PCM or float WAV file; 0 for other files and streams of unknown length.

    libsndfile reduces the number to the frames in the file, so that it does not notice truncated recordings.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return 0
    offset, frame_bytes = 12, 0
    while offset + 8 <= len(data):
        kind, size = data[offset : offset + 4], int.from_bytes(data[offset + 4 : offset + 8], "little")
        if kind == b"fmt ":
            linear = int.from_bytes(data[offset + 8 : offset + 10], "little") in (1, 3, 0xFFFE)
            frame_bytes = int.from_bytes(data[offset + 20 : offset + 22], "little") if linear else 0
        if kind == b"data":
            # Streaming recorders write a placeholder near the largest number.
            return size // frame_bytes if frame_bytes and size < 2**31 - 2**16 else 0
        offset += 8 + size + size % 2
    return 0
