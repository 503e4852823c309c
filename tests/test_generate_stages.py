"""Stages around generation: clips of rare conditions on a plant, screened and learned from; and where that fails."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import SIZES, needs
from harken.bench.derived import check_derived
from harken.bench.plan import make_plan
from harken.bench.recipe import load_recipe
from harken.bench.run import load_clips
from harken.bench.stages import Context, stage_class
from harken.bench.stages.tables import read_clips, read_ids
from harken.bench.unlearned import unscreened_conditions
from harken.core.errors import HarkenError
from harken.data.clips import Clip
from harken.encoders import create_encoder, encoder_class, list_encoders, tiny_config
from harken.encoders.spectrogram_file import read_spectrogram
from harken.encoders.torch_encoder import TorchEncoder
from harken.generation.conditions import ConditionKey, read_conditions
from harken.generation.diffusion_settings import FrontEndSpec
from harken.generation.front_end import SpectrogramFrontEnd
from harken.generation.screening import confidence_limit, counts_by_condition, screen
from harken.plant.simulate import simulate
from test_finetune import objects
from test_pipeline import contents, run

pytestmark = needs("diffusers")
PAGE = (Path(__file__).parents[1] / "docs" / "generation.md").read_text(encoding="utf-8")
(RECIPE,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.S | re.M)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant")
    simulate(root, machines=["fan"], **SIZES)  # type: ignore[arg-type]
    return root


@pytest.fixture(scope="module")
def workspace(plant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the recipe of the page was run, whatever confidence its classifier has."""
    root = tmp_path_factory.mktemp("workspace")
    (root / "recipe.yaml").write_text(RECIPE)
    done, _ = run(plant, root / "w", str(root / "recipe.yaml"), changes={"stages.kept.limit": 1.0})
    assert not done.failures
    return root / "w"


