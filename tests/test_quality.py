"""What is wrong with recordings."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import hum
from harken.audio.quality import inspect, level_groups, near_duplicates


def spoiled(kind: str) -> np.ndarray:
    sound = hum(5)
    if kind == "not finite":
        sound[100] = np.nan
    elif kind == "silent":
        sound = np.full_like(sound, 0.01)
    elif kind == "clipped":
        sound = np.clip(sound * 20, -1, 1)
    elif kind == "constant offset":
        sound = sound + 1.0
    elif kind == "dropouts":
        sound[4_000:5_000] = 0
    elif kind == "too short":
        sound = sound[:500]
    return sound.astype(np.float32)[None]


@pytest.mark.parametrize(
    ("kind", "unusable"),
    [("not finite", True), ("silent", True), ("too short", True), ("clipped", False), ("constant offset", False),
     ("dropouts", False)],
)  # fmt: skip
def test_each_defect_is_found_and_nothing_else(kind: str, unusable: bool) -> None:
    findings = inspect(spoiled(kind), 16_000)
    assert [finding.kind for finding in findings] == [kind]
    assert findings[0].unusable is unusable
    assert findings[0].next_step


def test_good_recordings_have_no_findings() -> None:
    for seed in range(5):
        assert inspect(np.stack([hum(seed), hum(seed + 100)]), 16_000) == []


def test_a_dead_second_channel_is_named() -> None:
    (finding,) = inspect(np.stack([hum(1), np.zeros_like(hum(1))]), 16_000)
    assert finding.kind == "silent"
    assert "channel 1" in finding.detail


def test_near_duplicates() -> None:
    distances = np.array([5.0, 1e-6, 1e-6, 4.0])
    neighbours = np.array([3, 2, 1, 0])
    assert near_duplicates(distances, neighbours) == [(1, 2)]
    assert near_duplicates(np.array([1.0, 1.1, 0.9]), np.array([1, 0, 0])) == []


def test_level_groups() -> None:
    assert level_groups([-20, -32, -21, -33, -19]) == [[3, 1], [2, 0, 4]]
    assert len(level_groups([-20, -22, -25, -29])) == 1
