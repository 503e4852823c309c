"""Masks and statistics of padded frames."""

from __future__ import annotations

import torch
from torch import Tensor


def valid_frames(frames_BTD: Tensor, lengths_B: Tensor | None) -> Tensor:
    """(clips, frames, 1) boolean, False for padding. Raises ValueError for lengths outside 1 .. frames."""
    clips, frames, _ = frames_BTD.shape
    if lengths_B is None:
        return torch.ones(clips, frames, 1, dtype=torch.bool, device=frames_BTD.device)
    if bool(((lengths_B < 1) | (lengths_B > frames)).any()):
        raise ValueError(f"lengths are 1 to {frames}")
    return (torch.arange(frames, device=frames_BTD.device) < lengths_B[:, None])[:, :, None]


def masked_mean(frames_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
    """(clips, frames, D) -> (clips, D) mean of the first `lengths_B` frames of each clip."""
    valid_BT1 = valid_frames(frames_BTD, lengths_B)
    # Padding may hold NaN.
    return frames_BTD.masked_fill(~valid_BT1, 0.0).sum(dim=1) / valid_BT1.sum(dim=1)


def masked_max(frames_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
    """(clips, frames, D) -> (clips, D) maximum over the first `lengths_B` frames of each clip."""
    return frames_BTD.masked_fill(~valid_frames(frames_BTD, lengths_B), -torch.inf).amax(dim=1)
