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
    """Write the weights, what the network was built from, and `metadata`, which JSON can hold, whole or not at all.

    Raises MachineError where the file cannot be written.
    """
    tensors = {key: tensor.cpu().contiguous() for key, tensor in backbone.net.state_dict().items()}
    # One entry, since safetensors writes several in an order that changes from process to process.
    about = {"spec": dataclasses.asdict(backbone.spec), "metadata": dict(metadata)}
    raw = safetensors.torch.save(tensors, {_KEY: json.dumps(about, sort_keys=True)})
    with atomic_file(path) as file:
        file.write(raw)


def load_model(path: str | Path) -> tuple[Backbone, dict[str, Any]]:
    """A backbone that `save_model` wrote, on the CPU, in evaluation mode, and the metadata given then.

    Of one that `clean` saved: `classes`, the labels in the order of the logits; `mean` and `std` of red, green and blue
    from 0 to 1, by which an image (3, S, S) is normalised; `store_size`, the height and width that images are resized
    to, as `fit` says, and `image_size`, S, that of the centre that the network sees.

    Raises InputError for any other file.
    """
    path = Path(path)
    _, entries = read_safetensors(path)
    try:
        about = json.loads(entries[_KEY])
        spec = _spec(about["spec"])
        metadata = dict(about["metadata"])
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
