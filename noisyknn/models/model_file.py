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


def save_model(path: Path, backbone: Backbone, metadata: Mapping[str, Any]) -> None:
    """Write the weights, the specification and `metadata`, which JSON can hold; the file appears whole or not at all.

    Raises MachineError if the file cannot be written.
    """
    tensors = {key: tensor.cpu().contiguous() for key, tensor in backbone.net.state_dict().items()}
    # One entry: safetensors writes several in an order that differs between processes.
    about = {"spec": dataclasses.asdict(backbone.spec), "metadata": dict(metadata)}
    raw = safetensors.torch.save(tensors, {_KEY: json.dumps(about, sort_keys=True)})
    with atomic_file(path) as file:
        file.write(raw)


def load_model(path: str | Path) -> tuple[Backbone, dict[str, Any]]:
    """A backbone that `save_model` wrote, on the CPU, in evaluation mode, and its metadata.

    The metadata of `clean`: `classes`, the labels in the order of the logits; `mean` and `std` of red, green and blue
    from 0 to 1, which normalise an image (3, S, S); `store_size`, the height and width that images are resized to by
    the rule `fit`; and `image_size`, the size S of the centre that the network sees.

    Raises InputError for any other file.
    """
    path = Path(path)
    _, entries = read_safetensors(path)
    try:
        about = json.loads(entries[_KEY])
        spec = _spec(about["spec"])
        metadata = dict(about["metadata"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} was not saved by noisyknn; give a model that it saved") from error
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
