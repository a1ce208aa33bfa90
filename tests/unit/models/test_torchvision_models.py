from collections import OrderedDict
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from noisyknn.errors import MachineError, UsageError
from noisyknn.models.backbone import Backbone, BackboneSpec, Tap
from noisyknn.models.factory import build_backbone
from noisyknn.models.tap import find_tap
from noisyknn.models.torchvision_models import adapt_state, new_net

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _build(name: str, weights: str | None = None) -> Backbone:
    return build_backbone(name, classes=4, image_size=32, weights=weights, seed=0).eval()


def _output_of(net: nn.Module, module: str) -> Tensor:
    kept: list[Tensor] = []
    hook = net.get_submodule(module).register_forward_hook(lambda _, __, output: kept.append(output))
    with torch.no_grad():
        net(IMAGES)
    hook.remove()
    return kept[0]


@pytest.mark.parametrize(
    ("name", "pooling"),
    [("resnet18", "avgpool"), ("mobilenet_v3_small", "avgpool"), ("googlenet", "avgpool"), ("densenet121", "")],
)
def test_default_features_are_what_the_network_itself_pools(name: str, pooling: str) -> None:
    backbone = _build(name)
    with torch.no_grad():
        logits, features = backbone.logits_and_features(IMAGES)
        if pooling:
            expected = _output_of(backbone.net, pooling).flatten(1)
        else:  # DenseNet's last ReLU and pooling are functions
            expected = backbone.net.features(IMAGES).relu().mean((2, 3))  # type: ignore[operator]
    torch.testing.assert_close(features, expected)
    assert logits.shape == (2, 4)


def test_squeezenet_has_a_convolution_for_a_head() -> None:
    backbone = _build("squeezenet1_1")
    features = backbone.logits_and_features(IMAGES)[1]
    torch.testing.assert_close(features, _output_of(backbone.net, "features").mean((2, 3)))
    assert backbone(IMAGES).shape == (2, 4)


def _small_vit(size: int) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(size, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=4).eval()


def test_a_vision_transformer_gives_its_class_token_or_the_mean_of_its_tokens() -> None:
    net = _small_vit(32)
    spec = BackboneSpec(name="vit", classes=4, image_size=32, width=1, layer=None)
    tap = find_tap(net, 32, None)
    assert tap == Tap("heads.head", of_input=True)
    tokens = _output_of(net, "encoder")
    torch.testing.assert_close(Backbone(net, spec, tap).logits_and_features(IMAGES)[1], tokens[:, 0])
    mean = Backbone(net, spec, find_tap(net, 32, "encoder")).logits_and_features(IMAGES)[1]
    torch.testing.assert_close(mean, tokens.mean(1))


@pytest.mark.parametrize(
    ("name", "tap"),
    [
        ("alexnet", Tap("features")),
        ("vgg11", Tap("features")),
        ("convnext_tiny", Tap("features")),
        ("densenet121", Tap("classifier", of_input=True)),
        ("efficientnet_b0", Tap("features")),
        ("googlenet", Tap("inception5b")),
        ("inception_v3", Tap("Mixed_7c")),
        ("maxvit_t", Tap("blocks.3")),
        ("mnasnet0_5", Tap("layers")),
        ("mobilenet_v2", Tap("features")),
        ("shufflenet_v2_x0_5", Tap("conv5")),
        ("squeezenet1_0", Tap("features")),
        ("swin_t", Tap("permute")),
        ("vit_b_32", Tap("heads.head", of_input=True)),
        ("wide_resnet50_2", Tap("layer4")),
    ],
)
def test_default_layer_of_every_family(name: str, tap: Tap) -> None:
    with torch.device("meta"):  # shapes without numbers: fast, and no memory even for VGG
        net = new_net(name, classes=4, image_size=224)
    assert find_tap(net, 224, None) == tap


def test_default_layer_of_a_regnet() -> None:
    assert _build("regnet_y_400mf").tap == Tap("trunk_output")


