"""Every kind of part has its conformance checks: all of Harken's pass them, and broken ones are found out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml

from conftest import SIZES
from harken.bench.recipe import load_recipe
from harken.bench.stages import Context, Input, Stage, list_stages, stage_class
from harken.bench.stages.base import Settings
from harken.bench.stages.checks import check_stage
from harken.bench.stages.tables import score_rows
from harken.core.errors import HarkenError
from harken.data.clips import Clip
from harken.data.labels import ClassKey, LabelPolicy, label_clips, list_policies
from harken.data.policy_checks import check_label_policy
from harken.ensemble.custom import Search
from harken.ensemble.objective import Objective
from harken.ensemble.problem import SEARCHES, search_of
from harken.ensemble.search import SearchSettings
from harken.ensemble.search_checks import check_search
from harken.evaluation.scores import Scores, write_scores
from harken.plant.simulate import simulate
from harken.training.augment.checks import check_augmentation
from harken.training.augment.custom import WaveAugmentation
from harken.training.augment.noise_mix import NoiseMix
from harken.training.augment.shift import Shift
from harken.training.losses import list_losses
from test_pipeline import run

torch = pytest.importorskip("torch")

from harken.training.losses.arcface import ArcFace  # noqa: E402
from harken.training.losses.base import ClassLoss  # noqa: E402
from harken.training.losses.checks import check_loss  # noqa: E402

# --- Harken's


@pytest.mark.parametrize("name", list_losses())
def test_losses(name: str) -> None:
    check_loss(name)


@pytest.mark.parametrize("name", list_policies())
def test_policies(name: str) -> None:
    check_label_policy(name)


@pytest.mark.parametrize("name", SEARCHES)
def test_searches(name: str) -> None:
    check_search(name)


class _WithNoise:
    """NoiseMix with a noise of its own."""

    def apply(self, wave_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noise_S = np.random.default_rng(5).normal(size=8000).astype(np.float32)
        return NoiseMix(probability=1).apply(wave_S, lambda rng: noise_S, rng)


@pytest.mark.parametrize("make", [Shift, partial(Shift, gain_db=6.0), _WithNoise])
def test_augmentations(make: Any) -> None:
    if isinstance(make, partial):
        check_augmentation(Shift, make.keywords)
    else:
        check_augmentation(make)


#: parameters under which stages run in a moment; those with a network are tried in test_finetune, remix with what it
#: mixes in test_separate_stages, screen with what it screens in test_generate_stages
SMALL: dict[str, dict[str, Any]] = {
    "autoencoder": {"epochs": 1},
    "frames": {},
    "detect": {"detector": "knn"},
    "pretrain": {"size": "tiny", "steps": 2, "batch": 2, "clones": 2, "seconds": 0.5, "decoder": {"layers": 1}},
    "train_diffusion": {"size": "tiny", "training": {"steps": 2, "batch": 2, "seconds": 0.5}},
    "train_classifier": {"size": "tiny", "training": {"steps": 2, "batch": 2, "seconds": 0.5}},
    "generate": {"sampling": {"steps": 2}},
    "finetune_tangoflux": {"weights": None, "size": "tiny", "training": {"steps": 1, "batch": 1, "warmup": 0}},
    "train_separator": {
        "size": "tiny",
        "config": {"features": 8, "stages": 1},
        "training": {"steps": 1, "seconds": 0.25, "warmup": 0},
    },
}


#: they read what cannot be made up
DEPENDENT = ("train", "embed_trained", "reconstruct", "import_clips", "remix", "generation_report", "screen")


@pytest.mark.parametrize("name", [name for name in list_stages() if name not in DEPENDENT])
def test_stages(name: str) -> None:
    check_stage(name, SMALL.get(name))


# --- broken ones


def broken(check: Any, thing: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(thing)


class Forgetful(ArcFace):
    def forward(self, embedding_BD: Any, target: Any) -> Any:
        return super().forward(embedding_BD.detach(), target)


class Backwards(ArcFace):
    def forward(self, embedding_BD: Any, target: Any) -> Any:
        return -super().forward(embedding_BD, target)


class Vector(ClassLoss):
    def _loss(self, x_BD: Any, target: Any) -> Any:
        return x_BD.sum(dim=1)

    def _logits(self, x_BD: Any) -> Any:
        return x_BD[:, : self.classes]


def test_broken_losses() -> None:
    broken(check_loss, Forgetful, "Forgetful .*gradient")
    broken(check_loss, Backwards, "separate three classes")
    broken(check_loss, Vector, r"It is of shape \(12,\)")


class ByName(LabelPolicy):
    def class_of(self, clip: Clip) -> ClassKey | None:
        return ClassKey((clip.path.stem,))


class One(LabelPolicy):
    def class_of(self, clip: Clip) -> ClassKey | None:
        return ClassKey(("all",))


class Loose(LabelPolicy):
    def class_of(self, clip: Clip) -> Any:
        return clip.machine


def test_broken_policies() -> None:
    broken(check_label_policy, ByName, "Renamed and in another order")
    broken(check_label_policy, One, "nothing to classify")
    broken(check_label_policy, Loose, "It gives a str")


class Drawn(WaveAugmentation):
    def apply(self, wave_S: Any, rng: Any) -> Any:
        return wave_S * np.float32(np.random.default_rng().uniform(0.5, 1))


class InPlace(WaveAugmentation):
    def apply(self, wave_S: Any, rng: Any) -> Any:
        wave_S *= np.float32(rng.uniform(0.5, 1))
        return wave_S


class Shorter(WaveAugmentation):
    def apply(self, wave_S: Any, rng: Any) -> Any:
        return wave_S[rng.integers(2) :]


def test_broken_augmentations() -> None:
    broken(check_augmentation, Drawn, "has a state, or another generator")
    broken(check_augmentation, InPlace, "It was changed in place")
    broken(check_augmentation, Shorter, "samples give shape")


class Blind(Search):
    def weights(self, objective: Objective, settings: SearchSettings) -> Any:
        return np.ones(objective.members)


class Negative(Search):
    def weights(self, objective: Objective, settings: SearchSettings) -> Any:
        return -np.ones(objective.members)


def test_broken_searches() -> None:
    broken(check_search, Blind, "the plain mean")
    broken(check_search, Negative, "They are")


class Odd(Stage):
    """Makes something else than it says."""

    makes = "scores"
    inputs: ClassVar = {"embeddings": Input("embeddings")}

    class Parameters(Settings):
        """text: that is written."""

        text: str = "x"
        name: str = "scores.txt"

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        (context.out / parameters.name).write_text(parameters.text)


class Clock(Odd):
    """Writes something else every time."""

    count: ClassVar = [0]

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        cls.count[0] += 1
        (context.out / "scores.parquet").write_text(str(cls.count))


class Meddling(Odd):
    """Writes into its input."""

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        (context.out / "scores.parquet").write_text("")
        (context.folder("embeddings") / "note.txt").write_text("")


class Unsure(Odd):
    """Scores test clips only."""

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        test = [clip for clip in context.clips if clip.split == "test"]
        write_scores(Scores.of_rows(score_rows(test, np.zeros(len(test)))), context.out / "scores.parquet")


class Unknown(Odd):
    """Makes what there is not."""

    makes = "sores"  # type: ignore[assignment]


def test_broken_stages() -> None:
    broken(check_stage, Odd, "There is no scores.parquet")
    broken(check_stage, Clock, "scores.parquet differ")
    broken(check_stage, Meddling, "An input was changed")
    broken(check_stage, Unsure, "No training clip has a score")
    broken(check_stage, Unknown, "It makes 'sores'")


# --- names


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("finetune", {"stages.train.training.losses": [{"name": "scadacs"}]}, "unknown loss 'scadacs'. .* scadacos"),
        ("finetune", {"stages.train.training.augmentation": {"mixip": {}}}, "unknown augmentation 'mixip'. .* mixup"),
        ("finetune", {"stages.labels.policy": "tuhee"}, "unknown policy 'tuhee'. Did you mean thuee"),
        ("finetune", {"stages.labels.policy": "tuhee.py"}, "Write it as tuhee.py:Class"),
        ("finetune", {"ensembles": {"x": {"members": ["best"], "search": {"method": "gredy"}}}}, "Did you mean greedy"),
        ("spectral_knn", {"stages.nearest.detector": "knm"}, "unknown detector 'knm'. Did you mean knn"),
        ("spectral_knn", {"stages.embed.encoder": "spectrl"}, "unknown encoder 'spectrl'. Did you mean spectral"),
        ("finetune", {"stages.train.training.augmentation": {"custom": [{"name": "shift"}]}}, "write file.py:Class"),
    ],
)  # fmt: skip
def test_unknown_names_are_refused_before_anything_runs(recipe: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HarkenError, match=message):
        load_recipe(recipe, changes=changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [True]}, "seeds.0: yes is no number"),
        ({"seeds": [2**31]}, "seeds are different whole numbers from 0 to 2147483647"),
        ({"score_years": [False]}, "score_years.0: no is no number"),
        ({"stages.noisy": {"use": "mix", "copies": True}}, "stages.noisy.copies: yes is no number"),
        ({"stages.nearest.parameters": {"neighbors": 3}}, "stages.nearest: knn has no parameter 'neighbors'. Did you"),
        ({"stages.nearest.parameters": {"neighbours": -3}}, "stages.nearest: neighbours: .* greater than 0, not -3"),
        ({"stages.nearest.parameters": {"neighbours": True}}, "neighbours: .* valid integer, not True"),
        ({"stages.nearest.parameters": {"space": "raww"}}, "space: Input should be 'standard' or 'raw', not 'raww'"),
        (
            {"stages.nearest.detector": "fusion", "stages.nearest.parameters": {"members": [
                {"detector": "lof", "parameters": {"neighbours": 0}}]}},
            "stages.nearest: neighbours: Input should be greater than 0",
        ),
        ({"ensembles": {"x": ["spectral_knn"]}}, "ensemble x does not list its members. Write members: "),
        ({"ensembles": {"x": None}}, "ensemble x does not list its members"),
        ({"ensembles": {"x": {"members": [["spectral_knn"]]}}}, "ensemble x has a member .*, which is no system"),
        ({"ensembles": {"x": {"members": ["spectral_knn"] * 2}}}, "has the member 'spectral_knn' twice"),
        ({"ensembles": {"x": {"members": {"spectral_knn": 0}}}}, "ensembles.x.members: all weights are 0"),
        ({"ensembles": {"x": {"members": {"spectral_knn": float("inf")}}}}, "should be a finite number"),
        ({"ensembles": {"x": {"members": {"spectral_knn": True}}}}, "members.spectral_knn: yes is no number"),
    ],
)  # fmt: skip
def test_odd_values_are_refused_before_anything_runs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HarkenError, match=message):
        load_recipe("spectral_knn", changes=changes)


POLICY = """
from harken.data.labels import LabelPolicy

