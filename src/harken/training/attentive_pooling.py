"""Attentive statistics pooling: frames -> one vector, with learned weights over time per channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harken.training.frames import valid_frames

# Added under the square root, whose derivative at zero is infinite.
_EPS = 1e-6


class AttentiveStatisticsPooling(nn.Module):
    """Channel- and context-dependent statistics pooling (Desplanques et al., ECAPA-TDNN, Interspeech 2020, sec. III-A).

        e_t = V tanh(n(relu(W [x_t, mean x, std x] + b))) + k,    a = softmax of e over time, for each dimension
        m = sum_t a_t x_t,    s = sqrt(sum_t a_t x_t^2 - m^2)

    forward returns [m, s]. Padding is excluded from all sums. Without `context`, attention depends on the frame alone
    and has one weight per frame for all dimensions (Okabe et al., Attentive statistics pooling, Interspeech 2018):

        e_t = v' tanh(W x_t + b) + k

    dimensions: D. bottleneck: of the attention, shared by all dimensions. batch_norm: n is a batch normalisation over
    valid frames, as in implementations of ECAPA-TDNN (SpeechBrain); without, as in the paper's equation 2, nothing.
    """

    def __init__(self, dimensions: int, bottleneck: int = 128, context: bool = True, batch_norm: bool = False) -> None:
        super().__init__()
        if dimensions < 1 or bottleneck < 1:
            raise ValueError("dimensions >= 1 and bottleneck >= 1")
        self.dimensions = dimensions
        self.context = context
        self.attention = nn.Sequential(
            nn.Linear(dimensions * (3 if context else 1), bottleneck),
            nn.ReLU() if context else nn.Identity(),
            nn.Tanh(),
            nn.Linear(bottleneck, dimensions if context else 1),
        )
        self.norm = _ValidBatchNorm(bottleneck) if batch_norm else None

    @property
    def output_dimensions(self) -> int:
        """Dimensions of the output: 2 D."""
        return 2 * self.dimensions

    def forward(self, frames_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """(clips, frames, D) -> (clips, 2 D).

        lengths_B: valid frames of each clip, at least one; frames beyond are padding (default: none).
        Raises ValueError for another D, and for lengths outside 1 .. frames.
        """
        clips, frames, dimensions = frames_BTD.shape
        if dimensions != self.dimensions:
            raise ValueError(f"expected (clips, frames, {self.dimensions}), got {tuple(frames_BTD.shape)}")
        if lengths_B is None:
            lengths_B = torch.full((clips,), frames, device=frames_BTD.device)
        valid_BT1 = valid_frames(frames_BTD, lengths_B)
        # Padding may hold NaN.
        x_BTD = frames_BTD.masked_fill(~valid_BT1, 0.0)
        inputs = x_BTD
        if self.context:
            uniform_BT1 = valid_BT1.to(x_BTD.dtype) / lengths_B[:, None, None].to(x_BTD.dtype)
            context = [statistic_BD[:, None, :].expand_as(x_BTD) for statistic_BD in _statistics(x_BTD, uniform_BT1)]
            inputs = torch.cat([x_BTD, *context], dim=2)
        logits_BTX = self._logits(inputs, valid_BT1).masked_fill(~valid_BT1, -torch.inf)
        return torch.cat(_statistics(x_BTD, torch.softmax(logits_BTX, dim=1)), dim=1)

    def _logits(self, inputs_BTX: Tensor, valid_BT1: Tensor) -> Tensor:
        dense, relu, tanh, out = self.attention
        hidden_BTH = relu(dense(inputs_BTX))
        if self.norm is not None:
            hidden_BTH = self.norm(hidden_BTH, valid_BT1)
        logits_BTX: Tensor = out(tanh(hidden_BTH))
        return logits_BTX


class _ValidBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of frames, whose statistics in training are those of valid ones."""

    def forward(self, x_BTH: Tensor, valid_BT1: Tensor) -> Tensor:  # type: ignore[override]
        assert self.running_mean is not None
        assert self.running_var is not None
        # Sums over all frames of a batch need more than 16 bits.
        dtype, x_BTH = x_BTH.dtype, x_BTH.float()
        mean_H, variance_H = self.running_mean, self.running_var
        if self.training:
            share_BT1 = valid_BT1.to(x_BTH.dtype)
            count = share_BT1.sum()
            mean_H = (share_BT1 * x_BTH).sum(dim=(0, 1)) / count
            variance_H = (share_BT1 * (x_BTH - mean_H) ** 2).sum(dim=(0, 1)) / count
            with torch.no_grad():
                self.running_mean.lerp_(mean_H.to(self.running_mean.dtype), 0.1)
                unbiased_H = variance_H * count / (count - 1).clamp(min=1)
                self.running_var.lerp_(unbiased_H.to(self.running_var.dtype), 0.1)
        return ((x_BTH - mean_H) / torch.sqrt(variance_H + self.eps) * self.weight + self.bias).to(dtype)


def _statistics(x_BTD: Tensor, weights_BTX: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and deviation over time, (clips, D) each; weights sum to one over time."""
    mean_BD = (weights_BTX * x_BTD).sum(dim=1)
    # Centred, since a difference of squares cancels for dimensions of small variance.
    variance_BD = (weights_BTX * (x_BTD - mean_BD[:, None, :]) ** 2).sum(dim=1)
    return mean_BD, torch.sqrt(variance_BD + _EPS)
