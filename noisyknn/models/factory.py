"""Makes backbones by name."""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from noisyknn.errors import UsageError
from noisyknn.models import torchvision_models
from noisyknn.models.backbone import Backbone, BackboneSpec
from noisyknn.models.plain import Cnn5, Cnn8
from noisyknn.models.preact_resnet import preact_resnet18, preact_resnet32, preact_resnet56
from noisyknn.models.tap import find_tap
from noisyknn.models.weights import load_state, read_safetensors

_OWN: Mapping[str, Callable[[int, float], nn.Module]] = {
    "cnn5": Cnn5,
    "cnn8": Cnn8,
    "preact_resnet18": preact_resnet18,
    "preact_resnet32": preact_resnet32,
    "preact_resnet56": preact_resnet56,
}


def backbone_names() -> list[str]:
    """Every name that `build_backbone` knows: our own networks, then torchvision's."""
    return [*_OWN, *torchvision_models.names()]


def is_own(name: str) -> bool:
    """Whether a network is one of ours, not torchvision's."""
    return name in _OWN


def build_backbone(
    name: str,
    *,
    classes: int,
    image_size: int,
    width: float = 1.0,
    weights: str | None = None,
    layer: str | None = None,
    seed: int,
) -> Backbone:
    """A network for images (B, 3, image_size, image_size), on the CPU, in training mode.

    `seed` alone decides the initial weights; torch's global random state is neither read nor changed. `weights` is
    None, ``DEFAULT`` (torchvision's download) or a safetensors file; `layer` chooses where features are taken.

    Raises UsageError for an unknown name or layer, options that conflict and an image size that the network cannot
    take, InputError for a file that does not fit, MachineError if a download fails.
    """
    _check(name, width, weights)
    spec = BackboneSpec(name=name, classes=classes, image_size=image_size, width=width, layer=layer)
    backbone = _random_backbone(spec, seed)
    if weights == "DEFAULT":
        load_state(backbone.net, torchvision_models.download(name), source="`weights` DEFAULT", name=name)
    elif weights is not None:
        state, _ = read_safetensors(Path(weights))
        load_state(backbone.net, state, source=f"`weights` {weights}", name=name)
    return backbone


def check_size(backbone: Backbone, image_size: int) -> None:
    """Raise UsageError if a network, in evaluation mode, does not run on images of another size, `image_size`."""
    training = backbone.training
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UsageError(
            f"`backbone` {backbone.spec.name} runs on images of {backbone.spec.image_size} pixels but not of "
            f"{image_size}, the size that episodes begin with; give `progressive=False`"
        ) from error
    finally:
        backbone.train(training)


def _check(name: str, width: float, weights: str | None) -> None:
    if name not in backbone_names():
        close = difflib.get_close_matches(name, backbone_names(), n=5, cutoff=0.5) or list(_OWN)
        raise UsageError(f"there is no `backbone` {name}; did you mean {', '.join(close)}?")
    if name in _OWN and weights == "DEFAULT":
        raise UsageError(
            f"`weights` DEFAULT: {name} has no published weights; choose a backbone of torchvision, such as resnet18, "
            "or pass `weights` FILE.safetensors"
        )
    if name not in _OWN and width != 1:
        raise UsageError(f"`width` {width:g} does not work with {name}; give 1 or choose one of {', '.join(_OWN)}")


def check_bf16(backbone: Backbone, image_size: int) -> None:
    """Raise UsageError if torch (2.14 at least) computes wrong gradients of a network in bf16 on a CPU.

    In a strided convolution whose input is padded from a single pixel, most weights get uninitialised memory as their
    gradient.
    """
    lone: list[str] = []

    def look(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].shape[2:] == (1, 1):
            lone.append(type(module).__name__)

    strided = [
        module
        for module in backbone.modules()
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1 and max(module.kernel_size) > 1
    ]
    hooks = [module.register_forward_pre_hook(look) for module in strided]
    training = backbone.training
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, 3, image_size, image_size))
    finally:
        backbone.train(training)
        for hook in hooks:
            hook.remove()
    if lone:
        cure = "`progressive=False`, " if image_size < backbone.spec.image_size else ""
        raise UsageError(
            f"`backbone` {backbone.spec.name} shrinks images of {image_size} pixels to a single pixel before its last "
            f"convolutions, and torch computes their gradients wrongly in bf16; give {cure}`precision` fp32 or a "
            "larger `image_size`"
        )


def _random_backbone(spec: BackboneSpec, seed: int) -> Backbone:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
            if spec.name in _OWN:
                net = _OWN[spec.name](spec.classes, spec.width)
            else:
                net = torchvision_models.new_net(spec.name, classes=spec.classes, image_size=spec.image_size)
            return Backbone(net, spec, find_tap(net, spec.image_size, spec.layer))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(
            f"`backbone` {spec.name} does not run on {spec.image_size}-pixel images ({reason}); try `image_size` 224"
        ) from error
