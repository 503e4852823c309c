"""Checks of one channel of a recording beside the same channel of normal recordings.

Each asks for a gross difference that no machine makes. A fault of the machine may be loud, clip for a while, squeal or
stop the machine in the middle of a recording: all that is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harken.audio.health import BANDS, STATISTICS, Health
from harken.core.sentences import Sentence
from harken.monitor.wording import normals_of

Float64 = NDArray[np.float64]

#: a level that many dB below the lowest of the normal recordings is that of another sound or gain
OFF_DB = 15.0
#: so many dB below, and at least the range of the normal levels, with another spectrum in which no frequency is louder
#: than in the quietest normal recording
QUIET_DB = 6.0
#: the rest of a recording of hum is that far below the lowest normal one
REST_DB = 10.0
#: a band that many dB below the lowest normal one is missing
MISSING_DB = 15.0
#: statistics that are near zero unless recorder or sensor are at fault
TRACES = ("clipped_low", "clipped_high", "clipped_time", "gap_s", "repeated", "clicks_hz", "wraps")


#: shorter recordings have too few moments to tell a wave that is cut off from a steady one
_EDGE_SECONDS = 1.0


@dataclass(frozen=True)
class NotJudged:
    """Why a recording is not judged.

    kind: `off`, the machine; `level`, another gain or place of the microphone; `sensor`, it or the recorder is faulty.
    reason: a sentence without subject, as in messages on a file. trace: no sound has it; otherwise, an unusual state of
    the machine might.
    """

    kind: Literal["off", "level", "sensor"]
    reason: str
    trace: bool = False


@dataclass(frozen=True, eq=False)
class NormalHealth:
    """Statistics of normal recordings, by channel.

    low_CK, high_CK: range of each statistic. count: of recordings; segments: whether these are segments of longer ones.
    """

    low_CK: Float64
    high_CK: Float64
    profile_low_CB: Float64
    profile_high_CB: Float64
    flatness_C: Float64
    count: int
    segments: bool = False

    @classmethod
    def of(
        cls, health_NCK: NDArray[np.float32] | Float64, *, robust: bool = False, segments: bool = False
    ) -> NormalHealth:
        """Ranges over (recordings, channels, statistics).

        robust: some of the recordings may be unfit; ranges are those of the inner 80 %, and traces of a faulty recorder
        count as usual where most of the recordings have them.
        """
        health_NCK = np.asarray(health_NCK, dtype=np.float64)
        low, high = (0.1, 0.9) if robust else (0.0, 1.0)
        low_CK, high_CK = np.quantile(health_NCK, [low, high], axis=0)
        if robust:
            traces = [STATISTICS.index(name) for name in TRACES]
            most_have_it = np.median(health_NCK[:, :, traces], axis=0) > 0
            high_CK[:, traces] = np.where(most_have_it, high_CK[:, traces], 0.0)
        bands_NCB: Float64 = health_NCK[:, :, -BANDS:].astype(np.float64)
        profile_NCB = bands_NCB - np.median(bands_NCB, axis=2, keepdims=True)
        profile_low_CB, profile_high_CB = np.quantile(profile_NCB, [low, high], axis=0)
        flatness_C = np.quantile(_flatness(bands_NCB), low, axis=0)
        return cls(low_CK, high_CK, profile_low_CB, profile_high_CB, flatness_C, len(health_NCK), segments)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.low_CK)

    def low(self, name: str, channel: int) -> float:
        """Lowest normal value of a statistic."""
        return float(self.low_CK[channel, STATISTICS.index(name)])

    def high(self, name: str, channel: int) -> float:
        """Highest normal value of a statistic."""
        return float(self.high_CK[channel, STATISTICS.index(name)])


@dataclass(frozen=True, eq=False)
class ChannelHealth:
    """One channel of a recording beside the same channel of the normal ones."""

    health: Health
    normal: NormalHealth
    number: int
    seconds: float

    def value(self, name: str) -> float:
        """A statistic of the recording."""
        return float(self.health.values_CK[self.number, STATISTICS.index(name)])

    def low(self, name: str) -> float:
        """Lowest normal value of a statistic of this channel."""
        return self.normal.low(name, self.number)

    def high(self, name: str) -> float:
        """Highest normal value of a statistic of this channel."""
        return self.normal.high(name, self.number)

    def beyond(self, name: str, least: float, times: float = 5.0) -> bool:
        """Whether a trace is at least `least`, and more than so many times what is normal."""
        return self.value(name) >= least and self.value(name) > times * self.high(name)

    @property
    def bands_db_B(self) -> Float64:
        """(bands,) spectrum of the recording in dB."""
        return self.health.bands_db_CB[self.number]

    @property
    def deficit_db_B(self) -> Float64:
        """How far each band is below the lowest normal one."""
        return self.normal.low_CK[self.number, -BANDS:] - self.bands_db_B

    @property
    def flat(self) -> bool:
        """White, as noise of electronics and unlike the normal recordings."""
        flatness_db = float(_flatness(self.bands_db_B))
        return flatness_db < 3.0 and self.normal.flatness_C[self.number] > max(8.0, 2 * flatness_db)

    @property
    def alike(self) -> bool:
        """Whether the spectrum is that of the normal recordings, at whatever gain."""
        profile_B = self.bands_db_B - np.median(self.bands_db_B)
        below_B = self.normal.profile_low_CB[self.number] - profile_B
        above_B = profile_B - self.normal.profile_high_CB[self.number]
        excess_B = np.sort(np.maximum(np.maximum(below_B, above_B), 0.0))
        return bool(excess_B[int(0.8 * BANDS)] < 4.0)

    def beside(self, difference_db: float) -> Sentence:
        """`, 40 dB below any of 75 normal recordings`, with the recording's level."""
        values = {"level": self.value("level_db"), "change": abs(difference_db)}
        normals = normals_of(self.normal.count, self.normal.segments)
        if difference_db > 0:
            return Sentence("level {level:.0f} dBFS, {change:.0f} dB below any of {normals}", normals=normals, **values)
        return Sentence("level {level:.0f} dBFS, {change:.0f} dB above any of {normals}", normals=normals, **values)


