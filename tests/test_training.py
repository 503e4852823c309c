"""The training loop: it learns, goes on after any kill to the same bits, and says when it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.numpy import load_file

from conftest import hum
from harken.core.errors import AudioError, HarkenError
from harken.core.threads import torch_threads
from harken.data.clips import Clip
from harken.data.labels import ClassTable, label_clips
from harken.embeddings.trained import TrainedEmbedder
from harken.training.checkpoints import read_checkpoint
from harken.training.loop import TrainedModel, train
from harken.training.model_spec import ModelSpec
from harken.training.models import build_model
from harken.training.optimiser import learning_rate_factor, parameter_groups
from harken.training.precision import tf32_products
from harken.training.recompute import recompute_blocks
from harken.training.recordings import Order, Reader, batches
from harken.training.settings import TrainingSpec
from harken.training.signals import hold_out, signals_of
from harken.training.steps import STATE
from harken.training.waveforms import KeptWaveforms

SPEEDS = (30, 50, 80)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Three machines, twelve clips of 0.6 s each; three clips of noise."""
    folder = tmp_path_factory.mktemp("clips")
    made = []
    rng = np.random.default_rng(0)
    for machine, speed in zip("abc", SPEEDS, strict=True):
        for index in range(12):
            file = folder / f"{machine}_{index:02d}.wav"
            sf.write(file, hum(100 * speed + index, 0.6, speed=speed), 16_000)
            made.append(
                Clip(f"{machine}{index:02d}", file, "test", 2025, "train", machine, "00", "source", "normal", "machine")
            )
    for index in range(3):
        file = folder / f"noise_{index}.wav"
        sf.write(file, 0.1 * rng.normal(size=12_000), 16_000)
        made.append(Clip(f"n{index}", file, "test", 2025, "supplemental", "a", "00", kind="noise"))
    return made


@pytest.fixture(scope="module")
def table(clips: list[Clip]) -> ClassTable:
    return label_clips(clips, "thuee")


def model(encoder: str = "dasheng", **branch: Any) -> ModelSpec:
    head = {} if encoder == "dual_branch" else {"head": {"kind": "attentive", "dims": [16]}}
    return ModelSpec.model_validate({"branches": [{"encoder": encoder, "size": "tiny", **head, **branch}]})


def settings(**more: Any) -> TrainingSpec:
    base = {
        "steps": 8, "batch": 6, "seconds": 0.5, "learning_rate": 1e-3, "held_out": 0.1, "evaluate_every": 3,
        "augmentation": {"shift": {"gain_db": 3}, "noise_mix": {}, "spec_augment": {"time": 8, "frequency": 8}},
    }  # fmt: skip
    return TrainingSpec.model_validate({**base, **more})


def run(clips: list[Clip], table: ClassTable, folder: Path, spec: TrainingSpec, **more: Any) -> TrainedModel:
    with torch_threads(1):
        return train(more.pop("model", model()), spec, clips, table, folder, **more)


def same_files(ours: Path, theirs: Path) -> None:
    names = sorted(file.name for file in ours.glob("*.safetensors"))
    assert names == sorted(file.name for file in theirs.glob("*.safetensors"))
    assert names
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


# ------------------------------------------------------------ learning


@pytest.mark.parametrize(
    ("encoder", "config", "rate"),
    [
        ("dasheng", {}, 1e-3),
        # The lines that tell these machines apart are stationary, and most of them below 200 Hz.
        ("dual_branch", {"low_hz": 0.0, "centre": False}, 1e-2),
    ],
)
def test_it_learns_classes_that_it_has_not_heard_the_clips_of(
    clips: list[Clip], table: ClassTable, tmp_path: Path, encoder: str, config: dict[str, Any], rate: float
) -> None:
    steps, every = 60, 20
    spec = settings(steps=steps, batch=12, held_out=0.3, evaluate_every=every, learning_rate=rate, augmentation={})
    done = run(clips, table, tmp_path, spec, model=model(encoder, config=config))
    first, last = done.history[0], done.history[-1]
    assert last.loss < 0.7 * first.loss
    assert last.signals is not None
    assert last.signals.chance == pytest.approx(1 / 3)
    assert max(row.signals.accuracy for row in done.history if row.signals) > 0.6
    assert [row.step for row in done.history] == [every, 2 * every, steps]
    losses = {int(file.stem[-8:]): read_checkpoint(file).metadata["signals"]["loss"] for file in done.checkpoints}
    assert list(losses.values()) == sorted(losses.values())
    best = read_checkpoint(done.checkpoints[0]).model()
    assert sum(parameter.numel() for parameter in best.parameters()) == done.model.parameter_counts().total


