"""Reads safetensors files and loads state dicts into networks."""

import json
from collections import OrderedDict
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from noisyknn.errors import InputError, first_ten
from noisyknn.models.tap import head_name
from noisyknn.models.torchvision_models import adapt_state


def read_safetensors(path: Path) -> tuple["OrderedDict[str, Tensor]", dict[str, str]]:
    """Tensors and metadata of a safetensors file; raises InputError for anything else."""
    if not path.is_file():
        raise InputError(f"{path}: no such file (`weights` takes a .safetensors file or DEFAULT)")
    try:
        raw = path.read_bytes()  # safetensors itself cannot open a file whose name is not UTF-8
        tensors = OrderedDict(safetensors.torch.load(raw))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise InputError(
            f"{path} is not a safetensors file ({error}); convert a PyTorch file with "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), OUT)"
        ) from error
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return tensors, header.get("__metadata__", {})


def load_state(net: nn.Module, state: "OrderedDict[str, Tensor]", *, source: str, name: str) -> None:
    """Load `state` into `net`, network `name`; `net` keeps its own head if the number of classes differs.

    Raises InputError for tensors that are missing, unexpected or of another shape, and names some of them.
    """
    try:
        adapt_state(net, state)
    except ValueError as error:
        raise InputError(f"{source} does not fit {name}: {error}") from error
    own = net.state_dict()
    _keep_own_head(own, state, head_name(net))
    wrong = [
        f"{key} is {_shape(state[key])}, not {_shape(tensor)}"
        for key, tensor in own.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if not wrong:
        if not hasattr(state, "_metadata"):
            # safetensors keeps no module versions, but MNASNet needs one to load; ours is the current one.
            state._metadata = {"": {"version": net._version}}  # type: ignore[attr-defined]
        result = net.load_state_dict(state, strict=False)
        wrong = [f"{key} is missing" for key in result.missing_keys]
        wrong += [f"{key} is unexpected" for key in result.unexpected_keys]
    if wrong:
        raise InputError(
            f"{source} does not fit {name}: {first_ten(wrong)}; give the `backbone` and `width` it was made with"
        )


def _keep_own_head(own: dict[str, Tensor], state: dict[str, Tensor], head: str) -> None:
    """If the heads differ only in the number of classes, put our own into `state`."""
    ours, theirs = own[f"{head}.weight"], state.get(f"{head}.weight")
    if theirs is not None and theirs.shape[1:] == ours.shape[1:] and len(theirs) != len(ours):
        state.update({key: own[key] for key in (f"{head}.weight", f"{head}.bias")})


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
