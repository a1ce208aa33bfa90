import pytest
import torch
import torchvision

from noisyknn.errors import UsageError
from noisyknn.models.factory import backbone_names, build_backbone


def test_names_are_our_own_and_all_classifiers_of_torchvision() -> None:
    names = backbone_names()
    assert names[:5] == ["cnn5", "cnn8", "preact_resnet18", "preact_resnet32", "preact_resnet56"]
    assert names[5:] == torchvision.models.list_models(module=torchvision.models)


@pytest.mark.parametrize("name", ["cnn8", "preact_resnet32", "resnet18"])
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        return [p.detach() for p in build_backbone(name, classes=3, image_size=32, seed=seed).parameters()]

    torch.manual_seed(1)
    first = weights(7)
    torch.manual_seed(2)
    again, other = weights(7), weights(8)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("name", ["cnn5", "mobilenet_v3_small"])
def test_the_global_random_state_is_untouched(name: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_backbone(name, classes=3, image_size=32, seed=11)
    assert torch.equal(torch.rand(3), expected)


def test_an_unknown_backbone_is_refused_with_close_names() -> None:
    with pytest.raises(UsageError, match=r"no `backbone` preact_resnet34; did you mean preact_resnet32"):
        build_backbone("preact_resnet34", classes=3, image_size=32, seed=0)
    with pytest.raises(UsageError, match=r"no `backbone` zzz; did you mean cnn5, cnn8"):
        build_backbone("zzz", classes=3, image_size=32, seed=0)


def test_width_of_a_torchvision_model_is_refused() -> None:
    with pytest.raises(UsageError, match=r"`width` 2 does not work with resnet18; give 1 or choose one of cnn5, "):
        build_backbone("resnet18", classes=3, image_size=32, width=2.0, seed=0)


def test_published_weights_of_our_own_networks_do_not_exist() -> None:
    with pytest.raises(UsageError, match=r"`weights` DEFAULT: cnn8 has no published weights; .*FILE"):
        build_backbone("cnn8", classes=3, image_size=32, weights="DEFAULT", seed=0)