def test_what_shaped_it_is_kept(clips: list[Clip], table: ClassTable, tmp_path: Path) -> None:
    done = run(clips, table, tmp_path, settings(steps=2), logs=tmp_path / "logs")
    about = json.loads((tmp_path / "training.json").read_text())
    assert TrainingSpec.model_validate(about["training"]["settings"]) == settings(steps=2)
    assert ModelSpec.model_validate(about["training"]["model"]) == model()
    # What differs between machines stands apart.
    assert set(about) == {"training"}
    assert json.loads((tmp_path / "made_with.json").read_text())["torch"] == torch.__version__
    assert list((tmp_path / "logs").glob("events*"))
    assert not done.tuned_on_test
    wave = torch.from_numpy(np.stack([hum(1, 0.5)]))
    again = read_checkpoint(done.checkpoints[-1]).model()
    with torch.inference_mode():
        assert torch.equal(done.model(wave), again(wave))


def test_freezing_accumulation_epochs_and_a_second_label(clips: list[Clip], tmp_path: Path) -> None:
    second = label_clips(clips, "unisound")
    spec = settings(
        steps=None, epochs=2, accumulation=2, frozen_epochs=1, batch=4, held_out=0.0, choose="last", evaluate_every=1,
        keep=9, losses=[{"name": "subcentre_arcface"}, {"name": "arcface", "target": "mixture", "weight": 0.5}],
    )  # fmt: skip
    done = run(clips, second, tmp_path, spec)
    # 39 clips with one of the labels: 9 batches an epoch, 4 steps of two.
    assert [row.step for row in done.history] == list(range(1, 9))
    states = [load_file(file) for file in sorted(done.checkpoints)]
    name = next(key for key in states[0] if key.endswith("attn.qkv.weight"))
    head = next(key for key in states[0] if ".dense." in key)
    # The first nine batches are of the frozen epoch: four steps and a half.
    np.testing.assert_array_equal(states[0][name], states[3][name])
    assert not np.array_equal(states[0][head], states[3][head])
    assert not np.array_equal(states[3][name], states[5][name])


def test_mixup_and_featex_over_two_branches(clips: list[Clip], table: ClassTable, tmp_path: Path) -> None:
    spec = settings(
        steps=4,
        losses=[{"name": "scadacos", "parameters": {"trainable": False}}, {"name": "scadacos", "target": "exchanged"}],
        augmentation={"mixup": {}, "featex": {}},
    )
    done = run(clips, table, tmp_path, spec, model=model("dual_branch"))
    assert np.isfinite([row.loss for row in done.history]).all()
    for wrong, message in (
        ({"augmentation": {"mixup": {}}}, "takes shares"),
        ({"augmentation": {"featex": {}}}, "go together"),
        ({"losses": [{"name": "arcface"}, {"name": "arcface", "target": "mixture"}]}, "no second label"),
    ):
        with pytest.raises(HarkenError, match=message):
            run(clips, table, tmp_path / "wrong", settings(steps=1, **wrong))


# ------------------------------------------------------------ the same bits


class _Killed(Exception):
    pass


