"""The checkpoint catalogue: recognised, converted once, verified always, and never trusted."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import pickle
import struct
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import save
from typer.testing import CliRunner

from harken.cli.main import app
from harken.core.errors import WeightsError
from harken.encoders import checkpoints, create_encoder, encoder_class
from harken.encoders.beats import TINY, BEATs
from harken.encoders.efficientat import EfficientAT
from harken.weights import cache as cache_room
from harken.weights import catalog
from harken.weights.catalog import Checkpoint, SourceFile, UrlMirror
from harken.weights.tf_checkpoint import read_tf_checkpoint

NAME = "tiny"
WIDTH = {"width": 0.1}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARKEN_WEIGHTS", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path / "cache" / "weights"


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return dict(EfficientAT(width=0.1, seed=7).weights())


@pytest.fixture
def tiny(tmp_path: Path, weights: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published file of a small network, which the catalogue knows by the name `tiny`."""
    path = tmp_path / "published" / "tiny.pt"
    path.parent.mkdir()
    torch.save({name: torch.from_numpy(array.copy()) for name, array in weights.items()}, path)
    publish(path, weights, monkeypatch)
    return path


def publish(path: Path, weights: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    data = path.read_bytes()
    source = SourceFile(
        name=path.name,
        format="torch",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        mirrors=tuple(UrlMirror(url=url) for url in urls),
    )
    converted = save(weights)
    entry = Checkpoint(
        name=NAME,
        encoder="efficientat",
        config=WIDTH,
        summary="",
        licence="MIT",
        citation="",
        source="",
        sha256=hashlib.sha256(converted).hexdigest(),
        size=len(converted),
        files=(source,),
    )
    monkeypatch.setattr(catalog, "_catalog", lambda: (entry,))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of a web server of the folder `published`."""
    folder = str(tmp_path / "published")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=folder)  # type: ignore[arg-type]

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


# ------------------------------------------------------------------ catalogue


def test_catalogue_is_complete() -> None:
    for entry in catalog.catalog():
        assert entry.licence
        assert entry.citation
        assert entry.files
        digests = [entry.sha256, *(source.sha256 for source in entry.files)]
        assert all(len(digest) == 64 for digest in digests if digest is not None)
        # One is published behind links that no program can follow: `harken weights add` takes its file.
        assert any(source.mirrors for source in entry.files) or entry.name == "beats-iter3"
        if entry.tensors:
            continue  # no encoder: its file is recognised by these tensors
        # Its encoder exists and takes this configuration.
        architecture: Any = encoder_class(entry.encoder)
        assert architecture.tensor_shapes(**(entry.config or {}))


def test_networks_that_are_no_encoders_are_added(tmp_path: Path) -> None:
    """A tokenizer is recognised by its content; files that only have its name, or its form, are not."""
    file = tmp_path / "tokenizer.json"
    tokens = [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], *([f"t{number}", -1.0] for number in range(32_097))]
    whole = {"version": "1.0", "model": {"type": "Unigram", "unk_id": 2, "vocab": tokens}}
    for content in (
        {}, {"model": "Unigram"}, {"model": {"type": "Unigram"}}, {"model": {**whole["model"], "vocab": tokens[:500]}},  # type: ignore[dict-item]
        {"model": {**whole["model"], "vocab": tokens[3:] + tokens[:3]}}, {"model": {**whole["model"], "type": "BPE"}},  # type: ignore[dict-item]
        {"model": {**whole["model"], "vocab": [*tokens[:-1], ["t", "-1 dB"]]}},  # type: ignore[dict-item]
    ):  # fmt: skip
        file.write_text(json.dumps(content))
        with pytest.raises(WeightsError, match=r"has not the 32,100 tokens of T5. Get it from https"):
            checkpoints.add(file, "flan-t5-large-tokenizer" if content else None)
    file.write_text(json.dumps(whole))
    record = checkpoints.add(file)
    assert (record.name, record.encoder) == ("flan-t5-large-tokenizer", "t5-tokenizer")
    assert checkpoints.load(record.name).weights["text"].tobytes() == file.read_bytes()
    file.write_text("{")
    with pytest.raises(WeightsError, match="damaged"):
        checkpoints.add(file)
    other = tmp_path / "tangoflux.safetensors"
    other.write_bytes(save({"fc.0.weight": np.zeros((4, 4), np.float32)}))
    with pytest.raises(WeightsError, match=r"does not hold the weights tangoflux|no architecture"):
        checkpoints.add(other, "tangoflux")
    # Tensors by which a network is recognised, without the others.
    (vae,) = (entry for entry in catalog.catalog() if entry.name == "tangoflux-vae")
    other.write_bytes(save({name: np.zeros(shape, np.float32) for name, shape in vae.tensors.items()}))
    for name in (None, "tangoflux-vae"):
        with pytest.raises(WeightsError, match="its 2 tensors are not those of it"):
            checkpoints.add(other, name)
    assert {record.name for record in cache_room.cached()} == {"flan-t5-large-tokenizer"}


def test_unknown_key_is_refused() -> None:
    fields = catalog.catalog()[0].model_dump()
    with pytest.raises(ValidationError, match="license"):
        Checkpoint.model_validate({**fields, "license": "MIT"})


def test_real_weights_in_both_forms(shared: Path) -> None:
    for name, file in (("efficientat-mn04-as", "mn04_as_mAP_432.pt"), ("yamnet", "yamnet_f32.npz")):
        entry = next(entry for entry in catalog.catalog() if entry.name == name)
        record = checkpoints.add(shared / "weights" / file)
        assert (record.name, record.sha256, record.licence) == (name, entry.sha256, entry.licence)
        assert cache_room.verify(name) == record
        found = checkpoints.load(name)
        create_encoder(found.encoder, found.config, found.weights)


# ---------------------------------------------------- add, load, verify, local


def test_add_load_verify(tiny: Path, cache: Path, weights: dict[str, np.ndarray]) -> None:
    assert cache_room.status(catalog.catalog()[0]) == "missing"
    record = checkpoints.add(tiny)
    assert (record.name, record.encoder, record.config) == (NAME, "efficientat", WIDTH)
    assert record.source_file == "tiny.pt"
    assert cache_room.status(catalog.catalog()[0]) == "cached"
    assert cache_room.cached() == [record]
    assert cache_room.verify(NAME) == record
    found = checkpoints.load(NAME)
    assert (found.encoder, found.config) == ("efficientat", WIDTH)
    assert set(found.weights) == set(weights)
    for name, array in weights.items():
        assert np.array_equal(found.weights[name], array)
        assert found.weights[name].shape == array.shape
    assert not list(cache.glob(".*")), "temporary files are left over"


def test_conversion_is_the_same_from_every_format(tmp_path: Path, weights: dict[str, np.ndarray], tiny: Path) -> None:
    np.savez(tmp_path / "a.npz", **weights)  # type: ignore[arg-type]
    (tmp_path / "b.safetensors").write_bytes(save(weights))
    torch.save({"model": {n: torch.from_numpy(a.copy()) for n, a in weights.items()}}, tmp_path / "c.pt")
    backwards = {name: np.array(weights[name], order="F") for name in reversed(weights)}
    np.savez(tmp_path / "d.npz", **backwards)  # type: ignore[arg-type]
    digests = {checkpoints.add(tmp_path / file).sha256 for file in ("a.npz", "b.safetensors", "c.pt", "d.npz")}
    assert digests == {checkpoints.add(tiny).sha256}


def test_headers_of_any_length_are_read(tmp_path: Path, weights: dict[str, np.ndarray], tiny: Path) -> None:
    """The length begins with the first byte of a pickle, or of an archive, at some length of the names."""
    wanted = checkpoints.add(tiny).sha256
    data = save(weights)
    size = int.from_bytes(data[:8], "little")
    for first in (b"\x80", b"PK"):
        longer = size
        while not longer.to_bytes(8, "little").startswith(first):
            longer += 1
        padded = longer.to_bytes(8, "little") + data[8 : 8 + size] + b" " * (longer - size) + data[8 + size :]
        (tmp_path / "padded.safetensors").write_bytes(padded)
        assert checkpoints.add(tmp_path / "padded.safetensors").sha256 == wanted


def test_half_precision_becomes_single(tmp_path: Path, weights: dict[str, np.ndarray], tiny: Path) -> None:
    halves = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    halves = {name: value.bfloat16() if value.is_floating_point() else value for name, value in halves.items()}
    torch.save(halves, tmp_path / "half.pt")
    found = checkpoints.load(tmp_path / "half.pt")
    assert found.weights["features.0.0.weight"].dtype == np.float32


def test_own_weights_under_an_own_name(tmp_path: Path, weights: dict[str, np.ndarray], tiny: Path) -> None:
    own = {name: np.array(array * 2) for name, array in weights.items()}
    path = tmp_path / "tuned.safetensors"
    path.write_bytes(save(own))
    record = checkpoints.add(path)
    assert (record.name, record.encoder, record.licence) == ("tuned", "efficientat", None)
    assert np.array_equal(checkpoints.load("tuned").weights["features.0.0.weight"], own["features.0.0.weight"])
    with pytest.raises(WeightsError, match="not hold the weights tiny"):
        checkpoints.add(path, NAME)
    for name in ("../escape", "nul", "com1.v2", "tuned."):
        with pytest.raises(WeightsError, match="cannot be a checkpoint's name"):
            checkpoints.add(path, name)
    with pytest.raises(WeightsError, match="there are weights tuned already, which is the same name"):
        checkpoints.add(path, "Tuned")


def test_load_of_a_path_leaves_the_cache_alone(tiny: Path, cache: Path) -> None:
    assert checkpoints.load(tiny).config == WIDTH
    assert not cache.exists()


def test_local_folder(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARKEN_WEIGHTS", str(tiny.parent))
    entry = catalog.catalog()[0]
    assert cache_room.status(entry) == "local"
    assert checkpoints.load(NAME).encoder == "efficientat"
    assert cache_room.status(entry) == "cached"
    monkeypatch.delenv("HARKEN_WEIGHTS")
    tiny.unlink()
    assert checkpoints.load(NAME).encoder == "efficientat"


def test_missing_says_how_to_get_it(tiny: Path) -> None:
    with pytest.raises(WeightsError, match=r"harken weights fetch tiny .*harken weights add FILE"):
        checkpoints.load(NAME)
    with pytest.raises(WeightsError, match="not in the cache"):
        cache_room.verify(NAME)
    with pytest.raises(WeightsError, match="Did you mean tiny"):
        checkpoints.load("tinny")
    with pytest.raises(WeightsError, match="no checkpoint or file"):
        checkpoints.load("/no/such/file.pt")
    with pytest.raises(WeightsError, match="cannot be read"):
        checkpoints.add("/no/such/file.pt")


def test_a_changed_byte_is_noticed(tiny: Path, cache: Path) -> None:
    checkpoints.add(tiny)
    (path,) = cache.glob(f"{NAME}.*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for function in (cache_room.verify, checkpoints.load):
        with pytest.raises(WeightsError, match=r"has changed .* harken weights fetch tiny"):
            function(NAME)
    (cache / f"{NAME}.json").write_text("{")
    with pytest.raises(WeightsError, match="damaged"):
        cache_room.verify(NAME)
    assert cache_room.cached() == []


def test_weights_of_a_name_are_the_old_or_the_new_ones(
    tiny: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written last: a process that is killed before each write leaves the old ones."""
    other = tmp_path / "other.pt"
    save_torch(other, BEATs(**TINY, seed=7).weights())
    old = checkpoints.add(tiny, "mine")
    (cache / ".mine.json.0123abcd.tmp").write_text("left by a killed process")
    written = cache_room.write_atomically
    for allowed in (0, 1):
        left = [allowed]

        def write(path: Path, data: bytes, *, sync: bool, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            written(path, data, sync=sync)

        monkeypatch.setattr(cache_room, "write_atomically", write)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.add(other, "mine")
        assert cache_room.verify("mine") == old
    monkeypatch.setattr(cache_room, "write_atomically", written)
    new = checkpoints.add(other, "mine")
    assert cache_room.verify("mine") == new != old
    assert sorted(path.name for path in cache.iterdir()) == ["mine.json", f"mine.{new.sha256[:12]}.safetensors"][::-1]


def test_weights_of_earlier_versions_are_read(tiny: Path, cache: Path) -> None:
    record = checkpoints.add(tiny, "mine")
    (path,) = cache.glob("mine.*.safetensors")
    path.rename(cache / "mine.safetensors")
    assert cache_room.verify("mine") == record
    assert checkpoints.load("mine").encoder == record.encoder
    checkpoints.add(tiny, "mine")
    assert not (cache / "mine.safetensors").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_a_pipe_is_no_checkpoint(tmp_path: Path, cache: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    for path in (tmp_path / "pipe.pt", Path("/dev/zero"), tmp_path):
        with pytest.raises(WeightsError, match="not a regular file"):
            checkpoints.add(path)


def test_cache_that_cannot_be_written(tiny: Path, tmp_path: Path) -> None:
    tmp_path.joinpath("cache").write_text("a file where a folder should be")
    with pytest.raises(WeightsError, match="HARKEN_CACHE"):
        checkpoints.add(tiny)


# ------------------------------------------- what the catalogue does not know


@pytest.fixture
def unpinned(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published file of a small BEATs of which the catalogue knows the name and address only."""
    path = tmp_path / "published" / "small.pt"
    path.parent.mkdir(exist_ok=True)
    save_torch(path, BEATs(**TINY, seed=1).weights())
    source = SourceFile(name=path.name, format="torch", mirrors=(UrlMirror(url=f"{server}/small.pt"),))
    fields = {"summary": "", "licence": "MIT", "citation": "", "source": "", "files": (source,)}
    entry = Checkpoint(name="small", encoder="beats", config=TINY, **fields)  # type: ignore[arg-type]
    monkeypatch.setattr(catalog, "_catalog", lambda: (entry,))
    return path


def save_torch(path: Path, weights: Mapping[str, np.ndarray]) -> None:
    torch.save({"model": {name: torch.from_numpy(array.copy()) for name, array in weights.items()}}, path)


def test_first_download_is_recorded(unpinned: Path, cache: Path) -> None:
    record = checkpoints.fetch("small")
    assert record.source_sha256 == hashlib.sha256(unpinned.read_bytes()).hexdigest()
    assert record.config["max_distance"] == 800
    assert cache_room.verify("small") == record
    (path,) = cache.glob("small.*.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(WeightsError, match="has changed since"):
        checkpoints.load("small")


def test_an_excuse_is_no_checkpoint(unpinned: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = catalog.catalog()[0]
    unpinned.with_name("sorry.html").write_text("<html>come back later</html>")
    mirrors = tuple(UrlMirror(url=f"{server}/{name}") for name in ("sorry.html", "small.pt"))
    files = (entry.files[0].model_copy(update={"mirrors": mirrors}),)
    monkeypatch.setattr(catalog, "_catalog", lambda: (entry.model_copy(update={"files": files}),))
    assert checkpoints.fetch("small").name == "small"
    files = (entry.files[0].model_copy(update={"mirrors": mirrors[:1]}),)
    monkeypatch.setattr(catalog, "_catalog", lambda: (entry.model_copy(update={"name": "no", "files": files}),))
    with pytest.raises(WeightsError, match=r"sorry\.html: is not a checkpoint .* Get small\.pt by other means"):
        checkpoints.fetch("no")


def test_a_file_without_known_sha256_goes_by_name_and_configuration(unpinned: Path, tmp_path: Path) -> None:
    assert checkpoints.add(unpinned).licence == "MIT"
    other = tmp_path / "other" / "small.pt"
    other.parent.mkdir()
    save_torch(other, BEATs(**{**TINY, "depth": 2}).weights())
    with pytest.raises(WeightsError, match="does not hold the weights small"):
        checkpoints.add(other)
    assert checkpoints.add(other, "another").licence is None
    renamed = unpinned.rename(tmp_path / "renamed.pt")
    assert checkpoints.add(renamed).name == "renamed"
    assert checkpoints.add(renamed, "small").licence == "MIT"


def test_a_file_that_the_catalogue_knows_is_that_file(unpinned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = catalog.catalog()[0]
    known = entry.files[0].model_copy(update={"sha256": hashlib.sha256(unpinned.read_bytes()).hexdigest()})
    entry = entry.model_copy(update={"files": (known,)})
    monkeypatch.setattr(catalog, "_catalog", lambda: (entry,))
    assert checkpoints.add(unpinned).name == "small"
    save_torch(unpinned, BEATs(**TINY, seed=2).weights())
    with pytest.raises(WeightsError, match="does not hold the weights small"):
        checkpoints.add(unpinned, "small")


def test_list_tells_what_is_not_known(unpinned: Path) -> None:
    result = CliRunner().invoke(app, ["weights", "list"])
    assert "sha256 known after the first download" in result.output
    result = CliRunner().invoke(app, ["weights", "list", "--json"])
    assert json.loads(result.stdout)[0]["pinned"] is False


def test_official_files(shared: Path) -> None:
    for name in ("beats", "eat", "fisher", "dasheng"):
        path = shared / "golden" / "encoders" / f"{name}_tiny.pt"
        record = checkpoints.add(path)
        assert (record.name, record.encoder) == (f"{name}_tiny", name)
        found = checkpoints.load(f"{name}_tiny")
        encoder = create_encoder(*found)
        assert {name: array.shape for name, array in encoder.weights().items()} == {
            name: array.shape for name, array in found.weights.items()
        }


# ------------------------------------------------------------- what is refused


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("harken_was_here",))


@pytest.mark.parametrize("legacy", [True, False])
def test_malicious_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool, tiny: Path) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    if legacy:
        path.write_bytes(pickle.dumps(_Evil(), protocol=2))
    else:
        torch.save({"features.0.0.weight": _Evil()}, path)
    with pytest.raises(WeightsError, match="holds code"):
        checkpoints.add(path)
    assert not (tmp_path / "harken_was_here").exists()


def test_pickled_array_in_npz(tmp_path: Path, tiny: Path) -> None:
    path = tmp_path / "evil.npz"
    np.savez(path, weight=np.array([_Evil()], dtype=object))
    with pytest.raises(WeightsError, match="pickle"):
        checkpoints.add(path)


@pytest.mark.parametrize("keep", [0, 5, 100, 3000, -1, -200])
@pytest.mark.parametrize("kind", ["pt", "npz", "safetensors"])
def test_cut_short(tmp_path: Path, weights: dict[str, np.ndarray], tiny: Path, kind: str, keep: int) -> None:
    path = tmp_path / f"cut.{kind}"
    if kind == "pt":
        path.write_bytes(tiny.read_bytes())
    elif kind == "npz":
        np.savez(path, **weights)  # type: ignore[arg-type]
    else:
        path.write_bytes(save(weights))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError) as caught:
        checkpoints.add(path)
    assert caught.value.file == str(path)
    assert caught.value.next_step


def test_wrong_tensors(tmp_path: Path, weights: dict[str, np.ndarray], tiny: Path) -> None:
    def refused(match: str, changed: dict[str, np.ndarray]) -> None:
        path = tmp_path / "wrong.safetensors"
        path.write_bytes(save(changed))
        with pytest.raises(WeightsError, match=match):
            checkpoints.add(path)

    name = "features.3.block.0.0.weight"
    refused(f"lacks 1 of 294 .*{name}", {n: a for n, a in weights.items() if n != name})
    refused("does not know, first extra", {**weights, "extra": np.zeros(3, np.float32)})
    refused("of shape", {**weights, name: weights[name][:2].copy()})
    spoiled = weights[name].copy()
    spoiled[0, 0] = np.nan
    refused(f"{name} that are not finite", {**weights, name: spoiled})
    refused("no architecture", {"weight": np.zeros(3, np.float32)})
    refused("lacks 10 of 294", dict(EfficientAT(width=0.4).weights()))


def test_not_a_checkpoint(tmp_path: Path, tiny: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello hello hello")
    with pytest.raises(WeightsError, match="not a checkpoint in any format"):
        checkpoints.add(path)
    torch.save([1, 2, 3], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="other than tensors"):
        checkpoints.add(tmp_path / "list.pt")
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as archive:
        archive.writestr("some-1.0.dist-info/METADATA", "Name: some")
    with pytest.raises(WeightsError, match="wheel that the catalogue does not know"):
        checkpoints.add(tmp_path / "some.whl")


# ----------------------------------------------------------------------- fetch


def test_fetch_goes_on_to_the_next_mirror(
    tiny: Path, weights: dict[str, np.ndarray], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny.parent / "other.pt").write_bytes(b"something else")
    publish(tiny, weights, monkeypatch, f"{server}/none.pt", f"{server}/other.pt", f"{server}/tiny.pt")
    seen: list[tuple[str, int, int]] = []
    record = checkpoints.fetch(NAME, lambda *progress: seen.append(progress))
    assert record.name == NAME
    assert checkpoints.load(NAME).config == WIDTH
    size = tiny.stat().st_size
    assert seen[-1] == (f"{server}/tiny.pt", size, size)


def test_fetch_twice_asks_the_network_once(
    tiny: Path, weights: dict[str, np.ndarray], server: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tiny, weights, monkeypatch, f"{server}/tiny.pt")
    record = checkpoints.fetch(NAME)
    monkeypatch.setattr(checkpoints, "download", None)
    assert checkpoints.fetch(NAME) == record


def test_fetch_repairs_a_damaged_cache(
    tiny: Path, weights: dict[str, np.ndarray], server: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tiny, weights, monkeypatch, f"{server}/tiny.pt")
    checkpoints.fetch(NAME)
    (path,) = cache.glob(f"{NAME}.*.safetensors")
    path.write_bytes(b"")
    checkpoints.fetch(NAME)
    assert cache_room.verify(NAME).name == NAME


def test_fetch_without_a_network(
    tiny: Path, weights: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    publish(tiny, weights, monkeypatch, "http://127.0.0.1:9/tiny.pt")
    with pytest.raises(WeightsError, match=r"could not be downloaded: http://127\.0\.0\.1:9/.*by other means"):
        checkpoints.fetch(NAME)
    assert not cache.exists()


# ------------------------------------------------------ TensorFlow checkpoints


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """LevelDB block whose keys share prefixes, one restart at its start."""
    out, previous = b"", b""
    for key, value in entries:
        shared = next((i for i, (a, b) in enumerate(zip(key, previous, strict=False)) if a != b), len(previous))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        previous = key
    return out + struct.pack("<II", 0, 1)


def tf_checkpoint(arrays: dict[str, np.ndarray]) -> tuple[bytes, bytes]:
    data = b""
    entries = [(b"", message((1, 1)))]
    for name in sorted(arrays):
        array = arrays[name]
        shape = message(*[(2, message((1, size))) for size in array.shape])
        entry = message((1, 1), (2, shape), (4, len(data)), (5, array.nbytes)) + b"\x35\0\0\0\0"
        entries.append((name.encode(), entry))
        data += array.astype("<f4").tobytes()
    entries.append((b"zzz_not_a_float", message((1, 7), (4, 0), (5, 3))))
    index = b""
    handles = []
    for part in (entries[:2], entries[2:]):
        body = block(part)
        handles.append((part[-1][0], varint(len(index)) + varint(len(body))))
        index += body + b"\0crc."
    body = block(handles)
    footer = varint(0) + varint(0) + varint(len(index)) + varint(len(body))
    index += body + b"\0crc." + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    return index, data


def test_tensorflow_checkpoint() -> None:
    rng = np.random.default_rng(0)
    shapes = {"a/kernel": (3, 3, 1, 300), "a/bias": (300,), "b/step": (), "b/empty": (0, 4)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    index, data = tf_checkpoint(arrays)
    found = read_tf_checkpoint(index, data)
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array)


def test_damaged_tensorflow_checkpoint() -> None:
    index, data = tf_checkpoint({"a": np.ones((4, 4), np.float32), "b": np.ones(3, np.float32)})
    with pytest.raises(ValueError):
        read_tf_checkpoint(index[:-1], data)
    with pytest.raises(ValueError):
        read_tf_checkpoint(index, data[:-1])
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(index)
        damaged[rng.integers(len(index))] = rng.integers(256)
        with suppress(ValueError):
            read_tf_checkpoint(bytes(damaged), data)


def test_wheel(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A wheel as the package index has it, made from the plain arrays.
    entry = next(entry for entry in catalog.catalog() if entry.name == "yamnet")
    with np.load(shared / "weights" / "yamnet_f32.npz") as plain:
        arrays = {name: plain[name] for name in plain.files}
    prefix, suffix = "layer-1/_yamnet/layer_with_weights-", "/.ATTRIBUTES/VARIABLE_VALUE"
    index, data = tf_checkpoint(
        {f"{prefix}{int(name[:2])}/{name[3:]}{suffix}": array for name, array in arrays.items()}
    )
    path = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some-1.0.dist-info/METADATA", "Name: some")
        archive.writestr("model/variables.index", index)
        archive.writestr("model/variables.data-00000-of-00001", data)
    source = SourceFile(
        name=path.name,
        format="wheel",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size=path.stat().st_size,
        member="model/variables",
    )
    known = entry.model_copy(update={"files": (source,)})
    monkeypatch.setattr(catalog, "_catalog", lambda: (known,))
    assert checkpoints.add(path).sha256 == entry.sha256
