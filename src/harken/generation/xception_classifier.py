"""Xception over spectrograms, as a classifier of clips by their conditions; and its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip
from harken.generation.condition_classes import ConditionClasses
from harken.generation.conditions import ConditionKey
from harken.generation.diffusion_settings import FrontEndSpec
from harken.generation.front_end import SpectrogramFrontEnd
from harken.generation.standardised import StandardisedNet
from harken.generation.xception import Xception
from harken.generation.xception_settings import XceptionConfig
from harken.training.arrays import load_module, module_arrays
from harken.training.checkpoints import read_arrays, write_arrays
from harken.training.recordings import Reader

#: weights, in a classifier's folder
CLASSIFIER = "classifier.safetensors"


class SpectrogramXception(StandardisedNet):
    """(clips, frames, bins) spectrograms -> (clips, classes) logits."""

    def __init__(self, config: XceptionConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.net = Xception(config, classes)

    def forward(self, spectrogram_BFM: Tensor) -> Tensor:
        """Logits; bins come before frames in the network."""
        logits_BK: Tensor = self.net(self.standardised(spectrogram_BFM))
        return logits_BK


@dataclass(frozen=True)
class HeldOut:
    """What a classifier says of real clips that it was not trained on.

    accuracy: share whose class it predicts; None without such clips. confidences: probabilities of the class of those.
    """

    accuracy: float | None
    confidences: tuple[float, ...]


class XceptionClassifier:
    """Clips, sounds or spectrograms of its front end -> probabilities of conditions; see `screening.Classifier`."""

    def __init__(
        self,
        net: SpectrogramXception,
        conditions: ConditionClasses,
        front_end: SpectrogramFrontEnd,
        reader: Reader,
        held_out: HeldOut,
    ) -> None:
        self.net, self.conditions, self.front_end, self.reader = net.eval(), conditions, front_end, reader
        self.held_out = held_out
        self.front_end.to(self._device)

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> XceptionClassifier:
        """Raises HarkenError for a folder of anything else."""
        file = folder / CLASSIFIER
        arrays, header = read_arrays(file)
        try:
            conditions = ConditionClasses.from_json(header["classes"])
            net = SpectrogramXception(XceptionConfig.model_validate(header["xception"]), len(conditions))
            load_module(net, arrays)
            front_end = SpectrogramFrontEnd(FrontEndSpec.model_validate(header["front_end"]), header["seconds"])
            reader = Reader(front_end.sample_rate, header["seconds"], header["microphones"])
            held_out = HeldOut(header["accuracy"], tuple(header["confidences"]))
            same = header["front_end_sha256"] == front_end.front_end.digest
        except (KeyError, TypeError, ValidationError, RuntimeError) as error:
            raise HarkenError("is not of an Xception classifier", file=file, next_step="Train it again") from error
        if not same:
            raise HarkenError("is of a front end of an older Harken", file=file, next_step="Train it again")
        return cls(net.to(device), conditions, front_end, reader, held_out)

    def write(self, folder: Path, front_end: FrontEndSpec, metadata: Mapping[str, Any]) -> None:
        """Write its folder. front_end: of which its own was made. metadata: further JSON values."""
        header = {
            "xception": self.net.config.model_dump(mode="json"),
            "classes": self.conditions.to_json(),
            "front_end": front_end.model_dump(mode="json"),
            "front_end_sha256": self.front_end.front_end.digest,
            "seconds": self.reader.seconds,
            "microphones": self.reader.microphones,
            "accuracy": self.held_out.accuracy,
            "confidences": list(self.held_out.confidences),
            **metadata,
        }
        write_arrays(folder / CLASSIFIER, module_arrays(self.net), header)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the conditions."""
        return tuple(map(str, self.conditions.keys))

    def intended(self, clip: Clip) -> int | None:
        """See `screening.Classifier`."""
        key = ConditionKey.of(clip)
        return self.conditions.index_of(key) if key in self.conditions.keys else None

    def probabilities(self, clips: Sequence[Clip]) -> list[NDArray[np.float64] | AudioError]:
        """(C,) of each clip, one by one, or why it has none.

        Raises HarkenError for a spectrogram of another front end or length.
        """
        self.front_end.form.check([clip for clip in clips if clip.payload == "spectrogram"])
        return [self._probabilities(clip) for clip in clips]

    @torch.no_grad()
    def _probabilities(self, clip: Clip) -> NDArray[np.float64] | AudioError:
        try:
            if clip.payload == "spectrogram":
                x_1FM = torch.from_numpy(self.front_end.form.read(clip)[None]).to(self._device)
            else:
                x_1FM = self.front_end.spectrograms(torch.from_numpy(self.reader(clip)[None]).to(self._device))
        except AudioError as error:
            return error
        # Confidences near 1 differ in their last digits.
        probabilities_K: NDArray[np.float64] = torch.softmax(self.net(x_1FM).double(), dim=1)[0].cpu().numpy()
        return probabilities_K

    @property
    def _device(self) -> torch.device:
        return next(self.net.parameters()).device
