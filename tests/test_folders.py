"""Which recordings a folder gives, the same for fit, score and the index; what is not read is said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile as sf

from command_line import harken
from conftest import hum
from harken.audio.suffixes import ALL_SUFFIXES, DEFAULT_SUFFIXES
from harken.core.errors import HarkenError
from harken.data.cells import read_clip
from harken.data.check import check
from harken.data.folders import find_recordings, recordings_of
from harken.data.index import index
from harken.data.truth import Label, Truth


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in find_recordings([folder], DEFAULT_SUFFIXES)]


def test_links_are_followed_and_no_folder_is_visited_twice(tmp_path: Path) -> None:
    touch(tmp_path / "store" / "a.wav", tmp_path / "normal" / "b.wav", tmp_path / "normal" / "z" / "c.wav")
    (tmp_path / "normal" / "more").symlink_to("../store")
    (tmp_path / "normal" / "a_link").symlink_to("z")
    (tmp_path / "normal" / "z" / "loop").symlink_to("..")
    (tmp_path / "normal" / "itself").symlink_to("itself")
    assert names(tmp_path / "normal") == ["b.wav", "more/a.wav", "z/c.wav"]
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "shift1").symlink_to("../store")
    assert names(tmp_path / "links") == ["shift1/a.wav"]
    assert len(index(tmp_path / "links")[0]) == 1


def test_deleted_and_system_files_are_left_out_and_unread_endings_named(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in (
        "c_1.wav", "d.WAVE", "$RECYCLE.BIN/old.wav", "#recycle/x/old.wav", "@eaDir/c_1.wav/t.jpg", "__MACOSX/._c.wav",
        "lost+found/f.flac", "System Volume Information/s.wav", ".hidden/h.wav", "._c_1.wav", "e.aif", "f.mp3", "g.m4a",
        "h.WMA", "notes.txt", "FOUND.007/f.wav",
    )))  # fmt: skip
    given = recordings_of([tmp_path], DEFAULT_SUFFIXES)
    assert [path.name for path in given.files] == ["c_1.wav", "d.WAVE"]
    assert given.notes[:2] == (
        "2 files with audio endings that are not read: .aif, .mp3 (--formats all)",
        "2 files with audio endings that are not read: .m4a, .wma (convert them: ffmpeg -i FILE NEW_FILE.wav)",
    )
    assert "$RECYCLE.BIN" in given.notes[2]
    assert "#recycle" in given.notes[2]
    assert len(recordings_of([tmp_path], ALL_SUFFIXES).files) == 4
    clips, findings = index(tmp_path)
    assert [clip.clip_id for clip in clips] == ["c_1.wav", "d.WAVE", "e.aif", "f.mp3"]
    assert any(".m4a, .wma" in str(finding) for finding in findings)
    # What is asked for by its name is read, whatever the name.
    assert names(tmp_path / "#recycle") == ["x/old.wav"]


def test_a_folder_without_readable_audio_says_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path / "a.m4a", tmp_path / "b.ogg")
    with pytest.raises(HarkenError, match=r"no audio in this folder; 1 file .* \.ogg \(--formats all\); .* \.m4a"):
        find_recordings([tmp_path], DEFAULT_SUFFIXES)


def test_fit_and_score_say_what_they_do_not_read(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_clips("normal", 4)
    (folder / "more").symlink_to(make_clips("store", 2, first_seed=9))
    touch(folder / "phone.m4a", folder / "#recycle" / "old.wav")
    fitted = harken("fit", folder, "-o", tmp_path / "m.harken")
    scored = harken("score", folder, "-m", tmp_path / "m.harken")
    assert "learned from 6 recordings (0 set aside)" in fitted.stderr
    for done in (fitted, scored):
        assert "note: 1 file with an audio ending that is not read: .m4a (convert" in done.stderr
        assert "left out: #recycle" in done.stderr


def test_clips_in_sub_folders_of_test_are_clips_of_their_machine(plant: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(plant, tmp_path / "tree"))
    count = len(index(tree)[0])
    shift = tree / "fan" / "test" / "shiftA"
    shift.mkdir()
    for file in sorted((tree / "fan" / "test").glob("*.wav")):
        file.rename(shift / file.name)
    clips, findings = index(tree)
    assert len(clips) == count
    assert {clip.machine for clip in clips} == {"fan", "valve"}
    assert {clip.split for clip in clips if "shiftA" in clip.clip_id} == {"test"}
    (finding,) = [finding for finding in findings if finding.folder.endswith("fan/test")]
    assert finding.text == "clips in its sub-folders are taken for clips of fan"
    assert finding.example == "shiftA"
    assert not [finding for finding in findings if "attributes" in finding.text]


def test_folders_of_machines_below_train_and_test_are_machines(tmp_path: Path) -> None:
    touch(*(tmp_path / split / machine / f"section_00_source_{split}_normal_0000_x.wav"
            for split in ("train", "test") for machine in ("fan", "pump")))  # fmt: skip
    assert {(clip.machine, clip.split) for clip in index(tmp_path)[0]} == {
        (machine, split) for machine in ("fan", "pump") for split in ("train", "test")
    }


def test_two_clips_of_one_name_are_a_finding_and_no_run(plant: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(plant, tmp_path / "tree"))
    first = sorted((tree / "fan" / "test").glob("*.wav"))[0]
    sf.write(first.with_suffix(".flac"), hum(1), 16_000)
    (text,) = [text for text in check(tree) if "two clips of one name" in text]
    assert first.name in text
    assert f"{first.stem}.flac" in text
    done = harken("run", "spectral_knn", "--data", tree, "--workspace", tmp_path / "w", code=2)
    assert "but for ending or folder: their scores could not be told apart" in done.stderr
    first.unlink()
    assert not [text for text in check(tree) if "two clips of one name" in text]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_folders_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "secret" / "b.wav")
    (tmp_path / "secret").chmod(0)
    assert "secret cannot be read (Permission denied)" in recordings_of([tmp_path], DEFAULT_SUFFIXES).notes[0]
    (tmp_path / "secret").chmod(0o755)


def test_names_that_print_alike_are_joined(plant: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(plant / "fan", tree / "Lu\u0308fter")
    clips = index(tree)[0]
    assert {clip.machine for clip in clips} == {"Lüfter"}
    assert all(clip.path.is_file() for clip in clips)
    truth = Truth(source=tmp_path)
    truth.add(("Lu\u0308fter", "00"), "u\u0308", Label(True, "source"))
    assert truth.labels == {("Lüfter", "00"): {"ü": Label(True, "source")}}
    assert read_clip("Lu\u0308fter.wav") == "Lüfter"


def test_a_name_that_no_table_can_hold_is_named(tmp_path: Path) -> None:
    name = os.fsdecode(b"section_00_source_train_normal_0000_ger\xe4t_6.wav")
    touch(tmp_path / "fan" / "train" / name)
    done = harken("data", "index", tmp_path, code=2)
    assert "ger\\xe4t_6.wav: has a name that is not UTF-8, which tables cannot hold. Rename it" in done.stderr
