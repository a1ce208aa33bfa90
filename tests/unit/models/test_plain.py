import pytest
import torch

from noisyknn.models.plain import Cnn5, Cnn8


def test_cnn5_has_the_parameters_of_the_paper_s_network() -> None:
    convolutions = 9 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 128)
    norms = 2 * (32 + 64 + 128 + 128)
    head = 128 * 10 + 10
    assert sum(p.numel() for p in Cnn5(10).parameters()) == convolutions + norms + head == 242_474


def test_cnn5_has_strides_1_2_2_1() -> None:
    net = Cnn5(10)
    x = torch.rand(2, 3, 28, 28)
    sizes = []
    for stage in (net.stem, net.stage1, net.stage2, net.stage3):
        x = stage(x)
        sizes.append(tuple(x.shape[1:]))
    assert sizes == [(32, 28, 28), (64, 14, 14), (128, 7, 7), (128, 7, 7)]


def test_cnn8_has_seven_convolutions_without_needless_biases() -> None:
    stem = 3 * 24 * 4 + 24
    convolutions = 9 * (24 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128)
    norms = 2 * 2 * (32 + 64 + 128)
    head = 128 * 5 + 5
    assert sum(p.numel() for p in Cnn8(5).parameters()) == stem + convolutions + norms + head


@pytest.mark.parametrize(("size", "maps"), [(32, [31, 15, 7, 3]), (8, [7, 3, 3, 3]), (4, [3, 3, 3, 3])])
def test_cnn8_halves_only_maps_of_four_pixels_and_more(size: int, maps: list[int]) -> None:
    net = Cnn8(10)
    x = torch.rand(2, 3, size, size)
    sizes = []
    for stage in (net.stem, net.stage1, net.stage2, net.stage3):
        x = stage(x)
        sizes.append(x.shape[2])
    assert sizes == maps


def test_width_multiplies_channels_and_keeps_multiples_of_eight() -> None:
    half, double, tiny = Cnn8(10, 0.5), Cnn8(10, 2.0), Cnn8(10, 0.05)
    assert [half.stem[0].out_channels, half.stage1.conv1.out_channels, half.head.in_features] == [16, 16, 64]
    assert [double.stem[0].out_channels, double.stage1.conv1.out_channels, double.head.in_features] == [48, 64, 256]
    assert [tiny.stem[0].out_channels, tiny.stage1.conv1.out_channels, tiny.head.in_features] == [8, 8, 8]


def test_he_initialisation_has_the_spread_of_the_formula() -> None:
    torch.manual_seed(0)
    net = Cnn5(10)
    weight = net.get_parameter("stage3.0.weight")
    assert weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert not net.head.bias.any()


def test_convolutions_of_cnn8_begin_by_passing_their_input_on() -> None:
    net = Cnn8(10)
    for stage, channels in ((net.stage1, 24), (net.stage3, 64)):
        x = torch.rand(2, channels, 6, 6)
        y = stage.conv1(x)
        torch.testing.assert_close(y[:, :channels], x)
        assert (y[:, channels:] - x[:, : y.shape[1] - channels]).abs().mean() > 0.1
