"""A member of an ensemble: its table of scores, and where it was read from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harken.evaluation.scores import Scores


@dataclass(frozen=True)
class Source:
    """Where a member was read from: a path, and the system and set in it where it holds several."""

    path: Path
    system: str | None = None
    set: str | None = None
    bundle: bool = False


@dataclass(frozen=True)
class Member:
    """A member of an ensemble; its scores carry the name that bags use."""

    scores: Scores
    source: Source | None = None

    @property
    def name(self) -> str:
        """Of its scores."""
        return self.scores.system

    def renamed(self, name: str) -> Member:
        """The same under another name."""
        return replace(self, scores=replace(self.scores, system=name))
