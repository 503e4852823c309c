"""Versions of a model: any order of changes, any moment of a kill, and files of strangers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from harken.core.errors import BundleError, HarkenError
from harken.monitor import bundle as bundles
from harken.monitor import manifests
from harken.monitor.bundle import add_version, read_bundle, write_bundle
from harken.monitor.manifests import earlier_versions, manifest_bytes, version_file
from harken.monitor.versions import Version, list_versions, stored_version, version_before, version_of

KEPT = 4


def content(number: int, value: int, **values: Any) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """A bundle's content: the rows that all versions share, and a detector of its own."""
    version = Version(number=number, kind="update", who="me", when="2026-03-01T00:00:00Z", parent=number - 1, **values)
    settings_of = {"names": [], "value": value, **(stored_version(version) if number > 1 else {})}
    return settings_of, {"training": {"rows": np.arange(50)}, "detector": {"bank": np.full(40, value)}}


class Versions(RuleBasedStateMachine):
    """Changes in any order: the version in use and all that are kept are read as they were written."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "m"
        self.values: dict[int, int] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize()
    def fit(self) -> None:
        write_bundle(self.path, *content(1, 1))
        self.values = {1: 1}

    @rule(value=st.integers(2, 6))
    def change(self, value: int) -> None:
        number = max(self.values) + 1
        add_version(self.path, lambda current: content(number, value))
        self.values[number] = value

    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        kept = [version.number for version in list_versions(self.path)]
        to = data.draw(st.sampled_from(kept))
        about, _ = read_bundle(self.path, to)
        number = max(self.values) + 1
        add_version(self.path, lambda current: content(number, about["value"], to=to))
        self.values[number] = self.values[to]

    @rule(value=st.integers(2, 6))
    def refused(self, value: int) -> None:
        def refuse(current: object) -> Any:
            raise HarkenError("is refused")

        with pytest.raises(HarkenError, match="is refused"):
            add_version(self.path, refuse)

    @precondition(lambda self: len(self.values) > 2)
    @rule(value=st.integers(2, 6))
    def fit_again(self, value: int) -> None:
        """A new fit is a new model: nothing is left of the old one."""
        write_bundle(self.path, *content(1, value))
        self.values = {1: value}

    @invariant()
    def all_that_is_kept_is_read(self) -> None:
        if not self.values:
            return
        last = max(self.values)
        kept = [version.number for version in list_versions(self.path)]
        assert kept == sorted({1, last} | {number for number in self.values if number >= last - KEPT})
        for number in kept:
            about, parts = read_bundle(self.path, number)
            assert about["value"] == self.values[number]
            assert (parts["detector"]["bank"] == self.values[number]).all()
        assert read_bundle(self.path)[0]["value"] == self.values[last]
        # Arrays that are the same are one file, and no others are there.
        arrays = {self.values[number] for number in kept}
        assert len(list(self.path.glob("*.safetensors"))) == 1 + len(arrays)


TestVersions = Versions.TestCase
TestVersions.settings = settings(max_examples=8, stateful_step_count=10, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def _few_versions() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(manifests, "MOST_VERSIONS", KEPT)
    yield
    patch.undo()


# ---------------------------------------------------------------- kills


def steps_of_a_change(path: Path, stop: int | None) -> int:
    """Add a version and stop before file operation number `stop`, as a kill does; how many there are."""
    patch, done = pytest.MonkeyPatch(), 0

    def counted(original: Any) -> Any:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            if done == stop:
                raise KeyboardInterrupt
            done += 1
            return original(*arguments, **options)

        return step

    patch.setattr(bundles, "write_atomically", counted(bundles.write_atomically))
    patch.setattr(Path, "unlink", counted(Path.unlink))
    patch.setattr(Path, "mkdir", counted(Path.mkdir))
    try:
        add_version(path, lambda current: content(version_of(current[0]).number + 1, 100 + current[0]["value"]))
    except KeyboardInterrupt:
        pass
    finally:
        patch.undo()
    return done


def test_a_kill_at_any_step_leaves_the_version_before_or_the_new_one(tmp_path: Path) -> None:
    first = tmp_path / "first"
    write_bundle(first, *content(1, 1))
    for number in range(2, 9):
        add_version(first, lambda current, number=number: content(number, number))
    shutil.copytree(first, tmp_path / "counted")
    count = steps_of_a_change(tmp_path / "counted", None)
    assert count >= 5
    seen = set()
    for stop in range(count):
        path = tmp_path / f"stop {stop}"
        shutil.copytree(first, path)
        steps_of_a_change(path, stop)
        values = {version.number: read_bundle(path, version.number)[0]["value"] for version in list_versions(path)}
        last = max(values)
        seen.add(last)
        assert values[last] == (8 if last == 8 else 108)
        assert all(values[number] == number for number in values if number < 9)
        # What was left is of no harm to the next change, and is swept by it.
        steps_of_a_change(path, None)
        assert [version.number for version in list_versions(path)] == [1, *range(last + 1 - KEPT, last + 2)]
        named = {name for file in path.rglob("*.json") for name in json.loads(file.read_text())["files"]}
        assert {file.name for file in path.glob("*.safetensors")} == named
        assert not list(path.rglob("*.tmp"))
    assert seen == {8, 9}


WRITER = """
import sys
import numpy as np
from harken.monitor.bundle import add_version
from harken.monitor.versions import Version, stored_version, version_of
def change(current):
    number = version_of(current[0]).number + 1
    version = stored_version(Version(number=number, kind="update", who=sys.argv[2], parent=number - 1))
    bank = np.append(current[1]["detector"]["bank"], number)
    return {"names": [], **version}, {"detector": {"bank": bank}}
