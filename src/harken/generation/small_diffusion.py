"""The small diffusion model as a generator of spectrograms, and its file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import ValidationError

from harken.core.errors import HarkenError
from harken.encoders.accelerator import default_device
from harken.encoders.base import FrontEnd, Spectrogram
from harken.generation.condition_classes import ConditionClasses
from harken.generation.diffusion_settings import DdimSampling, DiffusionConfig
from harken.generation.generator import (
    ClipRequest,
    GeneratedSound,
    GeneratedSpectrogram,
    Generator,
    write_generator,
)
from harken.generation.unet import SpectrogramUNet, sample
from harken.training.arrays import load_module, module_arrays
from harken.training.checkpoints import read_arrays, write_arrays
from harken.training.spectrograms import SpectrogramForm

#: weights, in a generator's folder
WEIGHTS = "diffusion.safetensors"
#: clips that pass together on an accelerator
_BATCH = 16


class SmallDiffusion(Generator):
    """A `SpectrogramUNet` with averaged weights that is sampled by DDIM.

    classes: conditions that it has learned. form: of its spectrograms.
    """

    name: ClassVar[str] = "small_diffusion"

    def __init__(
        self,
        net: SpectrogramUNet,
        classes: ConditionClasses,
        form: SpectrogramForm,
        sampling: DdimSampling,
        digest: str,
    ) -> None:
        self.net, self.classes, self.form, self.sampling, self.digest = net.eval(), classes, form, sampling, digest
        if sampling.steps > net.config.noise_steps:
            raise HarkenError(
                f"{self.name} was trained with {net.config.noise_steps} steps of noise, not {sampling.steps}",
                next_step="Sample with fewer steps",
            )
        self.together = 1 if self._device.type == "cpu" else _BATCH

    @classmethod
    def load(cls, folder: Path, sampling: Any, *, device: str | None = None) -> Self:
        """See `Generator.load`."""
        file = folder / WEIGHTS
        arrays, header = read_arrays(file)
        try:
            config = DiffusionConfig.model_validate(header["config"])
            classes = ConditionClasses.from_json(header["classes"])
            form = SpectrogramForm(FrontEnd(**header["front_end"]), header["samples"], tuple(header["shape"]))
            net = SpectrogramUNet(config, len(classes))
            load_module(net, arrays)
        except (KeyError, TypeError, ValidationError, RuntimeError) as error:
            raise HarkenError("is not of a small diffusion model", file=file, next_step="Train it again") from error
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return cls(net.to(device or default_device()), classes, form, sampling, digest)

    def generate(self, requests: Sequence[ClipRequest]) -> list[GeneratedSound | GeneratedSpectrogram]:
        """See `Generator.generate`."""
        label_B = torch.tensor([self.classes.index_of(request.condition) for request in requests], device=self._device)
        # One by one on a CPU, whatever is asked for.
        size = len(requests) if self.together > 1 else 1
        made: list[GeneratedSound | GeneratedSpectrogram] = []
        for start in range(0, len(requests), size):
            seeds = [request.seed for request in requests[start : start + size]]
            x_BFM = sample(self.net, self.form.shape, label_B[start : start + size], seeds, self.sampling)
            for x_FM in x_BFM.float().cpu().numpy():
                spectrogram = Spectrogram((x_FM,), self.form.samples)
                made.append(GeneratedSpectrogram(spectrogram, self.form.front_end))
        return made

    @property
    def _device(self) -> torch.device:
        return next(self.net.parameters()).device


def write_small_diffusion(
    folder: Path, net: SpectrogramUNet, classes: ConditionClasses, form: SpectrogramForm, metadata: Mapping[str, Any]
) -> None:
    """Write the folder of a generator. metadata: further JSON values, such as the digest of the training."""
    front_end = form.front_end
    header = {
        "config": net.config.model_dump(mode="json"),
        "classes": classes.to_json(),
        "front_end": {
            "encoder": front_end.encoder, "sample_rate": front_end.sample_rate, "digest": front_end.digest
        },
        "samples": form.samples,
        "shape": list(form.shape),
        **metadata,
    }  # fmt: skip
    write_arrays(folder / WEIGHTS, module_arrays(net), header)
    write_generator(folder, SmallDiffusion.name, front_end=str(front_end), conditions=list(map(str, classes.keys)))
