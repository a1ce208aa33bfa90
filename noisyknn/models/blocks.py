"""Building blocks of our own networks: scaled widths, 3×3 convolutions and their initialisation."""

from torch import nn


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 8 (for tensor cores), at least 8."""
    return max(8, int(channels * width / 8 + 0.5) * 8)


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """A padded 3×3 convolution without bias, since batch normalisation always follows or precedes it."""
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)


def he_init(net: nn.Module) -> None:
    """Initialise in place like He et al. (2015): convolutions keep the variance of the gradient through ReLUs."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def pass_on(net: nn.Module) -> None:
    """Replace in place the first filters of every 3×3 convolution, one per input channel, by the identity."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            nn.init.dirac_(module.weight[: module.in_channels].detach())
