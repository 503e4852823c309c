"""Extraction: cached, resumable, unharmed by any one recording; the store."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from conftest import hum
from harken.embeddings.embedder import Embedder, EmbeddingSpec, make_spec
from harken.embeddings.extract import extract
from harken.embeddings.groups import group_sums
from harken.embeddings.isolated import Together, isolated, isolated_together
from harken.embeddings.sketch import make_sketch, sketch_db
from harken.embeddings.store import EmbeddingStore
from harken.encoders.pooling import LAGS, list_poolings, pool
from harken.encoders.spectral import Spectral

SPEC = make_spec("spectral", sample_rate=16_000, channels=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_second_run_embeds_nothing_and_any_number_of_workers_gives_the_same(
    make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    files = sorted(make_clips("normal", 8).iterdir())
    first = list(extract(files, SPEC, store=tmp_path / "store", workers=2))
    again = list(extract(files, SPEC, store=tmp_path / "store", workers=1))
    plain = list(extract(files, SPEC, workers=0))
    assert [found.path for found in first] == files
    assert not any(found.cached for found in first)
    assert all(found.cached for found in again)
    for one, two, three in zip(first, again, plain, strict=True):
        assert one.features is not None
        assert two.features is not None
        assert three.features is not None
        np.testing.assert_array_equal(one.features.embedding, two.features.embedding)
        np.testing.assert_array_equal(one.features.embedding, three.features.embedding)
        np.testing.assert_array_equal(one.features.sketch_BC, two.features.sketch_BC)
        assert one.features.level_db == two.features.level_db


def test_a_changed_recording_or_setting_is_embedded_again(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    files = sorted(make_clips("normal", 2).iterdir())
    list(extract(files, SPEC, store=tmp_path / "store", workers=0))
    sf.write(files[0], hum(77), 16_000)
    found = list(extract(files, SPEC, store=tmp_path / "store", workers=0))
    assert [one.cached for one in found] == [False, True]
    other = make_spec("spectral", sample_rate=16_000, channels=1, pooling="mean")
    assert not any(one.cached for one in extract(files, other, store=tmp_path / "store", workers=0))


def test_damaged_entries_are_made_again(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    files = sorted(make_clips("normal", 3).iterdir())
    (one, *_) = extract(files, SPEC, store=tmp_path / "store", workers=0)
    assert one.features is not None
    store = EmbeddingStore(tmp_path / "store", SPEC)
    entry = store.path(one.features.sha256)
    whole = entry.read_bytes()
    rng = np.random.default_rng(0)
    for position in [*rng.integers(0, len(whole), 60), 0, len(whole) - 1]:
        broken = bytearray(whole)
        broken[position] ^= 1 << int(rng.integers(8))
        entry.write_bytes(bytes(broken))
        found = store.get(one.features.sha256)
        if found is not None:  # a bit that carries nothing, such as white space of the header
            np.testing.assert_array_equal(found.embedding, one.features.embedding)
    entry.write_bytes(whole[: len(whole) // 2])
    again = list(extract(files, SPEC, store=tmp_path / "store", workers=0))
    assert [found.cached for found in again] == [False, True, True]
    assert entry.read_bytes() == whole


def test_bad_recordings_are_set_aside_and_the_rest_goes_on(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_clips("normal", 6)
    (folder / "clip_001.wav").write_bytes(b"RIFFgarbage")
    (folder / "clip_003.wav").write_bytes(b"")
    found = list(extract(sorted(folder.iterdir()), SPEC, workers=2))
    assert [one.error is None for one in found] == [True, False, True, False, True, True]
    assert "is cut off within its header" in str(found[1].error)
    assert "empty" in str(found[3].error)


def _crash_or_hang(path: Path) -> str:
    if "crash" in path.name:
        os.kill(os.getpid(), signal.SIGKILL)
    while "hang" in path.name:
        pass
    return path.name


def test_a_crash_or_hang_of_a_worker_costs_one_recording() -> None:
    names = [Path(name) for name in ("a", "crash", "b", "hang", "c", "d")]
    found = list(isolated(_crash_or_hang, names, workers=2, timeout=2))
    assert [one if isinstance(one, str) else str(one.error) for one in found] == [
        "a",
        f"crash: crashed the decoder or encoder (exit code {-signal.SIGKILL}). Remove it or record it again.",
        "b",
        "hang: took longer than 2 s and was given up. Remove it or record it again.",
        "c",
        "d",
    ]


def test_results_come_together_but_none_waits_for_one_that_takes_long() -> None:
    names = [Path(name) for name in ("a", "b", "c", "d", "hang")]
    here = list(isolated_together(_crash_or_hang, names[:4], Together(3, patience_s=60), workers=0, timeout=2))
    assert here == [["a", "b", "c"], ["d"]]
    results = isolated_together(_crash_or_hang, names, Together(64, patience_s=0.1), workers=2, timeout=5)
    before: list[str] = []
    for together in results:
        if not isinstance(together[0], str):
            break
        before += together
    assert before == ["a", "b", "c", "d"]
    assert "took longer" in str(together[0].error)


@pytest.mark.parametrize("rate", [8_000, 16_000, 25_600, 48_000])
def test_spectral_works_at_any_rate_and_channel_count(rate: int) -> None:
    spec = make_spec("spectral", sample_rate=rate, channels=2)
    embedder = Embedder(spec)
    vector = embedder.embed(np.stack([hum(1, rate=rate), hum(2, rate=rate)]))
    assert vector.shape == (2 * 128 * (2 + len(LAGS)),)
    single = Embedder(make_spec("spectral", sample_rate=rate, channels=1))
    np.testing.assert_array_equal(vector[: len(vector) // 2], single.embed(hum(1, rate=rate)[None]))


def test_a_normalised_embedding_does_not_hear_the_gain() -> None:
    embedder = Embedder(SPEC)
    loud, quiet = hum(1)[None], hum(1)[None] * np.float32(0.1)
    np.testing.assert_allclose(
        embedder.analyse(loud, sample_rate=16_000).embedding,
        embedder.analyse(quiet, sample_rate=16_000).embedding,
        atol=1e-2,
    )
    recorded = Embedder(make_spec("spectral", sample_rate=16_000, channels=1, level="recorded"))
    assert np.abs(recorded.embed(loud) - recorded.embed(quiet)).max() > 10


def test_a_full_scale_sine_reads_zero_decibels_in_its_band() -> None:
    sine = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    spectral = Spectral(bands=64)
    levels = spectral.log_mel(sine).mean(axis=0)
    assert abs(spectral.centres_hz_M[levels.argmax()] - 1000) < 60
    assert -9 < levels.max() <= 1


def test_pooling_equations() -> None:
    frames = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    parts = {name: pool(frames, name) for name in list_poolings()}
    np.testing.assert_allclose(parts["mean"], frames.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(parts["std"], frames.std(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(parts["max"], frames.max(axis=0))
    expected = [np.abs(frames[lag:] - frames[:-lag]).mean(axis=0) for lag in LAGS]
    np.testing.assert_allclose(parts["variation"], np.concatenate(expected), rtol=1e-5)
    np.testing.assert_array_equal(pool(frames, "max+mean"), np.concatenate([parts["max"], parts["mean"]]))
    with pytest.raises(ValueError, match="median"):
        pool(frames, "mean+median")


def test_a_sketch_keeps_levels_to_a_quarter_decibel() -> None:
    levels = np.random.default_rng(0).uniform(-100, 10, size=(40, 16)).astype(np.float32)
    np.testing.assert_allclose(sketch_db(make_sketch(levels)), levels.T, atol=0.26)
    assert make_sketch(np.repeat(levels, 10, axis=0)).shape == (16, 100)


def test_the_fingerprint_depends_on_every_setting() -> None:
    seen = {SPEC.fingerprint()}
    for change in ({"layer": "x"}, {"pooling": "mean"}, {"level": "recorded"}, {"channels": 2},
                   {"sample_rate": 8_000}, {"config": {"bands": 64}}, {"weights_sha256": "0"}):  # fmt: skip
        seen.add(EmbeddingSpec(**{**SPEC.model_dump(), **change}).fingerprint())
    assert len(seen) == 8


@pytest.mark.parametrize("rows", [1, 2, 99, 100, 151, 200, 311, 640, 1_700])
def test_sums_over_groups_have_the_bits_of_numpy(rows: int) -> None:
    """Sketches and short-time levels of stored models stay what they are."""
    values_ND = np.random.default_rng(rows).normal(size=(rows, 7))
    edges = np.linspace(0, rows, min(100, rows) + 1).round().astype(int)
    np.testing.assert_array_equal(group_sums(values_ND, edges), np.add.reduceat(values_ND, edges[:-1], axis=0))
