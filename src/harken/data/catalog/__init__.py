"""What each DCASE year published: one TOML file a year, nothing about a year in code."""

from __future__ import annotations

import difflib
import tomllib
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harken.core.errors import HarkenError

Part = Literal["dev", "train", "eval"]
PARTS: tuple[Part, ...] = ("dev", "train", "eval")
Metric = Literal["machine_id", "domain_adaptation", "domain_generalization"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Release(_Table):
    """One published record: `record` is its Zenodo id, `zip` the pattern of its file names."""

    record: str
    zip: str


class MachineEntry(_Table):
    """A machine type of one half (`dev` or `eval`) of a year.

    seconds: shortest and longest clip where it differs from the year's. zips, md5: by part, where known or unlike the
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
    """A known defect of published data: what it is about, which machines, in words."""

    subject: str
    machines: tuple[str, ...] = ()
    text: str


class Archive(_Table):
    """One zip to download. md5: None where only the record itself knows it."""

    part: Part
    machine: str
    record: str
    name: str
    md5: str | None = None


class Year(_Table):
    """Everything the project knows of one year.

    metric: the official rule, named after the year's task. channels: role of each channel. train: clips a section and
    domain; supplemental: clips a machine; truth: record of the labels of the evaluation clips, if published as one.
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
    parts: dict[Part, Release]
    machines: tuple[MachineEntry, ...]
    errata: tuple[Erratum, ...] = ()

    def machine(self, name: str, part: Literal["dev", "eval"]) -> MachineEntry | None:
        """The entry of a machine type in one half of the year, None if it is not in it."""
        return next((entry for entry in self.machines if entry.name == name and entry.part == part), None)

    def archives(self, parts: tuple[Part, ...] = PARTS, machines: tuple[str, ...] | None = None) -> list[Archive]:
        """The zips that hold these parts of these machines (default: all).

        Raises HarkenError for a machine that the year does not have.
        """
        known = {entry.name for entry in self.machines}
        for name in machines or ():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"Did you mean {near[0]}? " if near else ""
                raise HarkenError(
                    f"{self.year} has no machine {name!r}", next_step=f"{hint}It has {', '.join(sorted(known))}"
                )
        found = []
        for part in parts:
            half = "dev" if part == "dev" else "eval"
            for entry in self.machines:
                if entry.part == half and (machines is None or entry.name in machines):
                    release = self.parts[part]
                    name = entry.zips.get(part, release.zip.format(machine=entry.name))
                    found.append(
                        Archive(
                            part=part, machine=entry.name, record=release.record, name=name, md5=entry.md5.get(part)
                        )
                    )
        return found


@cache
def years() -> tuple[int, ...]:
    """Years with an entry, oldest first."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(int(file.name.removesuffix(".toml")) for file in files if file.name.endswith(".toml")))


@cache
def year(number: int) -> Year:
    """The entry of one year. Raises HarkenError for a year without one."""
    if number not in years():
        raise HarkenError(
            f"there is no catalogue of {number}", next_step=f"Known years: {', '.join(map(str, years()))}"
        )
    text = resources.files(__name__).joinpath(f"{number}.toml").read_text(encoding="utf-8")
    return Year.model_validate(tomllib.loads(text))


def half_of(number: int | None, machine: str, section: str) -> Literal["dev", "eval"] | None:
    """Which half of a year a section belongs to; None where the catalogue does not know it."""
    if number is None or number not in years():
        return None
    entries = [entry for entry in year(number).machines if entry.name == machine and section in entry.sections]
    return entries[0].part if len(entries) == 1 else None
