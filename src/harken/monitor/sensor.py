"""Recordings that say nothing about the machine: it is off, or sensor or recorder are at fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from harken.audio.health import BANDS, Health
from harken.core.sentences import Sentence
from harken.monitor.channel_health import CHECKS, ChannelHealth, NormalHealth, NotJudged

Float32 = NDArray[np.float32]

#: a level that many dB beyond those of the normal recordings is mentioned
LEVEL_NOTE_DB = 10.0
#: recordings that show what is usual though some are unfit
LEAST_ROBUST = 10
#: so many of the recordings may be of a machine that is off, rather than in a rare state
FEW_SHARE = 0.05


def not_judged(health: Health, normal: NormalHealth, seconds: float) -> NotJudged | None:
    """Why a recording of `seconds` says nothing about the machine; None where it can be judged."""
    if len(health.values_CK) != normal.channels:
        return None
    channels = [ChannelHealth(health, normal, number, seconds) for number in range(normal.channels)]
    # The level is first: what is nearly silent has few values, which look like defects.
    for check in CHECKS:
        reasons = [check(channel) for channel in channels]
        for number, reason in enumerate(reasons):
            if reason is None:
                continue
            if all(reasons):
                return reason
            if reason.kind == "off":
                dead = Sentence("its microphone is dead or not connected: {reason}", reason=reason.reason)
                reason = NotJudged("sensor", dead)
            return replace(
                reason, reason=Sentence("channel {number}: {reason}", number=number + 1, reason=reason.reason)
            )
    return _exchanged(channels)


def stacked(healths: Sequence[Health | None]) -> Float32 | None:
    """(recordings, channels, statistics); None where one has none, or other channels."""
    values = [health.values_CK for health in healths if health is not None]
    if not values or len(values) < len(healths) or len({array.shape for array in values}) > 1:
        return None
    return np.stack(values)


def unfit_among(healths: Sequence[Health | None], seconds: Sequence[float]) -> dict[int, str]:
    """Recordings, of those to be learned from, that say nothing about the machine beside the others, and why.

    Quiet or muffled recordings that are more than a few are a state of the machine, and stay.
    """
    health_NCK = stacked(healths)
    if health_NCK is None or len(health_NCK) < LEAST_ROBUST:
        return {}
    normal = NormalHealth.of(health_NCK, robust=True)
    reasons = {
        row: reason
        for row, values_CK in enumerate(health_NCK)
        if (reason := not_judged(Health(values_CK), normal, seconds[row])) is not None
    }
    states = sum(not reason.trace for reason in reasons.values())
    few = states <= max(2, FEW_SHARE * len(health_NCK))
    return {row: reason.reason for row, reason in reasons.items() if reason.trace or few}


def level_note(health: Health, normal: NormalHealth) -> str | None:
    """A warning about an unusual level, at which recordings are still judged."""
    if len(health.values_CK) != normal.channels:
        return None
    channel = ChannelHealth(health, normal, 0, 0.0)
    below = channel.low("level_db") - channel.value("level_db")
    above = channel.value("level_db") - channel.high("level_db")
    if max(below, above) < LEVEL_NOTE_DB:
        return None
    return Sentence(
        "{level}: was the gain or the microphone changed?", level=channel.beside(below if below > above else -above)
    )


def _exchanged(channels: list[ChannelHealth]) -> NotJudged | None:
    if len(channels) != 2:
        return None
    first, second = channels
    same = abs(second.value("correlation"))
    usual = max(abs(second.high("correlation")), abs(second.low("correlation")))
    if same > 0.9999 and usual < 0.99:
        return NotJudged("sensor", Sentence("both channels hold the same sound"))
    normal = first.normal

    def distance(channel: int, place: int) -> float:
        bands_B = first.health.bands_db_CB[channel]
        low_B, high_B = normal.low_CK[place, -BANDS:], normal.high_CK[place, -BANDS:]
        return float(np.mean(np.maximum(np.maximum(low_B - bands_B, bands_B - high_B), 0.0)))

    if distance(0, 0) + distance(1, 1) > 6.0 and distance(0, 1) + distance(1, 0) < 1.0:
        return NotJudged("sensor", Sentence("the channels are exchanged"))
    return None
