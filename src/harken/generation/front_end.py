"""Waveforms as the normalised spectrograms of an encoder's front end, without its network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harken.core.errors import HarkenError, settings_of
from harken.encoders import encoder_class
from harken.encoders.base import FrontEnd
from harken.encoders.torch_encoder import TorchEncoder
from harken.generation.diffusion_settings import FrontEndSpec
from harken.training.spectrograms import SpectrogramForm


class SpectrogramFrontEnd:
    """The front end of the published size of an encoder, for clips of one length that pass it in one window.

    Its encoder is the tiny one: networks of all sizes with the same settings of the front end have the same.
    form: of its spectrograms, (frames, bins). sample_rate in Hz.
    """

    def __init__(self, spec: FrontEndSpec, seconds: float) -> None:
        """Raises HarkenError for an encoder without spectrograms, and for clips that are too short or too long."""
        cls = encoder_class(spec.encoder)
        if not issubclass(cls, TorchEncoder) or not cls.takes_spectrograms:
            raise HarkenError(f"{spec.encoder} takes no spectrograms", next_step="Name another encoder as front end")
        settings = cls.front_end_settings or ()
        config = {name: value for name, value in cls.sizes.get("tiny", {}).items() if name not in settings}
        config |= {name: value for name, value in cls.sizes.get("full", {}).items() if name in settings}
        with settings_of(spec.encoder, "Correct the config of the front end"):
            self.encoder = cls(None, **{**config, "seed": 0, **spec.config})  # type: ignore[call-arg]
        self.sample_rate = self.encoder.sample_rate
        self.samples = round(seconds * self.sample_rate)
        with settings_of(spec.encoder, "Choose other seconds"):
            shapes = self.encoder.spectrogram_shapes(self.samples)
            if len(shapes) != 1:
                raise ValueError(f"clips of {seconds:g} s pass through it in {len(shapes)} windows")
        self.form = SpectrogramForm(self.encoder.front_end(), self.samples, shapes[0])

    @property
    def front_end(self) -> FrontEnd:
        """Whose spectrograms these are."""
        return self.form.front_end

    def to(self, device: torch.device) -> None:
        """Move it to a device."""
        self.encoder.module.to(device)

    @torch.no_grad()
    def spectrograms(self, wave_BS: Tensor) -> Tensor:
        """(clips, samples) -> (clips, frames, bins), normalised as the encoder expects it."""
        module = self.encoder.module.eval()
        x_BFM = module.spectrogram(wave_BS)
        x_BFM = x_BFM.reshape(len(x_BFM), *x_BFM.shape[-2:])
        frames, _ = self.form.shape
        return (x_BFM.transpose(1, 2) if module.frequency_first else x_BFM)[:, :frames]


def silence(front_end: SpectrogramFrontEnd) -> np.ndarray:
    """(frames, bins) of a clip without sound."""
    return np.asarray(front_end.spectrograms(torch.zeros(1, front_end.samples))[0].cpu().numpy())
