"""The contract of encoders: waveform in, frame-level features of any layer out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Embedding:
    """Frame-level features of a batch of clips.

    features_BLTD: (clips, layers, frames, dimensions) float32. Where a layer is a map with a frequency axis,
        D is channels x frequencies, channel-major, so that pooling over T keeps the frequency axis.
    lengths_B: valid frames of each clip; frames beyond are padding.
    layers: name of each of the L layers.
    """

    features_BLTD: Float32
    lengths_B: NDArray[np.int64]
    layers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Spectrogram:
    """The output of an encoder's front end for one clip, or a generated replacement of it.

    windows: (frames, bins) float32 of each of the windows in which the clip passes through the network, normalised as
        the network expects it. samples: length of the clip, which determines windows and padding.
    """

    windows: tuple[Float32, ...]
    samples: int


@dataclass(frozen=True)
class FrontEnd:
    """Identity of a front end: an encoder takes spectrograms of an equal one only.

    encoder: name of the architecture. sample_rate: of the waveform, in Hz. digest: of the settings and learned arrays
    that the spectrogram depends on; networks of different sizes may have the same front end.
    """

    encoder: str
    sample_rate: int
    digest: str

    def __str__(self) -> str:
        return f"{self.encoder} at {self.sample_rate} Hz ({self.digest[:8]})"


def valid_lengths(
    who: str, waveform_BS: Float32, lengths_B: NDArray[np.int64] | None, min_samples: int
) -> NDArray[np.int64]:
    """Valid samples of each clip: `lengths_B`, or all of them.

    Raises ValueError, which names `who`, without clips and for one shorter than `min_samples`.
    """
    clips, samples = waveform_BS.shape
    lengths_B = np.full(clips, samples) if lengths_B is None else np.asarray(lengths_B)
    shortest = int(lengths_B.min(initial=samples))
    if clips == 0 or shortest < min_samples:
        raise ValueError(f"{who} needs {min_samples} samples, not {shortest}")
    return lengths_B


def padded(clips: Sequence[Float32], layer: str) -> Embedding:
    """Clips of (frames, dimensions) each, of one layer, with zeros after the frames of the shorter ones."""
    return padded_layers([frames_TD[None] for frames_TD in clips], (layer,))


def padded_layers(clips: Sequence[Float32], layers: tuple[str, ...]) -> Embedding:
    """Clips of (layers, frames, dimensions) each, with zeros after the frames of the shorter ones."""
    frames_B = np.array([features_LTD.shape[1] for features_LTD in clips], dtype=np.int64)
    features_BLTD = np.zeros((len(clips), len(layers), frames_B.max(), clips[0].shape[2]), dtype=np.float32)
    for row, features_LTD in enumerate(clips):
        features_BLTD[row, :, : features_LTD.shape[1]] = features_LTD
    return Embedding(features_BLTD, frames_B, layers)


class Encoder(ABC):
    """Waveform -> frame-level features.

    A subclass is one architecture in one file. It owns all of its pre-processing, so that a waveform at
    `sample_rate` is all a caller provides. It is constructed from plain JSON values and, for
    architectures that have weights, a mapping of tensor name to array (as read from safetensors).
    Where a configuration fixes the shapes of one `encode` call, the same waveform gives bitwise the same
    features on CPU.
    """

    #: registry name; `register_encoder` gives it
    name: ClassVar[str]
    #: named configurations: `tiny`, a network of a few milliseconds for tests, and published sizes, some of them by the
    #: names of their weights
    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: whether it takes a `sample_rate` and works at that of any recording
    any_rate: ClassVar[bool] = False
    #: whether the architecture needs trained weights to be of use
    needs_weights: ClassVar[bool] = False
    #: whether it has `spectrogram` and `encode_spectrogram`
    takes_spectrograms: ClassVar[bool] = False
    #: whether layers are separate embeddings, rather than depths of one network
    separate_layers: ClassVar[bool] = False

    #: sampling rate in Hz that `encode` expects
    sample_rate: int
    #: shortest waveform that `encode` accepts, in samples; callers tile shorter clips
    min_samples: int
    #: names of every layer that can be asked for, input to output
    layers: tuple[str, ...]
    #: the best layer for anomaly detection
    default_layer: str
    #: the best pooling (see `pooling`) for anomaly detection; this and the following are attributes of the instance:
    #: those of an exported network come from its file
    default_pooling: str = "mean"
    #: class tokens at the start of every layer, which stand for the whole clip
    cls_tokens: int = 0
    #: successive frames, other than those, that share one time step; they run from low to high frequency
    patch_bands: int = 1

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """JSON-able keyword arguments that rebuild this encoder (without its weights)."""

    def weights(self) -> Mapping[str, np.ndarray]:
        """Every learned array by name; empty for encoders without weights."""
        return {}

    @abstractmethod
    def encode(
        self,
        waveform_BS: Float32,
        lengths_B: NDArray[np.int64] | None = None,
        layers: tuple[str, ...] | None = None,
    ) -> Embedding:
        """Features of each named layer (default: `default_layer`) for (clips, samples) float32 in [-1, 1].

        lengths_B: valid samples of each clip where clips were padded to one length (default: all).
        Raises ValueError for an unknown layer or a waveform shorter than `min_samples`.
        """

    def front_end(self) -> FrontEnd:
        """The front end of its spectrograms. ValueError for encoders without spectrograms (`takes_spectrograms`)."""
        raise ValueError(f"{self.name} does not take spectrograms")

    def spectrogram(self, waveform_BS: Float32, lengths_B: NDArray[np.int64] | None = None) -> list[Spectrogram]:
        """The front end's output for each clip; `encode_spectrogram` of it equals `encode`, to the last bit on a CPU.

        Raises ValueError as `encode`, and for encoders without a spectrogram (`takes_spectrograms`).
        """
        raise ValueError(f"{self.name} does not take spectrograms")

    def encode_spectrogram(self, clips: Sequence[Spectrogram], layers: tuple[str, ...] | None = None) -> Embedding:
        """Features of spectrograms, from `spectrogram` or generated.

        Raises ValueError as `spectrogram`, and for windows of another shape than those of a waveform of their length.
        """
        raise ValueError(f"{self.name} does not take spectrograms")

    @classmethod
    def read_checkpoint(
        cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
        """Configuration and weights of a published file of this architecture; None of any other file.

        tensors: by the file's names. settings: other content of the file's top level, such as `cfg`.
        Architectures whose published files have the names and shapes of `tensor_shapes` need not override it.
        Raises WeightsError for a file of this architecture that is incomplete or misshapen.
        """
        return None

    @classmethod
    def has_own_files(cls) -> bool:
        """Whether its published files need its `read_checkpoint`."""
        return cls.read_checkpoint.__func__ is not Encoder.read_checkpoint.__func__  # type: ignore[attr-defined]

    @classmethod
    def tensor_shapes(cls, **config: Any) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight of a configuration; empty for encoders without weights."""
        return {}
