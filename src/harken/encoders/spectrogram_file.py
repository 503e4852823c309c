"""Spectrograms on disk: what a generator makes in place of a recording, in the form in which an encoder takes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from harken.core.errors import AudioError
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.encoders.base import FrontEnd, Spectrogram

#: raised when the layout changes
SCHEMA = 1
#: ending of the files
SUFFIX = ".safetensors"

_NEXT = "Write it with write_spectrogram"


def write_spectrogram(file: Path, spectrogram: Spectrogram, front_end: FrontEnd) -> None:
    """Write the spectrogram of one clip; whole or not at all.

    front_end: of the encoders that it is meant for (`Encoder.front_end`), in whose normalised form it is.
    The file is of safetensors: `spectrogram`, (frames, bins) float32, windows one after another; the rest is metadata.
    Raises ValueError for windows that are none, differ in bins or are not finite, and for a clip without samples.
    """
    windows = [np.asarray(window_FM, dtype=np.float32) for window_FM in spectrogram.windows]
    if not windows or any(window_FM.ndim != 2 or 0 in window_FM.shape for window_FM in windows):
        raise ValueError("a spectrogram has windows of (frames, bins)")
    if len({window_FM.shape[1] for window_FM in windows}) > 1:
        raise ValueError("the windows of a spectrogram have the same bins")
    if spectrogram.samples < 1 or not all(np.isfinite(window_FM).all() for window_FM in windows):
        raise ValueError("a spectrogram is finite, and of a clip with samples")
    header = {
        "schema": SCHEMA,
        "encoder": front_end.encoder,
        "sample_rate": front_end.sample_rate,
        "front_end": front_end.digest,
        "samples": int(spectrogram.samples),
        "frames": [len(window_FM) for window_FM in windows],
    }
    # One metadata key only: safetensors writes several in no fixed order.
    metadata = {"harken_spectrogram": json_text(header, sort_keys=True)}
    data = safetensors.numpy.save({"spectrogram": np.concatenate(windows)}, metadata=metadata)
    write_atomically(file, data)


def read_spectrogram(source: Path | bytes, name: str | Path | None = None) -> tuple[FrontEnd, Spectrogram]:
    """What `write_spectrogram` wrote.

    source: path, or the file's bytes. name: what messages call it (default: its path).
    Raises AudioError for anything else.
    """
    label = name if name is not None else ("<bytes>" if isinstance(source, bytes) else source)
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        x_FM = safetensors.numpy.load(data)["spectrogram"]
        front_end, samples, frames = _header(
            json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        )
    except OSError as error:
        raise AudioError(f"cannot be read ({error.strerror})", file=label, next_step="Check the path") from None
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise AudioError("is no spectrogram of this version", file=label, next_step=_NEXT) from error
    _check(x_FM, frames, label)
    stops = np.cumsum(frames)[:-1]
    return front_end, Spectrogram(tuple(np.split(x_FM, stops)), samples)


def read_front_end(file: Path) -> tuple[FrontEnd, int]:
    """Front end, and samples of the clip, of a file that `write_spectrogram` wrote; its array is not read.

    Raises AudioError for anything else.
    """
    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            front_end, samples, _ = _header(opened.metadata() or {})
    except OSError as error:
        raise AudioError(f"cannot be read ({error})", file=file, next_step="Check the path") from None
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise AudioError("is no spectrogram of this version", file=file, next_step=_NEXT) from error
    return front_end, samples


def _header(metadata: dict[str, str]) -> tuple[FrontEnd, int, list[int]]:
    header = json.loads(metadata["harken_spectrogram"])
    if header["schema"] != SCHEMA:
        raise ValueError("another schema")
    front_end = FrontEnd(str(header["encoder"]), int(header["sample_rate"]), str(header["front_end"]))
    return front_end, int(header["samples"]), [int(count) for count in header["frames"]]


def _check(x_FM: NDArray[np.float32], frames: list[int], label: str | Path) -> None:
    valid = x_FM.ndim == 2 and x_FM.dtype == np.float32 and min(frames, default=0) > 0 and sum(frames) == len(x_FM)
    if not valid:
        raise AudioError("is a spectrogram whose array is not as its metadata says", file=label, next_step=_NEXT)
    if not np.isfinite(x_FM).all():
        raise AudioError("is a spectrogram that is not finite", file=label, next_step="Make it again")
