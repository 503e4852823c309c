"""harken generate: a folder of a machine's recordings, by class, to more of one class; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from command_line import harken
from conftest import hum, needs
from harken.encoders import create_encoder, tiny_config
from harken.encoders.spectrogram_file import read_spectrogram

pytestmark = needs("diffusers")
SMALL = ("--size", "tiny", "--steps", 2, "--sampling-steps", 2, "--seconds", 0.5)


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of two classes, one of them with a single clip, and a file that is none."""
    root = tmp_path_factory.mktemp("machine") / "normal"
    for name, count in (("idle", 3), ("full load", 1)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            sf.write(root / name / f"{number}.wav", hum(number)[:16_000], 16_000)
    (root / "idle" / "damaged.wav").write_bytes(b"no sound")
    return root


def test_clips_of_a_class_are_written_with_previews(normal: Path, tmp_path: Path) -> None:
    words = ("generate", normal, "-o", tmp_path / "more", "--class", "full load", "-n", 2, *SMALL)
    done = harken(*words, "--json")
    rows = [json.loads(text) for text in done.stdout.splitlines()]
    assert [Path(row["preview"]).name for row in rows] == ["full_load-000.wav", "full_load-001.wav"]
    assert {row["class"] for row in rows} == {"full load"}
    assert "for the ear alone" in done.stderr
    assert "damaged.wav" in done.stderr
    front_end = create_encoder("beats", tiny_config("beats")).front_end()
    contents = []
    for row in rows:
        found, spectrogram = read_spectrogram(Path(row["spectrogram"]))
        assert (found, spectrogram.samples) == (front_end, 8000)
        sound_S, rate = sf.read(row["preview"])
        assert rate == 16_000
        assert np.abs(sound_S).max() > 0
        contents.append(Path(row["spectrogram"]).read_bytes())
    assert contents[0] != contents[1]
    # The training is done, and gives the same again; another class comes from the same network.
    made = (tmp_path / "more" / "training" / "state.safetensors").stat().st_mtime_ns
    harken(*words)
    assert [Path(row["spectrogram"]).read_bytes() for row in rows] == contents
    harken("generate", normal, "-o", tmp_path / "more", "--class", "idle", "-n", 1, *SMALL)
    assert (tmp_path / "more" / "training" / "state.safetensors").stat().st_mtime_ns == made
    changed = harken(*words, "--seed", 1, code=2)
    assert "is the state of another training" in changed.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "the recordings are of several classes. Name one with --class: full load, idle"),
        (("--class", "idel"), "there is no class 'idel'. Did you mean idle"),
        (("--class", "idle", "--size", "huge"), "there is no size 'huge'"),
        (("--class", "idle", "--encoder", "spectral"), "spectral takes no spectrograms"),
        (("--class", "idle", "--encoder", "beets"), "there is no encoder 'beets'"),
        (("--class", "idle", "--seconds", 60), "60 s pass through it in"),
        (("--class", "idle", "--size", "tiny", "--sampling-steps", 101), "sampled in 100 steps at most"),
    ],
)
def test_what_cannot_be_is_refused(normal: Path, tmp_path: Path, options: tuple[object, ...], message: str) -> None:
    done = harken("generate", normal, "-o", tmp_path / "more", *options, code=2)
    assert message in done.stderr
    assert not list(tmp_path.rglob("*.wav"))


def test_folders_that_cannot_be_used(normal: Path, tmp_path: Path) -> None:
    assert "is among the recordings" in harken("generate", normal, "-o", normal / "more", code=2).stderr
    assert "is not a folder" in harken("generate", normal / "none", "-o", tmp_path, code=2).stderr
    (tmp_path / "file").touch()
    assert "is a file" in harken("generate", normal, "-o", tmp_path / "file", code=2).stderr
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.wav").write_bytes(b"no sound")
    done = harken("generate", tmp_path / "damaged", "-o", tmp_path / "more", *SMALL[:-2], code=2)
    assert "none of the recordings can be used" in done.stderr
    (tmp_path / "test").mkdir()
    sf.write(tmp_path / "test" / "section_00_source_test_anomaly_0001_spd_28V.wav", hum(0), 16_000)
    assert "has no normal recordings" in harken("generate", tmp_path / "test", "-o", tmp_path / "more", code=2).stderr