class Machines(LabelPolicy):
    def __init__(self, sections=True):
        self.sections = sections

    def class_of(self, clip):
        parts = (clip.machine, clip.section) if self.sections else (clip.machine,)
        return self.metadata(clip, *parts) if clip.split == "train" else None
"""
SEARCH = """
import numpy as np
from harken.ensemble.custom import Search

class Best(Search):
    def weights(self, objective, settings):
        return np.eye(objective.members)[np.argmax(objective(np.eye(objective.members)))]
"""


def test_custom_policies_and_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policy.py").write_text(POLICY)
    Path("search.py").write_text(SEARCH)
    check_label_policy("policy.py:Machines", {"sections": False})
    check_search("search.py:Best")
    clips = [
        Clip(f"{machine}{section}", Path("x"), split="train", machine=machine, section=section)
        for machine in ("fan", "pump")
        for section in ("00", "01")
    ]
    assert len(label_clips(clips, "policy.py:Machines")) == 4
    assert len(label_clips(clips, "policy.py:Machines", parameters={"sections": False})) == 2
    with pytest.raises(HarkenError, match=r"policy.py: has no class Machine. Did you mean Machines"):
        label_clips(clips, "policy.py:Machine")
    labels = stage_class("labels")
    parameters = labels.Parameters.model_validate({"policy": "policy.py:Machines"})
    before = labels.identity(parameters)
    Path("policy.py").write_text(POLICY + "\n")
    assert labels.identity(parameters) != before
    Path("search.py").write_text(SEARCH.replace("np.eye(objective.members)[", "-np.eye(objective.members)["))
    with pytest.raises(HarkenError, match=r"search.py:Best: does not return 3 finite weights"):
        search_of("search.py:Best")(_objective(3), SearchSettings())
    with pytest.raises(HarkenError, match=r"unknown method 'gredy'. Did you mean greedy"):
        search_of("gredy")


def _objective(members: int) -> Objective:
    from harken.ensemble.search_checks import objective

    return objective(members)


def test_a_recipe_names_custom_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = yaml.safe_load(load_recipe("finetune").as_yaml())
    data["stages"]["labels"]["policy"] = "policy.py:Machines"
    Path("r.yaml").write_text(yaml.safe_dump(data))
    assert load_recipe("r.yaml").stages["labels"].parameters["policy"] == "policy.py:Machines"


NETWORK = """
import torch
from harken.encoders.wave_network import WaveNetwork

