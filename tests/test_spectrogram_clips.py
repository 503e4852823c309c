"""Clips that are spectrograms: written for one front end, taken by encoders that have it, refused by name elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import Tensor

from conftest import SIZES
from harken.bench.run import load_clips
from harken.bench.stages.tables import read_clips, read_ids
from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip
from harken.data.labels import ClassTable
from harken.embeddings.embedder import Embedder, make_spec
from harken.encoders import FrontEnd, Spectrogram, create_encoder, tiny_config
from harken.encoders.spectrogram_file import read_front_end, read_spectrogram, write_spectrogram
from harken.encoders.torch_encoder import TorchEncoder
from harken.plant.simulate import simulate
from harken.training.augment.compose import Augmentation
from harken.training.augment.mixup import Mixup, mixed, one_hot
from harken.training.augment.random_state import rng_for
from harken.training.augment.spec_augment import SpecAugment
from harken.training.loop import train
from harken.training.model_spec import BranchSpec, ModelSpec
from harken.training.models import ASDModel, build_model
from harken.training.recordings import Reader
from harken.training.settings import LossSpec, TrainingSpec
from harken.training.spectrograms import SpectrogramForm, SpectrogramRows
from harken.training.step import TrainingStep
from test_finetune import objects
from test_pipeline import run

BEATS = FrontEnd("beats", 16_000, "0" * 64)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant")
    simulate(root, machines=["fan"], **SIZES)  # type: ignore[arg-type]
    return root


def tiny(name: str, **config: object) -> TorchEncoder:
    built = create_encoder(name, {**tiny_config(name), "seed": 0, **config})
    assert isinstance(built, TorchEncoder)
    return built


def generated(folder: Path, clips: Sequence[Clip], make: Callable[[Clip], Spectrogram], front_end: FrontEnd) -> Path:
    """A folder for import_clips: a spectrogram made of each clip."""
    folder.mkdir()
    rows = ["file,id,parent"]
    for number, clip in enumerate(clips):
        write_spectrogram(folder / f"{number}.safetensors", make(clip), front_end)
        rows.append(f"{number}.safetensors,{clip.clip_id}#made,{clip.clip_id}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


# --- the file


def test_a_file_holds_the_spectrogram_and_says_whose_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    windows = tuple(rng.normal(size=(frames, 5)).astype(np.float32) for frames in (4, 3))
    for name in ("a", "b"):
        write_spectrogram(tmp_path / name, Spectrogram(windows, 1200), BEATS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    front_end, read = read_spectrogram(tmp_path / "a")
    assert (front_end, read.samples) == (BEATS, 1200)
    assert all(np.array_equal(x, y) for x, y in zip(read.windows, windows, strict=True))
    assert read_front_end(tmp_path / "a") == (BEATS, 1200)
    assert safetensors.numpy.load_file(tmp_path / "a")["spectrogram"].shape == (7, 5)


def test_what_is_no_spectrogram_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finite"):
        write_spectrogram(tmp_path / "a", Spectrogram((np.full((2, 2), np.nan, np.float32),), 10), BEATS)
    with pytest.raises(ValueError, match="the same bins"):
        write_spectrogram(tmp_path / "a", Spectrogram((np.ones((2, 2)), np.ones((2, 3))), 10), BEATS)  # type: ignore[arg-type]
    safetensors.numpy.save_file({"spectrogram": np.ones((2, 2), np.float32)}, tmp_path / "a")
    (tmp_path / "b").write_bytes(b"RIFF")
    for name in ("a", "b"):
        for read in (read_spectrogram, read_front_end):
            with pytest.raises(AudioError, match=f"{name}: is no spectrogram of this version"):
                read(tmp_path / name)
    with pytest.raises(AudioError, match="cannot be read"):
        read_spectrogram(tmp_path / "c")


def test_the_example_of_the_page_writes_spectrograms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
    (code,) = re.findall(r"```python\n(.*?write_spectrogram.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "recipes.md", "exec"), {})
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == 3
    encoder = tiny("beats")
    for file in files:
        front_end, spectrogram = read_spectrogram(file)
        assert front_end == encoder.front_end()
        encoder.encode_spectrogram([spectrogram])


# --- front ends


def test_sizes_of_a_network_share_a_front_end_and_settings_of_it_do_not() -> None:
    assert tiny("beats").front_end() == tiny("beats", depth=1, seed=3).front_end()
    assert tiny("fisher").front_end() != tiny("fisher", sample_rate=32_000).front_end()
    assert tiny("eat").front_end() != tiny("eat", target_frames=64).front_end()
    # Its front end is learned.
    other = tiny("dasheng")
    other.module.get_submodule("init_bn.1").weight.data[0] += 1
    assert tiny("dasheng").front_end() != other.front_end()


def test_a_spectrogram_of_another_shape_than_its_length_is_refused() -> None:
    encoder = tiny("beats")
    (clip,) = encoder.spectrogram(np.zeros((1, 16_000), np.float32))
    with pytest.raises(ValueError, match="16000 samples has windows of 96 x 128 frames and bins, not 96 x 64"):
        encoder.encode_spectrogram([replace(clip, windows=(clip.windows[0][:, :64],))])


# --- the whole way


RECIPE = """
name: generated
title: Learned with generated spectrograms
stages:
  made: {{use: import_clips, folder: {folder}}}
  embed: {{use: embed, encoder: {encoder}, size: tiny, from: made}}
  with_made: {{use: detect, from: [embed, made], detector: knn, model: machine}}
  without: {{use: detect, from: embed, detector: knn, model: machine}}
