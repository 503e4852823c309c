"""Audio input: a file, its bytes or an array -> a checked waveform of the required format.

All rooms read audio through `listen`, so that they refuse the same recordings. Steps: decode (under limits), compare
rate and channels with the expected ones, check quality, take off a constant offset, choose channels, mix down,
normalise the level, resample.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from harken.audio.channels import Microphones, choose_channels
from harken.audio.decode import DEFAULT_FORMATS, Audio, Limits, audio_of_array, decode, read_file
from harken.audio.health import Health, measure
from harken.audio.moments import Moments, level_dbfs, means
from harken.audio.quality import Finding, inspect
from harken.audio.resample import lower_rate, resample
from harken.core.errors import AudioError
from harken.core.sentences import Sentence

Float32 = NDArray[np.float32]
Level = Literal["normalised", "recorded"]
Offset = Literal["kept", "removed"]
HigherRates = Literal["refused", "resampled"]
#: a path, the content of a file, or (samples,) or (channels, samples) floats in [-1, 1]
Source = str | Path | bytes | NDArray[np.floating]

#: RMS level of `normalised` recordings in dBFS
NORMAL_LEVEL_DBFS = -20.0


class Listening(BaseModel):
    """Settings of `listen`.

    recorded_rate, recorded_channels: expected sample rate in Hz and number of channels; None: any.
    microphones: channel selection, see `choose_channels`. single_as_near: recordings with a single channel count as the
    near microphone for any selection; otherwise they are refused if two channels are needed.
    mono: average the chosen channels.
    level: `normalised` scales the waveform to one RMS level, by one gain for all channels, since loudness depends more
    on the microphone's distance and gain than on the machine's health; `recorded` keeps it.
    offset: `removed` takes the mean of each channel off, if it is at least `LEAST_OFFSET` of the deviation from it: it
    is that of the converter, or gravity, which is not sound.
    higher_rates: recordings of a higher rate than `recorded_rate` are `refused` or first of all `resampled` to it,
    with a finding. Lower rates lack bands and are always refused.
    sample_rate: of the waveform in Hz; None: as recorded.
    limits, formats: see `decode`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recorded_rate: int | None = None
    recorded_channels: int | None = None
    microphones: Microphones = "all"
    single_as_near: bool = False
    mono: bool = False
    level: Level = "recorded"
    offset: Offset = "kept"
    higher_rates: HigherRates = "refused"
    sample_rate: int | None = None
    limits: Limits = Limits()
    formats: frozenset[str] = DEFAULT_FORMATS


@dataclass(frozen=True, eq=False)
class Sound:
    """Result of `listen`.

    name: the recording in messages. wave_CS: (channels, samples) float32 at `sample_rate` Hz. findings: defects that
    leave it usable. sha256: of the file, or of an array's samples and rate. recorded: the decoded recording. heard: the
    same, resampled to the expected rate. used: its channels that are listened to. moments: of all channels of heard.
    """

    name: str | Path
    wave_CS: Float32
    sample_rate: int
    findings: tuple[Finding, ...]
    sha256: str
    recorded: Audio = field(repr=False)
    heard: Audio = field(repr=False)
    used: slice
    moments: Moments = field(repr=False)

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.recorded.seconds

    @cached_property
    def level_db(self) -> float:
        """RMS level as recorded, over all channels, without a constant offset, dBFS."""
        return self.moments.without_offset.level_db

    @cached_property
    def health(self) -> Health:
        """Statistics of the channels that are listened to, as recorded; their spectrum, at the expected rate."""
        recorded, heard = self.recorded, self.heard
        samples_CS = recorded.samples_CS[self.used]
        if heard is recorded:
            return measure(samples_CS, recorded.sample_rate, mean_C=self.moments.mean_C[self.used])
        return measure(samples_CS, recorded.sample_rate, heard.samples_CS[self.used], heard.sample_rate)

    def at(self, sample_rate: int) -> Float32:
        """(channels, samples) resampled to `sample_rate` Hz."""
        return resample(self.wave_CS, self.sample_rate, sample_rate)


