"""Checkpoints of one training: recordings are decoded once for all; each gives the vectors that it gives alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from harken.bench.recipe import load_recipe
from harken.bench.run import run_recipe
from harken.bench.workspace import Workspace
from harken.core.errors import HarkenError, WeightsError
from harken.encoders import dasheng
from harken.plant.simulate import simulate
from harken.training import recordings
from harken.training.model_spec import ModelSpec
from harken.training.models import build_model
from harken.training.trained_encoder import TrainedEncoder
from test_finetune import objects

RECIPE = """
name: small
title: Small
summary: Two checkpoints and the layers of one of them.
stages:
  labels: {use: labels, policy: sjtu_aithu}
  train:
    use: train
    from: labels
    model: {branches: [{encoder: dasheng, size: tiny, head: {kind: attentive, dims: [8]}}]}
    training: {steps: 2, batch: 4, seconds: 1.0, evaluate_every: 1, keep: 2, losses: [{name: subcentre_arcface}]}
  first: {use: embed_trained, from: train, checkpoint: 0}
  second: {use: embed_trained, from: train, checkpoint: 1}
  layers: {use: embed_trained, from: train, layers: all}
  missing: {use: embed_trained, from: train, checkpoint: 2}
  nearest_1: {use: detect, from: first}
  nearest_2: {use: detect, from: second}
  nearest_layers: {use: detect, from: layers}
  nearest_missing: {use: detect, from: missing}
systems: {first: nearest_1, second: nearest_2, layers: nearest_layers, missing: nearest_missing}
"""


def test_recordings_are_decoded_once_for_all_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(
        tmp_path / "plant", machines=["fan"], train_source=5, train_target=2, test_per_condition=1, supplemental=0,
        seconds=1.0,
    )  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    decoded: list[Path] = []
    listen = recordings.listen

    def counted(path: Path, *arguments: Any) -> Any:
        decoded.append(path)
        return listen(path, *arguments)

    recipe = load_recipe(str(tmp_path / "recipe.yaml"))
    with monkeypatch.context() as patch:
        patch.setattr(recordings, "listen", counted)
        done = run_recipe(recipe, tmp_path / "plant", Workspace(tmp_path / "w"), workers=1)
    # What is wrong with one checkpoint is an error of that one alone.
    (failed,) = done.failures
    assert "there is no checkpoint 2" in str(failed)
    tests = [path for path in decoded if "test" in path.name]
    assert len(tests) == len(set(tests)) == 4
    vectors = {folder.name: embeddings(folder) for folder in objects(tmp_path / "w", "embed_trained")}
    assert len(vectors) == 3
    alone = yaml.safe_load(RECIPE)
    alone["stages"] = {name: alone["stages"][name] for name in ("labels", "train", "second", "nearest_2")}
    alone["systems"] = {"second": "nearest_2"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(alone))
    run_recipe(load_recipe(str(tmp_path / "recipe.yaml")), tmp_path / "plant", Workspace(tmp_path / "a"), workers=1)
    (folder,) = objects(tmp_path / "a", "embed_trained")
    assert embeddings(folder) == vectors[folder.name]


def embeddings(folder: Path) -> bytes:
    return (folder / "embeddings.safetensors").read_bytes()


@pytest.mark.parametrize("read", [None, "all"])
def test_windows_that_pass_together_give_their_embeddings_but_for_rounding(read: str | None) -> None:
    """As on an accelerator; on a CPU every window passes alone."""
    branch = {"encoder": "dasheng", "size": "tiny", "head": {"kind": "attentive", "dims": [8]}}
    encoder = TrainedEncoder.of(build_model(ModelSpec.model_validate({"branches": [branch]})), 0.5, read=read)
    clips = [np.random.default_rng(n).normal(size=n).astype(np.float32) * 0.1 for n in (5_000, 8_000, 21_000)]
    alone = [encoder.frames(clip_S) for clip_S in clips]
    assert [len(frames_TD) for frames_TD in alone] == [1, 1, 3]
    together = encoder.frames_of_clips(clips)
    for frames_TD, expected_TD in zip(together, alone, strict=True):
        assert frames_TD.tobytes() == expected_TD.tobytes()
    windows_BS = np.stack([np.resize(clip_S, encoder.window) for clip_S in clips])
    rows = encoder.vectors(windows_BS)
    for row_D, wave_S in zip(rows, windows_BS, strict=True):
        np.testing.assert_allclose(row_D, encoder.vectors(wave_S[None])[0], atol=1e-5)
    try:
        encoder.set_precision("bf16")
    except HarkenError:
        return  # emulated on this processor
    different = encoder.frames(clips[1]) - alone[1]
    assert 0 < np.abs(different).max() < 0.1
    assert encoder.weights().keys() == TrainedEncoder.of(encoder.model, 0.5).weights().keys()


def test_a_network_of_a_checkpoint_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    branch = {"encoder": "dasheng", "size": "tiny", "head": {"kind": "attentive", "dims": [8]}}
    encoder = TrainedEncoder.of(build_model(ModelSpec.model_validate({"branches": [branch], "seed": 3})), 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(dasheng, "_randomise", None)
        restored = TrainedEncoder(encoder.weights(), **encoder.config())
    assert {name: array.tobytes() for name, array in restored.weights().items()} == {
        name: array.tobytes() for name, array in encoder.weights().items()
    }
    with pytest.raises(WeightsError, match="a model of this spec needs"):
        TrainedEncoder({**encoder.weights(), "parts.0.net.norm.bias": np.zeros(3)}, **encoder.config())
