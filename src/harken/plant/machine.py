"""What a simulated machine is: its operating conditions, its faults and the sound it makes in a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from harken.plant.signals import Float, Rng, decibels, revolutions


@dataclass(frozen=True)
class Run:
    """One clip's worth of a machine at work.

    operation: attribute -> value, as they stand in the file name (`spd` -> `28V`).
    fault, severity: what is broken, None when nothing is, and how far it has gone, 0 to 1.
    """

    operation: Mapping[str, str]
    fault: str | None
    severity: float
    samples: int
    rate: int

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    def value(self, attribute: str) -> float:
        """The number in an attribute's value: 28 for `28V`."""
        match = re.search(r"\d+(\.\d+)?", self.operation[attribute])
        if match is None:
            raise ValueError(f"{attribute} {self.operation[attribute]} has no number")
        return float(match[0])

    def fault_gain(self, fault: str, slight_db: float, severe_db: float) -> float:
        """Amplitude of a fault's sign: from `slight_db` to `severe_db` over its severity; 0 in other runs.

        In dB, because symptoms grow exponentially over a machine's life and are heard on a log scale.
        """
        if self.fault != fault:
            return 0.0
        return decibels(slight_db + (severe_db - slight_db) * self.severity)

    def shaft(self, speed_hz: float, rng: Rng, *, slack: float = 0.003) -> Float:
        """Angle (T,) in revolutions of a shaft; see `signals.revolutions`."""
        return revolutions(speed_hz, self.samples, self.rate, rng, slack=slack)


@dataclass(frozen=True)
class Machine:
    """A machine type.

    source, target: operating conditions of the two domains. They take turns from clip to clip.
    faults: names that `sound` knows.
    sound: (run, unit, rng) -> (T,) sound pressure in any unit. `unit` starts from the same seed for every
        clip and draws what was fixed when the machine was built; `rng` belongs to the clip.
    snr_db: machine to factory noise at the near microphone.
    level_db: usual recording level in dB of full scale; impulsive machines need more headroom.
    supplemental: what the supplemental recordings hold, the clean machine or the factory alone.
    """

    name: str
    source: tuple[Mapping[str, str], ...]
    target: tuple[Mapping[str, str], ...]
    faults: tuple[str, ...]
    sound: Callable[[Run, Rng, Rng], Float]
    snr_db: float
    level_db: float = -28.0
    supplemental: Literal["machine", "noise"] = "machine"


def conditions(**values: str) -> tuple[dict[str, str], ...]:
    """All combinations of space-separated attribute values: conditions(spd="24V 28V", mic="1")."""
    combinations: list[dict[str, str]] = [{}]
    for attribute, choices in values.items():
        combinations = [{**known, attribute: choice} for known in combinations for choice in choices.split()]
    return tuple(combinations)
