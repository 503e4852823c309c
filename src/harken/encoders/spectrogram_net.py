"""What the networks share: a front end, then all that learns, with a seam between the two."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor, nn

#: (clips, frames, bins) normalised spectrograms -> the same shape, such as SpecAugment
Augment = Callable[[Tensor], Tensor]


class SpectrogramNet(nn.Module):
    """A trainable network whose `forward` is `encode_spectrogram` of `spectrogram`.

    Spectrograms that were made otherwise, augmented or generated, enter at `encode_spectrogram`.
    """

    #: names of the layers, input to output
    layers: tuple[str, ...]
    #: whether frequency comes before time in a spectrogram: (clips, bins, frames)
    frequency_first: ClassVar[bool] = False
    #: where the list of its blocks is, for layer decay, activation checkpointing and counting; None without blocks of
    #: one kind
    block_path: ClassVar[str | None] = None

    def forward(
        self,
        wave_BS: Tensor,
        layers: Sequence[str] = (),
        lengths_B: Tensor | None = None,
        augment: Augment | None = None,
    ) -> list[Tensor]:
        """(clips, samples) -> (clips, frames, D) of each of `layers` (default: the network's best), in one pass.

        lengths_B: valid samples of each clip (default: all); see `encode_spectrogram` for what padding does. augment:
        changes the spectrograms. Differentiable; stops at the deepest layer asked for.
        Raises ValueError for an unknown layer and for waveforms that are too short.
        """
        layers = self.checked(layers)
        self.check_samples(wave_BS.shape[1])
        x_BFM = self.spectrogram(wave_BS, lengths_B)
        if augment is not None:
            x_BFM = self.augmented(x_BFM, augment)
        return self.encode_spectrogram(x_BFM, layers, self.valid_frames(lengths_B, wave_BS.shape[1]))

    @abstractmethod
    def spectrogram(self, wave_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """(clips, samples) -> (clips, frames, bins), normalised as in training; float32 also under autocast."""

    @abstractmethod
    def encode_spectrogram(
        self, spectrogram_BFM: Tensor, layers: Sequence[str] = (), frames_B: Tensor | None = None
    ) -> list[Tensor]:
        """What `spectrogram` gives -> (clips, frames, D) of each of `layers`.

        frames_B: valid frames of each clip, as `valid_frames` counts them (default: all).
        """

    def valid_frames(self, lengths_B: Tensor | None, samples: int) -> Tensor | None:
        """Valid frames of clips of `lengths_B` samples that were padded to `samples`; None where that is all."""
        return None

    def check_samples(self, samples: int) -> None:
        """Raise ValueError for waveforms of so few samples that nothing comes of them."""

    def checked(self, layers: Sequence[str]) -> tuple[str, ...]:
        """The layers, or the default. Raises ValueError for one that is not there."""
        layers = tuple(layers) or (self.default_layer,)
        unknown = [layer for layer in layers if layer not in self.layers]
        if unknown:
            raise ValueError(f"there is no layer {', '.join(unknown)}; there are {', '.join(self.layers)}")
        return layers

    @property
    def default_layer(self) -> str:
        """What `forward` gives unasked."""
        return self.layers[-1]

    @property
    def blocks_in_order(self) -> list[nn.Module]:
        """The blocks, input to output; empty for a network without blocks of one kind."""
        return [] if self.block_path is None else list(self.get_submodule(self.block_path).children())

    @classmethod
    def augmented(cls, x_BFM: Tensor, augment: Augment) -> Tensor:
        """A spectrogram changed by what expects (clips, frames, bins), whichever axis comes first in it."""
        if not cls.frequency_first:
            return augment(x_BFM)
        # Of several axes, frequency and time are the last.
        leading, last = x_BFM.shape[:-2], x_BFM.shape[-2:]
        changed_BFM = augment(x_BFM.reshape(-1, *last).transpose(1, 2))
        return changed_BFM.transpose(1, 2).reshape(*leading, *last)