@pytest.mark.parametrize("encoder", ["dasheng", "dual_branch"])
def test_stopped_at_any_step_it_ends_with_the_same_bits(
    clips: list[Clip], table: ClassTable, tmp_path: Path, encoder: str
) -> None:
    spec = settings(losses=[{"name": "scadacos"}], augmentation={"mixup": {}, "shift": {}})
    whole = run(clips, table, tmp_path / "whole", spec, model=model(encoder))
    rng = np.random.default_rng(0)

    def interrupted(folder: Path, step: int) -> None:
        def progress(now: int, steps: int, loss: float) -> None:
            if now == step:
                raise _Killed

        with pytest.raises(_Killed):
            run(clips, table, folder, spec, model=model(encoder), save_every=2, progress=progress)

    folder = tmp_path / "parts"
    for step in sorted(rng.choice(np.arange(1, 8), 3, replace=False)):
        interrupted(folder, int(step))
    parts = run(clips, table, folder, spec, model=model(encoder), save_every=3)
    same_files(tmp_path / "whole", folder)
    assert parts.history == whole.history
    assert parts.checkpoints[0].name == whole.checkpoints[0].name
    # What is done is not done again.
    steps: list[int] = []
    run(clips, table, folder, spec, model=model(encoder), progress=lambda now, *_: steps.append(now))
    assert steps == []


def test_workers_change_nothing(clips: list[Clip], table: ClassTable, tmp_path: Path) -> None:
    for workers in (0, 1, 2):
        run(clips, table, tmp_path / str(workers), settings(steps=4), workers=workers)
    same_files(tmp_path / "0", tmp_path / "1")
    same_files(tmp_path / "0", tmp_path / "2")


def test_tf32_is_fp32_on_a_processor_and_of_the_steps_only(
    clips: list[Clip], table: ClassTable, tmp_path: Path
) -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    states = {}
    for precision in ("fp32", "tf32"):
        done = run(clips, table, tmp_path / precision, settings(steps=4, precision=precision))
        states[precision] = read_checkpoint(done.checkpoints[0]).model().state_dict()
        assert torch.backends.cuda.matmul.allow_tf32 == before
    for name, weights in states["fp32"].items():
        assert torch.equal(weights, states["tf32"][name]), name
    with tf32_products(True):
        assert torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(KeyError), tf32_products(True):
        raise KeyError
    assert torch.backends.cuda.matmul.allow_tf32 == before


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    """Processes killed with SIGKILL at random moments; the final weights are those of an undisturbed training."""
    benchmark = Path(__file__).parents[1] / "benchmarks" / "finetuning.py"
    done = subprocess.run(
        [sys.executable, str(benchmark), "kills", "--kills", "20"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "20 kills: the same bits" in done.stdout


def test_recomputing_blocks_gives_the_same_gradients() -> None:
    wave = torch.from_numpy(np.stack([hum(seed, 0.5) for seed in range(2)]))
    for encoder in ("beats", "eat", "fisher", "dasheng"):
        found = []
        for recompute in (False, True):
            built = build_model(model(encoder)).train()
            if recompute:
                recompute_blocks(built.encoders[0].module)
            with torch_threads(1):
                built(wave).square().sum().backward()
            found.append([p.grad for p in built.parameters() if p.grad is not None])
        assert len(found[0]) == len(found[1]) > 0
        for plain, again in zip(*found, strict=True):
            torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------ what goes wrong


def test_a_training_that_cannot_go_on_says_so(clips: list[Clip], table: ClassTable, tmp_path: Path) -> None:
    run(clips, table, tmp_path / "good", settings(steps=3))
    with pytest.raises(HarkenError, match="state of another training"):
        run(clips, table, tmp_path / "good", settings(steps=3, learning_rate=2e-3))
    (tmp_path / "good" / STATE).write_bytes(b"broken")
    with pytest.raises(HarkenError, match="is not a checkpoint"):
        run(clips, table, tmp_path / "good", settings(steps=3))
    with pytest.raises(HarkenError, match=r"no longer.*lower learning rate"):
        run(clips, table, tmp_path / "nan", settings(learning_rate=1e30, warmup=0, clip_norm=None, schedule="constant"))
    with pytest.raises(HarkenError, match="labelled test clips"):
        run(clips, table, tmp_path / "dev", settings(choose="dev"))
    with pytest.raises(HarkenError, match="too little to train on"):
        run(clips[:1], label_clips(clips[:1], "thuee"), tmp_path / "few", settings())


def test_mixing_needs_classes(clips: list[Clip], tmp_path: Path) -> None:
    terms = [{"name": "scadacos"}, {"name": "arcface", "target": "mixture"}]
    spec = settings(losses=terms, augmentation={"mixup": {}})
    with pytest.raises(HarkenError, match="a class for every clip, which 3 have not"):
        run(clips, label_clips(clips, "unisound"), tmp_path, spec)


def test_clips_that_become_the_same_end_it(clips: list[Clip], table: ClassTable, tmp_path: Path) -> None:
    # One recording under every name: there is nothing that a network could tell apart.
    same = [replace(clip, path=clips[0].path) for clip in clips]
    with pytest.raises(HarkenError, match="same embedding"):
        run(same, table, tmp_path, settings(evaluate_every=1, augmentation={}))
    assert list(tmp_path.glob("checkpoint-*"))


def test_a_clip_that_cannot_be_used_is_set_aside(clips: list[Clip], table: ClassTable, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF not audio")
    some = [replace(clip, path=broken) if clip.clip_id in ("a03", "n1") else clip for clip in clips]
    done = run(some, table, tmp_path / "t", settings(steps=8, held_out=0.0, choose="last"))
    assert list(done.quarantined) == ["a03"]
    assert "broken.wav" in done.quarantined["a03"]
    none = [replace(clip, path=broken) for clip in clips]
    with pytest.raises(HarkenError, match="none of the training clips can be used"):
        run(none, table, tmp_path / "none", settings())


def test_chosen_by_test_clips_is_said(clips: list[Clip], table: ClassTable, tmp_path: Path) -> None:
    values = iter([0.2, 0.9, 0.5])
    spec = settings(choose="dev", keep=2)
    done = run(clips, table, tmp_path, spec, dev=lambda built: {"official_score": next(values)})
    assert done.tuned_on_test
    assert [file.stem[-2:] for file in done.checkpoints] == ["06", "08"]
    assert "dev (tuned on test)" in read_checkpoint(done.checkpoints[0]).metadata


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 3, "epochs": 2}, {"steps": None}, {"held_out": 0.0}, {"losses": []}, {"batch": 0}, {"learning_rat": 1},
     {"losses": [{"name": "arcface", "target": "mixture"}]}, {"augmentation": {"noise_mix": {"snr_db": []}}}],
)  # fmt: skip
def test_settings_that_make_no_training(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**wrong)


