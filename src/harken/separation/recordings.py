"""Recordings separated into machine and noise, as files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.audio.listen import listen
from harken.audio.moments import level_dbfs
from harken.audio.write import write_sound
from harken.core.errors import AudioError, HarkenError
from harken.core.names import alike, shown
from harken.separation.separator import Separator

Float32 = NDArray[np.float32]

#: endings of the names of what is written
PARTS = ("machine", "noise")


@dataclass(frozen=True)
class SeparatedFiles:
    """A recording and what it was separated into; the two add up to it. Levels in dBFS, over all channels; None for
    silence.

    error: why it could not be separated; the rest is then None.
    """

    recording: Path
    machine: Path | None = None
    noise: Path | None = None
    machine_dbfs: float | None = None
    noise_dbfs: float | None = None
    error: AudioError | None = None


def separate_files(
    recordings: Sequence[str | Path],
    separator: Separator,
    folder: str | Path,
    *,
    file_format: str = "flac",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[SeparatedFiles]:
    """Write `<name>_machine` and `<name>_noise` of each recording into a folder, at its rate, length and level.

    A recording that cannot be used has an error, and the others are written. Raises HarkenError for two recordings of
    the same name, and where one would be overwritten.
    """
    paths, folder = [Path(recording) for recording in recordings], Path(folder)
    name, count = Counter(path.stem for path in paths).most_common(1)[0] if paths else ("", 0)
    if count > 1:
        raise HarkenError(f"{count} recordings are called {name}", next_step="Separate them into different folders")
    pair = alike(path.stem for path in paths)
    if pair is not None:
        raise HarkenError(
            f"{shown(pair[0])} and {shown(pair[1])} are one name where case does not count",
            next_step="Separate them into different folders",
        )
    given = {path.resolve() for path in paths}
    made = [f"{path.stem}_{name}.{suffix}" for path in paths for name in PARTS for suffix in ("flac", "wav")]
    for file in made:
        if (folder / file).resolve() in given:
            raise HarkenError(
                "is one of the recordings, and would be overwritten",
                file=folder / file,
                next_step="Choose another folder (-o)",
            )
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, path in enumerate(paths):
        rows.append(_separated(path, separator, folder, file_format))
        progress(number + 1, len(paths))
    return rows


def _separated(path: Path, separator: Separator, folder: Path, file_format: str) -> SeparatedFiles:
    try:
        sound = listen(path)
    except AudioError as error:
        return SeparatedFiles(path, error=error)
    machine_CS = separator.separate(sound.wave_CS, sound.sample_rate)
    noise_CS = np.subtract(sound.wave_CS, machine_CS)
    machine, noise = (
        write_sound(folder / f"{path.stem}_{name}", wave_CS, sound.sample_rate, file_format)
        for name, wave_CS in zip(PARTS, (machine_CS, noise_CS), strict=True)
    )
    return SeparatedFiles(path, machine, noise, _level(machine_CS), _level(noise_CS))


def _level(wave_CS: Float32) -> float | None:
    level = level_dbfs(wave_CS)
    return level if np.isfinite(level) else None
