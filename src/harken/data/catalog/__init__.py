"""Catalogue of the data published per DCASE year: one TOML file per year, no year-specific code."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harken.core.errors import HarkenError, did_you_mean

Part = Literal["dev", "train", "eval"]
PARTS: tuple[Part, ...] = ("dev", "train", "eval")
Metric = Literal["machine_id", "domain_adaptation", "domain_generalization"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Release(_Table):
    """A published record: its Zenodo id `record`, and the pattern `zip` of its file names."""

    record: str
    zip: str


class MachineOfYear(_Table):
    """A machine type in the `dev` or `eval` set of a year.

    seconds: shortest and longest clip if different from the year's. zips, md5: by part, if known or not following the
    pattern. test: section -> number of normal and anomalous test clips.
    """

    name: str
    part: Literal["dev", "eval"]
    sections: tuple[str, ...]
    hidden_attributes: bool = False
    seconds: tuple[float, float] | None = None
    zips: dict[Part, str] = {}
    md5: dict[Part, str] = {}
    test: dict[str, dict[Literal["normal", "anomaly"], int]] = {}


class Erratum(_Table):
    """A known defect of published data: affected file or data, machines, description."""

    subject: str
    machines: tuple[str, ...] = ()
    text: str


class Archive(_Table):
    """A zip to download. md5: None where it is only given by the record."""

    part: Part
    machine: str
    record: str
    name: str
    md5: str | None = None


class Year(_Table):
    """Catalogue entry of one year.

    metric: the official rule, named after the year's task. channels: role of each channel. train: clips per section
    and domain; supplemental: clips per machine; truth: record of the evaluation labels, if published as one.
    attributes: long names of attributes by their short ones.
    """

    year: int
    metric: Metric
    licence: str
    sample_rate: int
    channels: tuple[str, ...]
    seconds: tuple[float, float]
    train: dict[Literal["source", "target"], int] = {}
    supplemental: int | None = None
    truth: str | None = None
    attributes: dict[str, str] = {}
    parts: dict[Part, Release]
    machines: tuple[MachineOfYear, ...]
    errata: tuple[Erratum, ...] = ()

    def machine(self, name: str, part: Literal["dev", "eval"]) -> MachineOfYear | None:
        """Entry of a machine type in the `dev` or `eval` set; None if it is not in it."""
        return next((entry for entry in self.machines if entry.name == name and entry.part == part), None)

    def archives(self, parts: tuple[Part, ...] = PARTS, machines: tuple[str, ...] | None = None) -> list[Archive]:
        """Zips with the given parts of the given machines (default: all).

        Raises HarkenError for a machine not in the year.
        """
        names = {entry.name for entry in self.machines}
        for name in machines or ():
            if name not in names:
                raise HarkenError(
                    f"{self.year} has no machine {name!r}",
                    next_step=did_you_mean(name, names, f"It has {', '.join(sorted(names))}"),
                )
        archives = []
        for part in parts:
            data_set = "dev" if part == "dev" else "eval"
            for entry in self.machines:
                if entry.part == data_set and (machines is None or entry.name in machines):
                    release = self.parts[part]
                    name = entry.zips.get(part, release.zip.format(machine=entry.name))
                    archives.append(
                        Archive(
                            part=part, machine=entry.name, record=release.record, name=name, md5=entry.md5.get(part)
                        )
                    )
        return archives


@cache
def years() -> tuple[int, ...]:
    """Years with a catalogue entry, oldest first."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(int(file.name.removesuffix(".toml")) for file in files if file.name.endswith(".toml")))


@cache
def year(number: int) -> Year:
    """Entry of one year. Raises HarkenError for a year without one."""
    if number not in years():
        raise HarkenError(
            f"there is no catalogue of {number}", next_step=f"Known years: {', '.join(map(str, years()))}"
        )
    text = resources.files(__name__).joinpath(f"{number}.toml").read_text(encoding="utf-8")
    return Year.model_validate(tomllib.loads(text))


def half_of(number: int | None, machine: str, section: str) -> Literal["dev", "eval"] | None:
    """Whether a section belongs to the `dev` or `eval` set of a year; None if it is not in the catalogue."""
    if number is None or number not in years():
        return None
    entries = [entry for entry in year(number).machines if entry.name == machine and section in entry.sections]
    return entries[0].part if len(entries) == 1 else None
