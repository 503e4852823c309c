"""What `harken plan` tells: complete without data and weights, and what a run then does."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import SIZES
from harken.bench import counting, devices, estimate
from harken.bench.costs import passed
from harken.bench.expected import expected_clips, expected_seconds, number_of
from harken.bench.kept_counts import kept_counts
from harken.bench.plan import make_plan
from harken.bench.recipe import Recipe, list_recipes, load_recipe
from harken.bench.work import Counts, Work
from harken.cli.main import app
from harken.cli.plan import duration
from harken.core.errors import HarkenError
from harken.data.clips import Clip
from harken.data.labels import label_clips
from harken.plant.simulate import simulate
from harken.training.model_spec import ModelSpec
from harken.training.settings import TrainingSpec
from harken.training.signals import hold_out
from harken.weights.catalog import catalog
from test_pipeline import run

SMALL = {"encoder": "dasheng", "policy": "thuee"}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant")
    simulate(root, machines=["fan", "valve"], **{**SIZES, "train_source": 24})  # type: ignore[arg-type]
    return root


def stages(plan: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [row for row in plan["stages"] if row["kind"] == kind]


def on_gpu(row: dict[str, Any]) -> list[float]:
    """Memory, and seconds by precision, of a stage on the GPU that is planned for by default."""
    gpu = row["devices"]["h200"]
    return [gpu["memory"], *gpu["seconds"].values()]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Counts networks as if they were small: which recipes tell what is another question than how much."""
    real = estimate.without_weights

    def small(model: ModelSpec) -> ModelSpec:
        plain = real(model)
        changes = {"size": "tiny", "config": {}}
        branches = tuple(branch.model_copy(update=changes) for branch in plain.branches)
        return plain.model_copy(update={"branches": branches})

    monkeypatch.setattr(estimate, "without_weights", small)
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path_factory.getbasetemp() / "small counts"))


def check_plan(recipe: Recipe, plan: dict[str, Any]) -> None:
    """That one without data and weights is complete."""
    assert plan["expected"]
    assert plan["missing"][0].startswith("data: name it with --data")
    assert any("harken data download 2025" in text for text in plan["missing"])
    for row in stages(plan, "train"):
        assert row["classes"] > 1
        assert row["steps"] >= 1
        assert row["tasks"] == len(recipe.seeds)
        assert min(row["seconds"], row["memory"], *on_gpu(row)) > 0
    assert all(row["steps"] > 1 and row["seconds"] > 0 for row in stages(plan, "autoencoder"))
    assert all(row["clips"] > 0 and row["seconds"] > 0 for row in stages(plan, "embed_trained"))
    assert plan["total"]["remaining_seconds"] == plan["total"]["seconds"] > 0
    named = {
        branch["weights"]
        for row in stages(plan, "train")
        for branch in row["parameters"]["model"]["branches"]
        if branch.get("weights") not in (None, "pretrained")
    } | {row["parameters"]["weights"] for row in stages(plan, "pretrain")}
    assert named <= {entry.name for entry in catalog()}
    for weights in named:
        assert sum(f"harken weights fetch {weights} " in text for text in plan["missing"]) == 1
    json.dumps(plan)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", sorted({*list_recipes()} - {"thuee_system2", "thuee_system3", "thuee_system4"}))
def test_plans_are_complete_without_data_and_weights(name: str) -> None:
    """Those of three large recipes are in the tests of THUEE."""
    # One year of recipes that leave it open, to be quick.
    years = "stages.labels.years" if name == "finetune" else "score_years"
    recipe = load_recipe(name, changes={years: [2025]})
    check_plan(recipe, make_plan(recipe, None, None))


@pytest.mark.usefixtures("quick")
def test_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    app(args=["plan", "nwpu_fusion"], standalone_mode=False)
    shown = capsys.readouterr()
    assert "nwpu, 2025, 187 classes, 16,500 expected clips" in shown.out
    assert "from labels: beats LoRA (beats-iter3-plus-as2m), eat LoRA (eat-large-epoch20-pretrain)" in shown.out
    assert "dcase2025 eval (expected): 8 machines" in shown.out
    assert "on one H200" in shown.out
    assert "none was measured" in shown.out
    assert "harken data download 2025" in shown.err
    assert "harken weights fetch eat-large-epoch20-pretrain" in shown.err