def _defect(reason: Sentence) -> NotJudged:
    """A trace in the signal that no machine leaves."""
    return NotJudged("sensor", reason, trace=True)


def _off(channel: ChannelHealth) -> NotJudged | None:
    below_db = channel.low("level_db") - channel.value("level_db")
    range_db = channel.high("level_db") - channel.low("level_db")
    deficit_B = channel.deficit_db_B
    quieter = bool(np.all(deficit_B > -0.5)) and min(below_db, float(np.median(deficit_B))) >= max(QUIET_DB, range_db)
    if below_db < OFF_DB and not quieter:
        return None
    alike = channel.alike and not channel.flat
    if below_db < OFF_DB and alike:
        return None
    if alike:
        return NotJudged(
            "level",
            Sentence(
                "{level}, with their spectrum: the gain or the place of the microphone has changed",
                level=channel.beside(below_db),
            ),
        )
    left = Sentence("other sound")
    if channel.value("hum") > 0.5:
        left = Sentence("hum of the mains")
    elif channel.flat:
        left = Sentence("noise")
    level = channel.beside(below_db)
    reason = Sentence("the machine is off or not heard: {level}; what is left is {left}", level=level, left=left)
    return NotJudged("off", reason)


def _bytes(channel: ChannelHealth) -> NotJudged | None:
    swapped_db, level_db = channel.value("swapped_db"), channel.value("level_db")
    usual = channel.low("level_db") - OFF_DB < swapped_db < channel.high("level_db") + OFF_DB
    if level_db - swapped_db < 12.0 or not usual or level_db < channel.high("level_db") + 12.0:
        return None
    if channel.value("clipped_low") + channel.value("clipped_high") > 1e-2:
        return None
    level = channel.beside(channel.high("level_db") - level_db)
    return _defect(Sentence("the bytes of its samples are swapped: {level}", level=level))


def _overflow(channel: ChannelHealth) -> NotJudged | None:
    if not channel.beyond("wraps", 2e-4, 10.0) or channel.value("clipped_low") + channel.value("clipped_high") > 1e-2:
        return None
    share = channel.value("wraps")
    return _defect(
        Sentence("{share:.2%} of its samples jump from one limit to the other: overflow or sample format", share=share)
    )


def _limits(channel: ChannelHealth) -> NotJudged | None:
    sides = sorted([channel.value("clipped_low"), channel.value("clipped_high")])
    usual = max(channel.high("clipped_low"), channel.high("clipped_high"))
    if sides[1] > max(0.1, 5 * usual) and sides[0] < 0.05 * sides[1]:
        return _defect(
            Sentence("one side of the wave is cut off: {share:.0%} of its samples are at one limit", share=sides[1])
        )
    if channel.seconds < _EDGE_SECONDS:
        return None
    edges = sorted([channel.value("edge_low"), channel.value("edge_high")])
    usual_edge = max(channel.high("edge_low"), channel.high("edge_high"))
    if edges[1] > 0.9 and edges[0] < 0.4 and usual_edge < 0.75 and channel.value("values") > 200:
        return _defect(Sentence("one side of the wave is cut off or folded over"))
    share = sum(sides)
    # A loud event clips for a while; a wrong gain clips all the time.
    if channel.value("clipped_time") < 0.8 or not share > max(1e-3, 10 * usual):
        return None
    if share < 0.02 and not channel.alike:
        return None
    return _defect(
        Sentence("clipped throughout: {share:.1%} of its samples are at the limits; lower the gain", share=share)
    )


