"""Plain convolutional networks: the paper's five-layer one and a fast one for CPUs."""

from torch import Tensor, nn
from torch.nn import functional as F

from noisyknn.models.blocks import conv3x3, he_init, pass_on, scaled

_SMALLEST_POOLED = 4
"""Maps of smaller height than this are not halved."""


class Cnn5(nn.Module):
    """Four 3×3 convolutions and one linear layer, for MNIST (Section 4.2 of the paper)."""

    def __init__(self, classes: int, width: float = 1.0) -> None:
        super().__init__()
        a, b, c, d = (scaled(channels, width) for channels in (32, 64, 128, 128))
        self.stem = _conv_bn_relu(3, a, stride=1)
        self.stage1 = _conv_bn_relu(a, b, stride=2)
        self.stage2 = _conv_bn_relu(b, c, stride=2)
        self.stage3 = _conv_bn_relu(c, d, stride=1)
        self.head = nn.Linear(d, classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) to logits (B, C)."""
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def _conv_bn_relu(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        conv3x3(channels_in, channels_out, stride), nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)
    )


class Cnn8(nn.Module):
    """Seven convolutions and one linear layer; most work is on halved maps, so a CPU trains it fast.

    Every 3×3 convolution starts as the identity, plus random filters for further channels (as in Jordan 2024).
    """

    def __init__(self, classes: int, width: float = 1.0) -> None:
        super().__init__()
        stem, a, b, c = (scaled(channels, width) for channels in (24, 32, 64, 128))
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 2), nn.GELU())
        self.stage1 = _PooledStage(stem, a)
        self.stage2 = _PooledStage(a, b)
        self.stage3 = _PooledStage(b, c)
        self.head = nn.Linear(c, classes)
        he_init(self)
        pass_on(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) to logits (B, C)."""
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class _PooledStage(nn.Module):
    """Two 3×3 convolutions, with max pooling after the first unless the map is tiny."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels_in, channels_out)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if x.shape[2] >= _SMALLEST_POOLED:
            x = F.max_pool2d(x, 2)
        x = F.gelu(self.bn1(x))
        return F.gelu(self.bn2(self.conv2(x)))