def test_classes_and_steps_are_those_of_the_run(plant: Path, tmp_path: Path) -> None:
    changes = {
        **SMALL, "stages.train.training.steps": None, "stages.train.training.epochs": 2,
        "stages.train.training.accumulation": 2, "stages.train.training.held_out": 0.3,
        "stages.train.training.evaluate_every": 1000,
    }  # fmt: skip
    recipe = load_recipe("finetune", profile="tiny", changes=changes)
    plan = make_plan(recipe, plant, tmp_path)
    assert not plan["expected"]
    assert plan["missing"] == []
    assert plan["total"]["remaining_seconds"] == plan["total"]["seconds"]
    run(plant, tmp_path, "finetune", changes=changes)
    (labels,) = tmp_path.glob("objects/*/*/classes.json")
    (history,) = tmp_path.glob("objects/*/*/history.json")
    (row,) = stages(plan, "labels")
    assert row["classes"] == len(json.loads(labels.read_text())["classes"])
    (row,) = stages(plan, "train")
    assert row["steps"] == json.loads(history.read_text())["evaluations"][-1]["step"]
    # What is there costs nothing more; two of the three checkpoints there are not.
    after = make_plan(recipe, plant, tmp_path)
    rows = {row["stage"]: row for row in after["stages"]}
    assert rows["train"]["remaining_seconds"] == rows["embed_1"]["remaining_seconds"] == 0
    assert rows["train"]["seconds"] > 0
    assert after["total"]["remaining_seconds"] < after["total"]["seconds"]