def _gaps(channel: ChannelHealth) -> NotJudged | None:
    if not channel.beyond("gap_s", 0.01):
        return None
    return _defect(
        Sentence(
            "has gaps: {gaps:.2f} of {seconds:.3g} s stand still at one value",
            gaps=channel.value("gap_s"), seconds=channel.seconds,
        )
    )  # fmt: skip


def _repeats(channel: ChannelHealth) -> NotJudged | None:
    if not channel.beyond("repeated", 0.01):
        return None
    share = channel.value("repeated")
    return _defect(
        Sentence("repeats itself: {share:.0%} of it are exact copies of earlier pieces (stuck buffer)", share=share)
    )


def _steps(channel: ChannelHealth) -> NotJudged | None:
    values = channel.value("values")
    if values > 64 or values > channel.low("values") / 8:
        return None
    return _defect(
        Sentence(
            "has {values:.0f} different values, normal recordings {usual:.0f} and more: too few bits",
            values=values,
            usual=channel.low("values"),
        )
    )


def _clicks(channel: ChannelHealth) -> NotJudged | None:
    if not channel.beyond("clicks_hz", 1e-6):
        return None
    count = round(channel.value("clicks_hz") * channel.seconds)
    if count <= 2 * channel.high("clicks_hz") * channel.seconds:
        return None
    return _defect(
        Sentence("1 click of a sample or two, shorter than any sound")
        if count == 1
        else Sentence("{count} clicks of a sample or two, shorter than any sound", count=count)
    )


def _hum(channel: ChannelHealth) -> NotJudged | None:
    hum, usual = channel.value("hum"), channel.high("hum")
    if hum < 0.9 or 1 - hum > 0.2 * (1 - usual) or channel.value("rest_db") > channel.low("rest_db") - REST_DB:
        return None
    return NotJudged(
        "off", Sentence("only hum of the mains is heard ({hum:.0%} of the power), not the machine", hum=hum)
    )


def _noise(channel: ChannelHealth) -> NotJudged | None:
    # Without strokes, tones or colour: a hiss of the machine stands beside its other sounds, or makes it louder.
    if not channel.flat or channel.value("loud_db") - channel.value("quiet_db") > 2.0:
        return None
    above_db = channel.value("level_db") - channel.high("level_db")
    if above_db > 12.0 and channel.value("level_db") > -8.0:
        return _defect(Sentence("white noise at full scale: overflow, or another sample format"))
    if above_db > 3.0:
        return None
    return NotJudged("off", Sentence("only white noise is heard, as that of an amplifier, not the machine"))


def _bands(channel: ChannelHealth) -> NotJudged | None:
    deficit_B = channel.deficit_db_B
    missing_B = deficit_B >= MISSING_DB
    first = BANDS - int(np.argmin(missing_B[::-1])) if not missing_B.all() else 0
    heard = slice(0, max(first - 2, 1))
    # Half an octave or more is missing at the top, all well below it is as ever.
    lower = float(np.median(deficit_B[heard]))
    if first == BANDS or first < 4 or lower > 6.0:
        return None
    above_B = channel.bands_db_B - channel.normal.high_CK[channel.number, -BANDS:]
    if deficit_B[first:].max() < 25.0 or above_B[heard].max() > 6.0 or deficit_B[heard].max() > MISSING_DB:
        return None
    share = 2.0 ** (-0.5 * (BANDS - first))
    return NotJudged(
        "sensor",
        Sentence("the highest {share:.0%} of the frequencies are missing: muffled, or low-passed", share=1 - share),
    )


CHECKS: tuple[Callable[[ChannelHealth], NotJudged | None], ...] = (
    _off, _bytes, _overflow, _limits, _gaps, _repeats, _steps, _clicks, _hum, _noise, _bands
)  # fmt: skip


def _flatness(bands_db: Float64) -> Float64:
    """(..., bands) -> (...) dB between the highest and lowest density of the upper ten bands; 0: white."""
    # Half-octave bands: each is as wide as the sum of those below it would be, so densities fall by 1.505 dB a band.
    density = bands_db[..., -10:] - 1.505 * np.arange(10)
    return np.asarray(density.max(axis=-1) - density.min(axis=-1))