# ------------------------------------------------------------ the parts


def test_learning_rates_rise_and_fall() -> None:
    cosine = [learning_rate_factor(step, steps=10, warmup=4, schedule="cosine") for step in range(1, 11)]
    np.testing.assert_allclose(cosine[:5], [0.25, 0.5, 0.75, 1.0, 1.0])
    assert cosine[4:] == sorted(cosine[4:], reverse=True)
    np.testing.assert_allclose(cosine[-1], 0.5 * (1 + np.cos(np.pi * 5 / 6)))
    assert learning_rate_factor(9, steps=10, warmup=0, schedule="constant") == 1.0


@pytest.mark.parametrize("encoder", ["beats", "eat", "dasheng"])
def test_deeper_blocks_learn_faster(encoder: str) -> None:
    built = build_model(model(encoder))
    groups = parameter_groups(built, learning_rate=1.0, weight_decay=0.1, layer_decay=0.5)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    depth = int(build_model(model(encoder)).encoders[0].config()["depth"])
    named = dict(built.named_parameters())
    assert len(found) == len(named)
    for name, parameter in named.items():
        rate, decay = found[id(parameter)]
        assert decay == (0.1 if parameter.ndim > 1 else 0.0)
        block = next((part for part in name.split(".") if part.isdecimal() and f"s.{part}." in name[8:]), None)
        if ".net." not in name:
            assert rate == 1.0
        elif "layers." in name or "blocks." in name:
            assert rate == 0.5 ** (depth - 1 - int(str(block)))
        else:
            assert rate in (0.5**depth, 1.0), name


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 3))
def test_an_epoch_holds_each_clip_once(count: int, size: int, seed: int) -> None:
    size = min(size, count)
    order = Order(count, size, seed)
    for epoch in range(2):
        rows = np.concatenate(
            [order.rows(number) for number in range(epoch * order.batches, (epoch + 1) * order.batches)]
        )
        assert len(np.unique(rows)) == len(rows) == order.batches * size
        assert order.epoch(epoch * order.batches) == epoch


