"""A classification network and the layer that gives its feature vectors."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Tap(NamedTuple):
    """Where features are taken: the output, or the input, of a module of the network."""

    module: str
    """A name from ``named_modules()`` of the network."""
    of_input: bool = False


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """Everything needed to build the same network again."""

    name: str
    classes: int
    image_size: int
    """Height and width in pixels."""
    width: float
    layer: str | None
    """The requested layer; None means the last convolutional stage."""


class Backbone(nn.Module):
    """A network that gives logits and, on demand, the pooled output of one of its layers.

    ``net`` is the bare network, ``spec`` its specification and ``tap`` the source of its features.
    """

    def __init__(self, net: nn.Module, spec: BackboneSpec, tap: Tap) -> None:
        super().__init__()
        self.net = net
        self.spec = spec
        self.tap = tap

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) to logits (B, C)."""
        logits: Tensor = self.net(x)
        return logits

    def logits_and_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) to logits (B, C) and float32 features (B, D), in one pass."""
        # Pool inside the hook: an in-place ReLU after the layer would change the output before we read it.
        pooled: list[Tensor] = []
        module = self.net.get_submodule(self.tap.module)
        if self.tap.of_input:
            hook = module.register_forward_pre_hook(lambda _, inputs: pooled.append(pool(inputs[0])))
        else:
            hook = module.register_forward_hook(lambda _, __, output: pooled.append(pool(output)))
        try:
            logits = self(x)
        finally:
            hook.remove()
        return logits, pooled[-1]


def pool(output: Tensor) -> Tensor:
    """A layer's output as float32 features (B, D): the mean over the pixels or over the tokens.

    Takes (B, D, H, W), (B, tokens, D) and (B, D). Some transformers give (B, H, W, D): images are square, so the two
    equal sizes are H and W (three equal sizes are read as (B, D, H, W)).
    """
    if output.dim() == 4:
        height, width = (2, 3) if output.shape[2] == output.shape[3] else (1, 2)
        return output.mean((height, width), dtype=torch.float32)
    if output.dim() == 3:
        return output.mean(1, dtype=torch.float32)
    return output.float()