systems: {{with_made: with_made, without: without}}
profiles: {{tiny: {{}}}}
"""


def test_a_generated_spectrogram_is_embedded_as_its_sound(plant: Path, tmp_path: Path) -> None:
    encoder = tiny("beats")
    clips = load_clips(plant)[0]
    train = [clip for clip in clips if clip.split == "train"]
    spec = make_spec("beats", sample_rate=16_000, channels=1, config=encoder.config(), weights=encoder.weights())
    embedder = Embedder(spec, encoder.weights())

    def make(clip: Clip) -> Spectrogram:
        (made,) = encoder.spectrogram(embedder.waveform(embedder.listen(clip.path).wave_CS))
        return made

    folder = generated(tmp_path / "made", train, make, encoder.front_end())
    # One that is damaged is set aside, as a recording would be.
    damaged = folder / "0.safetensors"
    write_spectrogram(damaged, Spectrogram((np.zeros((5, 128), np.float32),), 16_000), encoder.front_end())
    recipe = tmp_path / "generated.yaml"
    recipe.write_text(RECIPE.format(folder=folder, encoder="beats"))
    done, _ = run(plant, tmp_path / "w", str(recipe))
    assert not done.failures
    (imported,) = objects(tmp_path / "w", "import_clips")
    made = read_clips(imported)
    assert {clip.payload for clip in made} == {"spectrogram"}
    (embedded,) = objects(tmp_path / "w", "embed")
    ids, aside = read_ids(embedded)
    assert [row.clip_id for row in aside] == [f"{train[0].clip_id}#made"]
    assert "16000 samples has windows of 96 x 128" in aside[0].reason
    rows_ND = safetensors.numpy.load_file(embedded / "embeddings.safetensors")["embeddings"]
    vector_of = dict(zip(ids, rows_ND, strict=True))
    for clip in train[1:]:
        assert np.array_equal(vector_of[clip.clip_id], vector_of[f"{clip.clip_id}#made"])
    # Scored are recordings only.
    tests = {clip.clip_id for clip in clips if clip.split == "test"}
    for system in done.systems:
        assert set(system.scores.test.clip_id) == tests


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (
            "fisher",
            r"#made: is a spectrogram of the front end of beats at 16000 Hz \(\w{8}\), not of fisher at 16000 Hz",
        ),
        ("spectral", r"#made: is a spectrogram, and spectral takes none"),
    ],
)
def test_a_spectrogram_for_another_encoder_is_refused_by_name(
    plant: Path, tmp_path: Path, encoder: str, message: str
) -> None:
    beats = tiny("beats")
    (silence,) = beats.spectrogram(np.zeros((1, 16_000), np.float32))
    train = next(clip for clip in load_clips(plant)[0] if clip.split == "train")
    folder = generated(tmp_path / "made", [train], lambda clip: silence, beats.front_end())
    recipe = tmp_path / "generated.yaml"
    recipe.write_text(RECIPE.format(folder=folder, encoder=encoder))
    with pytest.raises(HarkenError, match=message):
        run(plant, tmp_path / "w", str(recipe))


# --- in training


def model_of(*encoders: str, **more: object) -> ASDModel:
    branches = tuple(BranchSpec(encoder=name, size="tiny", **more) for name in encoders)  # type: ignore[arg-type]
    return build_model(ModelSpec(branches=branches))


def sounds(model: ASDModel, clips: int) -> tuple[Tensor, SpectrogramForm]:
    samples = model.sample_rate
    wave_BS = torch.from_numpy(np.random.default_rng(0).normal(scale=0.1, size=(clips, samples)).astype(np.float32))
    return wave_BS, model.spectrogram_form(samples)


def rows_of(model: ASDModel, wave_BS: Tensor, rows: list[int]) -> tuple[Tensor, SpectrogramRows]:
    """The batch with some of its clips as spectrograms, which are silence among the waveforms."""
    made = [clip.windows[0] for clip in model.encoders[0].spectrogram(wave_BS[rows].numpy())]
    silent_BS = wave_BS.clone()
    silent_BS[rows] = 0
    return silent_BS, SpectrogramRows(torch.tensor(rows), torch.from_numpy(np.stack(made)))


def learned(step: TrainingStep, *batch: object) -> tuple[float, list[Tensor]]:
    """Loss, and gradients, of a batch."""
    torch.manual_seed(0)
    step.train().zero_grad()
    loss = torch.stack(list(step(*batch).values())).sum()
    loss.backward()
    return float(loss.detach()), [x.grad.clone() for x in step.parameters() if x.grad is not None]


@pytest.mark.parametrize(
    "encoders", [("beats",), ("eat",), ("fisher",), ("efficientat",), ("yamnet",), ("beats", "beats")], ids="+".join
)
def test_a_step_on_spectrograms_is_that_on_their_sounds(encoders: tuple[str, ...]) -> None:
    model = model_of(*encoders)
    step = TrainingStep(model, (LossSpec(),), classes=2)
    wave_BS, _ = sounds(model, 4)
    class_B = torch.tensor([0, 1, 0, 1])
    mixed_BS, spectrograms = rows_of(model, wave_BS, [1, 2])
    loss, gradients = learned(step, wave_BS, class_B, None, 0, "0")
    found, others = learned(step, mixed_BS, class_B, None, 0, "0", spectrograms)
    assert found == pytest.approx(loss, abs=1e-6)
    assert gradients
    for x, y in zip(gradients, others, strict=True):
        torch.testing.assert_close(x, y, atol=1e-6, rtol=1e-5)


def test_masks_fall_on_spectrograms_as_on_their_sounds() -> None:
    model = model_of("beats")
    wave_BS, _ = sounds(model, 4)
    class_B = torch.tensor([0, 1, 0, 1])

    def loss(rows: list[int], **settings: object) -> float:
        augmentation = Augmentation(**settings)  # type: ignore[arg-type]
        step = TrainingStep(model, (LossSpec(name="scadacos"),), classes=2, augmentation=augmentation)
        silent_BS, spectrograms = rows_of(model, wave_BS, rows)
        return learned(step, silent_BS, class_B, None, 0, "0", spectrograms)[0]

    masks = SpecAugment(time=40, frequency=60)
    masked = loss([0, 1, 2, 3], spec_augment=masks)
    assert masked != pytest.approx(loss([0, 1, 2, 3]), rel=1e-4)
    assert loss([1, 2], spec_augment=masks) == pytest.approx(masked, abs=1e-6)


def test_mixup_mixes_sounds_with_sounds_and_spectrograms_with_spectrograms() -> None:
    model = model_of("beats")
    wave_BS, _ = sounds(model, 5)
    class_B = torch.tensor([0, 1, 2, 3, 1])
    rows, heard = [1, 2, 4], [0, 3]
    silent_BS, spectrograms = rows_of(model, wave_BS, rows)
    settings = Mixup(probability=1.0)
    step = TrainingStep(
        model, (LossSpec(name="scadacos"),), classes=4, augmentation=Augmentation(mixup=settings), seed=7
    )
    loss = learned(step, silent_BS, class_B, None, 3, "5", spectrograms)[0]

    # By hand, of each kind with its own shares: x <- l x + (1 - l) flip(x).
    shares_BC = one_hot(class_B, 4)
    for kind, places, x in (("mixup", heard, silent_BS), ("mixup of spectrograms", rows, None)):
        kept_N = settings.kept_shares(len(places), rng_for(7, 3, "5", kind))
        assert (kept_N < 1).all()
        shares_BC[places] = mixed(shares_BC[places], kept_N)
        if x is not None:
            x[places] = mixed(x[places], kept_N)
        else:
            spectrograms = SpectrogramRows(spectrograms.rows_K, mixed(spectrograms.spectrogram_KFM, kept_N))
    # Its scale adapts with every call.
    (term,) = TrainingStep(model, (LossSpec(name="scadacos"),), classes=4, seed=7).losses
    with torch.no_grad():
        expected = term(model(silent_BS, spectrograms=spectrograms), shares_BC)
    assert loss == pytest.approx(float(expected), rel=1e-5)
    # A spectrogram by itself has none to be mixed with.
    alone_BS, one = rows_of(model, wave_BS[:1], [0])
    assert np.isfinite(learned(step, alone_BS, class_B[:1], None, 0, "0", one)[0])


@pytest.mark.parametrize(
    ("encoders", "message"),
    [
        (("dual_branch",), "dual_branch takes no spectrograms"),
        (("beats", "eat"), r"branches have beats at 16000 Hz \(\w+\) and eat at 16000 Hz"),
        (("dasheng",), "the front end of dasheng learns"),
    ],
)
def test_networks_that_cannot_be_trained_on_spectrograms(encoders: tuple[str, ...], message: str) -> None:
    model = model_of(*encoders)

    def check() -> None:
        model.spectrogram_form(model.sample_rate)
        model.check_front_ends_stay()

    with pytest.raises(ValueError, match=message):
        check()
    frozen = model_of("dasheng", frozen=True)
    frozen.check_front_ends_stay()
    assert frozen.spectrogram_form(16_000).shape == (101, 64)


def test_a_training_on_spectrograms_ends_as_one_on_their_sounds(plant: Path, tmp_path: Path) -> None:
    train_clips = [clip for clip in load_clips(plant)[0] if clip.split == "train"]
    spec = TrainingSpec(steps=3, batch=4, evaluate_every=3, seconds=1.0, held_out=0, choose="last")
    model = ModelSpec(branches=(BranchSpec(encoder="beats", size="tiny"),))
    encoder, read = build_model(model).encoders[0], Reader(16_000, 1.0)
    folder = tmp_path / "made"
    folder.mkdir()
    made = []
    for number, clip in enumerate(train_clips):
        (spectrogram,) = encoder.spectrogram(read(clip)[None])
        write_spectrogram(folder / f"{number}", spectrogram, encoder.front_end())
        made.append(replace(clip, path=folder / f"{number}", payload="spectrogram") if number % 2 else clip)
    ids = [clip.clip_id for clip in train_clips]
    table = ClassTable(
        harken_labels=1,
        policy="test",
        classes=("a", "b"),
        attribute_free=(False, False),
        counts=(len(ids[::2]), len(ids[1::2])),
        class_of={clip_id: row % 2 for row, clip_id in enumerate(ids)},
    )
    ends = []
    for name, clips in (("sounds", train_clips), ("some", made)):
        done = train(model, spec, clips, table, tmp_path / name)
        assert not done.quarantined
        ends.append(done.model.state())
    for name, array in ends[0].items():
        np.testing.assert_allclose(ends[1][name], array, atol=1e-6)
    with pytest.raises(HarkenError, match="is a spectrogram of 16000 samples, and clips of 8000 are learned from"):
        train(model, spec.model_copy(update={"seconds": 0.5}), made, table, tmp_path / "short")


TRAINED = """
name: trained
title: Trained on generated spectrograms
stages:
  made: {{use: import_clips, folder: {folder}}}
  labels: {{use: labels, from: made}}
  train:
    use: train
    from: [labels, made]
    model: {{branches: [{{encoder: {encoder}, size: tiny}}]}}
    training: {{steps: 2, batch: 4, evaluate_every: 2, seconds: 1.0, held_out: 0.2}}
  embed: {{use: embed_trained, from: [train, made]}}
  blocks: {{use: embed_trained, from: [train, made], layers: all}}
  detect: {{use: detect, from: [embed, made], detector: knn, model: machine}}
