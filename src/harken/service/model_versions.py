"""Versions of the models that judge machines, as the store keeps them for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Self

from harken.core.names import shown
from harken.monitor.versions import Version


@dataclass(frozen=True)
class VersionCount:
    """What a version would have said of the windows that are kept since a time.

    windows: so many. crossings: those that are alarms on their own; alarms: that would have been raised.
    """

    since: datetime
    windows: int
    crossings: int
    alarms: int

    def to_json(self) -> dict[str, Any]:
        """Fields by name, the time in ISO 8601."""
        return {**asdict(self), "since": self.since.isoformat()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_json`. Raises ValueError, KeyError and TypeError for other values."""
        return cls(**{**values, "since": datetime.fromisoformat(values["since"])})


@dataclass(frozen=True)
class MachineVersion:
    """A version of the model of a machine; see `harken.monitor.versions.Version`.

    target: the version that it goes back to. counted: None where that was not counted, or not again.
    """

    machine: str
    number: int
    kind: str
    who: str
    made: datetime | None
    why: str
    target: int | None
    recordings: int
    added: int
    forced: bool
    in_use: bool
    counted: VersionCount | None = None

    @classmethod
    def of(cls, machine: str, version: Version, in_use: int, counted: VersionCount | None = None) -> Self:
        """in_use: number of the one that is."""
        made = datetime.fromisoformat(version.when) if version.when else None
        return cls(
            machine, version.number, version.kind, version.who, made, version.why, version.to, version.recordings,
            version.added, version.forced, version.number == in_use, counted,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Fields by name, times in ISO 8601."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        made = None if self.made is None else self.made.isoformat()
        return {**values, "made": made, "counted": None if self.counted is None else self.counted.to_json()}

    @property
    def sentence(self) -> str:
        """It on one line."""
        made = "-" if self.made is None else f"{self.made:%Y-%m-%d %H:%M:%S} UTC"
        kind = self.kind if self.target is None else f"{self.kind} to {self.target}"
        by = f" by {shown(self.who)}" if self.who else ""
        counted = ""
        if self.counted is not None:
            count = self.counted
            counted = (
                f"; {count.alarms} alarms, {count.crossings} of {count.windows} windows above the limit since "
                f"{count.since:%Y-%m-%d %H:%M} UTC"
            )
        return (
            f"{'*' if self.in_use else ' '} {self.number}  {made}  {kind}{by}, {self.recordings} recordings{counted}"
            + (f": {shown(self.why)}" if self.why else "")
        )
