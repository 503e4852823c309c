"""Xception (Chollet, CVPR 2017) as a classifier of spectrograms.

The network of figure 5 with the strides and paddings of Cadene's port, published as `legacy_xception`: unpadded entry
convolutions; blocks 1 to 3 and 12 halve by pooling after their sum's left arm; the sum of a block is not rectified.
Tensors have the published names.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from harken.generation.xception_settings import XceptionConfig

#: blocks of equal width in the middle flow
_MIDDLE = range(4, 12)


class SeparableConv(nn.Module):
    """A convolution of each channel, then one of 1 x 1 over all of them; neither has a bias."""

    def __init__(self, inputs: int, outputs: int, *, padding: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=padding, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x_BCFT: Tensor) -> Tensor:
        """(clips, inputs, bins, frames) -> (clips, outputs, bins, frames)."""
        output: Tensor = self.pointwise(self.conv1(x_BCFT))
        return output


class XceptionBlock(nn.Module):
    """Rectified separable convolutions beside a short cut.

    count: of convolutions. stride: of both, by pooling. begins_rectified: whether the input is rectified first.
    grows_first: whether the first convolution has the block's output channels, or only the last.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        count: int,
        *,
        stride: int = 1,
        begins_rectified: bool = True,
        grows_first: bool = True,
    ) -> None:
        super().__init__()
        if outputs != inputs or stride != 1:
            self.skip: nn.Conv2d | None = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.skipbn = nn.BatchNorm2d(outputs)
        else:
            self.skip = None
        modules: list[nn.Module] = []
        for number in range(count):
            grown = grows_first or number == count - 1
            before = outputs if grows_first and number else inputs
            after = outputs if grown else inputs
            # The short cut reads the input after this: it must not change it.
            modules += [nn.ReLU(), SeparableConv(before, after), nn.BatchNorm2d(after)]
        if not begins_rectified:
            modules = modules[1:]
        if stride != 1:
            modules.append(nn.MaxPool2d(3, stride, 1))
        self.rep = nn.Sequential(*modules)

    def forward(self, x_BCFT: Tensor) -> Tensor:
        """(clips, inputs, bins, frames) -> (clips, outputs, bins / stride, frames / stride)."""
        short_BCFT = x_BCFT if self.skip is None else self.skipbn(self.skip(x_BCFT))
        output: Tensor = self.rep(x_BCFT) + short_BCFT
        return output


class Xception(nn.Module):
    """(clips, channels, bins, frames) -> (clips, classes) logits."""

    def __init__(self, config: XceptionConfig = XceptionConfig(), classes: int = 2, channels: int = 1) -> None:
        super().__init__()
        first, second, low, mid, wide, exit_block, third, fourth = config.channels
        self.conv1 = nn.Conv2d(channels, first, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.block1 = XceptionBlock(second, low, 2, stride=2, begins_rectified=False)
        self.block2 = XceptionBlock(low, mid, 2, stride=2)
        self.block3 = XceptionBlock(mid, wide, 2, stride=2)
        for number in _MIDDLE:
            self.add_module(f"block{number}", XceptionBlock(wide, wide, 3))
        self.block12 = XceptionBlock(wide, exit_block, 2, stride=2, grows_first=False)
        self.conv3 = SeparableConv(exit_block, third)
        self.bn3 = nn.BatchNorm2d(third)
        self.conv4 = SeparableConv(third, fourth)
        self.bn4 = nn.BatchNorm2d(fourth)
        self.fc = nn.Linear(fourth, classes)

    def features(self, x_BCFT: Tensor) -> Tensor:
        """(clips, channels, bins, frames) -> (clips, D, bins / 32, frames / 32), before pooling."""
        x_BCFT = F.relu(self.bn1(self.conv1(x_BCFT)))
        x_BCFT = F.relu(self.bn2(self.conv2(x_BCFT)))
        for number in range(1, 13):
            x_BCFT = self.get_submodule(f"block{number}")(x_BCFT)
        x_BCFT = F.relu(self.bn3(self.conv3(x_BCFT)))
        return F.relu(self.bn4(self.conv4(x_BCFT)))

    def forward(self, x_BCFT: Tensor) -> Tensor:
        """Logits. Raises RuntimeError for spectrograms of fewer than 5 bins or frames."""
        pooled_BD = self.features(x_BCFT).mean(dim=(2, 3))
        logits_BK: Tensor = self.fc(pooled_BD)
        return logits_BK
