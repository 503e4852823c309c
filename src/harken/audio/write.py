"""Sound files as Harken writes them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from harken.core.files import write_atomically

#: libsndfile's sample format by file format
SUBTYPES: Mapping[str, str] = {"flac": "PCM_24", "wav": "FLOAT"}


def write_sound(stem: Path, samples_CS: NDArray[np.float32], sample_rate: int, file_format: str = "flac") -> Path:
    """Write (channels, samples) to `stem` with the suffix of the format, atomically; the file.

    It holds the samples as they are but for rounding at 24 bits (flac); where they pass full scale, at which integers
    would clip, or are no numbers, it is wav with floats.
    """
    chosen = file_format if np.abs(samples_CS).max(initial=0) < 1 else "wav"
    file = stem.with_name(f"{stem.name}.{chosen}")
    handle = io.BytesIO()
    sf.write(handle, samples_CS.T, sample_rate, subtype=SUBTYPES[chosen], format=chosen)
    write_atomically(file, handle.getvalue())
    return file
