"""Simulated machines: operating conditions, faults and sound."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from harken.plant.signals import Float, Rng, decibels, revolutions


@dataclass(frozen=True)
class OperatingRun:
    """State of a machine during one clip.

    operation: attribute -> value, as in the file name (`spd` -> `28V`).
    fault: name of the fault, None for a healthy machine. severity: 0 (incipient) to 1 (severe).
    samples, rate: length of the clip in samples, sampling rate in Hz.
    """

    operation: Mapping[str, str]
    fault: str | None
    severity: float
    samples: int
    rate: int

    @property
    def seconds(self) -> float:
        """Length of the clip in seconds."""
        return self.samples / self.rate

    def value(self, attribute: str) -> float:
        """Numeric part of an attribute's value: 28 for `28V`. Raises ValueError where there is none."""
        match = re.search(r"\d+(\.\d+)?", self.operation[attribute])
        if match is None:
            raise ValueError(f"{attribute} {self.operation[attribute]} has no number")
        return float(match[0])

    def fault_gain(self, fault: str, slight_db: float, severe_db: float) -> float:
        """Linear gain of a fault's sound: `slight_db` at severity 0 to `severe_db` at 1; 0.0 without that fault.

        Interpolated in dB, because symptoms grow exponentially over a machine's life.
        """
        if self.fault != fault:
            return 0.0
        return decibels(slight_db + (severe_db - slight_db) * self.severity)

    def shaft(self, speed_hz: float, rng: Rng, *, slack: float = 0.003) -> Float:
        """Angle (S,) in revolutions of a shaft; see `signals.revolutions`."""
        return revolutions(speed_hz, self.samples, self.rate, rng, slack=slack)


@dataclass(frozen=True)
class Machine:
    """A machine type.

    source, target: operating conditions of the two domains, used in rotation from clip to clip.
    faults: names of the faults that `sound` models.
    sound: (run, unit, rng) -> (S,) sound pressure in arbitrary units. `unit` has the same seed for every clip
        and draws the properties of this unit of the machine; `rng` is specific to the clip.
    snr_db: machine sound to factory noise at the near microphone.
    level_db: mean recording level in dBFS; impulsive machines need more headroom.
    supplemental: content of the supplemental recordings, the clean machine or factory noise only.
    """

    name: str
    source: tuple[Mapping[str, str], ...]
    target: tuple[Mapping[str, str], ...]
    faults: tuple[str, ...]
    sound: Callable[[OperatingRun, Rng, Rng], Float]
    snr_db: float
    level_db: float = -28.0
    supplemental: Literal["machine", "noise"] = "machine"


def conditions(**values: str) -> tuple[dict[str, str], ...]:
    """All combinations of space-separated attribute values: conditions(spd="24V 28V", mic="1")."""
    combinations: list[dict[str, str]] = [{}]
    for attribute, choices in values.items():
        combinations = [
            {**combination, attribute: choice} for combination in combinations for choice in choices.split()
        ]
    return tuple(combinations)
