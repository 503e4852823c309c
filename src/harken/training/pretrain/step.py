"""What happens to a batch in pre-training: spectrograms, masks, losses; one module, so that devices can share it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from harken.encoders.patch_net import PatchNet
from harken.training.augment.random_state import rng_for
from harken.training.pretrain.decoder import PatchDecoder
from harken.training.pretrain.masks import Masks, as_masks, inverse_block_mask
from harken.training.pretrain.objective import PatchObjective, Predicted, deviation
from harken.training.pretrain.settings import PretrainingSpec


@dataclass(frozen=True)
class Deviations:
    """Mean deviations over masked patches, and of the class token over clips and clones: see `deviation`."""

    target: float
    student: float
    class_token: float


class PretrainingStep(nn.Module):
    """A network that is pre-trained, with its decoder and teacher.

    last: deviations of the last batch. Raises ValueError for a decoder that does not fit.
    """

    last: Deviations

    def __init__(self, student: PatchNet, spec: PretrainingSpec) -> None:
        super().__init__()
        self.spec = spec
        # Initial weights are drawn from the global generator, which is not ours to move.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(spec.seed)
            decoder = PatchDecoder(student.width, student.patch_rows, **spec.decoder.model_dump())
        self.objective = PatchObjective(student, decoder, class_weight=spec.class_weight)

    def forward(self, wave_BS: Tensor, epoch: int, place: str) -> dict[str, Tensor]:
        """Terms of the loss, whose sum is what is learned from. wave_BS: (clips, samples). epoch, place: which batch
        this is; masks depend on these and the seed."""
        with torch.no_grad():
            spectrogram_BFM = self.objective.student.spectrogram(wave_BS)
        masks = self.masks(spectrogram_BFM, epoch, place)
        predicted: Predicted = self.objective(spectrogram_BFM, masks)
        self.last = self._deviations(predicted, masks)
        return {
            "regression": predicted.regression / predicted.masked,
            "class_token": predicted.class_token / predicted.masked,
        }

    def masks(self, spectrogram_BFM: Tensor, epoch: int, place: str) -> Masks:
        """Of every clip, sub-band and clone."""
        spec, student = self.spec, self.objective.student
        steps = spectrogram_BFM.shape[1] // student.PATCH
        rows = []
        for clip in range(len(spectrogram_BFM)):
            rng = rng_for(spec.seed, epoch, f"{place}.{clip}", "mask")
            for _ in range(student.bands * spec.clones):
                mask_N = inverse_block_mask(
                    steps, student.patch_rows, rng, masked=spec.masked, adjust=spec.adjust, block=spec.block
                )
                rows.append(mask_N)
        return as_masks(np.stack(rows)).to(spectrogram_BFM.device)

    @staticmethod
    @torch.no_grad()
    def _deviations(predicted: Predicted, masks: Masks) -> Deviations:
        clones = len(masks.masked_RN) // len(predicted.target_GND)
        target_RND = predicted.target_GND.repeat_interleave(clones, dim=0)
        return Deviations(
            float(deviation(target_RND[masks.masked_RN])),
            float(deviation(predicted.prediction_RND[masks.masked_RN])),
            float(deviation(predicted.student_RKD[:, 0])),
        )
