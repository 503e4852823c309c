"""Pre-training: it learns, goes on after a kill to the same bits, stops on collapse, and makes weights for all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from conftest import hum
from harken.core.errors import HarkenError
from harken.core.threads import torch_threads
from harken.data.clips import Clip
from harken.encoders import create_encoder
from harken.encoders.checkpoints import add, load
from harken.training.arrays import module_arrays
from harken.training.model_spec import ModelSpec
from harken.training.models import build_model
from harken.training.pretrain.decoder import PatchDecoder
from harken.training.pretrain.files import decoder_arrays
from harken.training.pretrain.loop import ENCODER, Pretrained, pretrain
from harken.training.pretrain.settings import PretrainingSpec, StudentSpec
from harken.training.steps import STATE

CONFIG = {"eat": {"width": 48, "depth": 2, "target_frames": 64}, "fisher": {"width": 48, "depth": 2}}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Of three machines, eight clips each of 0.4 to 1.5 s; a stereo clip, a silent one and a damaged one."""
    folder = tmp_path_factory.mktemp("clips")
    made = []
    rng = np.random.default_rng(0)

    def add_clip(name: str, wave: np.ndarray) -> None:
        file = folder / f"{name}.wav"
        sf.write(file, wave, 16_000)
        made.append(Clip(name, file, "test", 2025, "train", name[0], "00", "source", "normal", "machine"))

    for machine, speed in zip("abc", (30, 50, 80), strict=True):
        for index in range(8):
            add_clip(f"{machine}{index:02d}", hum(100 * speed + index, float(rng.uniform(0.4, 1.5)), speed=speed))
    add_clip("s0", np.stack([hum(1, 0.7), hum(2, 0.7)], axis=1))
    add_clip("z0", np.zeros(9_000))
    (folder / "damaged.wav").write_bytes(b"RIFF")
    return [*made, replace(made[0], clip_id="x0", path=folder / "damaged.wav")]


def settings(**more: Any) -> PretrainingSpec:
    base = {
        "steps": 6, "batch": 4, "clones": 2, "seconds": 0.6, "learning_rate": 1e-3, "held_out": 0.1,
        "evaluate_every": 3, "decoder": {"layers": 1}, "teacher": [0.9, 0.99], "teacher_steps": 50,
    }  # fmt: skip
    return PretrainingSpec.model_validate({**base, **more})


def run(clips: list[Clip], folder: Path, encoder: str = "eat", student: Any = None, **more: Any) -> Pretrained:
    spec = more.pop("spec", settings())
    chosen = StudentSpec(encoder=encoder, size="tiny", config=CONFIG[encoder]) if student is None else student
    with torch_threads(1):
        return pretrain(chosen, spec, clips, folder, **more)


def same_files(ours: Path, theirs: Path) -> None:
    for name in (ENCODER, STATE, "training.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


@pytest.mark.parametrize("encoder", ["eat", "fisher"])
def test_it_learns_and_its_weights_are_those_of_any_encoder(clips: list[Clip], tmp_path: Path, encoder: str) -> None:
    spec = settings(steps=60, evaluate_every=20, checkpoint_every=30, class_weight=0.1)
    done = run(clips, tmp_path, encoder, spec=spec, logs=tmp_path / "logs")
    first, *_, last = done.history
    assert last.regression < 0.95 * first.regression
    assert first.held_out is not None
    assert last.held_out is not None
    assert last.held_out < first.held_out
    assert [row.step for row in done.history] == [20, 40, 60]
    assert list((tmp_path / "logs").glob("events*"))
    assert set(done.quarantined) == {"x0", "z0"}
    loaded = load(done.file)
    assert loaded.encoder == encoder
    again = create_encoder(loaded.encoder, loaded.config, loaded.weights)
    wave = hum(5, 1.0)[None].astype(np.float32)
    np.testing.assert_array_equal(again.encode(wave).features_BLTD, done.encoder.encode(wave).features_BLTD)
    earlier = load(tmp_path / "encoder-00000030.safetensors")
    assert not np.array_equal(earlier.weights["extra_tokens"], loaded.weights["extra_tokens"])
    # As weights by path in a model that is fine-tuned, and by name from the cache.
    branch = {"encoder": encoder, "weights": str(done.file), "head": {"kind": "cls"}}
    model = build_model(ModelSpec.model_validate({"branches": [branch]}))
    assert np.array_equal(model.encoders[0].weights()["extra_tokens"], loaded.weights["extra_tokens"])
    assert add(done.file, f"pretrained-{encoder}").config == loaded.config


def test_killed_at_any_step_it_ends_with_the_same_bits(clips: list[Clip], tmp_path: Path) -> None:
    spec = settings(accumulation=2, steps=7, warmup=2)
    whole = run(clips, tmp_path / "whole", spec=spec)

    class Killed(Exception):
        pass

    def stop_at(last: int) -> None:
        def progress(step: int, steps: int, loss: float) -> None:
            if step == last:
                raise Killed

        with pytest.raises(Killed):
            run(clips, tmp_path / "killed", spec=spec, save_every=2, progress=progress)

    for step in (1, 3, 5):
        stop_at(step)
    resumed = run(clips, tmp_path / "killed", spec=spec, workers=2)
    assert resumed.history == whole.history
    same_files(tmp_path / "whole", tmp_path / "killed")
    with pytest.raises(HarkenError, match="another training"):
        run(clips, tmp_path / "killed", spec=settings(steps=7))


def test_a_second_stage_begins_with_the_weights_and_decoder_of_the_first(clips: list[Clip], tmp_path: Path) -> None:
    first = run(clips, tmp_path / "first")
    student = StudentSpec(encoder="eat", weights=str(first.file))
    second = run(clips[:12], tmp_path / "second", student=student, spec=settings(steps=1, learning_rate=1e-9))
    for name, array in load(first.file).weights.items():
        np.testing.assert_allclose(load(second.file).weights[name], array, atol=1e-7)
    assert decoder_arrays(first.file).keys() == module_arrays(PatchDecoder(48, 8, layers=1)).keys()
    for name, array in decoder_arrays(first.file).items():
        np.testing.assert_allclose(decoder_arrays(second.file)[name], array, atol=1e-7)
    record = json.loads((tmp_path / "second" / "training.json").read_text())["training"]
    assert record["weights_sha256"] is not None
    # Another decoder begins anew.
    other = run(clips[:12], tmp_path / "other", student=student, spec=settings(steps=1, decoder={"layers": 2}))
    assert len(decoder_arrays(other.file)) > len(decoder_arrays(first.file))


def test_it_stops_when_all_has_become_the_same(clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(HarkenError, match="at step 3 the predictions have become the same for all patches") as raised:
        run(clips, tmp_path, spec=settings(lowest_student=0.9))
    assert "0.9" in str(raised.value)
    with pytest.raises(HarkenError, match="the targets have become the same"):
        run(clips, tmp_path / "targets", spec=settings(lowest_target=1.5))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"spec": settings(seconds=0.01)}, "too short"),
        ({"spec": settings(decoder={"groups": 7})}, "does not fit"),
        ({"student": StudentSpec(encoder="eat", weights="nowhere.safetensors")}, "nowhere"),
    ],
)
def test_what_does_not_fit_is_refused(clips: list[Clip], tmp_path: Path, wrong: Any, message: str) -> None:
    with pytest.raises(HarkenError, match=message):
        run(clips, tmp_path, **wrong)


