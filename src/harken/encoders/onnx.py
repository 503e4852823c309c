"""Encoders exported to ONNX, run without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError, field_validator

from harken.audio.shape import fit_length, windows
from harken.core.errors import WeightsError
from harken.core.extras import need
from harken.core.json_text import json_text
from harken.encoders.base import Embedding, Encoder, padded_layers, valid_lengths
from harken.encoders.pooling import check_pooling
from harken.encoders.registry import register_encoder

Float32 = NDArray[np.float32]

#: under which an exported file keeps its `Card`
CARD = "harken"
#: most bytes of one protocol buffer
LARGEST = 2**31 - 2**24
#: the array that holds the bytes of a file
MODEL = "model"
#: as it stands in a file whose tensors are kept in another: the key of a `StringStringEntryProto`
_EXTERNAL = b"\x0a\x08location"


class Card(BaseModel):
    """What an exported file says about itself.

    layer: several are joined by `+`, and their dimensions follow each other in the file's output.
    samples: length of the waveforms that it takes, or None for any from `min_samples` to `max_samples`. Shorter ones,
        down to `min_samples`, are repeated to it, or padded where the configuration of the encoder says so.
    clips: that it takes at once, or None for any number.
    max_abs_diff: largest difference to torch of any feature, for random sound and before rounding to 8 bits;
        `pooled_diff`: of any pooled vector, as the file is; None in files that were made before this was measured.
        `similarity`: the lowest cosine similarity to torch of mean features, as the file is.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    encoder: str
    config: dict[str, Any]
    layer: str
    sample_rate: PositiveInt
    samples: PositiveInt | None
    min_samples: PositiveInt
    max_samples: PositiveInt
    clips: PositiveInt | None
    pooling: str
    cls_tokens: int
    patch_bands: PositiveInt
    int8: bool
    max_abs_diff: float
    pooled_diff: float | None = None
    similarity: float
    weights_sha256: str | None

    @field_validator("pooling")
    @classmethod
    def _is_known(cls, pooling: str) -> str:
        check_pooling(pooling)
        return pooling


@register_encoder("onnx", listed=False)
class OnnxEncoder(Encoder):
    """What was exported of any neural encoder, by ONNX Runtime.

    A file is often for waveforms of one length: shorter ones are repeated to it, longer ones pass in windows, of which
    the last ends with the clip, so that what it has in common with the one before counts twice; their frames follow
    each other, but class tokens, where there are any, are the mean of the windows'. Neither padding nor the rest of a
    batch changes a clip's features.

    weights: `model`, the bytes of a file made by `harken export`. threads: per clip (None: the processor's cores).
    """

    needs_weights: ClassVar[bool] = True

    def __init__(self, weights: Mapping[str, NDArray[Any]] | None = None, *, threads: int | None = 1) -> None:
        """Raises WeightsError for a file that is missing, damaged, not made by `harken export`, or that keeps its
        tensors in other files."""
        self._begin(weights, "the model", threads)

    @classmethod
    def of_file(cls, file: str | Path, *, threads: int | None = 1) -> Self:
        """The encoder of a file. Raises WeightsError as the constructor."""
        encoder = cls.__new__(cls)
        encoder._begin(read_onnx(file), file, threads)
        return encoder

    def _begin(self, weights: Mapping[str, NDArray[Any]] | None, file: str | Path, threads: int | None) -> None:
        if weights is None or set(weights) != {MODEL} or weights[MODEL].dtype != np.uint8:
            raise WeightsError("holds no ONNX file", file=file, next_step="Make one with harken export")
        self._weights = {MODEL: weights[MODEL]}
        self.threads = threads
        self.session = _session(weights[MODEL].tobytes(), file, threads)
        self.card = card = _card(self.session, file)
        self.sample_rate = card.sample_rate
        self.min_samples = card.min_samples
        self.layers = tuple(card.layer.split("+"))
        self.default_layer = self.layers[0]
        self.default_pooling = card.pooling
        self.cls_tokens = card.cls_tokens
        self.patch_bands = card.patch_bands

    def config(self) -> dict[str, Any]:
        """See `Encoder.config`."""
        return {"threads": self.threads}

    def weights(self) -> dict[str, NDArray[Any]]:
        """See `Encoder.weights`: the bytes of the file."""
        return dict(self._weights)

    def encode(
        self,
        waveform_BS: Float32,
        lengths_B: NDArray[np.int64] | None = None,
        layers: tuple[str, ...] | None = None,
    ) -> Embedding:
        """See `Encoder.encode`."""
        layers = layers or (self.default_layer,)
        unknown = [layer for layer in layers if layer not in self.layers]
        if unknown:
            raise ValueError(f"the file has no layer {', '.join(unknown)}; there is {', '.join(self.layers)}")
        lengths_B = valid_lengths(f"{self.card.encoder} as ONNX", waveform_BS, lengths_B, self.min_samples)
        places = [self.layers.index(layer) for layer in layers]
        clips = []
        for wave_S, length in zip(waveform_BS, lengths_B, strict=True):
            frames_TD = self._encode_clip(wave_S[:length])
            frames_TLD = frames_TD.reshape(len(frames_TD), len(self.layers), -1)
            clips.append(frames_TLD.transpose(1, 0, 2)[places])
        return padded_layers(clips, layers)

    def run(self, waveform_BS: Float32) -> Float32:
        """(clips, samples), of a length that the file takes, -> (clips, frames, dimensions), in one pass.

        Of several layers, their dimensions follow each other. With 8 bits, clips that pass together share the scale of
        their activations.
        """
        wave_BS = np.ascontiguousarray(waveform_BS, dtype=np.float32)
        (features_BTD,) = self.session.run(None, {"waveform": wave_BS})
        return np.asarray(features_BTD, dtype=np.float32)

    def windows(self, samples: int) -> list[tuple[int, int]]:
        """Start and stop of the windows in which a clip of `samples` passes through."""
        span = self.card.samples or min(samples, self.card.max_samples)
        return windows(samples, span)

    def _encode_clip(self, wave_S: Float32) -> Float32:
        if self.card.samples is not None and len(wave_S) < self.card.samples:
            short: Literal["tile", "pad"] = "pad" if self.card.config.get("length") == "pad" else "tile"
            wave_S = fit_length(wave_S, self.card.samples, short=short)
        outputs = [self.run(wave_S[None, start:stop])[0] for start, stop in self.windows(len(wave_S))]
        if len(outputs) == 1:
            return outputs[0]
        cls = self.cls_tokens
        heads = [np.mean([output_TD[:cls] for output_TD in outputs], axis=0, dtype=np.float32)] if cls else []
        return np.concatenate([*heads, *(output_TD[cls:] for output_TD in outputs)])


