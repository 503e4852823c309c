"""Scores of one recording: one per view."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ViewScores:
    """sound: of the sound as a whole. event, tone: of short events and of tones; None without a view of them."""

    sound: float
    event: float | None = None
    tone: float | None = None
