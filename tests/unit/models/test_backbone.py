import pytest
import torch
from torch import Tensor, nn

from noisyknn.errors import UsageError
from noisyknn.models.backbone import Backbone, BackboneSpec, Tap, pool
from noisyknn.models.factory import build_backbone
from noisyknn.models.tap import find_tap, head_name

OWN = ["cnn5", "cnn8", "preact_resnet18", "preact_resnet32", "preact_resnet56"]


def _images(size: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def _build(name: str, size: int = 16, layer: str | None = None) -> Backbone:
    return build_backbone(name, classes=4, image_size=size, layer=layer, seed=0).eval()


@pytest.mark.parametrize("name", OWN)
def test_own_networks_have_clean_stages_and_give_what_the_head_sees(name: str) -> None:
    backbone = _build(name)
    children = [child for child, _ in backbone.net.named_children()]
    last = "stage4" if name == "preact_resnet18" else "stage3"
    assert children == ["stem", *(f"stage{i}" for i in range(1, int(last[-1]) + 1)), "head"]
    assert backbone.tap == Tap(last)
    x = _images(16)
    logits, features = backbone.logits_and_features(x)
    torch.testing.assert_close(logits, backbone(x))
    torch.testing.assert_close(backbone.net.get_submodule("head")(features), logits)


def test_a_chosen_stage_gives_its_activation_averaged_over_pixels() -> None:
    backbone = _build("preact_resnet32", layer="stage2")
    x = _images(16)
    net = backbone.net
    activation = net.get_submodule("stage2")(net.get_submodule("stage1")(net.get_submodule("stem")(x)))
    slow = [[activation[i, c].flatten().tolist() for c in range(32)] for i in range(2)]
    expected = torch.tensor([[sum(pixels) / len(pixels) for pixels in row] for row in slow])
    torch.testing.assert_close(backbone.logits_and_features(x)[1], expected)


def test_a_relu_in_place_behind_the_layer_does_not_change_its_features() -> None:
    backbone = _build("cnn5", layer="stage1.0")
    features = backbone.logits_and_features(_images(16))[1]
    assert (features < 0).any()


def test_hooks_are_gone_after_the_call_even_when_it_fails() -> None:
    backbone = _build("cnn8")
    stage = backbone.net.get_submodule("stage3")
    backbone.logits_and_features(_images(16))
    with pytest.raises(RuntimeError):
        backbone.logits_and_features(torch.rand(2, 1, 16, 16))
    assert not stage._forward_hooks


@pytest.mark.parametrize("name", OWN)
def test_own_networks_train_on_tiny_images_two_at_a_time(name: str) -> None:
    backbone = build_backbone(name, classes=4, image_size=8, width=0.5, seed=0)
    assert all(module.training for module in backbone.modules())
    logits = backbone(_images(8).to(memory_format=torch.channels_last))
    logits.square().sum().backward()
    assert logits.shape == (2, 4)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


def test_finding_the_layer_leaves_no_hook_and_no_trace_in_batch_norm() -> None:
    backbone = build_backbone("cnn5", classes=4, image_size=8, seed=0)
    assert not any(module._forward_hooks for module in backbone.modules())
    assert all(m.num_batches_tracked == 0 for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))


def test_features_are_float32_under_autocast() -> None:
    backbone = _build("cnn5")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, features = backbone.logits_and_features(_images(16))
    assert (logits.dtype, features.dtype) == (torch.bfloat16, torch.float32)


def test_pool_averages_pixels_or_tokens() -> None:
    maps = torch.arange(2 * 5 * 3 * 3.0).view(2, 5, 3, 3)
    by_hand = torch.tensor([[9 * c + 4.0 for c in range(5)], [45 + 9 * c + 4.0 for c in range(5)]])
    torch.testing.assert_close(pool(maps), by_hand)
    torch.testing.assert_close(pool(maps.permute(0, 2, 3, 1)), by_hand)
    torch.testing.assert_close(pool(maps.flatten(2).transpose(1, 2)), by_hand)
    torch.testing.assert_close(pool(by_hand), by_hand)


class _Odd(nn.Module):
    """A network whose parts give what cannot be features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.unused = nn.ModuleList([nn.Identity()])
        self.flat = nn.Flatten(0)
        self.head = nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.flat(x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


@pytest.mark.parametrize("layer", ["unused", "flat"])
def test_a_layer_without_a_vector_per_image_is_refused(layer: str) -> None:
    with pytest.raises(UsageError, match=f"`layer` {layer} does not give one vector per image; choose a stage: conv, "):
        find_tap(_Odd(), 4, layer)


def test_an_unknown_layer_is_refused_with_stages_and_close_names() -> None:
    with pytest.raises(UsageError, match=r"`layer` stage9: .* stem, stage1, stage2, stage3, head; close names .*stage"):
        _build("cnn5", layer="stage9")
    with pytest.raises(UsageError, match=r"`layer` : the backbone has no such layer; its stages are stem"):
        _build("cnn5", layer="")


def test_a_network_without_maps_gives_the_input_of_its_head() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 6), nn.ReLU(), nn.Linear(6, 4))
    assert head_name(net) == "3"
    tap = find_tap(net, 4, None)
    assert tap == Tap("3", of_input=True)
    spec = BackboneSpec(name="mlp", classes=4, image_size=4, width=1, layer=None)
    x = _images(4)
    torch.testing.assert_close(Backbone(net, spec, tap).logits_and_features(x)[1], net[:3](x))