def is_onnx(file: Path) -> bool:
    """Whether a file begins as ONNX files do: with the version of the format; those of tensors begin otherwise."""
    with file.open("rb") as opened:
        head = opened.read(9)
    return head[:1] == b"\x08" and head[8:9] != b"{"


def read_onnx(file: str | Path) -> dict[str, NDArray[np.uint8]]:
    """A file as the weights of an `OnnxEncoder`. Raises WeightsError where it is missing or too large."""
    file = Path(file)
    if not file.is_file():
        raise WeightsError("does not exist", file=file, next_step="Make it with harken export")
    if file.stat().st_size > LARGEST:
        raise WeightsError("is too large for an ONNX file", file=file, next_step="Export a smaller network")
    return {MODEL: np.fromfile(file, dtype=np.uint8)}


def write_card(model: Any, card: Card) -> None:
    """Put `card` into an onnx.ModelProto."""
    while model.metadata_props:
        model.metadata_props.pop()
    model.metadata_props.add(key=CARD, value=json_text(card.model_dump(), sort_keys=True))


def _session(data: bytes, file: str | Path, threads: int | None) -> Any:
    ort = need("onnxruntime", "ONNX files")
    if len(data) > LARGEST:
        raise WeightsError("is too large for an ONNX file", file=file, next_step="Export a smaller network")
    # ONNX Runtime would read them from wherever the file says.
    if _EXTERNAL in data:
        raise WeightsError(
            "keeps tensors in other files, which are not read", file=file, next_step="Make it with harken export"
        )
    # onnxruntime must not send telemetry.
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    # Errors come as exceptions.
    options.log_severity_level = 4
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime has one class of exception for each of its states, and no common one.
        raise WeightsError(
            f"is no ONNX file that can be run ({(str(error).splitlines() or [''])[0][:200]})",
            file=file,
            next_step="Make it again with harken export",
        ) from None


def _card(session: Any, file: str | Path) -> Card:
    text = session.get_modelmeta().custom_metadata_map.get(CARD)
    try:
        return Card.model_validate_json(text or "")
    except ValidationError:
        raise WeightsError(
            "is an ONNX file without a card of Harken", file=file, next_step="Make one with harken export"
        ) from None