def test_too_few_clips(clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(HarkenError, match="1 clips are too few"):
        run(clips[:1], tmp_path)


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"recompute": True}])
def test_precision_and_recomputation(clips: list[Clip], tmp_path: Path, change: dict[str, Any]) -> None:
    plain = run(clips, tmp_path / "plain", spec=settings(steps=2))
    done = run(clips, tmp_path / "changed", spec=settings(steps=2, **change))
    assert done.history[-1].loss == pytest.approx(plain.history[-1].loss, rel=0.02)
    for name, array in load(done.file).weights.items():
        assert np.isfinite(array).all(), name
    assert torch.get_num_threads() >= 1


@pytest.mark.slow
def test_two_processes_pretrain_one_encoder(clips: list[Clip], tmp_path: Path) -> None:
    """As several devices would: each sees half of every batch, gradients are exchanged, weights stay the same."""
    program = tmp_path / "program.py"
    program.write_text(f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_pretrain import *
folder = Path({str(clips[0].path.parent)!r})
clips = [Clip(file.stem, file, "test") for file in sorted(folder.glob("[abc]*.wav"))]
done = run(clips, Path({str(tmp_path / "t")!r}), spec=settings(steps=4, accumulation=2, held_out=0))
objective = [p for p in done.encoder.module.parameters()]
print("weights", sum(float(p.detach().double().abs().sum()) for p in objective), flush=True)
""")
    launch = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "2", "--master-port", "29613"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, str(program)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    weights = [line for line in done.stdout.splitlines() if line.startswith("weights")]
    assert len(weights) == 2
    assert weights[0] == weights[1]
    assert json.loads((tmp_path / "t" / "training.json").read_text())["training"]["devices"] == 2
    assert (tmp_path / "t" / ENCODER).is_file()


def test_truncated_clips_are_heard_from_their_beginning_alone(tmp_path: Path) -> None:
    def corpus(name: str, later: float) -> list[Clip]:
        made = []
        for index in range(4):
            file = tmp_path / f"{name}{index}.wav"
            wave = hum(100 + index, 0.8)
            wave[6_400:] *= later
            sf.write(file, wave, 16_000)
            made.append(Clip(f"{index}", file, "test", 2025, "train", "a", "00", "source", "normal", "machine"))
        return made

    def made(name: str, later: float, length: str) -> bytes:
        spec = settings(steps=2, seconds=0.4, length=length, held_out=0.0, evaluate_every=2)
        return run(corpus(name, later), tmp_path / f"{name}-{length}", spec=spec).file.read_bytes()

    assert made("loud", 1.0, "pad") == made("quiet", 0.1, "pad")
    assert made("loud", 1.0, "repeat") != made("quiet", 0.1, "repeat")
    # Objects made before lengths could be chosen stay valid.
    assert "length" not in settings().model_dump()
