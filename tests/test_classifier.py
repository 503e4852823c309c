"""Classes of clips by a checkpoint: what the training's own classifier says, also of spectrograms and long clips."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harken.bench.run import load_clips
from harken.bench.stages.tables import checkpoint_file
from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip
from harken.data.labels import ClassTable, label_clips
from harken.embeddings.classifier import TrainedClassifier
from harken.training.arrays import load_module, under
from harken.training.checkpoints import read_checkpoint
from harken.training.settings import TrainingSpec
from harken.training.step import TrainingStep
from test_finetune import SHORT, objects
from test_pipeline import run


@pytest.fixture(scope="module")
def trained(plant: Path, once: Callable[[str, Callable[[Path], object]], Path]) -> tuple[Path, TrainingSpec]:
    """A checkpoint of a short training, and its settings."""
    whole = once("finetune", lambda folder: run(plant, folder, "finetune", changes={**SHORT, "encoder": "dasheng"}))
    (folder,) = objects(whole, "train")
    record = json.loads((folder / "training.json").read_text())
    return checkpoint_file(folder, 0), TrainingSpec.model_validate(record["training"]["settings"])


@pytest.fixture(scope="module")
def clips(plant: Path) -> list[Clip]:
    return [clip for clip in load_clips(plant)[0] if clip.split == "train"]


def table(clips: list[Clip], policy: str = "sjtu_aithu") -> ClassTable:
    return label_clips(clips, policy)


def test_probabilities_are_those_of_the_training(trained: tuple[Path, TrainingSpec], clips: list[Clip]) -> None:
    checkpoint, training = trained
    classes = table(clips)
    classifier = TrainedClassifier.load(checkpoint, training, classes)
    (first, second, missing) = classifier.probabilities([*clips[:2], replace(clips[0], path=Path("missing.wav"))])
    assert isinstance(missing, AudioError)
    assert isinstance(first, np.ndarray)
    assert isinstance(second, np.ndarray)
    assert first.shape == (len(classes),)
    assert first.sum() == pytest.approx(1, abs=1e-5)
    stored = read_checkpoint(checkpoint)
    step = TrainingStep(
        stored.model(), training.losses, classes=len(classes), attribute_free=classes.attribute_free_classes,
        augmentation=training.augmentation,
    )  # fmt: skip
    load_module(step.losses, under(stored.arrays, "losses"))
    step.eval()
    wave_S = torch.from_numpy(classifier.embedder.reader(clips[0]))
    with torch.no_grad():
        logits_1C = step.classify(wave_S[None], torch.zeros(1, dtype=torch.long))[1]
    torch.testing.assert_close(torch.from_numpy(first), logits_1C[0].softmax(0), atol=1e-5, rtol=1e-4)


def test_a_checkpoint_of_other_classes_is_refused(trained: tuple[Path, TrainingSpec], clips: list[Clip]) -> None:
    with pytest.raises(HarkenError, match=r"was not trained on these \d+ classes"):
        TrainedClassifier.load(*trained, table([clip for clip in clips if clip.machine == "fan"]))
