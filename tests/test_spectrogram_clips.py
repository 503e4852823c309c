"""Clips that are spectrograms: written for one front end, taken by encoders that have it, refused by name elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from harken.bench.run import load_clips
from harken.bench.stages.tables import read_clips, read_ids
from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip
from harken.embeddings.embedder import Embedder, make_spec
from harken.encoders import FrontEnd, Spectrogram, create_encoder, tiny_config
from harken.encoders.spectrogram_file import read_front_end, read_spectrogram, write_spectrogram
from harken.encoders.torch_encoder import TorchEncoder
from harken.plant.simulate import simulate
from test_finetune import objects
from test_pipeline import SIZES, run

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
        (made,) = encoder.spectrogram(embedder.waveform(embedder.listen(clip.path).wave_CT))
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
