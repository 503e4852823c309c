"""Custom networks to be trained: a torch module from waveforms to frames is all that has to be written."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harken.encoders.spectrogram_net import Augment, SpectrogramNet
from harken.encoders.torch_encoder import TorchEncoder


class WaveNetwork(TorchEncoder):
    """An encoder around the module that `network` makes: (clips, samples) -> (clips, frames, D), in one layer, `last`.

    A subclass sets name, sample_rate and min_samples. Clips of one length pass together; SpecAugment needs an encoder
    with a spectrogram, see `TorchEncoder`.
    """

    layers = ("last",)
    default_layer = "last"
    needs_weights = True
    takes_spectrograms = False
    takes_lengths = False

    def __init__(self, weights: Mapping[str, np.ndarray] | None = None, seed: int = 0, **config: Any) -> None:
        """weights: as `weights` gives them; None is random ones of this seed. config: arguments of `network`."""
        self._config = {"seed": seed, **config}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.module = _Waves(self.network(**config))
        if weights is not None:
            state = {f"net.{name}": torch.tensor(array) for name, array in weights.items()}
            self.module.load_state_dict(state)
        self.module.eval()
        self._frames = lru_cache(maxsize=64)(self._count)

    @abstractmethod
    def network(self, **config: Any) -> nn.Module:
        """The module, with the torch generator's random weights."""

    def config(self) -> dict[str, Any]:
        """See `Encoder.config`."""
        return dict(self._config)

    def weights(self) -> dict[str, np.ndarray]:
        """See `Encoder.weights`."""
        return {
            name.removeprefix("net."): tensor.detach().cpu().numpy().copy()
            for name, tensor in self.module.state_dict().items()
        }

    def frame_count(self, samples: int, layer: str) -> int:
        """See `TorchEncoder.frame_count`."""
        return self._frames(samples)

    def passes(self, samples: int) -> list[tuple[int, int]]:
        """A clip passes at once."""
        return [(0, samples)]

    def _count(self, samples: int) -> int:
        device = next(self.module.parameters()).device
        training = self.module.training
        with torch.no_grad():
            frames = self.module.eval()(torch.zeros(1, samples, device=device))[0].shape[1]
        self.module.train(training)
        return int(frames)


class _Waves(SpectrogramNet):
    """A module from waveforms to frames behind the form that networks with a spectrogram have."""

    layers = ("last",)

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        wave_BS: Tensor,
        layers: Sequence[str] = (),
        lengths_B: Tensor | None = None,
        augment: Augment | None = None,
    ) -> list[Tensor]:
        if augment is not None:
            raise ValueError("a network of waveforms has no spectrogram to augment: leave spec_augment out")
        frames_BFD: Tensor = self.net(wave_BS)
        return [frames_BFD for _ in self.checked(layers)]

    def spectrogram(self, wave_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        raise ValueError("a network of waveforms has no spectrogram")

    def encode_spectrogram(
        self, spectrogram_BFM: Tensor, layers: Sequence[str] = (), frames_B: Tensor | None = None
    ) -> list[Tensor]:
        raise ValueError("a network of waveforms has no spectrogram")
