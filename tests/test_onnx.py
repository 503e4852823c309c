"""Exported encoders: as torch computes, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from harken.cli.export import export
from harken.core.errors import HarkenError, WeightsError
from harken.embeddings.embedder import Embedder, make_spec
from harken.encoders import create_encoder
from harken.encoders.beats import TINY as TINY_BEATS
from harken.encoders.checkpoints import load
from harken.encoders.checks import check_encoder, check_pooled_alike
from harken.encoders.dasheng import TINY as TINY_DASHENG
from harken.encoders.eat import TINY as TINY_EAT
from harken.encoders.fisher import TINY as TINY_FISHER
from harken.encoders.onnx import CARD, OnnxEncoder, read_onnx
from harken.encoders.pooling import pool
from harken.encoders.torch_encoder import TorchEncoder
from harken.export import onnx as exporter
from harken.export.onnx import export_onnx
from harken.training.model_spec import ModelSpec
from harken.training.models import build_model
from harken.training.trained_encoder import TrainedEncoder

#: shallow, since every block is exported alike
TINY: dict[str, dict[str, Any]] = {
    "beats": {**TINY_BEATS, "depth": 1},
    "dasheng": {**TINY_DASHENG, "depth": 1},
    "eat": {**TINY_EAT, "depth": 1, "target_frames": 128, "clamp": True},
    "fisher": {**TINY_FISHER, "depth": 1},
    "yamnet": {},
}


def build(name: str) -> TorchEncoder:
    encoder = create_encoder(name, TINY.get(name))
    assert isinstance(encoder, TorchEncoder)
    return encoder


def kept_elsewhere(model: Any) -> bytes:
    """The file, with a tensor in another one."""
    import onnx

    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location="../../etc/passwd")
    tensor.ClearField("raw_data")
    return bytes(model.SerializeToString())


def noise(clips: int, samples: int) -> np.ndarray:
    return np.random.default_rng(1).normal(scale=0.1, size=(clips, samples)).astype(np.float32)


Once = Callable[[str, Callable[[Path], object]], Path]


def exported_file(once: Once, name: str, seconds: float, *, layer: str | None = None, int8: bool = False) -> Path:
    """An encoder of `TINY` for clips of so many seconds, exported once for all tests."""

    def make(folder: Path) -> None:
        export_onnx(build(name), folder / "encoder.onnx", seconds=seconds, layer=layer, int8=int8)

    return once(f"onnx_{name}_{seconds}_{int8}", make) / "encoder.onnx"


@pytest.fixture
def whole(once: Once) -> Path:
    """An EAT for clips of 1 s."""
    return exported_file(once, "eat", 1.0)


@pytest.fixture
def eat(once: Once) -> Path:
    """The same in 8 bits."""
    return exported_file(once, "eat", 1.0, int8=True)


@pytest.mark.parametrize("name", sorted(TINY))
def test_features_are_those_of_torch(name: str, once: Once) -> None:
    encoder, layer = build(name), "layer_2" if name == "yamnet" else None
    # Of the clips of the next test, or those of the fixture.
    file = exported_file(once, name, 2.6 if name in ("beats", "fisher") else 1.0, layer=layer)
    exported = OnnxEncoder.of_file(file, threads=1)
    card = exported.card
    assert card.max_abs_diff < 1e-3
    assert card.similarity > 0.99999
    assert exported.sample_rate == encoder.sample_rate
    assert (exported.cls_tokens, exported.patch_bands) == (encoder.cls_tokens, encoder.patch_bands)
    assert exported.default_pooling == encoder.default_pooling
    assert card.samples is not None
    wave = noise(2, card.samples)
    ours, theirs = exported.encode(wave), encoder.encode(wave, layers=(card.layer,))
    assert ours.layers == theirs.layers
    np.testing.assert_array_equal(ours.lengths_B, theirs.lengths_B)
    np.testing.assert_allclose(ours.features_BLTD, theirs.features_BLTD, atol=1e-3)
    if card.clips is None:
        np.testing.assert_allclose(exported.run(wave), theirs.features_BLTD[:, 0], atol=1e-3)


def test_any_length(tmp_path: Path) -> None:
    encoder = build("efficientat")
    card = export_onnx(encoder, tmp_path / "any.onnx", seconds=None, layer="block_0")
    assert card.samples is None
    exported = OnnxEncoder.of_file(tmp_path / "any.onnx", threads=1)
    assert exported.card == card
    for samples in (encoder.min_samples, 40_001):
        wave = noise(1, samples)
        ours, theirs = exported.encode(wave), encoder.encode(wave, layers=("block_0",))
        np.testing.assert_allclose(ours.features_BLTD, theirs.features_BLTD, atol=1e-3)
    with pytest.raises(ValueError, match="needs 10240 samples"):
        exported.encode(wave[:, :5000])


def test_int8_is_smaller_and_close(whole: Path, eat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = OnnxEncoder.of_file(eat, threads=1), OnnxEncoder.of_file(whole, threads=1)
    assert ours.card.int8
    assert not theirs.card.int8
    assert 0.99 < ours.card.similarity < theirs.card.similarity
    assert ours.card.max_abs_diff == theirs.card.max_abs_diff
    assert eat.stat().st_size < 0.7 * whole.stat().st_size
    import onnx

    model = onnx.load(eat)
    rounded = [tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    # Four of one block; neither mel filters nor Fourier transforms.
    assert sum("quantized" in name for name in rounded) == 4
    monkeypatch.setattr(exporter, "SMALLEST", 10**9)
    with pytest.raises(HarkenError, match="no linear layers"):
        exporter._rounded(onnx, onnx.load(whole), whole, tmp_path)


@pytest.mark.parametrize("name", ["beats", "eat", "fisher"])
def test_pooled_vectors_are_those_of_torch(name: str, once: Once) -> None:
    """Band by band (BEATs), by class tokens (EAT, FISHER), also in the windows of a clip longer than one (EAT)."""
    encoder = build(name)
    exported = OnnxEncoder.of_file(exported_file(once, name, 2.6))
    assert exported.card.pooled_diff is not None
    assert exported.card.pooled_diff < 1e-3
    check_pooled_alike(exported, encoder, [round(2.6 * encoder.sample_rate)])
    # As class tokens and bands would be read of the class.
    exported.cls_tokens, exported.patch_bands = 0, 1
    with pytest.raises(AssertionError, match="Pooled vectors of 41600 samples differ"):
        check_pooled_alike(exported, encoder, [round(2.6 * encoder.sample_rate)])


def test_it_is_an_encoder(eat: Path, tmp_path: Path) -> None:
    check_encoder("onnx", {"threads": 1}, read_onnx(eat))
    loaded = load(eat)
    assert loaded.encoder == "onnx"
    spec = make_spec("onnx", sample_rate=16_000, channels=1, weights=loaded.weights, config=loaded.config)
    wave_CS = noise(1, 24_000)
    exported = OnnxEncoder.of_file(eat)
    frames_TD = exported.encode(wave_CS).features_BLTD[0, 0]
    assert (spec.pooling, exported.cls_tokens) == (build("eat").default_pooling, 1)
    expected = pool(frames_TD, spec.pooling, cls_tokens=1, patch_bands=exported.patch_bands)
    np.testing.assert_array_equal(Embedder(spec, loaded.weights).embed(wave_CS), expected)


def test_several_layers_in_one_file(tmp_path: Path) -> None:
    encoder = create_encoder("beats", TINY_BEATS)
    first, second, *_ = (layer for layer in encoder.layers if layer.startswith("block_"))
    export_onnx(encoder, tmp_path / "two.onnx", seconds=0.5, layer=f"{first}+{second}")
    exported = OnnxEncoder.of_file(tmp_path / "two.onnx")
    assert exported.layers == (first, second)
    wave = noise(1, 8000)
    for layers in ((first,), (second,), (second, first)):
        ours, theirs = exported.encode(wave, layers=layers), encoder.encode(wave, layers=layers)
        np.testing.assert_allclose(ours.features_BLTD, theirs.features_BLTD, atol=1e-3)


def test_a_trained_network_can_be_exported(tmp_path: Path) -> None:
    """Windows as long as those of its training, shorter clips repeated."""
    branch = {"encoder": "dasheng", "size": "tiny", "head": {"dims": [8]}}
    model = build_model(ModelSpec.model_validate({"branches": [branch], "seed": 1}))
    trained = TrainedEncoder.of(model, 0.5)
    card = export_onnx(trained, tmp_path / "trained.onnx")
    assert (card.samples, card.layer) == (8000, "embedding")
    exported = OnnxEncoder.of_file(tmp_path / "trained.onnx")
    for samples in (trained.min_samples, 6000, 8000, 20_000):
        wave = noise(1, samples)
        ours, theirs = exported.encode(wave), trained.encode(wave)
        np.testing.assert_allclose(ours.features_BLTD, theirs.features_BLTD, atol=1e-4)


def test_longer_clips_pass_in_windows_and_padding_changes_nothing(eat: Path) -> None:
    exported = OnnxEncoder.of_file(eat, threads=1)
    assert exported.windows(16_000) == [(0, 16_000)]
    assert exported.windows(40_000) == [(0, 16_000), (16_000, 32_000), (24_000, 40_000)]
    wave = noise(2, 40_000)
    both = exported.encode(wave, np.array([16_000, 40_000]))
    one = exported.encode(wave[:1, :16_000])
    frames = int(one.lengths_B[0])
    assert list(both.lengths_B) == [frames, 3 * (frames - 1) + 1]
    np.testing.assert_array_equal(both.features_BLTD[0, :, :frames], one.features_BLTD[0])
    assert not both.features_BLTD[0, :, frames:].any()
    parts = [exported.run(wave[1:, start:stop])[0] for start, stop in exported.windows(40_000)]
    np.testing.assert_allclose(both.features_BLTD[1, 0, 0], np.mean([part[0] for part in parts], axis=0), rtol=1e-5)
    np.testing.assert_array_equal(both.features_BLTD[1, 0, frames : 2 * frames - 1], parts[1][1:])
    again = exported.encode(wave[1:])
    np.testing.assert_array_equal(again.features_BLTD[0], both.features_BLTD[1])
    with pytest.raises(ValueError, match=f"needs {exported.min_samples} samples"):
        exported.encode(wave[:, : exported.min_samples - 1])
    repeated = exported.encode(np.tile(wave[:1, :10_000], 2)[:, :16_000])
    np.testing.assert_array_equal(exported.encode(wave[:1, :10_000]).features_BLTD, repeated.features_BLTD)
    with pytest.raises(ValueError, match="no layer block_9; there is block_1"):
        exported.encode(wave, layers=("block_9",))


def test_it_runs_without_torch(eat: Path) -> None:
    """In a process where neither torch nor the exporter can be imported."""
    program = f"""
