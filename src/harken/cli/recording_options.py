"""Options shared by the verbs that listen to recordings."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class RecordingOrder(StrEnum):
    """What tells the order in which recordings were made."""

    auto = "auto"
    name = "name"
    time = "time"
    none = "none"


class Formats(StrEnum):
    """Audio files to read: WAV (RIFF, RF64, W64) and FLAC, or AIFF, AU, CAF, MP3, NIST, Ogg and VOC too."""

    default = "default"
    all = "all"


Store = Annotated[Path | None, typer.Option(help="Folder that keeps embeddings for the next run.")]
Workers = Annotated[int | None, typer.Option(help="Processes (default: one per core).", min=1)]
AudioFormats = Annotated[Formats, typer.Option(help="default: WAV and FLAC; all: AIFF, AU, CAF, MP3, Ogg, VOC too.")]


def suffixes_of(formats: Formats) -> frozenset[str]:
    """Endings of the files that are read."""
    from harken.audio.suffixes import ALL_SUFFIXES, DEFAULT_SUFFIXES

    return ALL_SUFFIXES if formats is Formats.all else DEFAULT_SUFFIXES
