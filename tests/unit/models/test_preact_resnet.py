import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noisyknn.models.preact_resnet import (
    PreActBlock,
    PreActResNet,
    preact_resnet18,
    preact_resnet32,
    preact_resnet56,
)


def _parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def _block(channels_in: int, channels_out: int) -> int:
    projection = channels_in * channels_out if channels_in != channels_out else 0
    return 2 * channels_in + 2 * channels_out + 9 * channels_out * (channels_in + channels_out) + projection


def test_preact_resnet32_has_the_parameters_counted_by_hand() -> None:
    # stem 432; five blocks of 16; 16→32 and four of 32; 32→64 and four of 64; last BN 128; head 650
    assert _parameters(preact_resnet32(10)) == 432 + 5 * 4_672 + 14_432 + 4 * 18_560 + 57_536 + 4 * 73_984 + 128 + 650
    assert _parameters(preact_resnet32(10)) == 466_714


@pytest.mark.parametrize(
    ("net", "widths", "blocks"),
    [
        (preact_resnet56(100), (16, 32, 64), 9),
        (preact_resnet32(10, 2.0), (32, 64, 128), 5),
        (preact_resnet18(10, 0.25), (16, 32, 64, 128), 2),
    ],
)
def test_parameters_of_depths_and_widths(net: PreActResNet, widths: tuple[int, ...], blocks: int) -> None:
    expected = 27 * widths[0] + 2 * widths[-1] + (widths[-1] + 1) * net.head.out_features
    before = widths[0]
    for width in widths:
        expected += _block(before, width) + (blocks - 1) * _block(width, width)
        before = width
    assert _parameters(net) == expected


def test_stages_halve_the_map_except_the_first() -> None:
    net = preact_resnet18(10, 0.125)
    x = net.stem(torch.rand(2, 3, 32, 32))
    sizes = []
    for stage in ("stage1", "stage2", "stage3", "stage4"):
        x = net.get_submodule(stage)(x)
        sizes.append(tuple(x.shape[1:]))
    assert sizes == [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4)]
    assert (x >= 0).all()  # the last stage ends in a ReLU


def test_the_block_is_the_one_of_the_official_code() -> None:
    block = PreActBlock(8, 16, stride=2).eval()
    with torch.no_grad():
        for norm in (block.bn1, block.bn2):
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
    assert block.shortcut is not None
    shortcut = block.shortcut

    def official(x: Tensor) -> Tensor:
        out = F.relu(block.bn1(x))
        projected: Tensor = shortcut(out)
        residual: Tensor = block.conv2(F.relu(block.bn2(block.conv1(out))))
        return projected + residual

    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(block(x), official(x))


def test_a_block_that_keeps_its_shape_adds_its_input_untouched() -> None:
    block = PreActBlock(8, 8, stride=1)
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 8, 4, 4)
    before = x.clone()
    assert torch.equal(block(x), before)
    assert torch.equal(x, before)
