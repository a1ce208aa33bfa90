"""Finds the layer whose pooled output is the feature vector, and checks that the network runs at all."""

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models import DenseNet

from noisyknn.errors import UsageError
from noisyknn.models.backbone import Tap

_NO_STAGE = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d, nn.Dropout)


def head_name(net: nn.Module) -> str:
    """Name of the layer that gives the logits: the last linear layer or, in SqueezeNet, convolution."""
    names: list[str] = [name for name, part in net.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    return names[-1]


def find_tap(net: nn.Module, image_size: int, layer: str | None) -> Tap:
    """Where to take features: at `layer` or, if None, at the last convolutional stage.

    A network without one (ViT), and DenseNet, whose last ReLU is no module, use the input of their last linear layer.
    Runs one black image through `net`, so the network's errors for images of this size come from here.
    Raises UsageError for a layer that does not exist or does not give one vector, map or token list per image.
    """
    stages = stage_names(net)
    if layer is None:
        return _default_tap(net, _outputs(net, image_size, stages))
    names = [name for name, _ in net.named_modules() if name]
    if layer not in names:
        close = difflib.get_close_matches(layer, names, n=5)
        hint = f"; close names are {', '.join(close)}" if close else ""
        raise UsageError(f"`layer` {layer}: the backbone has no such layer; its stages are {', '.join(stages)}{hint}")
    outputs = [output for _, output in _outputs(net, image_size, [layer])]
    if not outputs or not _is_per_image(outputs[-1]):
        raise UsageError(f"`layer` {layer} does not give one vector per image; choose a stage: {', '.join(stages)}")
    return Tap(layer)


def stage_names(net: nn.Module) -> list[str]:
    """Names of the top-level modules that a forward pass calls: not a ModuleList, but its items."""
    names: list[str] = []
    for name, child in net.named_children():
        is_list = isinstance(child, nn.ModuleList)
        names += [f"{name}.{item}" for item, _ in child.named_children()] if is_list else [name]
    return names


def _outputs(net: nn.Module, image_size: int, watched: Sequence[str]) -> list[tuple[str, object]]:
    """Outputs of the modules `watched` for one black image, in the order of their calls."""
    seen: list[tuple[str, object]] = []

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        return net.get_submodule(name).register_forward_hook(lambda _, __, output: seen.append((name, output)))

    hooks = [watch(name) for name in watched]
    was_training = net.training
    try:
        image = torch.zeros(1, 3, image_size, image_size, device=next(net.parameters()).device)
        with torch.no_grad():
            net.eval()(image)
    finally:
        net.train(was_training)
        for hook in hooks:
            hook.remove()
    return seen


def _default_tap(net: nn.Module, outputs: Sequence[tuple[str, object]]) -> Tap:
    head = head_name(net)
    last_map: str | None = None
    for name, output in outputs:
        if name == head.split(".")[0]:
            break
        if isinstance(output, Tensor) and output.dim() == 3:
            last_map = None  # tokens made from the previous map
        elif isinstance(output, Tensor) and output.dim() == 4 and not isinstance(net.get_submodule(name), _NO_STAGE):
            last_map = name
    if last_map is None or isinstance(net, DenseNet):
        return Tap(head, of_input=True)
    return Tap(last_map)


def _is_per_image(output: object) -> bool:
    return isinstance(output, Tensor) and output.dim() in (2, 3, 4) and output.shape[0] == 1