def of_stage(plant: Path, name: str, inputs: dict[str, tuple[Path, ...]], folder: Path) -> Context:
    clips = [clip for clip in load_clips(plant)[0] if clip.split == "train"]
    for given in inputs.get("clips", ()):
        clips += read_clips(given)
    for place in ("out", "scratch"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    return Context(clips, inputs, folder / "out", folder / "scratch", folder, folder / "logs", seed=0, workers=1)


def made(name: str, context: Context, **parameters: Any) -> list[Clip]:
    cls = stage_class(name)
    cls.run(cls.Parameters.model_validate(parameters), context)
    rows = read_clips(context.out)
    check_derived(rows, context.clips, cls, context.out)
    return rows


def test_rare_conditions_get_clips_that_are_learned_from(plant: Path, workspace: Path) -> None:
    recorded = {clip.clip_id: clip for clip in load_clips(plant)[0]}
    (folder,) = objects(workspace, "generate")
    clips, details = read_clips(folder), json.loads((folder / "generated.json").read_text())
    (conditions,) = objects(workspace, "rare_conditions")
    wanted = {row.key: row.generate for row in read_conditions(conditions / "conditions.csv") if row.generate}
    assert Counter(ConditionKey.of(clip) for clip in clips) == wanted
    encoder = create_encoder("beats", tiny_config("beats"))
    for clip in clips:
        parent = recorded[clip.parents[0]]
        assert (clip.kind, clip.payload, clip.split, clip.condition) == ("generated", "spectrogram", "train", "normal")
        assert (clip.attributes, clip.section) == (parent.attributes, parent.section)
        front_end, spectrogram = read_spectrogram(clip.path)
        assert front_end == encoder.front_end()
        assert spectrogram.samples == clip.frames == 16_000
        row = details[clip.clip_id]
        assert row["condition"] == str(ConditionKey.of(parent))
        assert row["caption"].startswith("the sound of a fan")
        assert (row["generator"], len(row["model_sha256"])) == ("small_diffusion", 64)
    assert len({row["seed"] for row in details.values()}) == len(clips)
    (screened,) = objects(workspace, "screen")
    report = json.loads((screened / "screening.json").read_text())
    assert [row["clip_id"] for row in report["clips"]] == [clip.clip_id for clip in clips]
    kept = read_clips(screened)
    assert len(kept) == sum(count["kept"] for count in report["conditions"].values())
    (training,) = objects(workspace, "train")
    assert set(read_ids(training)[0]) >= {clip.clip_id for clip in kept}


def test_a_run_on_kept_clips_is_repeated_without_work(plant: Path, workspace: Path) -> None:
    changes = {"stages.kept.limit": 1.0}
    done, started = run(plant, workspace, str(workspace.parent / "recipe.yaml"), changes=changes)
    assert started == []
    tests = {clip.clip_id for clip in load_clips(plant)[0] if clip.split == "test"}
    assert set(done.systems[0].scores.test.clip_id) == tests


@pytest.mark.parametrize("name", ["train_diffusion", "train_classifier"])
def test_a_training_that_was_killed_ends_with_the_same_bits(plant: Path, tmp_path: Path, name: str) -> None:
    training = {"steps": 4, "batch": 3, "seconds": 0.5, "warmup": 1, "evaluate_every": 2}
    parameters = {"size": "tiny", "training": training, "save_every": 1}
    cls = stage_class(name)
    whole = of_stage(plant, name, {}, tmp_path / "whole")
    cls.run(cls.Parameters.model_validate(parameters), whole)

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == 3:
            raise Killed

    used = of_stage(plant, name, {}, tmp_path / "killed")
    with pytest.raises(Killed):
        cls.run(cls.Parameters.model_validate(parameters), replace(used, progress=kill))
    cls.run(cls.Parameters.model_validate(parameters), used)
    assert contents(used.out) == contents(whole.out)
    losses = [row["loss"] for row in json.loads((used.out / "history.json").read_text())["evaluations"]]
    assert len(losses) == 2
    assert np.isfinite(losses).all()


def test_generation_goes_on_where_it_was_killed(plant: Path, workspace: Path, tmp_path: Path) -> None:
    inputs = {"conditions": (objects(workspace, "rare_conditions")[0],),
              "generator": (objects(workspace, "train_diffusion")[0],)}  # fmt: skip
    parameters = {"sampling": {"steps": 2}}
    whole = {clip.clip_id: clip.path.read_bytes() for clip in made(
        "generate", of_stage(plant, "generate", inputs, tmp_path / "a"), **parameters
    )}  # fmt: skip

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        raise Killed

    used = of_stage(plant, "generate", inputs, tmp_path / "b")
    with pytest.raises(Killed):
        made("generate", replace(used, progress=kill), **parameters)
    times = {file.name: file.stat().st_mtime_ns for file in used.scratch.iterdir()}
    assert len(times) == 2
    again = made("generate", used, **parameters)
    assert {file.name: file.stat().st_mtime_ns for file in used.scratch.iterdir()}.items() >= times.items()
    assert {clip.clip_id: clip.path.read_bytes() for clip in again} == whole
    # Shards do the same.
    cls, shared = stage_class("generate"), of_stage(plant, "generate", inputs, tmp_path / "c")
    for index in range(2):
        cls.run_shard(cls.Parameters.model_validate(parameters), shared, index, 2)
    assert {clip.clip_id: clip.path.read_bytes() for clip in made("generate", shared, **parameters)} == whole


class Says:
    """A classifier that says what it was given."""

    classes = ("a", "b")

    def __init__(self, *b: float) -> None:
        self.b = b

    def intended(self, clip: Clip) -> int | None:
        return {"a": 0, "b": 1}.get(clip.section)

    def probabilities(self, clips: list[Clip]) -> list[np.ndarray]:
        return [np.array([1 - b, b]) for b, _ in zip(self.b, clips, strict=True)]


def test_clips_are_kept_that_are_recognised_but_not_too_surely() -> None:
    clips = [Clip(str(row), Path(), section=section) for row, section in enumerate("bbbac")]
    rows = screen(clips, Says(0.99, 0.8, 0.2, 0.1, 0.5), 0.9)
    assert [row.verdict for row in rows] == ["too confident", "kept", "another class", "kept", "unusable"]
    assert (rows[2].intended, rows[2].predicted, rows[2].confidence) == ("b", "a", 0.8)
    counts = list(counts_by_condition(rows).values())
    assert (sum(count.kept for count in counts), sum(count.made for count in counts)) == (2, 5)
    assert screen(clips[:1], Says(0.99), None)[0].verdict == "kept"
    assert confidence_limit([0.5, 0.9, 0.7], 0.5) == 0.7
    assert confidence_limit([], 0.5) is None


def test_the_limit_comes_from_held_out_real_clips(plant: Path, workspace: Path, tmp_path: Path) -> None:
    """Of the plant's conditions none has ten clips; a limit of which nothing is left is reported."""
    (generated,), (classifier,) = objects(workspace, "generate"), objects(workspace, "train_classifier")
    context = of_stage(
        plant, "screen", {"clips": (generated,), "classifier": (classifier,)}, tmp_path / "kept"
    )  # fmt: skip
    made("screen", context)
    assert "no limit of confidence" in (context.out / "notes.json").read_text()
    context = of_stage(plant, "screen", {"clips": (generated,), "classifier": (classifier,)}, tmp_path / "none")
    assert made("screen", context, limit=1e-6) == []
    notes = json.loads((context.out / "notes.json").read_text())
    assert any(
        re.match(r"screen: none of \d+ generated clips of \S*fan section 00 target: spd=", note) for note in notes
    )


def test_screening_by_a_network_of_a_train_stage(plant: Path, workspace: Path, tmp_path: Path) -> None:
    (generated,), (model,), (labels,) = (objects(workspace, kind) for kind in ("generate", "train", "labels"))
    inputs = {"clips": (generated,), "model": (model,), "labels": (labels,)}
    context = of_stage(plant, "screen", inputs, tmp_path)
    made("screen", context, classifier="trained")
    report = json.loads((context.out / "screening.json").read_text())
    assert report["most_confidence"] is None
    for row in report["clips"]:
        assert row["verdict"] in ("kept", "another class")
        assert row["intended"] is not None
        assert (row["verdict"] == "kept") == (row["intended"] == row["predicted"])
    with pytest.raises(HarkenError, match="classifier: xception reads classifier"):
        made("screen", of_stage(plant, "screen", inputs, tmp_path / "other"))


@pytest.mark.parametrize(
    "name",
    [name for name in list_encoders() if issubclass(encoder_class(name), TorchEncoder)
     and encoder_class(name).takes_spectrograms],
)  # fmt: skip
def test_front_ends_are_those_of_published_sizes(name: str) -> None:
    made_here = SpectrogramFrontEnd(FrontEndSpec(encoder=name), 2.0)
    full = create_encoder(name, {**encoder_class(name).sizes.get("full", {}), "seed": 1})
    assert made_here.front_end == full.front_end()
    (silent,) = full.spectrogram(np.zeros((1, made_here.samples), np.float32))
    assert silent.windows[0].shape == made_here.form.shape


def test_a_plan_knows_what_generation_costs(plant: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    plan = make_plan(load_recipe(str(tmp_path / "recipe.yaml"), profile="full"), plant, None)
    rows = {row["stage"]: row for row in plan["stages"]}
    assert rows["diffusion"]["network_parameters"] == pytest.approx(28e6, rel=0.1)
    assert rows["generated"]["clips"] > 0
    assert rows["xception"]["network_parameters"] == pytest.approx(20.8e6, rel=0.02)
    for name in ("diffusion", "xception", "generated"):
        assert rows[name]["seconds"] > 0
        assert rows[name]["memory"] > 1e8
    assert not any(row["unknown"] for row in rows.values())
    # What learns from generated clips is planned with all of them.
    real = sum(clip.split == "train" and clip.kind == "machine" for clip in load_clips(plant)[0])
    assert rows["kept"]["clips"] == rows["generated"]["clips"]
    assert rows["labels"]["clips"] == rows["train"]["clips"] + rows["train"]["held_out"]
    assert rows["labels"]["clips"] == real + rows["generated"]["clips"]


UNSEEN = """\
machine,section,domain,attributes,generate
fan,00,source,spd=24V,1
fan,00,target,spd=99V,2
fan,00,target,spd=98V,1
"""


def test_conditions_that_a_generator_does_not_learn_are_refused_before_anything_runs(
    plant: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    corpus = load_clips(plant)[0][0].corpus
    rows = UNSEEN.splitlines()
    (tmp_path / "mine.csv").write_text("\n".join([f"corpus,{rows[0]}", *(f"{corpus},{row}" for row in rows[1:])]))
    changes = {"stages.rare.table": str(tmp_path / "mine.csv"), "stages.rare.unseen": True}
    message = r"stage generated: diffusion learns nothing of \S*fan section 00 target: spd=98V and 1 more condition"
    with pytest.raises(HarkenError, match=message):
        run(plant, tmp_path / "w", str(tmp_path / "recipe.yaml"), changes=changes)
    assert not list(tmp_path.glob("w/objects/*/*"))
    missing = make_plan(load_recipe(str(tmp_path / "recipe.yaml"), changes=changes), plant, None)["missing"]
    assert any(re.search(message, line) for line in missing)


def test_conditions_that_a_classifier_does_not_learn_are_found(plant: Path, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    clips = load_clips(plant)[0]
    older = [replace(clip, year=2024) for clip in clips if clip.attributes.get("spd") == "24V"]
    changes = {"stages.xception.years": [2024]}
    recipe = load_recipe(str(tmp_path / "recipe.yaml"), changes=changes)
    (note,) = unscreened_conditions(recipe, [*older, *(clip for clip in clips if clip.attributes.get("spd") != "24V")])
    assert re.match(
        r"stage kept: xception learns nothing of \S*fan section 00 \w+: spd=.*: no clip of it is kept", note
    )
    assert unscreened_conditions(load_recipe(str(tmp_path / "recipe.yaml")), clips) == []
    # A run says so too.
    (generated,), (classifier,) = objects(workspace, "generate"), objects(workspace, "train_classifier")
    context = of_stage(plant, "screen", {"clips": (generated,), "classifier": (classifier,)}, tmp_path)
    unknown = [replace(clip, attributes={"spd": "99V"}) if clip.kind == "generated" else clip for clip in context.clips]
    made("screen", replace(context, clips=unknown), limit=1.0)
    notes = json.loads((context.out / "notes.json").read_text())
    assert notes
    assert all(note.endswith("spd=99V is kept: the classifier has not learned its condition") for note in notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages.generated.generator": "tangoflix"}, "no generator 'tangoflix'"),
        ({"stages.generated.sampling": {"step": 3}}, "step.*Did you mean steps"),
        ({"stages.generated.sampling": {"steps": 0}}, "small_diffusion: steps"),
        ({"stages.diffusion.front_end": {"encoder": "beets"}}, "no encoder 'beets'"),
        ({"stages.diffusion.config": {"channels": [7]}}, "7 channels cannot be divided"),
        ({"stages.diffusion.front_end": {"encoder": "spectral"}}, "spectral takes no spectrograms"),
        ({"stages.diffusion.training": {"steps": 1, "seconds": 100.0}}, "100 s pass through it in \\d+ windows"),
        ({"stages.generated.sampling": {"steps": 101}}, "trained with 100 steps of noise, not 101"),
    ],
)
def test_impossible_settings_are_refused(plant: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(HarkenError, match=message):
        run(plant, tmp_path / "w", str(tmp_path / "recipe.yaml"), changes=changes)
