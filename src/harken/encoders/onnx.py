"""Encoders exported to ONNX, run without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from harken.audio.shape import windows
from harken.core.errors import WeightsError
from harken.core.extras import need
from harken.encoders.base import Embedding, Encoder, padded, valid_lengths

Float32 = NDArray[np.float32]

#: under which an exported file keeps its `Card`
CARD = "harken"


class Card(BaseModel):
    """What an exported file says about itself.

    samples: length of the waveforms that it takes, or None for any from `min_samples` to `max_samples`.
    clips: that it takes at once, or None for any number.
    max_abs_diff: largest difference to torch of any feature, for random sound and before rounding to 8 bits; and
        `similarity`, the lowest cosine similarity to torch of mean features, as the file is.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    encoder: str
    config: dict[str, Any]
    layer: str
    sample_rate: int
    samples: int | None
    min_samples: int
    max_samples: int
    clips: int | None
    pooling: str
    cls_tokens: int
    patch_bands: int
    int8: bool
    max_abs_diff: float
    similarity: float
    weights_sha256: str | None


class OnnxEncoder(Encoder):
    """The one layer that was exported of any neural encoder, by ONNX Runtime.

    A file is often for waveforms of one length: `min_samples` is that length, so that shorter ones are to be tiled
    as ever. Longer ones pass in windows, of which the last ends with the clip, so that what it has in common with
    the one before is told twice; their frames follow each other, but the class tokens of the windows, where there
    are any, are averaged. Neither padding nor the rest of a batch changes a clip's features.

    file: made by `harken export`. threads: of one clip (default: the processor's cores).
    """

    name: ClassVar[str] = "onnx"

    def __init__(self, file: str | Path, *, threads: int | None = None) -> None:
        """Raises WeightsError for a file that is missing, damaged, or not made by `harken export`."""
        self.file = str(file)
        self.session = _session(Path(file), threads)
        text = self.session.get_modelmeta().custom_metadata_map.get(CARD)
        try:
            self.card = Card.model_validate_json(text or "")
        except ValidationError:
            raise WeightsError(
                "is an ONNX file without a card of Harken", file=file, next_step="Make one with harken export"
            ) from None
        card = self.card
        self.sample_rate = card.sample_rate
        self.min_samples = card.samples or card.min_samples
        self.layers = (card.layer,)
        self.default_layer = card.layer
        # Of the class for other encoders, where one architecture has one; here the file decides.
        self.default_pooling = card.pooling  # type: ignore[misc]
        self.cls_tokens = card.cls_tokens  # type: ignore[misc]
        self.patch_bands = card.patch_bands  # type: ignore[misc]

    def config(self) -> dict[str, Any]:
        return {"file": self.file}

    def encode(
        self,
        waveform_BT: Float32,
        lengths_B: NDArray[np.int64] | None = None,
        layers: tuple[str, ...] | None = None,
    ) -> Embedding:
        """See `Encoder.encode`."""
        unknown = [layer for layer in layers or () if layer not in self.layers]
        if unknown:
            raise ValueError(f"{self.file} has no layer {', '.join(unknown)}; there is {self.default_layer}")
        lengths_B = valid_lengths(self.file, waveform_BT, lengths_B, self.min_samples)
        found = [self._encode_one(wave_T[:length]) for wave_T, length in zip(waveform_BT, lengths_B, strict=True)]
        return padded(found, self.default_layer)

    def run(self, waveform_BT: Float32) -> Float32:
        """(clips, samples), of a length that the file takes, -> (clips, frames, dimensions), in one pass.

        With 8 bits, clips that pass together share the scale of their activations.
        """
        wave_BT = np.ascontiguousarray(waveform_BT, dtype=np.float32)
        (features_BTD,) = self.session.run(None, {"waveform": wave_BT})
        return np.asarray(features_BTD, dtype=np.float32)

    def windows(self, samples: int) -> list[tuple[int, int]]:
        """Start and stop of the windows in which a clip of `samples` passes through."""
        span = self.card.samples or min(samples, self.card.max_samples)
        return windows(samples, span)

    def _encode_one(self, wave_T: Float32) -> Float32:
        parts = [self.run(wave_T[None, start:stop])[0] for start, stop in self.windows(len(wave_T))]
        if len(parts) == 1:
            return parts[0]
        cls = self.cls_tokens
        heads = [np.mean([part_TD[:cls] for part_TD in parts], axis=0, dtype=np.float32)] if cls else []
        return np.concatenate([*heads, *(part_TD[cls:] for part_TD in parts)])


def write_card(model: Any, card: Card) -> None:
    """Put `card` into an onnx.ModelProto."""
    while model.metadata_props:
        model.metadata_props.pop()
    model.metadata_props.add(key=CARD, value=json.dumps(card.model_dump(), sort_keys=True))


def _session(file: Path, threads: int | None) -> Any:
    ort = need("onnxruntime", "ONNX files")
    if not file.is_file():
        raise WeightsError("does not exist", file=file, next_step="Make it with harken export")
    # Nobody but the user has to know what is listened to.
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    # Errors come as exceptions.
    options.log_severity_level = 4
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime has one class of exception for each of its states, and no common one.
        raise WeightsError(
            f"is no ONNX file that can be run ({str(error).splitlines()[0][:200]})",
            file=file,
            next_step="Make it again with harken export",
        ) from None
