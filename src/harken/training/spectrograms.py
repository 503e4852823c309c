"""Clips that are spectrograms, among the waveforms that a network is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip
from harken.encoders.base import FrontEnd
from harken.encoders.spectrogram_file import read_front_end, read_spectrogram

Float32 = NDArray[np.float32]

_NEXT = "Make it for this network and its seconds, or leave the stage that makes it out of from"


class SpectrogramRows(NamedTuple):
    """Clips of a batch that enter behind the front end; their waveforms in the batch are ignored.

    rows_K: their rows in the batch, int64. spectrogram_KFM: (clips, frames, bins) float32, normalised.
    """

    rows_K: Tensor
    spectrogram_KFM: Tensor

    def to(self, device: torch.device) -> SpectrogramRows:
        """On a device."""
        return SpectrogramRows(self.rows_K.to(device), self.spectrogram_KFM.to(device))

    def placed(self, spectrogram_BFM: Tensor) -> Tensor:
        """The spectrograms of a whole batch with these in their rows. Frames at the end that the network leaves out, as
        they fill none of its patches, may be lacking in them."""
        whole_BFM = spectrogram_BFM.clone()
        whole_BFM[self.rows_K, : self.spectrogram_KFM.shape[1]] = self.spectrogram_KFM.to(whole_BFM.dtype)
        return whole_BFM


@dataclass(frozen=True)
class SpectrogramForm:
    """What spectrograms must be for a network to take them.

    samples: of the clip that each stands for. shape: (frames, bins).
    """

    front_end: FrontEnd
    samples: int
    shape: tuple[int, ...]

    def read(self, clip: Clip) -> Float32:
        """(frames, bins). Raises AudioError for a file that cannot be used or is of another form."""
        front_end, spectrogram = read_spectrogram(clip.path, clip.clip_id)
        self._check(clip, front_end, spectrogram.samples)
        shapes = [window_FM.shape for window_FM in spectrogram.windows]
        if shapes != [self.shape]:
            raise AudioError(
                f"is a spectrogram of {' and '.join(map(str, shapes))} frames and bins, not {self.shape}",
                file=clip.clip_id,
                next_step=_NEXT,
            )
        return spectrogram.windows[0]

    def check(self, clips: Sequence[Clip]) -> None:
        """Raise HarkenError for a clip of another front end or length; files that cannot be read are passed over."""
        for clip in clips:
            try:
                front_end, samples = read_front_end(clip.path)
            except AudioError:
                continue  # set aside when it is read
            try:
                self._check(clip, front_end, samples)
            except AudioError as error:
                raise HarkenError(error.cause, file=error.file, next_step=error.next_step) from error

    def _check(self, clip: Clip, front_end: FrontEnd, samples: int) -> None:
        cause = ""
        if front_end != self.front_end:
            cause = f"is a spectrogram of the front end of {front_end}, not of {self.front_end}"
        elif samples != self.samples:
            cause = f"is a spectrogram of {samples} samples, and clips of {self.samples} are learned from"
        if cause:
            raise AudioError(cause, file=clip.clip_id, next_step=_NEXT)