for _ in range(int(sys.argv[3])):
    add_version(sys.argv[1], change)
"""


def test_no_change_of_two_writers_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write_bundle(path, {"names": []}, {"detector": {"bank": np.array([1])}})
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), who, "8"], stderr=subprocess.PIPE)
        for who in ("Anna", "Ben")
    ]
    while any(writer.poll() is None for writer in writers):
        about, parts = read_bundle(path)
        assert parts["detector"]["bank"].tolist() == list(range(1, version_of(about).number + 1))
    assert [writer.communicate()[1] for writer in writers] == [b"", b""]
    assert list_versions(path)[-1].number == 17


# ---------------------------------------------------------------- strangers


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "m", *content(1, 1))
    for number in (2, 3):
        add_version(tmp_path / "m", lambda current, number=number: content(number, number))
    return tmp_path / "m"


@pytest.mark.parametrize(
    "version",
    [
        {"number": 0},
        {"number": 1.5},
        {"number": True},
        {"number": 10**9},
        [3],
        "3",
    ],
)
def test_numbers_that_no_version_has_are_refused(version: object, model: Path) -> None:
    manifest = json.loads((model / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["about"]["version"] = version
    (model / "manifest.json").write_bytes(manifest_bytes(manifest))
    with pytest.raises(BundleError, match="damaged"):
        list_versions(model)


@pytest.mark.parametrize(
    "change",
    [{"kind": "magic"}, {"who": 7}, {"why": "x" * 2000}, {"recordings": -1}, {"to": "1"}, {"more": 1}, {"effect": []}],
)
def test_entries_that_no_version_has_are_refused(change: dict[str, object]) -> None:
    stored = stored_version(Version(number=2, kind="update", who="me"))["version"]
    with pytest.raises((ValueError, TypeError)):
        version_of({"version": {**stored, **change}})
    assert version_of({"version": stored}).who == "me"


def test_an_earlier_version_that_is_damaged_harms_no_other(model: Path) -> None:
    version_file(model, 2).write_text("{}")
    assert [version.number for version in list_versions(model)] == [1, 3]
    assert read_bundle(model, 1)[0]["value"] == 1
    with pytest.raises(BundleError, match=r"0002\.json: is damaged"):
        read_bundle(model, 2)
    shutil.copy(version_file(model, 1), version_file(model, 2))
    with pytest.raises(BundleError, match="another version than its name"):
        read_bundle(model, 2)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_links_among_versions_are_not_followed_and_nothing_outside_is_removed(model: Path, tmp_path: Path) -> None:
    version_file(model, 2).unlink()
    version_file(model, 2).symlink_to(model / "manifest.json")
    with pytest.raises(BundleError, match="not a regular file"):
        read_bundle(model, 2)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.safetensors").write_text("1")
    (outside / "0001.json").write_text("{}")
    shutil.rmtree(model / "versions")
    (model / "versions").symlink_to(outside)
    assert earlier_versions(model) == {}
    add_version(model, lambda current: content(4, 4))
    assert sorted(file.name for file in outside.iterdir()) == ["0001.json", "precious.safetensors"]
    assert [version.number for version in list_versions(model)] == [3, 4]


def test_saving_a_version_over_itself_keeps_its_history(model: Path) -> None:
    write_bundle(model, *read_bundle(model), schema=3)
    assert [version.number for version in list_versions(model)] == [1, 2, 3]


def test_undoing_goes_behind_what_was_brought_back() -> None:
    def versions(*to: int | None) -> list[Version]:
        return [Version(number=number, to=back) for number, back in enumerate(to, start=1)]

    assert version_before(versions(None, None)).number == 1
    assert version_before(versions(None, None, None, 2)).number == 1
    assert version_before(versions(None, None, None, 2, 3)).number == 2
    with pytest.raises(HarkenError, match="none to go back to"):
        version_before(versions(None, None, 1))
