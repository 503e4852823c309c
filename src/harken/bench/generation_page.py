"""The page of a generation_report stage: of each condition, real clips beside generated ones, to be seen and heard."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from harken.audio.listen import listen, without_offset
from harken.audio.stft import mel_bands, power_spectrogram
from harken.core.errors import HarkenError
from harken.core.pages import data_url, render
from harken.data.clips import Clip
from harken.encoders.spectrogram_file import read_spectrogram
from harken.generation.conditions import ConditionKey, attributes_text
from harken.generation.likeness import Likeness

Float32 = NDArray[np.float32]

#: seconds of a clip that are heard and seen
SECONDS = 10.0
#: dB below the loudest of a picture that are still told apart
_RANGE_DB = 70.0
_PEAK = 0.7


@dataclass(frozen=True)
class ConditionRow:
    """A condition in the report. made: by which generator. real, generated: clips with embeddings. kept: share that a
    screening kept, if there was one."""

    key: ConditionKey
    made: str
    real: int
    generated: int
    kept: float | None
    likeness: Likeness

    def as_json(self) -> dict[str, Any]:
        """For `report.json`."""
        fields = asdict(self)
        key = {**self.key._asdict(), "attributes": dict(self.key.attributes)}
        return {**fields, "key": key}


@dataclass(frozen=True)
class Example:
    """A clip to be seen and heard. picture: log-mel levels (bands, frames) in dB. sound: (samples,) at `sample_rate`;
    None where it cannot be heard, for the reason `why`."""

    title: str
    picture_MT: Float32
    seconds: float
    sound_S: Float32 | None
    sample_rate: int
    why: str = ""


@dataclass(frozen=True)
class Shown:
    """A condition with examples. notes: on those that could not be read."""

    row: ConditionRow
    real: tuple[Example, ...]
    generated: tuple[Example, ...]
    notes: tuple[str, ...] = ()


def example(clip: Clip, title: str) -> Example:
    """A recording, generated sound or generated spectrogram. Raises HarkenError where it cannot be read."""
    if clip.payload == "spectrogram":
        return _of_spectrogram(clip, title)
    sound = listen(clip.path)
    wave_S = without_offset(sound.wave_CS).mean(axis=0)
    wave_S = wave_S[: int(SECONDS * sound.sample_rate)]
    return Example(title, _log_mel(wave_S, sound.sample_rate), len(wave_S) / sound.sample_rate, wave_S,
                   sound.sample_rate)  # fmt: skip


def _of_spectrogram(clip: Clip, title: str) -> Example:
    from harken.encoders.griffin_lim import can_be_heard, sound_of_spectrogram

    front_end, spectrogram = read_spectrogram(clip.path, clip.clip_id)
    rate = front_end.sample_rate
    if not can_be_heard(front_end):
        why = f"A spectrogram of {front_end.encoder} as it is: there is no way back to sound."
        picture_MT = np.concatenate(spectrogram.windows).T
        return Example(title, picture_MT, spectrogram.samples / rate, None, rate, why)
    wave_S = sound_of_spectrogram(spectrogram, front_end)[: int(SECONDS * rate)]
    why = f"A spectrogram of {front_end.encoder}; picture and sound are of a preview by Griffin and Lim."
    return Example(title, _log_mel(wave_S, rate), len(wave_S) / rate, wave_S, rate, why)


def _log_mel(wave_S: Float32, rate: int) -> Float32:
    """(128, frames) dB: windows of 64 ms, every 20 ms."""
    n_fft, hop = 1 << round(np.log2(0.064 * rate)), max(1, round(0.02 * rate))
    wave_S = np.pad(wave_S, (0, max(0, n_fft - len(wave_S))))
    power_TF = power_spectrogram(wave_S, n_fft, hop)
    filters_FM, _ = mel_bands(rate, n_fft, 128, 0.0, rate / 2)
    levels_TM = 10 * np.log10(np.maximum(power_TF @ filters_FM, 1e-12))
    return np.asarray(levels_TM.T, dtype=np.float32)


def generation_page(title: str, rows: Sequence[ConditionRow], shown: Sequence[Shown], notes: Sequence[str]) -> str:
    """The report as one HTML page without external files."""
    return render(
        "harken.bench",
        "generation.html",
        title=title,
        remarks=list(notes),
        rows=[_cells(row) for row in rows],
        conditions=[_condition(each) for each in shown],
    )


def _cells(row: ConditionRow) -> list[str]:
    like = row.likeness
    return [
        "/".join(filter(None, (row.key.corpus, row.key.machine))),
        f"section {row.key.section}, {row.key.domain}" + (f": {_attributes(row)}" if row.key.attributes else ""),
        row.made,
        str(row.real),
        str(row.generated),
        _share(row.kept),
        _beside(like.frechet, like.floor, "{:.3g}"),
        _beside(like.test, like.test_floor, "{:.2f}"),
        _beside(like.same, like.same_floor, "{:.0%}"),
        _share(like.copies),
    ]


def _attributes(row: ConditionRow) -> str:
    return attributes_text(row.key.attributes).replace(";", ", ").replace("=", " ")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _beside(value: float | None, floor: float | None, form: str) -> str:
    return " / ".join("–" if number is None else form.format(number) for number in (value, floor))


def _condition(shown: Shown) -> dict[str, Any]:
    return {
        "title": str(shown.row.key),
        "made": shown.row.made,
        "real": list(map(_example, shown.real)),
        "generated": list(map(_example, shown.generated)),
        "notes": list(shown.notes),
    }


def _example(each: Example) -> dict[str, Any]:
    return {
        "title": each.title,
        "picture": data_url(_picture(each), "image/webp"),
        "sound": None if each.sound_S is None else _sound(each.sound_S, each.sample_rate),
        "why": each.why,
    }


def _picture(each: Example) -> bytes:
    """WebP of the log-mel: each picture has its own scale, as spectrograms have no level in common with sounds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.0, 2.2), layout="constrained")
    axes = figure.subplots()
    top = float(np.percentile(each.picture_MT, 99.8))
    low = max(float(np.percentile(each.picture_MT, 2)), top - _RANGE_DB)
    axes.imshow(
        each.picture_MT, origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=max(top, low + 1e-6),
        extent=(0.0, each.seconds, 0, len(each.picture_MT)), interpolation="nearest",
    )  # fmt: skip
    axes.set_xlabel("time (s)", fontsize=8)
    axes.set_ylabel("band", fontsize=8)
    axes.tick_params(labelsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=110, pil_kwargs={"quality": 80, "method": 4})
    return buffer.getvalue()


def _sound(wave_S: Float32, rate: int) -> str:
    """A data URL; every sound is brought to one peak, so that quiet machines can be heard."""
    peak = float(np.abs(wave_S).max(initial=0.0))
    buffer = io.BytesIO()
    sf.write(buffer, wave_S * (_PEAK / peak if peak > 0 else 1.0), rate, format="FLAC", subtype="PCM_16")
    return data_url(buffer.getvalue(), "audio/flac")


def read_examples(clips: Sequence[tuple[Clip, str]]) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """Examples of clips with their titles, and what is wrong with those that cannot be read."""
    examples, notes = [], []
    for clip, title in clips:
        try:
            examples.append(example(clip, title))
        except HarkenError as error:
            notes.append(str(error))
    return tuple(examples), tuple(notes)
