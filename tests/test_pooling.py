"""Poolings over time against their equations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harken.encoders.pooling import LAGS, check_pooling, list_poolings, pool


def tokens(count: int = 24, dimensions: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)


def slow_weights(frames: np.ndarray, gamma: float) -> list[float]:
    mean = sum(frame.astype(float) for frame in frames) / len(frames)
    deviations = [float(np.linalg.norm(frame - mean)) for frame in frames]
    relative = [d / (sum(deviations) / len(deviations)) for d in deviations]
    powers = [np.exp(gamma * r) for r in relative]
    return [p / sum(powers) for p in powers]


@pytest.mark.parametrize("gamma", [0.0, 1.0, 19.0])
def test_rdp_is_its_equation(gamma: float) -> None:
    frames = tokens()
    expected = sum(w * frame.astype(float) for w, frame in zip(slow_weights(frames, gamma), frames, strict=True))
    np.testing.assert_allclose(pool(frames, f"rdp:{gamma}"), expected, rtol=1e-5, atol=1e-6)


def test_rdp_without_gamma_is_the_mean_and_with_much_of_it_the_oddest_frame() -> None:
    frames = tokens()
    np.testing.assert_allclose(pool(frames, "rdp:0"), pool(frames, "mean"), atol=1e-6)
    odd = np.linalg.norm(frames - frames.mean(axis=0), axis=1).argmax()
    np.testing.assert_allclose(pool(frames, "rdp:1e4"), frames[odd], atol=1e-6)


@pytest.mark.parametrize("power", [1.0, 3.0, 7.5])
def test_gem_is_its_equation(power: float) -> None:
    frames = tokens()
    expected = [np.mean([max(x, 0.0) ** power for x in column]) ** (1 / power) for column in frames.T.astype(float)]
    np.testing.assert_allclose(pool(frames, f"gem:{power}"), expected, rtol=1e-5)


def test_gem_goes_from_mean_to_maximum_and_never_overflows() -> None:
    frames = np.abs(tokens())
    np.testing.assert_allclose(pool(frames, "gem:1"), pool(frames, "mean"), rtol=1e-5)
    np.testing.assert_allclose(pool(frames * np.float32(1e30), "gem:1e4"), frames.max(axis=0) * 1e30, rtol=1e-3)
    np.testing.assert_allclose(pool(frames * np.float32(1e-30), "gem:50"), pool(frames, "gem:50") * 1e-30, rtol=1e-4)
    np.testing.assert_array_equal(pool(-frames, "gem"), np.zeros(5))


def test_the_hybrid_is_a_power_mean_under_deviation_weights() -> None:
    frames = tokens()
    weights = slow_weights(frames, 16.0)
    expected = sum(w * np.maximum(frame, 0).astype(float) ** 3 for w, frame in zip(weights, frames, strict=True))
    np.testing.assert_allclose(pool(frames, "rdpgem"), expected ** (1 / 3), rtol=1e-5)
    np.testing.assert_allclose(pool(frames, "rdpgem:0:2.5"), pool(frames, "gem:2.5"), rtol=1e-5)
    np.testing.assert_allclose(pool(np.abs(frames), "rdpgem:4:1"), pool(np.abs(frames), "rdp:4"), rtol=1e-5)


def test_defaults_and_joining() -> None:
    frames = tokens()
    for short, full in [("gem", "gem:3"), ("rdp", "rdp:19"), ("rdpgem", "rdpgem:16:3"), ("rdpgem:8", "rdpgem:8:3")]:
        np.testing.assert_array_equal(pool(frames, short), pool(frames, full))
    joined = pool(frames, "rdp:10+gem:3+std")
    parts = [pool(frames, part) for part in ("rdp:10", "gem:3", "std")]
    np.testing.assert_array_equal(joined, np.concatenate(parts))


@given(count=st.integers(1, 30), name=st.sampled_from(list_poolings()), scale=st.sampled_from([0.0, 1e-20, 1.0, 1e15]))
def test_every_pooling_is_finite(count: int, name: str, scale: float) -> None:
    for frames in (tokens(count) * np.float32(scale), np.full((count, 3), scale, np.float32)):
        found = pool(frames, name)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()


def test_frames_that_are_all_alike_are_their_own_mean() -> None:
    frames = np.repeat(tokens(1), 7, axis=0)
    np.testing.assert_allclose(pool(frames, "rdp:19"), frames[0], rtol=1e-6)
    np.testing.assert_allclose(pool(frames, "rdpgem"), np.maximum(frames[0], 0), rtol=1e-6)


@pytest.mark.parametrize("name", list_poolings())
def test_class_tokens_are_no_frames(name: str) -> None:
    frames = tokens()
    with_cls = np.concatenate([np.full((2, 5), 1e6, np.float32), frames])
    np.testing.assert_array_equal(pool(with_cls, name, cls_tokens=2), pool(frames, name))
    joined = pool(with_cls, f"cls+{name}", cls_tokens=2)
    np.testing.assert_array_equal(joined[:10], 1e6)
    np.testing.assert_array_equal(joined[10:], pool(frames, name))


@pytest.mark.parametrize("name", [*list_poolings(), "rdp:4+max"])
def test_bands_are_pooled_on_their_own(name: str) -> None:
    """Tokens are written in order of time, then frequency: token t * F + f is band f."""
    maps = tokens(30).reshape(10, 3, 5)
    expected = [pool(np.ascontiguousarray(maps[:, band]), name) for band in range(3)]
    patches = np.concatenate([np.zeros((1, 5), np.float32), maps.reshape(30, 5)])
    found = pool(patches, f"bands:{name}", cls_tokens=1, patch_bands=3)
    np.testing.assert_array_equal(found, np.concatenate(expected))
    np.testing.assert_array_equal(pool(maps[:, 0], f"bands:{name}"), expected[0])


def test_variation_compares_patches_of_one_band() -> None:
    maps = tokens(30).reshape(10, 3, 5)
    expected = [np.abs(maps[lag:] - maps[:-lag]).mean(axis=(0, 1)) for lag in LAGS]
    found = pool(maps.reshape(30, 5), "variation", patch_bands=3)
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("median", "unknown pooling 'median'"),
        ("mean+", "unknown pooling ''"),
        ("gem:x", "power 'x' is no number"),
        ("gem:0", "power is at least"),
        ("gem:nan", "power is at least"),
        ("rdp:-1", "gamma is at least"),
        ("rdp:inf", "finite"),
        ("rdp:1:2", "it is rdp:GAMMA"),
        ("mean:1", "it is mean"),
        ("cls:1", "unknown pooling"),
        ("bands:cls+mean", "no frequency bands"),
    ],
)
def test_a_wrong_spelling_is_named(pooling: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        check_pooling(pooling)


def test_rows_that_are_not_as_announced_are_refused() -> None:
    with pytest.raises(ValueError, match="no class token"):
        pool(tokens(), "cls")
    with pytest.raises(ValueError, match="no frames"):
        pool(tokens(2), "mean", cls_tokens=2)
    with pytest.raises(ValueError, match="whole columns"):
        pool(tokens(7), "bands:mean", patch_bands=3)
    with pytest.raises(ValueError, match="patch_bands"):
        pool(tokens(), "mean", patch_bands=0)
