"""Pre-activation residual networks for small images (He et al. 2016, *Identity Mappings in Deep Residual Networks*)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from noisyknn.models.blocks import conv3x3, he_init, scaled


class PreActBlock(nn.Module):
    """BN, ReLU and convolution, twice, added to the input, or to its projection where the shape changes.

    The projection starts from the activated input, as in the code of DivideMix and SSR.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = conv3x3(channels_in, channels_out, stride)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        activated = F.relu(self.bn1(x), inplace=True)
        identity = x if self.shortcut is None else self.shortcut(activated)
        residual: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated)), inplace=True))
        return residual + identity


class PreActResNet(nn.Module):
    """A 3×3 stem, one stage per entry of `channels` with `blocks` blocks each, and a linear head.

    Every stage but the first halves the map. The last stage ends with the final BN and ReLU, so its pooled output is
    the input of the head.
    """

    def __init__(self, classes: int, width: float, *, blocks: int, channels: Sequence[int]) -> None:
        super().__init__()
        widths = [scaled(c, width) for c in channels]
        self.stem = conv3x3(3, widths[0])
        self._stages = [f"stage{i}" for i in range(1, len(widths) + 1)]
        for name, before, after in zip(self._stages, [widths[0], *widths], widths, strict=False):
            first = PreActBlock(before, after, stride=1 if name == "stage1" else 2)
            layers: list[nn.Module] = [first, *(PreActBlock(after, after, stride=1) for _ in range(blocks - 1))]
            if name == self._stages[-1]:
                layers += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
            self.add_module(name, nn.Sequential(*layers))
        self.head = nn.Linear(widths[-1], classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) to logits (B, C)."""
        x = self.stem(x)
        for stage in self._stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def preact_resnet18(classes: int, width: float = 1.0) -> PreActResNet:
    """Two blocks in each of four stages of 64 to 512 channels."""
    return PreActResNet(classes, width, blocks=2, channels=(64, 128, 256, 512))


def preact_resnet32(classes: int, width: float = 1.0) -> PreActResNet:
    """6n + 2 layers with n = 5, three stages of 16, 32, 64 channels."""
    return PreActResNet(classes, width, blocks=5, channels=(16, 32, 64))


def preact_resnet56(classes: int, width: float = 1.0) -> PreActResNet:
    """6n + 2 layers with n = 9, three stages of 16, 32, 64 channels."""
    return PreActResNet(classes, width, blocks=9, channels=(16, 32, 64))
