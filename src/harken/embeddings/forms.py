"""Sampling rate, channels and length of many recordings, without harm from any one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from harken.audio.decode import DEFAULT_FORMATS, Limits, decode
from harken.audio.segments import Form, read_form
from harken.core.errors import AudioError
from harken.embeddings.isolated import isolated

#: seconds after which a recording is given up
_TIMEOUT = 60.0


def read_forms(
    paths: Iterable[str | Path],
    *,
    workers: int | None = None,
    limits: Limits = Limits(),
    formats: frozenset[str] = DEFAULT_FORMATS,
) -> list[Form | None]:
    """What the header of each recording says, None where it cannot be read. workers: see `extract`."""
    names = [Path(path) for path in paths]
    results = isolated(partial(_form, limits=limits, formats=formats), names, workers=workers, timeout=_TIMEOUT)
    return [result if isinstance(result, Form) else None for result in results]


def probe(
    paths: Iterable[str | Path],
    *,
    workers: int | None = None,
    limits: Limits = Limits(),
    formats: frozenset[str] = DEFAULT_FORMATS,
) -> Iterator[tuple[int, int] | None]:
    """(sampling rate in Hz, channels) of each recording that can be decoded, None for the others."""
    names = [Path(path) for path in paths]
    for result in isolated(partial(_probe, limits=limits, formats=formats), names, workers=workers, timeout=_TIMEOUT):
        yield result if isinstance(result, tuple) else None


def _form(path: Path, limits: Limits, formats: frozenset[str]) -> Form | None:
    try:
        return read_form(path, limits, formats)
    except AudioError:
        return None


def _probe(path: Path, limits: Limits, formats: frozenset[str]) -> tuple[int, int] | None:
    try:
        audio = decode(path, limits=limits, formats=formats)
    except AudioError:
        return None
    return audio.sample_rate, len(audio.samples_CS)