def test_batches_may_begin_anywhere_and_be_shared(clips: list[Clip]) -> None:
    machines = clips[:30]
    reader = Reader(8000, 0.25)
    order = Order(len(machines), 4, 7)
    whole = list(batches(machines, reader, order, count=9))
    later = list(batches(machines, reader, order, first=5, count=4))
    for one, two in zip(whole[5:], later, strict=True):
        assert torch.equal(one.wave_BS, two.wave_BS)
        assert one.number == two.number
    assert whole[0].wave_BS.shape == (4, 2000)
    shares = [list(batches(machines, reader, order, count=9, rank=rank, world=2)) for rank in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(batch.rows.tolist()) == sorted([*parts[0].rows, *parts[1].rows])
    # Crops of a clip differ from epoch to epoch.
    assert whole[8].epoch == 1


def test_waveforms_are_kept_to_the_bit_within_a_quota() -> None:
    rng = np.random.default_rng(0)
    sixteen_S = (rng.integers(-(2**15), 2**15, 1000) / 2**15).astype(np.float32)
    waves = [sixteen_S, rng.normal(size=1000).astype(np.float32), np.array([-0.0, 0.5], np.float32), sixteen_S[::-1]]
    # The first in 2 bytes per sample, the second in 4, the third in 4; for the last there is no room.
    kept, reads = KeptWaveforms(2000 + 4000 + 8), Counter[int]()

    def read(key: int) -> NDArray[np.float32]:
        reads[key] += 1
        return waves[key]

    for _ in range(3):
        for key, wave_S in enumerate(waves):
            assert kept.get(key, partial(read, key)).tobytes() == wave_S.tobytes()
    assert reads == {0: 1, 1: 1, 2: 1, 3: 3}


def test_kept_waveforms_change_no_batch(clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    machines = clips[:12]

    def transform(wave_S: NDArray[np.float32], clip: Clip, seed: int, epoch: int) -> NDArray[np.float32]:
        return wave_S * np.float32(1 + epoch)

    def waves() -> list[torch.Tensor]:
        order = Order(len(machines), 4, 7)
        made = batches(machines, Reader(16_000, 0.25), order, count=9, transform=transform)
        return [batch.wave_BS for batch in made]

    kept = waves()
    monkeypatch.setattr("harken.training.recordings.QUOTA_BYTES", 0)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(kept, waves(), strict=True))


def test_reader_hears_one_channel(tmp_path: Path) -> None:
    stereo = np.stack([hum(1), hum(2)], axis=1)
    sf.write(tmp_path / "two.wav", stereo, 16_000, subtype="FLOAT")
    clip = Clip("two", tmp_path / "two.wav")
    np.testing.assert_array_equal(Reader(16_000, None, "near")(clip), stereo[:, 0])
    np.testing.assert_allclose(Reader(16_000, None, "all")(clip), stereo.mean(axis=1), atol=1e-7)
    np.testing.assert_array_equal(Reader(16_000, 1.5)(clip), np.resize(stereo[:, 0], 24_000))
    sf.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    with pytest.raises(AudioError, match=r"silent\.wav"):
        Reader(16_000, None)(Clip("silent", tmp_path / "silent.wav"))


def test_held_out_clips_are_of_every_class_that_has_enough() -> None:
    class_N = np.array([0] * 40 + [1] * 10 + [2] * 9 + [-1] * 30)
    train_N, held_N = hold_out(class_N, 0.1, np.random.default_rng(0))
    assert np.bincount(class_N[held_N]).tolist() == [4, 1]
    assert sorted([*train_N, *held_N]) == list(range(len(class_N)))
    assert len(hold_out(class_N, 0.0, np.random.default_rng(0))[1]) == 0


def test_signals_by_definition() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(9, 4)))
    class_N = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])
    logits = torch.from_numpy(rng.normal(size=(9, 3)))
    found = signals_of([1.0, 2.0], logits, x, class_N)
    unit = x / x.norm(dim=1, keepdim=True)
    pairs = [float(unit[i] @ unit[j]) for i in range(9) for j in range(9) if class_N[i] != class_N[j]]
    assert found.similarity == pytest.approx(np.mean(pairs))
    assert found.loss == 1.5
    assert found.chance == pytest.approx(4 / 9)
    assert found.accuracy == pytest.approx(np.mean(logits.argmax(1).numpy() == class_N))
    assert 1 < found.rank <= 4
    line = torch.outer(torch.arange(9.0), torch.ones(4))
    assert signals_of([1.0], logits, line, class_N).rank == pytest.approx(1.0, abs=1e-5)
    assert signals_of([1.0], logits, torch.ones(9, 4), class_N).collapsed