def test_inception_gives_plain_logits_in_training() -> None:
    with torch.device("meta"):
        net = new_net("inception_v3", classes=4, image_size=96).train()
        logits = net(torch.zeros(2, 3, 96, 96))
    assert logits.shape == (2, 4)


def test_a_swin_stage_with_its_channels_last_is_averaged_over_its_pixels() -> None:
    net = SwinTransformer([4, 4], 24, [1, 1], [2, 2], [4, 4], num_classes=4).eval()
    maps = _output_of(net, "features.1")
    assert maps.shape == (2, 8, 8, 24)
    spec = BackboneSpec(name="swin", classes=4, image_size=32, width=1, layer="features.1")
    features = Backbone(net, spec, find_tap(net, 32, "features.1")).logits_and_features(IMAGES)[1]
    torch.testing.assert_close(features, maps.mean((1, 2)))


@pytest.mark.parametrize(("name", "size"), [("alexnet", 32), ("vit_b_32", 40), ("maxvit_t", 32)])
def test_images_that_the_network_cannot_take_are_refused(name: str, size: int) -> None:
    message = rf"`backbone` {name} does not run on {size}-pixel images \(.+\); try `image_size` 224"
    with pytest.raises(UsageError, match=message):
        build_backbone(name, classes=4, image_size=size, seed=0)


class _Hub:
    """Stands in for the network: torch.hub "downloads" whatever state dict it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.state: dict[str, Tensor] = {}
        self.error: Exception | None = None
        monkeypatch.setenv("TORCH_HOME", str(folder))
        monkeypatch.setattr(torch.hub, "download_url_to_file", self._download)

    def _download(self, _url: str, path: str, _hash: str, progress: bool) -> None:
        assert not progress
        if self.error:
            raise self.error
        torch.save(self.state, path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> _Hub:
    return _Hub(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("name", "head"),
    [("squeezenet1_1", "classifier.1"), ("mobilenet_v3_small", "classifier.3"), ("mnasnet0_5", "classifier.1")],
)
def test_published_weights_are_taken_except_the_head(
    name: str, head: str, hub: _Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    published = torchvision.models.get_model(name).state_dict()
    hub.state = published
    loaded = _build(name, weights="DEFAULT").net.state_dict()
    fresh = _build(name).net.state_dict()
    for key in published:
        expected = fresh[key] if key.startswith(head) else published[key]
        assert torch.equal(loaded[key], expected), key
    assert capsys.readouterr() == ("", "")


def test_published_auxiliary_heads_are_left_out(hub: _Hub) -> None:
    hub.state = torchvision.models.get_model("googlenet", aux_logits=True, init_weights=False).state_dict()
    backbone = _build("googlenet", weights="DEFAULT").train()
    assert backbone(IMAGES).shape == (2, 4)
    assert torch.equal(backbone.net.state_dict()["conv1.conv.weight"], hub.state["conv1.conv.weight"])


def test_published_densenets_have_old_names() -> None:
    state = OrderedDict(
        {"features.denseblock1.denselayer1.norm.1.weight": torch.ones(1), "classifier.bias": torch.ones(2)}
    )
    adapt_state(nn.Identity(), state)
    assert set(state) == {"features.denseblock1.denselayer1.norm1.weight", "classifier.bias"}


def test_position_embeddings_grow_with_the_images() -> None:
    small, large = _small_vit(16), _small_vit(32)
    state = OrderedDict(small.state_dict())
    adapt_state(large, state)
    grown, before = state["encoder.pos_embedding"], small.state_dict()["encoder.pos_embedding"]
    assert grown.shape == (1, 1 + 4 * 4, 16)
    corners = [0, 1, 4, 13, 16]  # the class token, then the corners of a grid of 4 × 4
    torch.testing.assert_close(grown[:, corners], before)


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("invalid hash value")])
def test_a_failing_download_says_how_to_do_without(error: Exception, hub: _Hub) -> None:
    hub.error = error
    with pytest.raises(MachineError, match=r"resnet18.*\.pth cannot be downloaded \(.+\).*`weights` FILE\.safetensors"):
        _build("resnet18", weights="DEFAULT")
