"""What an encoder is: waveform in, frame-level features of any layer out."""

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


def valid_lengths(
    who: str, waveform_BT: Float32, lengths_B: NDArray[np.int64] | None, min_samples: int
) -> NDArray[np.int64]:
    """Valid samples of each clip: `lengths_B`, or all of them.

    Raises ValueError, which names `who`, where there is no clip or one is shorter than `min_samples`.
    """
    clips, samples = waveform_BT.shape
    lengths_B = np.full(clips, samples) if lengths_B is None else np.asarray(lengths_B)
    shortest = int(lengths_B.min(initial=samples))
    if clips == 0 or shortest < min_samples:
        raise ValueError(f"{who} needs {min_samples} samples, not {shortest}")
    return lengths_B


def padded(clips: Sequence[Float32], layer: str) -> Embedding:
    """Clips of (frames, dimensions) each, of one layer, with zeros after the frames of the shorter ones."""
    frames_B = np.array([len(frames_TD) for frames_TD in clips], dtype=np.int64)
    features_BLTD = np.zeros((len(clips), 1, frames_B.max(), clips[0].shape[1]), dtype=np.float32)
    for row, frames_TD in enumerate(clips):
        features_BLTD[row, 0, : len(frames_TD)] = frames_TD
    return Embedding(features_BLTD, frames_B, (layer,))


class Encoder(ABC):
    """Waveform -> frame-level features.

    A subclass is one architecture in one file. It owns all of its pre-processing, so that a waveform at
    `sample_rate` is all a caller provides. It is constructed from plain JSON values and, for
    architectures that have weights, a mapping of tensor name to array (as read from safetensors).
    Where a configuration fixes the shapes of one `encode` call, the same waveform gives bitwise the same
    features on CPU.
    """

    #: registry name
    name: ClassVar[str]
    #: sampling rate in Hz that `encode` expects
    sample_rate: int
    #: shortest waveform that `encode` accepts, in samples; callers tile shorter clips
    min_samples: int
    #: names of every layer that can be asked for, input to output
    layers: tuple[str, ...]
    #: the layer that serves anomaly detection best
    default_layer: str
    #: the pooling (see `pooling`) that serves anomaly detection best
    default_pooling: ClassVar[str] = "mean"
    #: whether the architecture needs trained weights to be of use
    needs_weights: ClassVar[bool] = False
    #: frames at the start of every layer that stand for the whole clip, not for a time
    cls_tokens: ClassVar[int] = 0
    #: successive frames, other than those, that share one time step; they run from low to high frequency
    patch_bands: ClassVar[int] = 1

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """JSON-able keyword arguments that rebuild this encoder (without its weights)."""

    def weights(self) -> Mapping[str, np.ndarray]:
        """Every learned array by name; empty for encoders without weights."""
        return {}

    @abstractmethod
    def encode(
        self,
        waveform_BT: Float32,
        lengths_B: NDArray[np.int64] | None = None,
        layers: tuple[str, ...] | None = None,
    ) -> Embedding:
        """Features of each named layer (default: `default_layer`) for (clips, samples) float32 in [-1, 1].

        lengths_B: valid samples of each clip where clips were padded to one length (default: all).
        Raises ValueError for an unknown layer or a waveform shorter than `min_samples`.
        """
