"""A network that was trained here, as an encoder like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from harken.audio.shape import fit_length, windows
from harken.encoders.base import Spectrogram
from harken.encoders.frame_encoder import FrameEncoder
from harken.encoders.pooling import check_pooling, pool
from harken.encoders.registry import register_encoder
from harken.encoders.torch_encoder import TorchEncoder
from harken.training.model_spec import ModelSpec
from harken.training.models import ASDModel, build_model
from harken.training.spectrograms import SpectrogramRows

Float32 = NDArray[np.float32]
#: windows that pass together on an accelerator
_BATCH = 32


@register_encoder("trained", listed=False)
class TrainedEncoder(FrameEncoder):
    """One frame for each window of a clip: the network's embedding, of unit length.

    A clip longer than those of the training passes in windows of that length, of which the last ends with the clip; a
    shorter one is repeated or, with `length` `pad`, padded with silence. Pooled by `mean`, this is the embedding that a
    run's `embed_trained` gives.

    weights: the model's arrays, all of them (`ASDModel.state(complete=True)`); None for a random network. model: its
    `ModelSpec`, without names of weights. seconds: of a window. read: None for the embedding that was trained; else
    layers of each of its encoders, joined by `+`, or `all` of their blocks, each pooled over frames by `read_pooling`
    and brought to unit length, one after the other (NWPU's fusion of layers).
    """

    needs_weights: ClassVar[bool] = True

    def __init__(
        self,
        weights: Mapping[str, NDArray[Any]] | None = None,
        *,
        model: Mapping[str, Any],
        seconds: float,
        read: str | None = None,
        read_pooling: str = "mean",
        length: Literal["repeat", "pad"] = "repeat",
    ) -> None:
        """Raises WeightsError if a tensor is missing, of another shape or not finite; ValueError for layers that an
        encoder has not, and for an unknown pooling."""
        built = build_model(ModelSpec.model_validate(model), arrays=weights)
        self._begin(built, seconds, read, read_pooling, length)

    @classmethod
    def of(
        cls,
        model: ASDModel,
        seconds: float,
        *,
        read: str | None = None,
        read_pooling: str = "mean",
        length: Literal["repeat", "pad"] = "repeat",
    ) -> Self:
        """The encoder of a model that is there already, which it shares. Raises ValueError as the constructor."""
        encoder = cls.__new__(cls)
        encoder._begin(model, seconds, read, read_pooling, length)
        return encoder

    def _begin(
        self, model: ASDModel, seconds: float, read: str | None, read_pooling: str, length: Literal["repeat", "pad"]
    ) -> None:
        check_pooling(read_pooling)
        self.model = model.eval()
        self.seconds, self.read, self.read_pooling, self.length = seconds, read, read_pooling, length
        self.sample_rate = model.sample_rate
        self.min_samples = model.min_samples
        self.layers = ("embedding",)
        self.default_layer = "embedding"
        #: samples of a window
        self.window = max(round(seconds * model.sample_rate), model.min_samples)
        self._read_layers = [_layers(encoder, read) for encoder in model.encoders] if read else None

    def layers_read(self) -> tuple[tuple[str, ...], ...]:
        """Of each of its encoders, the layers that are pooled; none without `read`."""
        return tuple(self._read_layers or ())

    def config(self) -> dict[str, Any]:
        return {
            "model": self.model.standalone_spec().model_dump(mode="json"),
            "seconds": self.seconds,
            "read": self.read,
            "read_pooling": self.read_pooling,
            # Omitted if not chosen, so that earlier models stay valid.
            **({"length": self.length} if self.length != "repeat" else {}),
        }

    def weights(self) -> Mapping[str, NDArray[Any]]:
        return self.model.state(complete=True)

    def set_precision(self, precision: Literal["fp32", "bf16"]) -> Self:
        """What networks compute in from now on, see `apply_precision`; heads stay in fp32. Returns the encoder.

        Raises HarkenError where it is not available.
        """
        self.model.set_precision(precision)
        return self

    def frames(self, samples_S: Float32) -> Float32:
        """(samples,) -> (windows, D)."""
        return self.frames_of_clips([samples_S])[0]

    def frames_of_clips(self, clips: Sequence[Float32]) -> list[Float32]:
        """(samples,) each -> (windows, D) each. On an accelerator, windows of all of them pass together; on a CPU they
        pass one by one, so that the bits of a clip depend on no other."""
        short: Literal["tile", "pad"] = "pad" if self.length == "pad" else "tile"
        waves = [
            wave_S if len(wave_S) >= self.window else fit_length(wave_S, self.window, short=short) for wave_S in clips
        ]
        bounds = [windows(len(wave_S), self.window) for wave_S in waves]
        passing = [wave_S[start:stop] for wave_S, of in zip(waves, bounds, strict=True) for start, stop in of]
        size = 1 if self._device.type == "cpu" else _BATCH
        embed = self._trained if self._read_layers is None else self._pooled
        vectors = iter(
            [
                row_D
                for start in range(0, len(passing), size)
                for row_D in embed(np.stack(passing[start : start + size]))
            ]
        )
        return [np.stack([next(vectors) for _ in of]) for of in bounds]

    def frames_of_spectrogram(self, spectrogram_FM: Float32) -> Float32:
        """(frames, bins), as `ASDModel.spectrogram_form` of `window` samples wants it -> (1, D)."""
        return np.stack(self.vectors(np.zeros((1, self.window), dtype=np.float32), spectrogram_FM))

    def vectors(self, wave_BS: Float32, spectrogram_FM: Float32 | None = None) -> list[Float32]:
        """(windows, samples) -> (D,) of unit length of each window; they pass together.

        spectrogram_FM: enters in place of a single one.
        """
        embed = self._trained if self._read_layers is None else self._pooled
        return embed(wave_BS, spectrogram_FM)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _trained(self, wave_BS: Float32, spectrogram_FM: Float32 | None = None) -> list[Float32]:
        with torch.inference_mode():
            x_BS = torch.from_numpy(np.ascontiguousarray(wave_BS)).to(self._device)
            spectrograms = None
            if spectrogram_FM is not None:
                rows = SpectrogramRows(torch.tensor([0]), torch.from_numpy(spectrogram_FM[None]))
                spectrograms = rows.to(self._device)
            embedding_BD: Float32 = self.model(x_BS, spectrograms=spectrograms).float().cpu().numpy()
        return [_unit(embedding_D) for embedding_D in embedding_BD]

    def _pooled(self, wave_BS: Float32, spectrogram_FM: Float32 | None = None) -> list[Float32]:
        assert self._read_layers is not None
        vectors: list[list[Float32]] = [[] for _ in wave_BS]
        for encoder, layers in zip(self.model.encoders, self._read_layers, strict=True):
            if spectrogram_FM is None:
                embedding = encoder.encode(wave_BS, layers=layers)
            else:
                clip = Spectrogram((spectrogram_FM,), wave_BS.shape[1])
                embedding = encoder.encode_spectrogram([clip], layers=layers)
            for row, valid in enumerate(embedding.lengths_B.tolist()):
                vectors[row] += [
                    _unit(pool(x_TD, self.read_pooling, cls_tokens=encoder.cls_tokens, patch_bands=encoder.patch_bands))
                    for x_TD in embedding.features_BLTD[row, :, :valid]
                ]
        return [_unit(np.concatenate(of_layers)) for of_layers in vectors]


def _layers(encoder: TorchEncoder, layers: str) -> tuple[str, ...]:
    names = tuple(name for name in encoder.layers if name.startswith("block_")) if layers == "all" else ()
    names = names or tuple(layers.split("+"))
    unknown = [name for name in names if name not in encoder.layers]
    if unknown:
        raise ValueError(f"{encoder.name} has no layer {', '.join(unknown)}; there are {', '.join(encoder.layers)}")
    return names


def _unit(vector_D: Float32) -> Float32:
    length = float(np.linalg.norm(vector_D))
    return vector_D / np.float32(length) if length > 0 else vector_D
