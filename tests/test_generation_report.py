"""The report on generated clips: numbers, pictures and sounds of a plant, of clips that are good, wrong and copied."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from harken.bench.run import load_clips
from harken.data.clips import Clip
from harken.encoders import create_encoder, tiny_config
from harken.encoders.spectrogram_file import write_spectrogram
from harken.plant.simulate import simulate
from test_finetune import objects
from test_pipeline import run

RECIPE = """
name: report
title: Report
stages:
  made: {use: import_clips, folder: FOLDER}
  embed: {use: embed, encoder: spectral, from: made}
  page: {use: generation_report, from: [embed, made], pictured: 1}
  nearest: {use: detect, from: [embed, made], detector: knn}
systems: {nearest: nearest}
profiles: {tiny: {}}
"""


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant")
    simulate(root, machines=["fan"], train_source=8, train_target=6, test_per_condition=3, supplemental=1, seconds=1.0)
    return root


def manifest(folder: Path, clips: list[Clip], files: list[str]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["file", "id", "parent"])
        writer.writerows(
            [file, f"made-{row}", clip.clip_id] for row, (file, clip) in enumerate(zip(files, clips, strict=True))
        )


def rows_of(workspace: Path) -> list[dict[str, object]]:
    (folder,) = objects(workspace, "generation_report")
    rows: list[dict[str, object]] = json.loads((folder / "report.json").read_text())
    return rows


def recipe(tmp_path: Path) -> str:
    file = tmp_path / "report.yaml"
    file.write_text(RECIPE.replace("FOLDER", str(tmp_path / "made")))
    return str(file)


def test_copies_and_clips_of_another_condition_are_told_from_good_ones(plant: Path, tmp_path: Path) -> None:
    train = [clip for clip in load_clips(plant)[0] if clip.split == "train" and clip.kind == "machine"]
    target = [clip for clip in train if clip.domain == "target"]
    source = [clip for clip in train if clip.domain == "source"]
    folder = tmp_path / "made"
    folder.mkdir()
    # As if a model had learned clips by heart: those of the target domain, and, called so, those of the source domain.
    files = []
    for number, clip in enumerate([*target, *source]):
        sound_S, rate = sf.read(clip.path)
        files.append(f"{number}.wav")
        sf.write(folder / files[-1], 0.999 * sound_S, rate, subtype="FLOAT")
    named = [*target, *(target[row % len(target)] for row in range(len(source)))]
    manifest(folder, named, files)
    done, _ = run(plant, tmp_path / "work", recipe(tmp_path))
    assert not done.failures
    rows = rows_of(tmp_path / "work")
    assert sum(row["generated"] for row in rows) == len(files)  # type: ignore[misc]
    for row in rows:
        like = row["likeness"]
        assert isinstance(like, dict)
        assert like["copies"] == 1
        assert row["key"]["domain"] == "target"  # type: ignore[index]
        assert 0.2 < like["same"] < 0.8, "half of them are of another condition"
        assert like["same_floor"] > like["same"]
    page = (done.folder / "pages" / "page.html").read_text()
    assert page.count("<audio") == 4, "of one condition, two real and two generated"
    assert page.count("data:image/webp") == 4
    assert "1 of" in page
    assert run(plant, tmp_path / "work", recipe(tmp_path))[1] == []


def test_spectrograms_are_seen_and_heard(plant: Path, tmp_path: Path) -> None:
    clip = next(clip for clip in load_clips(plant)[0] if clip.split == "train" and clip.domain == "target")
    encoder = create_encoder("beats", tiny_config("beats"))
    sound_S = sf.read(clip.path, dtype="float32")[0]
    (spectrogram,) = encoder.spectrogram(np.asarray(sound_S)[None])
    folder = tmp_path / "made"
    folder.mkdir()
    write_spectrogram(folder / "one.safetensors", spectrogram, encoder.front_end())
    manifest(folder, [clip], ["one.safetensors"])
    file = tmp_path / "report.yaml"
    file.write_text(RECIPE.replace("FOLDER", str(folder)).replace("encoder: spectral", "encoder: beats, size: tiny"))
    done, _ = run(plant, tmp_path / "work", str(file))
    assert not done.failures
    (row,) = rows_of(tmp_path / "work")
    assert row["generated"] == 1
    assert row["likeness"]["frechet"] is None, "one clip has no distribution"  # type: ignore[index]
    page = (done.folder / "pages" / "page.html").read_text()
    assert "preview by Griffin and Lim" in page
    assert page.count("<audio") == 3
