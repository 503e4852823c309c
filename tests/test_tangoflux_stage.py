"""TangoFlux in a run: fine-tuned, clips of rare conditions generated, networks trained with them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from conftest import SIZES
from harken.audio.decode import decode
from harken.bench import plan
from harken.bench.recipe import load_recipe
from harken.bench.run import load_clips, run_recipe
from harken.bench.stages import stage_class
from harken.bench.stages.generate import of_condition
from harken.bench.stages.tables import read_clips
from harken.bench.workspace import Workspace
from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip
from harken.generation import config
from harken.generation.captions import caption
from harken.generation.conditions import ConditionKey
from harken.generation.generator import ClipRequest, requests_of, sampling_of
from harken.generation.references import distance, nearest_condition
from harken.generation.tangoflux_files import create_tangoflux
from harken.generation.tangoflux_generator import TangoFluxGenerator
from harken.generation.tangoflux_settings import TangoFluxSampling
from harken.plant.simulate import simulate
from test_finetune import objects
from test_pipeline import run

PAGE = (Path(__file__).parents[1] / "docs" / "tangoflux.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def short_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips of at most 2 s, so that steps take little."""
    tiny = config.SIZES["tiny"].model_copy(update={"latents": 250, "seconds": 2.0})
    monkeypatch.setitem(config.SIZES, "tiny", tiny)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """The recipe of the page that is about TangoFlux."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.S | re.M)
    (text,) = (text for text in blocks if "finetune_tangoflux" in text)
    file = tmp_path / "tangoflux_clips.yaml"
    file.write_text(text)
    return str(file)


def test_a_run_learns_from_generated_clips(tmp_path: Path, recipe: str) -> None:
    plant = tmp_path / "plant"
    simulate(plant, machines=["fan"], **SIZES)  # type: ignore[arg-type]
    done, started = run(plant, tmp_path / "w", recipe)
    assert not done.failures
    assert started
    (folder,) = objects(tmp_path / "w", "generate")
    recordings = {clip.clip_id: clip for clip in load_clips(plant)[0]}
    (trained,) = objects(tmp_path / "w", "finetune_tangoflux")
    assert [row["step"] for row in json.loads((trained / "history.json").read_text())["evaluations"]] == [2]
    clips = read_clips(folder)
    details = json.loads((folder / "generated.json").read_text())
    assert clips
    for clip in clips:
        parent, audio, detail = recordings[clip.parents[0]], decode(clip.path), details[clip.clip_id]
        assert (parent.split, parent.condition, clip.kind) == ("train", "normal", "generated")
        assert (clip.domain, clip.attributes) == (parent.domain, parent.attributes)
        assert audio.samples_CS.shape == (1, decode(parent.path).samples_CS.shape[1])
        assert detail["caption"] == caption(parent)
        assert detail["generator"] == "tangoflux"
        assert len(detail["model_sha256"]) == 64
    assert len({details[clip.clip_id]["seed"] for clip in clips}) == len(clips)
    assert run(plant, tmp_path / "w", recipe)[1] == []


def test_a_condition_without_clips_starts_from_the_nearest(tmp_path: Path) -> None:
    """What an edited table asks for is made, with its own caption and attributes; without `unseen` it is refused."""
    near, far = (
        Clip(f"clip {volts}", tmp_path / f"{volts}.wav", "c", 2025, "train", "fan", "00", "source", "normal",
             attributes={"spd": volts})
        for volts in ("28V", "40V")
    )  # fmt: skip
    file = tmp_path / "table.csv"
    file.write_text("machine,corpus,section,domain,attributes,generate\nfan,c,00,target,spd=30V,2\n")
    cls = stage_class("rare_conditions")
    with pytest.raises(HarkenError, match="no normal training clips of c/fan section 00 target: spd=30V"):
        cls.conditions(cls.Parameters(table=str(file)), [far, near])  # type: ignore[attr-defined, call-arg]
    rows, _ = cls.conditions(cls.Parameters(table=str(file), unseen=True), [far, near])  # type: ignore[attr-defined, call-arg]
    requests = list(requests_of(rows, [far, near], seed=0))
    assert [request.reference for request in requests] == [near, near]
    assert {request.caption for request in requests} == {"the sound of a fan, target domain, speed 30 V"}
    assert of_condition(requests[0]) == {"section": "00", "domain": "target", "attributes": {"spd": "30V"}}


def test_missing_weights_stop_a_run_before_its_first_stage(
    plant: Path, tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARKEN_WEIGHTS", raising=False)
    changes = {"stages.tangoflux.weights": "tangoflux", "stages.tangoflux.size": "full"}
    chosen = load_recipe(recipe, profile="tiny", changes=changes)
    # The plan's list of what is missing, without the counting of the network.
    missing = plan._missing_requirements(chosen)
    for name in ("tangoflux", "tangoflux-vae", "flan-t5-large-tokenizer"):
        assert any(f"harken weights fetch {name} " in line for line in missing)
    with pytest.raises(HarkenError, match="harken weights fetch tangoflux"):
        run_recipe(chosen, plant, Workspace(tmp_path / "w"))
    # Of a folder, and of a network that learns from what is generated, too.
    folder = str(tmp_path / "nowhere")
    for weights, change in (
        (folder, {"stages.tangoflux.weights": folder}),
        ("beets-iter3", {"stages.train.model": {"branches": [{"encoder": "beats", "weights": "beets-iter3"}]}}),
    ):
        chosen = load_recipe(recipe, profile="tiny", changes=change)
        with pytest.raises(HarkenError, match=rf"stage (tangoflux|train): .*{weights}"):
            run_recipe(chosen, plant, Workspace(tmp_path / "w"))
    assert not list((tmp_path / "w").rglob("stage.json"))


@pytest.mark.parametrize(("content", "message"), [(b"no sound", "clip.wav"), (None, "silen")])
def test_a_reference_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "clip.wav"
    sf.write(file, np.zeros(8000), 16_000)
    if content is not None:
        file.write_bytes(content)
    generator = TangoFluxGenerator(create_tangoflux(None), TangoFluxSampling(steps=1))
    clip = Clip("1", file, "c", 2025, "train", "fan")
    with pytest.raises(AudioError, match=message):
        generator.generate([ClipRequest(ConditionKey.of(clip), clip, "a fan", 0, 0)])


@pytest.mark.parametrize("s0", [0, -1, 1.1])
def test_noise_of_references_is_a_share(s0: float) -> None:
    with pytest.raises(HarkenError, match="s0"):
        sampling_of("tangoflux", {"s0": s0})


def test_the_nearest_condition_is_of_the_same_machine_with_most_alike_attributes() -> None:
    def key(machine: str, section: str, domain: str, **attributes: str) -> ConditionKey:
        return ConditionKey("dcase2025", machine, section, domain, tuple(sorted(attributes.items())))  # type: ignore[arg-type]

    wanted = key("fan", "00", "target", spd="31V", mic="1")
    others = [
        key("pump", "00", "target", spd="31V", mic="1"),
        key("fan", "00", "source", spd="28V", mic="1"),
        key("fan", "00", "source", spd="40V", mic="1"),
        key("fan", "00", "target", spd="40V", mic="2"),
    ]
    assert nearest_condition(wanted, others) == others[1]
    assert nearest_condition(wanted, [*others, wanted]) == wanted
    # Conditions that differ in the domain alone are nearer than any other.
    source = key("fan", "00", "source", spd="31V", mic="1")
    assert nearest_condition(wanted, [*others, source]) == source
    assert distance(wanted, source) < distance(wanted, others[1])
    with pytest.raises(HarkenError, match="no normal training clips of dcase2025/fan"):
        nearest_condition(wanted, others[:1])
