"""What the neural encoders share: batches of clips of different lengths through one torch module."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harken.core.errors import HarkenError
from harken.core.json_text import json_text
from harken.encoders.base import Embedding, Encoder, FrontEnd, Spectrogram, padded_layers, valid_lengths
from harken.encoders.precision import Precision, apply_precision
from harken.encoders.spectrogram_net import SpectrogramNet

Float32 = NDArray[np.float32]

#: clips that pass through the network together on an accelerator
_BATCH = 32
#: the shortest of them, as a part of the longest to which they are padded
_SHORTEST = 0.8


def state_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a module's state."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


class TorchEncoder(Encoder):
    """An encoder around `module`: (clips, samples) tensor and layer names -> one (clips, frames, D) tensor per layer.

    `module` is gradient-friendly and may be trained; `encode` runs it without gradients, clip by clip on a CPU: no
    slower there, and kernels that depend on the batch's shape cannot change a clip's bits. On an accelerator, clips
    of one length pass together, and so do those of similar length where the module takes `lengths_B` (valid samples
    of each of the clips, which are then padded).
    """

    module: SpectrogramNet
    takes_spectrograms: ClassVar[bool] = True
    #: names of the settings in `config`, and of the arrays in the state of `module`, that its spectrograms depend on,
    #: beside the sampling rate; None: all
    front_end_settings: ClassVar[tuple[str, ...] | None] = None
    front_end_arrays: ClassVar[tuple[str, ...] | None] = None
    #: whether `module` takes `lengths_B`, so that clips of several lengths can pass together
    takes_lengths: ClassVar[bool] = True
    #: regular expression for the names of the modules of `module` that low-rank adapters go to: the projections of
    #: queries, values and outputs; None where there are none
    adapter_targets: ClassVar[str | None] = None
    #: what `encode` runs in place of `module`, where that was asked for
    _changed: nn.Module | None = None
    _precision: Precision = "fp32"
    #: of spectrograms, by the samples of a clip
    _window_shapes: Mapping[int, tuple[tuple[int, ...], ...]] = MappingProxyType({})
    #: valid samples of the padded clips that are under way
    _lengths_B: torch.Tensor | None = None

    @abstractmethod
    def frame_count(self, samples: int, layer: str) -> int:
        """Valid frames of `layer` for a clip of `samples`."""

    @property
    def precision(self) -> Precision:
        """What `encode` computes in; see `set_precision`."""
        return self._precision

    def set_precision(self, precision: Precision) -> Self:
        """Let `encode` compute in "fp32", "bf16" or "int8"; see `apply_precision`. Returns the encoder.

        `module` and `weights` stay as they are; after changing them, call this again. Embeddings of different
        precisions are not meant to be compared. Raises HarkenError where it is not available.
        """
        self._changed = None if precision == "fp32" else apply_precision(self.module, precision)
        self._precision = precision
        return self

    def to(self, device: str | torch.device) -> Self:
        """Move to a device, such as "cuda" or "cpu". Returns the encoder.

        Raises HarkenError if the device is not there, or cannot do with the precision, which then is "fp32".
        """
        device = torch.device(device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise HarkenError("torch finds no CUDA device", next_step="Use cpu, or install a torch built for the GPU")
        precision = self._precision
        self.set_precision("fp32").module.to(device)
        return self.set_precision(precision)

    @abstractmethod
    def passes(self, samples: int) -> list[tuple[int, int]]:
        """Start and stop of the windows in which a clip of `samples` passes through, so that memory is bounded.

        Frames of successive windows follow each other.
        """

    def encode(
        self,
        waveform_BS: Float32,
        lengths_B: NDArray[np.int64] | None = None,
        layers: tuple[str, ...] | None = None,
    ) -> Embedding:
        """See `Encoder.encode`. Raises ValueError also for layers of different shape."""
        layers = self._checked(layers)
        lengths = valid_lengths(self.name, waveform_BS, lengths_B, self.min_samples)
        frames = max(self.frame_count(int(lengths.max()), layer) for layer in layers)
        features_BLTD: Float32 | None = None
        for rows in self._batches(lengths):
            longest = int(lengths[rows].max())
            if lengths[rows].min() < longest:
                heard_B = [self.heard(int(n)) for n in lengths[rows]]
                self._lengths_B = torch.tensor(heard_B, device=self._device)
            try:
                found_BLTD = self._encode_equal(waveform_BS[rows, :longest], layers)
            finally:
                self._lengths_B = None
            if features_BLTD is None:
                shape = (len(waveform_BS), len(layers), frames, found_BLTD.shape[3])
                features_BLTD = np.zeros(shape, dtype=np.float32)
            for row, found_LTD in zip(rows, found_BLTD, strict=True):
                valid = min(self.frame_count(int(lengths[row]), layers[0]), found_LTD.shape[1])
                features_BLTD[row, :, :valid] = found_LTD[:, :valid]
        assert features_BLTD is not None
        valid_B = np.array([self.frame_count(int(n), layers[0]) for n in lengths], dtype=np.int64)
        return Embedding(features_BLTD, valid_B, layers)

    def heard(self, samples: int) -> int:
        """Valid length that the network gets for a clip of `samples` in a batch with longer ones."""
        return self.passes(samples)[0][1]

    def front_end(self) -> FrontEnd:
        """See `Encoder.front_end`."""
        if not self.takes_spectrograms:
            return super().front_end()
        config, state = self.config(), self.module.state_dict()
        settings = config if self.front_end_settings is None else {key: config[key] for key in self.front_end_settings}
        digest = hashlib.sha256(json_text(settings, sort_keys=True).encode())
        for name in sorted(state if self.front_end_arrays is None else self.front_end_arrays):
            array = state[name].detach().cpu().numpy()
            digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return FrontEnd(self.name, self.sample_rate, digest.hexdigest())

    def spectrogram_shapes(self, samples: int) -> tuple[tuple[int, ...], ...]:
        """(frames, bins) of each window of the spectrogram of a clip of `samples`.

        Raises ValueError as `spectrogram`.
        """
        if samples not in self._window_shapes:
            (silence,) = self.spectrogram(np.zeros((1, samples), dtype=np.float32))
            self._window_shapes = {
                **self._window_shapes,
                samples: tuple(window_FM.shape for window_FM in silence.windows),
            }
        return self._window_shapes[samples]

    def spectrogram(self, waveform_BS: Float32, lengths_B: NDArray[np.int64] | None = None) -> list[Spectrogram]:
        """See `Encoder.spectrogram`."""
        if not self.takes_spectrograms:
            return super().spectrogram(waveform_BS, lengths_B)
        lengths = valid_lengths(self.name, waveform_BS, lengths_B, self.min_samples)
        clips = []
        for wave_S, samples in zip(waveform_BS, lengths.tolist(), strict=True):
            windows = []
            for start, stop in self.passes(samples):
                with torch.inference_mode():
                    x_1FM = self._network.spectrogram(self._tensor(wave_S[None, start : min(stop, samples)]))
                x_FM = x_1FM.flatten(end_dim=-3)[0]
                windows.append((x_FM.T if self.module.frequency_first else x_FM).cpu().numpy())
            clips.append(Spectrogram(tuple(windows), samples))
        return clips

    def encode_spectrogram(self, clips: Sequence[Spectrogram], layers: tuple[str, ...] | None = None) -> Embedding:
        """See `Encoder.encode_spectrogram`. One clip at a time."""
        if not self.takes_spectrograms:
            return super().encode_spectrogram(clips, layers)
        layers = self._checked(layers)
        features = []
        for clip in clips:
            shapes = self.spectrogram_shapes(clip.samples)
            given = tuple(window_FM.shape for window_FM in clip.windows)
            if given != shapes:
                raise ValueError(
                    f"the spectrogram of {clip.samples} samples has windows of {_shown(shapes)} frames and bins, "
                    f"not {_shown(given)}"
                )
            sizes = [stop - start for start, stop in self.passes(clip.samples)]
            windows = []
            for window_FM, samples in zip(clip.windows, sizes, strict=True):
                x_FM = window_FM.T if self.module.frequency_first else window_FM
                with torch.inference_mode():
                    frames_B = self.module.valid_frames(None, samples)
                    outputs = self._network.encode_spectrogram(self._tensor(x_FM[None]), layers, frames_B)
                windows.append(_stacked(outputs, layers))
            valid = self.frame_count(clip.samples, layers[0])
            features.append(self._joined(windows, sizes, layers)[0, :, :valid])
        return padded_layers(features, layers)

    def prepare_for_adapters(self) -> None:
        """Give the modules that `adapter_targets` names the form in which they can be adapted, in place."""

    def mask_lengths(self, lengths: list[int], samples: int) -> list[int]:
        """Lengths to give the network in training, for clips of `lengths` samples that were padded to `samples`: those
        of which it takes exactly the frames for valid that each clip has alone."""
        return lengths

    def dimensions(self, layer: str) -> int:
        """D of the features of a layer."""
        with torch.no_grad():
            silence_1T = torch.zeros(1, self.min_samples, device=self._device)
            return int(self.module(silence_1T, (layer,))[0].shape[2])

    @property
    def _network(self) -> Any:
        """`module`, or what computes in its place with fewer bits."""
        network = self.module if self._changed is None else self._changed
        return network.eval()

    def _tensor(self, array_BX: Float32) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array_BX, dtype=np.float32)).to(self._device)

    def _checked(self, layers: tuple[str, ...] | None) -> tuple[str, ...]:
        layers = layers or (self.default_layer,)
        unknown = [layer for layer in layers if layer not in self.layers]
        if unknown:
            raise ValueError(f"{self.name} has no layer {', '.join(unknown)}; there are {', '.join(self.layers)}")
        return layers

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _batches(self, lengths_B: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Rows of the clips that pass together: one on a CPU; of one length, or of similar ones, elsewhere."""
        size = 1 if self._device.type == "cpu" else _BATCH
        may_pad = size > 1 and self.takes_lengths
        batch: list[int] = []
        # Longest first, so that memory is at its peak at once.
        for row in np.argsort(-lengths_B, kind="stable"):
            if batch:
                longest, length = int(lengths_B[batch[0]]), int(lengths_B[row])
                similar = may_pad and length >= _SHORTEST * longest and len(self.passes(longest)) == 1
                if len(batch) == size or not (length == longest or similar):
                    yield np.array(batch)
                    batch = []
            batch.append(int(row))
        yield np.array(batch)

    def _encode_equal(self, waveform_BS: Float32, layers: tuple[str, ...]) -> Float32:
        """Clips without padding -> (clips, layers, frames, dimensions)."""
        windows, sizes = [], []
        network = self._network
        # Only modules that may get padded clips take their lengths.
        more = () if self._lengths_B is None else (self._lengths_B,)
        for start, stop in self.passes(waveform_BS.shape[1]):
            with torch.inference_mode():
                outputs = network(self._tensor(waveform_BS[:, start:stop]), layers, *more)
            windows.append(_stacked(outputs, layers))
            sizes.append(stop - start)
        return self._joined(windows, sizes, layers)

    def _joined(self, windows: list[Float32], sizes: list[int], layers: tuple[str, ...]) -> Float32:
        """(clips, layers, frames, D) of successive windows, of so many samples each, as features of the clips.

        Their frames follow each other; class tokens are the mean of the windows', weighted by their frames.
        """
        if len(windows) == 1:
            return windows[0]
        cls = self.cls_tokens
        if not cls:
            return np.concatenate(windows, axis=2)
        cls_WBLCD = np.stack([window_BLTD[:, :, :cls] for window_BLTD in windows])
        shares_W = [window_BLTD.shape[2] - cls for window_BLTD in windows]
        cls_BLCD = np.average(cls_WBLCD, axis=0, weights=shares_W).astype(np.float32)
        return np.concatenate([cls_BLCD, *(window_BLTD[:, :, cls:] for window_BLTD in windows)], axis=2)


def _shown(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(" x ".join(map(str, shape)) for shape in shapes) or "none"


def _stacked(outputs: Sequence[torch.Tensor], layers: tuple[str, ...]) -> Float32:
    """One (clips, frames, D) tensor per layer -> (clips, layers, frames, D)."""
    if len({output.shape for output in outputs}) > 1:
        raise ValueError(f"layers {', '.join(layers)} differ in shape; ask for them one by one")
    return np.asarray(torch.stack(list(outputs), dim=1).cpu().numpy())