class Conv(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = torch.nn.Conv1d(1, width, 400, stride=160)
        self.last = torch.nn.Conv1d(width, width, 3, padding=1)

    def forward(self, wave_BS):
        return self.last(torch.relu(self.first(wave_BS[:, None]))).transpose(1, 2)

class Small(WaveNetwork):
    name, sample_rate, min_samples = "small", 16_000, 400

    def network(self, width=8):
        return Conv(width)
"""
LOSS = """
from torch.nn import functional as F
from harken.training.losses.arcface import ArcFace

class Smooth(ArcFace):
    def _loss(self, x_BD, target):
        return F.cross_entropy(10 * self._logits(x_BD), target, label_smoothing=0.1)
"""
STAGE = """
import numpy as np
from harken.bench.stages import Input, Stage
from harken.bench.stages.tables import read_arrays, read_ids, write_arrays, write_ids

class Whitened(Stage):
    '''Embeddings with each dimension at unit deviation.'''
    makes, inputs = "embeddings", {"embeddings": Input("embeddings")}

    @classmethod
    def run(cls, parameters, context):
        folder = context.folder("embeddings")
        x_ND = read_arrays(folder / "embeddings.safetensors")["embeddings"]
        scaled_ND = (x_ND / (x_ND.std(axis=0) + 1e-6)).astype(np.float32)
        write_arrays(context.out / "embeddings.safetensors", embeddings=scaled_ND)
        write_ids(context.out, *read_ids(folder))
"""
RECIPE = """
name: mine
title: A custom network, loss and stage
stages:
  labels: {use: labels, policy: thuee}
  train:
    use: train
    from: labels
    model: {branches: [{encoder: "network.py:Small", config: {width: 6}}]}
    training:
      steps: 6
      batch: 4
      seconds: 1.0
      evaluate_every: 3
      learning_rate: 1e-3
      losses: [{name: "loss.py:Smooth"}]
  embed: {use: embed_trained, from: train}
  whitened: {use: "stage.py:Whitened", from: embed}
  nearest: {use: detect, from: whitened, detector: knn}
systems: {mine: nearest}
profiles: {tiny: {}}
"""


def test_a_recipe_with_a_custom_network_loss_and_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"network.py": NETWORK, "loss.py": LOSS, "stage.py": STAGE, "mine.yaml": RECIPE}
    for name, text in files.items():
        Path(name).write_text(text.lstrip())
    assert len(RECIPE.strip().splitlines()) <= 25
    simulate(tmp_path / "plant", machines=["fan"], **SIZES)  # type: ignore[arg-type]
    check_loss("loss.py:Smooth")
    check_stage("stage.py:Whitened")
    done, _ = run(tmp_path / "plant", tmp_path / "w", "mine.yaml")
    assert not done.failures
    assert done.systems[0].result is not None
    assert run(tmp_path / "plant", tmp_path / "w", "mine.yaml")[1] == []
    # Each file is part of what is made of it.
    for name, stage in (("stage.py", "whitened"), ("loss.py", "train"), ("network.py", "train")):
        Path(name).write_text(Path(name).read_text() + "\n")
        started = run(tmp_path / "plant", tmp_path / "w", "mine.yaml")[1]
        assert started[0].startswith(stage)
