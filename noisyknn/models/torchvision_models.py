"""torchvision's classification networks, by name."""

import contextlib
import functools
import io
import pickle
import re
from collections import OrderedDict
from http.client import HTTPException
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import interpolate_embeddings

from noisyknn.errors import MachineError

_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_OLD_DENSE = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")


@functools.cache
def names() -> tuple[str, ...]:
    """Names of all classification networks of the installed torchvision."""
    return tuple(torchvision.models.list_models(module=torchvision.models))


def new_net(name: str, *, classes: int, image_size: int) -> nn.Module:
    """A network of `names()` with random weights that gives logits (B, classes) for images of `image_size` pixels.

    Raises RuntimeError, ValueError or AssertionError if the network does not work with that size.
    """
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # The published weights expect transformed input; always transforming it keeps saved files compatible.
        options = {"aux_logits": False, "init_weights": True, "transform_input": True}
    elif name.startswith("vit_"):
        options = {"image_size": image_size}
    net: nn.Module = torchvision.models.get_model(name, num_classes=classes, **options)
    return net


def download(name: str) -> "OrderedDict[str, Tensor]":
    """torchvision's published weights of a network, from the internet or torch.hub's cache.

    Raises MachineError if the download fails.
    """
    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        # torch.hub announces downloads on standard output, which may carry the corrected table.
        with contextlib.redirect_stdout(io.StringIO()):
            state: OrderedDict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, HTTPException, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise MachineError(
            f"`weights` DEFAULT: {weights.url} cannot be downloaded ({error}); check the connection or pass "
            "`weights` FILE.safetensors"
        ) from error
    return state


def adapt_state(net: nn.Module, state: "OrderedDict[str, Tensor]") -> None:
    """Convert a state dict that torchvision published, in place, into one for our `net`.

    Removes auxiliary classifiers, which we do not build, renames DenseNet's layers to their present names and resizes
    the grid of a vision transformer's position embeddings. Raises ValueError if the embeddings form no square grid.
    """
    for key in list(state):
        if key.startswith(_AUXILIARY):
            del state[key]
        elif old := _OLD_DENSE.fullmatch(key):
            state[old[1] + old[2]] = state.pop(key)
    if isinstance(net, VisionTransformer) and "encoder.pos_embedding" in state:
        interpolate_embeddings(net.image_size, net.patch_size, state)