@pytest.mark.slow
def test_two_processes_learn_one_model(clips: list[Clip], table: ClassTable, tmp_path: Path) -> None:
    """As several devices would: each sees half of every batch, gradients are exchanged, weights stay the same."""
    program = tmp_path / "program.py"
    program.write_text(f"""
import sys
from collections import Counter
import torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_training import *
folder = Path({str(clips[0].path.parent)!r})
clips = [Clip(f"{{m}}{{i:02d}}", folder / f"{{m}}_{{i:02d}}.wav", "test", 2025, "train", m, "00", "source", "normal")
         for m in "abc" for i in range(12)]
spec = settings(accumulation=2, frozen_epochs=1)
done = run(clips, label_clips(clips, "thuee"), Path({str(tmp_path / "t")!r}), spec)
print("weights", sum(float(p.detach().double().sum()) for p in done.model.parameters()), flush=True)
""")
    launch = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "2", "--master-port", "29611"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, str(program)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [line for line in done.stdout.splitlines() if line.startswith("weights")]
    assert len(found) == 2
    assert found[0] == found[1]
    assert json.loads((tmp_path / "t" / "training.json").read_text())["training"]["devices"] == 2


def test_clips_are_padded_and_truncated_where_a_report_says_so(tmp_path: Path) -> None:
    """In training and afterwards: what follows the first second changes nothing, and what is short ends in silence."""
    rng = np.random.default_rng(0)
    wave_S = (0.1 * rng.normal(size=24_000)).astype(np.float32)
    for name, samples in {"short": wave_S[:9_000], "whole": wave_S[:16_000], "long": wave_S}.items():
        sf.write(tmp_path / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    short, whole, long = (
        Clip(clip_id=name, path=tmp_path / f"{name}.wav", corpus="c", machine="fan", section="00")
        for name in ("short", "whole", "long")
    )
    reader = Reader(16_000, 1.0, pad=True)
    np.testing.assert_array_equal(reader(short), np.pad(wave_S[:9_000], (0, 7_000)))
    for seed in range(3):
        np.testing.assert_array_equal(reader(long, np.random.default_rng(seed)), wave_S[:16_000])
    built = build_model(model()).eval()
    padded, repeated = (TrainedEmbedder(built, settings(seconds=1.0, length=length)) for length in ("pad", "repeat"))
    assert np.array_equal(padded(long), padded(whole))
    assert np.array_equal(padded(whole), repeated(whole))
    assert not np.array_equal(padded(short), repeated(short))
    sf.write(tmp_path / "silent.wav", np.pad(wave_S[:9_000], (0, 7_000)), 16_000, subtype="FLOAT")
    assert np.array_equal(padded(short), padded(replace(short, path=tmp_path / "silent.wav")))
    # The encoder that is packaged does the same, and hears all of a longer recording.
    encoder = padded.encoder
    again = type(encoder)(encoder.weights(), **encoder.config())
    assert np.array_equal(again.frames(wave_S[:9_000])[0], encoder.frames(wave_S[:9_000])[0])
    assert len(again.frames(wave_S)) == 2
    assert "length" not in repeated.encoder.config()
    assert "length" not in TrainingSpec(steps=1).model_dump()