import sys
for name in ("torch", "onnx", "onnxscript"):
    sys.modules[name] = None
import numpy as np
from harken.encoders.onnx import OnnxEncoder
wave = np.random.default_rng(1).normal(scale=0.1, size=(1, 16000)).astype(np.float32)
found = OnnxEncoder.of_file({str(eat)!r}, threads=1).encode(wave)
print(found.features_BLTD.shape, found.features_BLTD.sum(dtype=float))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    here = OnnxEncoder.of_file(eat, threads=1).encode(noise(1, 16_000)).features_BLTD
    assert done.stdout.strip() == f"{here.shape} {here.sum(dtype=float)}"


def test_what_cannot_be_done_says_so(tmp_path: Path, eat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HarkenError, match="spectral has no network"):
        export_onnx(create_encoder("spectral"), tmp_path / "x.onnx")
    with pytest.raises(ValueError, match="has no layer 'nothing'"):
        export_onnx(build("eat"), tmp_path / "x.onnx", layer="nothing")
    with pytest.raises(HarkenError, match=r"takes 0.175 s or more, in up to 8 windows, not 600 s"):
        export_onnx(build("beats"), tmp_path / "x.onnx", seconds=600)
    with pytest.raises(WeightsError, match="does not exist"):
        OnnxEncoder.of_file(tmp_path / "x.onnx")
    (tmp_path / "damaged.onnx").write_bytes(eat.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="no ONNX file that can be run"):
        OnnxEncoder.of_file(tmp_path / "damaged.onnx")
    import onnx

    model = onnx.load(eat)
    kept = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
    assert kept[CARD]["encoder"] == "eat"
    del model.metadata_props[:]
    onnx.save_model(model, tmp_path / "foreign.onnx")
    with pytest.raises(WeightsError, match="without a card"):
        OnnxEncoder.of_file(tmp_path / "foreign.onnx")
    data = kept_elsewhere(onnx.load(eat))
    (tmp_path / "elsewhere.onnx").write_bytes(data)
    with pytest.raises(WeightsError, match="keeps tensors in other files"):
        OnnxEncoder.of_file(tmp_path / "elsewhere.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(HarkenError, match=r"pip install 'harken\[onnx\]'"):
        OnnxEncoder.of_file(eat)


def test_a_graph_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HarkenError, match="only float32"):
        export_onnx(build("eat").set_precision("int8"), tmp_path / "x.onnx")
    monkeypatch.setattr(exporter, "TOLERANCE", -1.0)
    with pytest.raises(HarkenError, match="differs from torch by"):
        export_onnx(build("eat"), tmp_path / "x.onnx", seconds=0.5, layer="patches")
    assert not list(tmp_path.iterdir())


def test_command_line(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(export)
    file = tmp_path / "beats.onnx"
    sizes = [word for name, value in TINY["beats"].items() for word in ("--set", f"{name}={value}")]
    words = ["beats", "--format", "onnx", "-o", str(file), "--random", "--seconds", "0.5", "--json", *sizes]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    told = json.loads(done.stdout.splitlines()[0])
    assert told["bytes"] == file.stat().st_size
    assert told["samples"] == 8000
    assert "differs from torch by" in done.stderr
    for wrong, message in (
        (["spectral", "-o", str(file)], "no network"),
        (["beats", "-o", str(file), "--random", "--weights", "x"], "exclude"),
        (["beats", "-o", str(file), "--random", "--set", "wings=2"], "wings"),
    ):
        with pytest.raises(HarkenError, match=message):
            CliRunner().invoke(app, wrong, catch_exceptions=False)