def test_nothing_remains_of_what_is_there(plant: Path, tmp_path: Path) -> None:
    run(plant, tmp_path, "spectral_knn", profile="full")
    plan = make_plan(load_recipe("spectral_knn"), plant, tmp_path)
    assert plan["total"]["seconds"] > 0
    assert plan["total"]["remaining_seconds"] == 0


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_clips_held_out_are_those_of_the_loop(share: float) -> None:
    clips = [
        Clip(f"{section} {number}", Path("x"), year=2025, split="train", machine="fan", section=section)
        for section, count in (("00", 9), ("01", 10), ("02", 33), ("03", 250))
        for number in range(count)
    ]
    table = label_clips(clips, "thuee")
    training = TrainingSpec(epochs=3, batch=16, accumulation=2, held_out=share, choose="last")
    told = passed(training, clips, table)
    trained, held = hold_out(table.indices(clips), share, np.random.default_rng(0))
    assert (told.trained, told.held_out) == (len(trained), len(held))
    assert told.steps == 3 * (len(trained) // 16 // 2)


def test_years_that_the_data_lack_are_told(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe("thuee_system1", profile="tiny", changes={"stages.labels.years": [2023, 2025]})
    missing = make_plan(recipe, plant, None)["missing"]
    assert any("harken data download 2023" in text for text in missing)
    arguments = ["plan", "spectral_knn", "--data", str(plant / "nowhere"), "--set", "score_years=[2025]"]
    app(args=arguments, standalone_mode=False)
    assert "nowhere" in capsys.readouterr().err


def test_expected_clips_are_those_of_the_catalogue() -> None:
    clips = expected_clips([2025])
    assert number_of(clip for clip in clips if clip.split == "train") == 15 * 1000
    assert number_of(clip for clip in clips if clip.split == "test") == 15 * 200
    assert number_of(clip for clip in clips if clip.kind == "noise") == 15 * 100
    assert len(label_clips(clips, "thuee")) == 26 + 5 + 9 + 5 + 6 + 12 + 5 + 97 + 7


# --- counting


def spec(encoder: str, **more: Any) -> ModelSpec:
    return ModelSpec.model_validate({"branches": [{"encoder": encoder, **more}]})


def test_operations_of_beats_are_those_of_its_layers() -> None:
    tokens, width, depth = 496, 768, 12
    dense = 2 * tokens * width * (4 * width + 2 * 3072)
    attention = 2 * 2 * tokens * tokens * width
    front = 2 * tokens * (256 * 512 + 512 * width) + 2 * tokens * width * 48 * 128 + 2 * 998 * 257 * 128
    counts = estimate.count_training(spec("beats"), TrainingSpec(steps=1, batch=2), 10, ())
    assert counts.forward.flops == pytest.approx(depth * (dense + attention) + front, rel=0.05)
    # The way back costs twice as much, for each of two clips.
    assert counts.batch.flops == pytest.approx(2 * 3 * counts.forward.flops, rel=0.05)
    adapted = estimate.count_training(spec("beats", adapter={"rank": 64}), TrainingSpec(steps=1, batch=2), 10, ())
    assert adapted.trainable < 0.1 * adapted.parameters
    assert adapted.batch.flops < 0.8 * counts.batch.flops


def test_memory_grows_with_the_batch_and_shrinks_by_recomputing() -> None:
    def live(batch: int, **more: Any) -> float:
        training = TrainingSpec(steps=1, batch=batch, seconds=2.0, **more)
        return estimate.count_training(spec("eat", size="tiny"), training, 10, ()).live

    assert live(4) < live(8) < live(16)
    assert live(64, recompute=True) < 0.8 * live(64)


@pytest.mark.parametrize("encoder", ["beats", "dasheng", "dual_branch", "eat", "efficientat", "fisher"])
def test_every_encoder_is_counted(encoder: str) -> None:
    from harken.training.models import build_model

    plain = spec(encoder, size="tiny")
    counts = estimate.count_training(plain, TrainingSpec(steps=1, batch=4), 10, (0,))
    built = build_model(plain).parameter_counts()
    assert 0 < counts.parameters - built.total == counts.trainable - built.trainable
    assert counts.batch.flops > counts.forward.flops > 0


@pytest.mark.parametrize("encoder", ["beats", "dasheng", "eat", "fisher"])
@pytest.mark.parametrize("more", [{}, {"adapter": {"rank": 4}}])
def test_three_blocks_are_enough_to_count_all(
    encoder: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from harken.training.models import build_model

    plain = spec(encoder, size="tiny", config={"depth": 6}, **more)
    training = TrainingSpec(steps=1, batch=4)
    by_block = estimate.count_training(plain, training, 10, (0,))
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path))
    monkeypatch.setattr(counting, "_COUNTED", {})
    monkeypatch.setattr(counting, "_alike", lambda row: False)
    whole = estimate.count_training(plain, training, 10, (0,))
    assert (by_block.forward.flops, by_block.batch.flops) == (whole.forward.flops, whole.batch.flops)
    assert by_block.batch.bytes == pytest.approx(whole.batch.bytes, rel=1e-3)
    assert by_block.live == pytest.approx(whole.live, rel=0.02)
    # Adapters are counted as the package that trains them makes them.
    built = build_model(plain).parameter_counts()
    assert by_block.parameters - built.total == by_block.trainable - built.trainable


def test_published_sizes_need_no_weights() -> None:
    assert estimate.published_config("eat", "eat-large-epoch20-pretrain")["width"] == 1024
    assert estimate.published_config("fisher", "fisher-small")["width"] == 384
    for entry in catalog():
        if entry.encoder == "fisher":
            assert estimate.published_config("fisher", entry.name)


def test_a_model_that_cannot_be_built_is_told() -> None:
    losses = [{"name": "arcface"}]
    training = TrainingSpec.model_validate({"steps": 1, "losses": losses, "augmentation": {"mixup": {}}})
    with pytest.raises(HarkenError, match="mixup"):
        estimate.count_training(spec("eat", size="tiny"), training, 10, ())


def test_without_torch_a_plan_has_no_times() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'torch' else real(name, *a)\n"
        "from harken.cli.main import app; app(args=['plan', 'nwpu_fusion'], standalone_mode=False)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "19,520 steps" in done.stdout
    assert "not estimated" in done.stdout
    assert "harken[torch]" in done.stderr


def test_a_network_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path))
    counts = Counts(1, 1, Work(0.1 + 0.2, 3), Work(4, 5, 6), 7, 8)
    assert kept_counts({"depth": 2}, lambda: counts) == counts
    assert kept_counts({"depth": 2}, lambda: pytest.fail("counted again")) == counts
    # Other questions, custom classes and damaged files are.
    other = replace(counts, parameters=9)
    assert kept_counts({"depth": 3}, lambda: other) == other
    assert kept_counts({"loss": "file.py:Loss"}, lambda: counts) == counts
    assert kept_counts({"loss": "file.py:Loss"}, lambda: other) == other
    for file in tmp_path.rglob("*.json"):
        file.write_text("{")
    assert kept_counts({"depth": 2}, lambda: other) == other


