"""Frozen encoders on an accelerator: what the processor can show of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

torch = pytest.importorskip("torch")

from conftest import hum  # noqa: E402
from harken.bench.recipe import load_recipe  # noqa: E402
from harken.bench.stages import stage_class  # noqa: E402
from harken.core.errors import HarkenError  # noqa: E402
from harken.embeddings.batches import extract_batched  # noqa: E402
from harken.embeddings.embedder import EmbeddingSpec, make_spec  # noqa: E402
from harken.embeddings.extract import extract  # noqa: E402
from harken.encoders import create_encoder, tiny_config  # noqa: E402


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of two lengths in turn, one that is broken, and one that is there twice."""
    folder = tmp_path_factory.mktemp("recordings")
    paths = []
    for number in range(6):
        sound = np.stack([hum(number), hum(number + 50)], axis=1)
        paths.append(folder / f"{number}.wav")
        sf.write(paths[-1], sound[: len(sound) // (1 + number % 2)], 16_000)
    (folder / "broken.wav").write_bytes(b"no sound")
    return [*paths[:3], folder / "broken.wav", *paths[3:], paths[0]]


@pytest.fixture(scope="module")
def network() -> tuple[EmbeddingSpec, Any]:
    built = create_encoder("beats", {**tiny_config("beats"), "seed": 0})
    layer = "+".join(built.layers[:2])
    weights = built.weights()
    return make_spec(
        "beats", sample_rate=16_000, channels=2, config=built.config(), layer=layer, weights=weights
    ), weights


def test_in_fp32_a_processor_gives_the_bits_of_clips_one_by_one(
    recordings: list[Path], network: tuple[EmbeddingSpec, Any], tmp_path: Path
) -> None:
    alone = list(extract(recordings, *network, workers=0))
    for workers in (0, 2):
        together = list(
            extract_batched(recordings, *network, device="cpu", store=tmp_path / f"{workers}", workers=workers)
        )
        assert [result.path for result in together] == recordings
        for one, other in zip(alone, together, strict=True):
            assert str(one.error) == str(other.error)
            if one.features is not None and other.features is not None:
                np.testing.assert_array_equal(one.features.embedding, other.features.embedding)
                np.testing.assert_array_equal(one.features.sketch_BC, other.features.sketch_BC)
                assert (one.features.sha256, one.features.level_db) == (other.features.sha256, other.features.level_db)
    again = list(extract_batched(recordings, *network, device="cpu", store=tmp_path / "0", workers=0))
    assert [result.cached for result in again] == [result.features is not None for result in alone]


def test_recordings_of_equal_length_pass_together(
    recordings: list[Path], network: tuple[EmbeddingSpec, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from harken.encoders.beats import BEATs

    passed = []
    encode = BEATs.encode

    def counted(self: Any, waveform_BS: np.ndarray, *args: Any, **more: Any) -> Any:
        passed.append(waveform_BS.shape)
        return encode(self, waveform_BS, *args, **more)

    monkeypatch.setattr(BEATs, "encode", counted)
    list(extract_batched(recordings, *network, device="cpu", workers=0))
    # Two microphones each; the recording that is there twice is heard twice.
    assert sorted(count for count, _ in passed) == [2 * 3, 2 * 4]
    assert len({samples for _, samples in passed}) == 2


def test_half_precision_is_close_and_kept_apart(
    recordings: list[Path], network: tuple[EmbeddingSpec, Any], tmp_path: Path
) -> None:
    results = {
        precision: list(
            extract_batched(recordings, *network, device="cpu", precision=precision, store=tmp_path, workers=0)
        )
        for precision in ("fp32", "bf16")
    }
    assert not any(result.cached for rows in results.values() for result in rows[:-1])
    whole_ND, half_ND = (
        np.stack([result.features.embedding for result in rows if result.features is not None])
        for rows in results.values()
    )
    cosine_N = (whole_ND * half_ND).sum(1) / np.linalg.norm(whole_ND, axis=1) / np.linalg.norm(half_ND, axis=1)
    assert cosine_N.min() > 0.99
    assert np.abs(whole_ND - half_ND).max() > 0


def test_what_cannot_run_there_is_refused(recordings: list[Path], network: tuple[EmbeddingSpec, Any]) -> None:
    spec = make_spec("spectral", sample_rate=16_000, channels=2)
    with pytest.raises(HarkenError, match=r"spectral runs on processors only. Set device: cpu"):
        list(extract_batched(recordings, spec, None, device="cpu"))
    if not torch.cuda.is_available():
        with pytest.raises(HarkenError, match="no CUDA device"):
            list(extract_batched(recordings, *network, device="cuda"))


def test_objects_are_named_by_what_their_bits_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = stage_class("embed")

    def named(encoder: str = "beats", **settings: str) -> Any:
        given = {"encoder": encoder, "size": "tiny", **settings}
        parameters = cls.Parameters.model_validate(given).model_dump(mode="json")
        return cls.identity(cls.Parameters.model_validate(cls.chosen_here(parameters)))

    monkeypatch.setattr("harken.bench.stages.embed.default_device", lambda: "cpu")
    plain = named()
    # As before there were devices.
    assert not {"device", "precision"} & plain["parameters"].keys()
    assert named(device="cpu") == plain
    assert named(precision="bf16") != plain
    assert named(device="cuda") != plain
    monkeypatch.setattr("harken.bench.stages.embed.default_device", lambda: "cuda")
    assert named() == named(device="cuda")
    assert "device" not in named("spectral")["parameters"]


def test_a_recipe_sets_them() -> None:
    changes = {"stages.embed.device": "cuda", "stages.embed.precision": "tf32"}
    stage = load_recipe("training_free", changes=changes).stages["embed"]
    assert (stage.parameters["device"], stage.parameters["precision"]) == ("cuda", "tf32")
    with pytest.raises(HarkenError, match=r"stages.embed.precision: .* \(given \"int8\"\)"):
        load_recipe("training_free", changes={"stages.embed.precision": "int8"})
