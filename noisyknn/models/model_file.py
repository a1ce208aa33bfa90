"""Saves a trained backbone as one safetensors file that says how to build and use it, and reads it back."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from noisyknn.errors import InputError, UsageError
from noisyknn.files import atomic_file
from noisyknn.models.backbone import Backbone, BackboneSpec
from noisyknn.models.factory import build_backbone
from noisyknn.models.weights import read_safetensors

_KEY = "noisyknn"


def save_model(path: Path, backbone: Backbone, metadata: Mapping[str, str]) -> None:
    """Write the weights, what the network was built from, and `metadata`, whole or not at all.

    Raises MachineError where the file cannot be written.
    """
    tensors = {key: tensor.cpu().contiguous() for key, tensor in backbone.net.state_dict().items()}
    # One entry, since safetensors writes several in an order that changes from process to process.
    about = {"spec": dataclasses.asdict(backbone.spec), "metadata": dict(metadata)}
    raw = safetensors.torch.save(tensors, {_KEY: json.dumps(about, sort_keys=True)})
    with atomic_file(path) as file:
        file.write(raw)


def load_model(path: str | Path) -> tuple[Backbone, dict[str, str]]:
    """A backbone that `save_model` wrote, on the CPU, in evaluation mode, and the metadata given then.

    Raises InputError for any other file.
    """
    path = Path(path)
    _, entries = read_safetensors(path)
    try:
        about = json.loads(entries[_KEY])
        spec = _spec(about["spec"])
        metadata = {str(key): str(value) for key, value in about["metadata"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} was not saved by noisyknn, so it does not say which backbone it holds") from error
    try:
        backbone = build_backbone(
            spec.name,
            classes=spec.classes,
            image_size=spec.image_size,
            width=spec.width,
            weights=str(path),
            layer=spec.layer,
            seed=0,
        )
    except UsageError as error:
        raise InputError(f"{path} holds a backbone that cannot be built: {error}") from error
    return backbone.eval(), metadata


def _spec(values: Mapping[str, Any]) -> BackboneSpec:
    layer = values["layer"]
    return BackboneSpec(
        name=str(values["name"]),
        classes=int(values["classes"]),
        image_size=int(values["image_size"]),
        width=float(values["width"]),
        layer=None if layer is None else str(layer),
    )
