"""The objective of EAT: a student that sees a few patches predicts what its teacher makes of all of them.

Chen et al., "EAT: Self-Supervised Pre-Training with Efficient Audio Transformer", IJCAI 2024, Sec. 3; as its reference
implementation computes it. Sequences are clips for EAT, and sub-bands of clips for FISHER, each with masks of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harken.encoders.patch_net import PatchNet
from harken.training.pretrain.decoder import MASK_DEVIATION, PatchDecoder
from harken.training.pretrain.masks import Masks


@dataclass(frozen=True)
class Predicted:
    """One pass of a batch, of G sequences with C clones each, R = G * C rows.

    student_RKD: tokens of the last block, the class token first. prediction_RND: of every patch. target_GND: what is
    predicted. regression, class_token: sums of the two losses; divided by `masked`, they are what is learned from.
    masked: number of masked patches in all rows.
    """

    student_RKD: Tensor
    prediction_RND: Tensor
    target_GND: Tensor
    regression: Tensor
    class_token: Tensor
    masked: int

    @property
    def loss(self) -> Tensor:
        """What is learned from: sum of both terms per masked patch."""
        return (self.regression + self.class_token) / self.masked


class PatchObjective(nn.Module):
    """Student, teacher and decoder.

    student: the network that is pre-trained. decoder: of its width. class_weight: of the class token's loss.
    The teacher begins as the student; `follow` moves it.
    """

    def __init__(self, student: PatchNet, decoder: PatchDecoder, *, class_weight: float = 1.0) -> None:
        super().__init__()
        self.student = student
        self.decoder = decoder
        self.teacher = deepcopy(student).requires_grad_(False)
        self.class_weight = class_weight

    def forward(self, spectrogram_BFM: Tensor, masks: Masks, noise_RMD: Tensor | None = None) -> Predicted:
        """(clips, frames, bins), normalised; masks of R = sequences * clones rows, those of a sequence in succession.

        noise_RMD: tokens in place of the masked patches; default: drawn from the global generator.
        """
        student, width = self.student, self.student.width
        target_GND = self.target(spectrogram_BFM)
        patches_GND = student.embed(spectrogram_BFM)
        clones = len(masks.keep_RK) // len(patches_GND)
        patches_RND = patches_GND.repeat_interleave(clones, dim=0)
        seen_RKD = patches_RND.gather(1, masks.keep_RK[:, :, None].expand(-1, -1, width))
        (student_RKD,) = student.encode_patches(seen_RKD)
        if noise_RMD is None:
            hidden = patches_RND.shape[1] - seen_RKD.shape[1]
            noise_RMD = MASK_DEVIATION * torch.randn(len(seen_RKD), hidden, width, device=seen_RKD.device)
        prediction_RND = self.decoder(student_RKD[:, 1:], masks.restore_RN, noise_RMD)
        # Sums over many thousands of squares need more than half precision.
        with torch.autocast(seen_RKD.device.type, enabled=False):
            target_RND = target_GND.repeat_interleave(clones, dim=0)
            error_RN = (prediction_RND.float() - target_RND).square().sum(dim=2)
            masked = masks.masked_RN.numel() - masks.keep_RK.numel()
            regression = (error_RN * masks.masked_RN).sum() / width**0.5
            mean_RD = target_GND.mean(dim=1).repeat_interleave(clones, dim=0)
            # A sum over all rows, times the masked patches: so the reference weighs it, and it grows with both.
            cls = (student_RKD[:, 0].float() - mean_RD).square().sum() * (self.class_weight * masked / width**0.5)
        return Predicted(student_RKD, prediction_RND, target_GND, regression, cls, masked)

    @torch.no_grad()
    def target(self, spectrogram_BFM: Tensor) -> Tensor:
        """(sequences, patches, width): mean over blocks of the teacher's MLP outputs, each normalised over the patches
        of its sequence; then normalised over the width (Sec. 3.3)."""
        self.teacher.eval()
        layers = [name for name in self.teacher.layers if name.startswith("target_")]
        outputs = self.teacher.encode_patches(self.teacher.embed(spectrogram_BFM), layers)
        with torch.autocast(spectrogram_BFM.device.type, enabled=False):
            total_GND = sum(normalised_over_patches(output_GND[:, 1:].float()) for output_GND in outputs)
            assert isinstance(total_GND, Tensor)
            return F.layer_norm(total_GND / len(outputs), total_GND.shape[2:])

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the teacher: decay * teacher + (1 - decay) * student; what does not learn is copied."""
        for teacher, parameter in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            if parameter.requires_grad:
                teacher.mul_(decay).add_(parameter.detach(), alpha=1 - decay)
            else:
                teacher.copy_(parameter)
        for kept, buffer in zip(self.teacher.buffers(), self.student.buffers(), strict=True):
            kept.copy_(buffer)

    def learned_parameters(self) -> Iterator[nn.Parameter]:
        """Those of student and decoder."""
        yield from self.student.parameters()
        yield from self.decoder.parameters()


def normalised_over_patches(x_GND: Tensor) -> Tensor:
    """Each channel of each sequence with mean 0 and variance 1 over its patches (instance norm over time)."""
    return F.instance_norm(x_GND.transpose(1, 2)).transpose(1, 2)


def teacher_decay(step: int, *, first: float, last: float, steps: int) -> float:
    """Decay of the teacher at a step, 1 ...: from `first`, rising in proportion to the step, to `last` at `steps`."""
    return last if step >= steps else last - (last - first) * (1 - step / steps)


def deviation(x_ND: Tensor) -> Tensor:
    """Mean over dimensions of the deviation over rows, sqrt(variance + 1e-6): near zero where all are the same."""
    return (x_ND.float().var(dim=0) + 1e-6).sqrt().mean()
