"""Bundles: whole or not at all, every flipped byte refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harken.core.errors import BundleError
from harken.monitor.bundle import bundle_digest, change_bundle, read_bundle, write_bundle
from harken.monitor.manifests import SCHEMA, manifest_bytes

ABOUT = {"name": "pump", "rate": 0.001, "names": ["ä.wav", "b.wav"]}
PARTS = {
    "detector": {"bank": np.arange(6, dtype=np.float32).reshape(2, 3), "exponent": np.float64(0.5)},
    "training": {"sketch": np.arange(4, dtype=np.uint8)},
}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m.harken", ABOUT, PARTS)
    about, parts = read_bundle(tmp_path / "m.harken")
    assert about == ABOUT
    np.testing.assert_array_equal(parts["detector"]["bank"], PARTS["detector"]["bank"])
    assert parts["detector"]["exponent"].shape == ()
    assert parts["training"]["sketch"].dtype == np.uint8
    assert [path.name for path in tmp_path.iterdir()] == ["m.harken"]


def test_the_same_content_gives_the_same_bytes_also_over_an_older_bundle(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", ABOUT, PARTS)
    write_bundle(tmp_path / "b", {"other": 1}, {"detector": {"bank": np.ones(3)}})
    write_bundle(tmp_path / "b", ABOUT, PARTS)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


def test_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.harken"
    write_bundle(path, ABOUT, PARTS)
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for position in range(len(whole)):
            file.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
            with pytest.raises(BundleError):
                read_bundle(path)
        file.write_bytes(whole)
    read_bundle(path)


@given(data=st.binary(max_size=300))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_for_a_manifest_are_refused_clearly(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.harken"
    path.mkdir(exist_ok=True)
    (path / "manifest.json").write_bytes(data)
    with pytest.raises(BundleError):
        read_bundle(path)


@pytest.mark.parametrize("manifest", ["[1]", '{"schema": 1}', '{"schema": "x"}', "{" * 100_000, "null"])
def test_json_that_is_no_manifest_is_refused(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(BundleError, match="damaged"):
        read_bundle(tmp_path)


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such model"):
        read_bundle(tmp_path / "none")
    with pytest.raises(BundleError, match="without manifest"):
        read_bundle(tmp_path)
    write_bundle(tmp_path / "m", ABOUT, PARTS)
    next((tmp_path / "m").glob("detector*")).unlink()
    with pytest.raises(BundleError, match="missing from the model"):
        read_bundle(tmp_path / "m")


def test_damaged_arrays_are_repaired_by_writing_them_again(tmp_path: Path) -> None:
    path = tmp_path / "m.harken"
    parts = {"detector": {"bank": np.arange(6.0)}}
    write_bundle(path, {"a": 1}, parts)
    before = snapshot(path)
    (file,) = path.glob("*.safetensors")
    data = file.read_bytes()
    for damaged in (data[:-1] + bytes([data[-1] ^ 1]), data[:-1], data + b"x"):
        file.write_bytes(damaged)
        write_bundle(path, {"a": 1}, parts)
        assert snapshot(path) == before


def test_a_newer_schema_says_so(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", ABOUT, PARTS)
    file = tmp_path / "m" / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": SCHEMA + 1}))
    with pytest.raises(BundleError, match=r"newer Harken.*Update Harken"):
        read_bundle(tmp_path / "m")


def test_a_model_keeps_its_schema_when_it_is_changed(tmp_path: Path) -> None:
    """So that a Harken that does not know of such weights refuses them, instead of doing without."""

    def schema() -> int:
        return int(json.loads((tmp_path / "m" / "manifest.json").read_text())["schema"])

    write_bundle(tmp_path / "m", {**ABOUT, "public_weights": [{"name": "beats"}]}, PARTS, schema=2)
    assert schema() == 2
    before = bundle_digest(tmp_path / "m")
    change_bundle(tmp_path / "m", lambda settings: {**settings, "rate": 1.0})
    assert schema() == 2
    assert bundle_digest(tmp_path / "m") != before
    change_bundle(tmp_path / "m", lambda settings: ABOUT)
    assert read_bundle(tmp_path / "m")[0] == ABOUT
    write_bundle(tmp_path / "m", ABOUT, PARTS)
    assert schema() == 1
    change_bundle(tmp_path / "m", lambda settings: {**settings, "rate": 1.0})
    assert schema() == 1


def test_what_is_no_model_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("file", "a file"), ("pipe", "a pipe or device"), (".", r"a folder without manifest\.json")):
        with pytest.raises(BundleError, match=f"is no model but {kind}"):
            read_bundle(tmp_path / name)
    with pytest.raises(BundleError, match=r"harken fit .* -o MODEL"):
        read_bundle(tmp_path)
    for step in (read_bundle, bundle_digest, lambda path: change_bundle(path, dict)):
        with pytest.raises(BundleError, match="no such model"):
            step(tmp_path / "none")


def test_a_model_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(BundleError, match=r"cannot be written \(No space left on device\)"):
        write_bundle(tmp_path / "m", ABOUT, PARTS)
    assert list(tmp_path.iterdir()) == []


def test_types_of_numbers_that_are_not_known_are_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", ABOUT, {"detector": {"bank": np.zeros(2, np.uint16)}})
    (file,) = (tmp_path / "m").glob("detector*")
    data = file.read_bytes().replace(b'"U16"', b'"B16"')
    digest = hashlib.sha256(data).hexdigest()
    file.unlink()
    (tmp_path / "m" / f"detector.{digest[:12]}.safetensors").write_bytes(data)
    manifest = {"schema": 1, "parts": {"detector": f"detector.{digest[:12]}.safetensors"}, "about": ABOUT}
    manifest["files"] = {f"detector.{digest[:12]}.safetensors": digest}
    (tmp_path / "m" / "manifest.json").write_bytes(manifest_bytes(manifest))
    with pytest.raises(BundleError, match="cannot be read"):
        read_bundle(tmp_path / "m")


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "data.csv").write_text("1")
    (tmp_path / "file").write_text("2")
    for name in ("precious", "file"):
        with pytest.raises(BundleError, match="exists and is no model"):
            write_bundle(tmp_path / name, ABOUT, PARTS)
    assert (tmp_path / "precious" / "data.csv").read_text() == "1"


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".m.abc.tmp").mkdir()
    (tmp_path / ".m.abc.tmp" / "x").write_text("half")
    write_bundle(tmp_path / "m", ABOUT, PARTS)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    shutil.copytree(tmp_path / "m", tmp_path / "clean")
    (tmp_path / "m" / "detector.000000000000.safetensors").write_text("stale")
    write_bundle(tmp_path / "m", ABOUT, PARTS)
    assert snapshot(tmp_path / "m") == snapshot(tmp_path / "clean")
