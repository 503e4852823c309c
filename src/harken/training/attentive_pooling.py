"""Attentive statistics pooling: frames -> one vector, with learned weights over time per channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harken.training.frames import valid_frames

# Added under the square root, whose derivative at zero is infinite.
_EPS = 1e-6


class AttentiveStatisticsPooling(nn.Module):
    """Channel- and context-dependent statistics pooling (Desplanques et al., ECAPA-TDNN, Interspeech 2020, sec. III-A).

        e_t = V tanh(relu(W [x_t, mean x, std x] + b)) + k,    a = softmax of e over time, for each dimension
        m = sum_t a_t x_t,    s = sqrt(sum_t a_t x_t^2 - m^2)

    forward returns [m, s]. Attention depends on the frame and, with `context`, on the statistics of the clip; without,
    this is Okabe et al., Interspeech 2018, with one weight per dimension. Padding is excluded from all sums.

    dimensions: D. bottleneck: of the attention, shared by all dimensions. The batch normalisation between relu and
    tanh of some implementations is omitted, so that embeddings do not depend on the batch.
    """

    def __init__(self, dimensions: int, bottleneck: int = 128, context: bool = True) -> None:
        super().__init__()
        if dimensions < 1 or bottleneck < 1:
            raise ValueError("dimensions >= 1 and bottleneck >= 1")
        self.dimensions = dimensions
        self.context = context
        self.attention = nn.Sequential(
            nn.Linear(dimensions * (3 if context else 1), bottleneck),
            nn.ReLU(),
            nn.Tanh(),
            nn.Linear(bottleneck, dimensions),
        )

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
        logits_BTD = self.attention(inputs).masked_fill(~valid_BT1, -torch.inf)
        return torch.cat(_statistics(x_BTD, torch.softmax(logits_BTD, dim=1)), dim=1)


def _statistics(x_BTD: Tensor, weights_BTX: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and deviation over time, (clips, D) each; weights sum to one over time."""
    mean_BD = (weights_BTX * x_BTD).sum(dim=1)
    # Centred, since a difference of squares cancels for dimensions of small variance.
    variance_BD = (weights_BTX * (x_BTD - mean_BD[:, None, :]) ** 2).sum(dim=1)
    return mean_BD, torch.sqrt(variance_BD + _EPS)