def test_a_second_plan_needs_no_torch() -> None:
    recipes = ("training_free", "ustc_attributes")
    for name in recipes:
        app(args=["plan", name], standalone_mode=False)
    program = (
        "import sys\n"
        "from harken.cli.main import app\n"
        f"for name in {recipes}: app(args=['plan', name], standalone_mode=False)\n"
        "print('loaded:', 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on one H200") == len(recipes)
    assert "loaded: False" in done.stdout


def test_the_baseline_is_counted() -> None:
    step = estimate.autoencoder_step(640, 256)
    parameters = 267_928
    assert step.updates == parameters
    # Forward and twice as much backward, but for the first layer, whose input needs no gradient.
    assert step.flops == pytest.approx(256 * 2 * (3 * (parameters - 3_000) - 640 * 128), rel=0.01)


# --- devices and stages


def test_plans_are_for_the_device_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe("finetune", profile="tiny", changes={**SMALL, "stages.labels.years": [2025]})
    times = {
        name: make_plan(recipe, None, None, device=name)["total"]["devices"][name]["seconds"]["recipe"]
        for name in devices.list_devices()
    }
    # The same peak in fp32, with less bandwidth.
    assert times["h100"] > times["h200"] > 0
    app(args=["plan", "finetune", "--profile", "tiny", "--device", "h100"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "on one H100" in shown
    assert "3.35 TB/s" in shown
    assert "H200" not in shown
    with pytest.raises(HarkenError, match="no device 'h20'") as caught:
        make_plan(recipe, None, None, device="h20")
    assert "h200" in str(caught.value)


def test_times_are_shown_of_precisions_that_can_be_set() -> None:
    changes = {**SMALL, "stages.labels.years": [2025]}
    plan = make_plan(load_recipe("finetune", profile="tiny", changes=changes), None, None)
    (row,) = stages(plan, "train")
    shown = set(row["devices"]["h200"]["seconds"]) - {"recipe"}
    assert shown == {"fp32", "tf32", "bf16"}
    for precision in shown:
        TrainingSpec.model_validate({"steps": 1, "precision": precision})
    for row in stages(plan, "embed_trained"):
        assert set(row["devices"]["h200"]["seconds"]) == {"recipe", *shown}
    changes["stages.train.training.precision"] = "bf16"
    changes |= {f"stages.embed_{number}.precision": "bf16" for number in (1, 2, 3)}
    changed = make_plan(load_recipe("finetune", profile="tiny", changes=changes), None, None)
    times = [one["total"]["devices"]["h200"]["seconds"] for one in (plan, changed)]
    assert times[1]["recipe"] == times[0]["bf16"]


def test_frozen_encoders_are_planned_for_their_device_and_precision() -> None:
    def gpu(**settings: str) -> Any:
        changes = {"score_years": [2025], **{f"stages.embed.{name}": value for name, value in settings.items()}}
        plan = make_plan(load_recipe("genrep", profile="tiny", changes=changes), None, None)
        (row,) = stages(plan, "embed")
        assert row["seconds"] > 0
        return row["devices"]["h200"]

    plain, half = gpu(), gpu(precision="bf16")
    assert set(plain["seconds"]) == {"recipe", "fp32", "tf32", "bf16"}
    assert plain["seconds"]["recipe"] == plain["seconds"]["fp32"]
    assert half["seconds"]["recipe"] == plain["seconds"]["bf16"] < plain["seconds"]["fp32"]
    assert gpu(device="cpu") is None


@pytest.mark.parametrize("config", [{}, {"n_mels": 32}, {"hop": 256}])
def test_the_cost_of_the_baseline_follows_its_frames(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def step(inputs: int, batch: int) -> Work:
        asked.append((inputs, batch))
        return Work(1e9, 1e6)

    monkeypatch.setattr(estimate, "autoencoder_step", step)
    recipe = load_recipe("baseline_ae", changes={"score_years": [2025], "stages.frames.config": config})
    plan = make_plan(recipe, None, None, machines=["ToyRCCar"])
    assert set(asked) == {(5 * config.get("n_mels", 128), 256)}
    (row,) = stages(plan, "autoencoder")
    # Centred frames, five of which are a vector; a tenth is held out.
    samples = int(16_000 * expected_seconds(2025, "ToyRCCar"))
    vectors = 1000 * (samples // config.get("hop", 512) + 1 - 4)
    assert row["steps"] == 100 * -(-9 * vectors // 2560)
    assert row["seconds"] > 0


def test_a_custom_stage_without_costs_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "quiet.py"
    file.write_text(
        "from harken.bench.stages import Stage\n"
        "from harken.bench.stages.concatenate import ConcatenateStage\n"
        "class Quiet(ConcatenateStage):\n"
        "    cost = Stage.cost\n"
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: quiet\ntitle: Quiet\nsummary: none\nreference: none\nseeds: [0]\n"
        "stages:\n"
        "  embed: {use: embed, encoder: spectral}\n"
        f"  quiet: {{use: '{file}:Quiet', from: embed}}\n"
        "  nearest: {use: detect, from: quiet, detector: knn}\n"
        "systems: {nearest: nearest}\n"
    )
    plan = make_plan(load_recipe(str(recipe), changes={"score_years": [2025]}), None, None)
    rows = {row["stage"]: row for row in plan["stages"]}
    assert rows["quiet"]["seconds"] is None
    assert [rows[name]["unknown"] for name in ("embed", "quiet", "nearest")] == [False, True, False]
    assert plan["total"]["unknown"] == ["quiet"]
    assert plan["total"]["seconds"] == rows["embed"]["seconds"] > 0
    app(args=["plan", str(recipe), "--trust", "--set", "score_years=[2025]"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert next(line for line in shown.splitlines() if line.startswith("quiet ")).split()[4] == "unknown"
    assert "on this machine, without quiet, unknown" in shown


def test_durations_are_readable() -> None:
    told = [duration(seconds) for seconds in (None, 0.2, 12, 150, 12_000, 400_000)]
    assert told == ["-", "< 1 s", "12 s", "2 min", "3 h 20 min", "4 d 15 h"]


def test_stages_that_make_clips_are_known(plant: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "manifest.csv").write_text("file,id\na.wav,a\nb.wav,b\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: more\ntitle: More\nsummary: none\nreference: none\nseeds: [0]\n"
        "stages:\n"
        "  noisy: {use: mix, copies: 2, machines: [fan]}\n"
        f"  made: {{use: import_clips, folder: '{made}'}}\n"
        "  embed: {use: embed, encoder: spectral, from: [noisy, made]}\n"
        "  nearest: {use: detect, from: embed, detector: knn}\n"
        "systems: {nearest: nearest}\n"
    )
    plan = make_plan(load_recipe(str(recipe)), plant, None)
    rows = {row["stage"]: row for row in plan["stages"]}
    training = sum(unit["train"] for unit in plan["units"] if unit["machine"] == "fan")
    assert rows["noisy"]["clips"] == 2 * training
    assert rows["noisy"]["seconds"] > 0
    # Copies are read by the stages behind it; what another program has made is known when it is read.
    assert (
        rows["embed"]["clips"]
        == sum(sum(unit[split] for split in ("train", "test", "supplemental")) for unit in plan["units"]) + 2 * training
    )
    assert rows["made"]["clips"] == 2
    assert plan["total"]["unknown"] == []


def test_custom_labels_are_planned_as_far_as_they_say(tmp_path: Path) -> None:
    file = tmp_path / "named.py"
    file.write_text(
        "from harken.bench.stages import Stage\n"
        "from harken.bench.stages.labels import LabelsStage\n"
        "class Known(LabelsStage): pass\n"
        "class Unknown(LabelsStage):\n"
        "    classes = Stage.classes\n"
    )
    changes = {**SMALL, "stages.labels.years": [2025]}
    rows = []
    for kind in ("labels", f"{file}:Known", f"{file}:Unknown"):
        recipe = load_recipe("finetune", profile="tiny", changes={**changes, "stages.labels.use": kind})
        rows += stages(make_plan(recipe, None, None), "train")
    expected, known, unknown = rows
    assert (known["classes"], known["step_flops"]) == (expected["classes"], expected["step_flops"])
    assert not known["unknown"]
    assert unknown["unknown"]