def listen(
    source: Source,
    settings: Listening = Listening(),
    *,
    sample_rate: int | None = None,
    name: str | Path | None = None,
) -> Sound:
    """Read a recording: decode, check, choose channels, normalise, resample.

    sample_rate: of an array, in Hz. name: the recording in messages (default: its path). Raises AudioError if it cannot
    be decoded, has an unexpected rate or number of channels, or is unusable (see `audio.quality`); ValueError for an
    array without `sample_rate`.
    """
    if isinstance(source, np.ndarray):
        label = name if name is not None else "<array>"
        if sample_rate is None:
            raise ValueError("samples need their sample_rate in Hz")
        audio = audio_of_array(source, sample_rate, label, settings.limits)
        sha256 = sha256_of(audio.samples_CS, audio.sample_rate)
    else:
        label = name if name is not None else ("<bytes>" if isinstance(source, bytes) else source)
        data = source if isinstance(source, bytes) else read_file(source, settings.limits)
        audio = decode(data, name=label, limits=settings.limits, formats=settings.formats)
        sha256 = sha256_of(data)
    _check_form(audio, settings, label)
    microphones = settings.microphones
    if settings.single_as_near and len(audio.samples_CS) == 1:
        microphones = "all"
    # Unused microphones may be broken.
    used = {"near": slice(0, 1), "far": slice(1, 2)}.get(microphones, slice(None))
    moments = Moments(audio.samples_CS)
    findings = _check_quality(audio, moments, used, settings, label)
    recorded = audio
    if settings.recorded_rate is not None and audio.sample_rate != settings.recorded_rate:
        detail = f"was recorded at {audio.sample_rate} Hz and brought to the model's {settings.recorded_rate} Hz"
        findings += (Finding("higher rate", detail, "", unusable=False, harmless=True),)
        audio = _at_rate(audio, settings.recorded_rate)
        moments = Moments(audio.samples_CS)
    levelled = moments.without_offset if settings.offset == "removed" else moments
    wave_CS = choose_channels(levelled.samples_CS, audio.sample_rate, microphones, label)
    if settings.mono:
        wave_CS = wave_CS.mean(axis=0, keepdims=True, dtype=np.float32)
    if settings.level == "normalised":
        wave_CS = normalised(wave_CS, levelled.level_db if wave_CS is levelled.samples_CS else None)
    rate = audio.sample_rate if settings.sample_rate is None else settings.sample_rate
    wave_CS = resample(wave_CS, audio.sample_rate, rate)
    return Sound(label, wave_CS, rate, findings, sha256, recorded, audio, used, moments)


def sha256_of(recording: bytes | Float32, sample_rate: int | None = None) -> str:
    """`Sound.sha256` of the content of a file, or of (channels, samples) at `sample_rate` Hz."""
    if isinstance(recording, bytes):
        return hashlib.sha256(recording).hexdigest()
    digest = hashlib.sha256(f"{sample_rate} {recording.shape}".encode())
    digest.update(np.ascontiguousarray(recording).data)
    return digest.hexdigest()


def normalised(samples_CS: Float32, level_db: float | None = None) -> Float32:
    """Scale (channels, samples) to an RMS level of `NORMAL_LEVEL_DBFS` by one gain; not for silence.

    level_db: that of the samples, if it is there.
    """
    gain = 10 ** ((NORMAL_LEVEL_DBFS - (level_dbfs(samples_CS) if level_db is None else level_db)) / 20)
    return samples_CS * np.float32(gain)


def without_offset(samples_CS: Float32) -> Float32:
    """(channels, samples) without the mean of each channel, where that matters (`Moments.without_offset`)."""
    return Moments(samples_CS).without_offset.samples_CS


def _at_rate(audio: Audio, sample_rate: int) -> Audio:
    # Without the offset, which would ring at the ends.
    mean_C1 = means(audio.samples_CS).astype(np.float32)[:, None]
    samples_CS = lower_rate(audio.samples_CS - mean_C1, audio.sample_rate, sample_rate) + mean_C1
    return replace(audio, samples_CS=samples_CS, sample_rate=sample_rate)


def _check_form(audio: Audio, settings: Listening, name: str | Path) -> None:
    rate, channels = settings.recorded_rate, settings.recorded_channels
    if rate is not None and audio.sample_rate != rate:
        if audio.sample_rate < rate and settings.higher_rates == "resampled":
            raise AudioError(
                Sentence(
                    "was recorded at {rate} Hz: what the model listens to above {highest:g} Hz is missing",
                    rate=audio.sample_rate,
                    highest=audio.sample_rate / 2,
                ),
                file=name,
                next_step=f"Record at {rate} Hz or more, or fit to recordings of its rate",
            )
        if settings.higher_rates == "refused":
            raise AudioError(
                Sentence(
                    "was recorded at {rate} Hz, not at the expected {expected} Hz",
                    rate=audio.sample_rate,
                    expected=rate,
                ),
                file=name,
                next_step=f"Record or resample it at {rate} Hz, or fit to recordings of its rate",
            )
    count = len(audio.samples_CS)
    if channels is not None and count != channels:
        raise AudioError(
            Sentence("has 1 channel, not the expected {expected}", expected=channels)
            if count == 1
            else Sentence("has {count} channels, not the expected {expected}", count=count, expected=channels),
            file=name,
            next_step="Use the same microphones as for the normal recordings, or fit to recordings of this form",
        )


def _check_quality(
    audio: Audio, moments: Moments, used: slice, settings: Listening, name: str | Path
) -> tuple[Finding, ...]:
    samples_CS = audio.samples_CS[used]
    if 0 < len(samples_CS) < len(audio.samples_CS):
        moments = Moments(samples_CS)
    findings = inspect(moments, audio.sample_rate, offset_removed=settings.offset == "removed")
    for finding in findings:
        if finding.unusable:
            raise AudioError(finding.detail, file=name, next_step=finding.next_step)
    return (*audio.findings, *findings)