systems: {{detect: detect}}
profiles: {{tiny: {{}}}}
"""


def test_generated_spectrograms_are_trained_on_and_embedded(plant: Path, tmp_path: Path) -> None:
    clips = load_clips(plant)[0]
    train_clips = [clip for clip in clips if clip.split == "train"]
    encoder, read = tiny("beats"), Reader(16_000, None)
    folder = generated(
        tmp_path / "made", train_clips, lambda clip: encoder.spectrogram(read(clip)[None])[0], encoder.front_end()
    )
    recipe = tmp_path / "trained.yaml"
    recipe.write_text(TRAINED.format(folder=folder, encoder="beats"))
    done, _ = run(plant, tmp_path / "w", str(recipe))
    assert not done.failures
    (training,) = objects(tmp_path / "w", "train")
    assert {f"{clip.clip_id}#made" for clip in train_clips} & set(read_ids(training)[0])
    for embedded in objects(tmp_path / "w", "embed_trained"):
        ids, aside = read_ids(embedded)
        assert not aside
        rows_ND = safetensors.numpy.load_file(embedded / "embeddings.safetensors")["embeddings"]
        vector_of = dict(zip(ids, rows_ND, strict=True))
        for clip in train_clips:
            assert np.array_equal(vector_of[clip.clip_id], vector_of[f"{clip.clip_id}#made"])
    recipe.write_text(TRAINED.format(folder=folder, encoder="fisher"))
    with pytest.raises(HarkenError, match=r"front end of beats at 16000 Hz .*, not of fisher at 16000 Hz"):
        run(plant, tmp_path / "w", str(recipe))
