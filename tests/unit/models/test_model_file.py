import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from noisyknn.errors import InputError, MachineError
from noisyknn.models.factory import build_backbone
from noisyknn.models.model_file import load_model, save_model

METADATA = {"classes": '["cat", "dog"]', "mean": "[0.5, 0.5, 0.5]", "std": "[0.2, 0.2, 0.2]"}
IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_saved_model_comes_back_the_same(tmp_path: Path) -> None:
    backbone = build_backbone("preact_resnet32", classes=2, image_size=16, width=0.5, layer="stage2", seed=3)
    backbone.to(memory_format=torch.channels_last)
    backbone(IMAGES)  # moves the running means away from their start
    save_model(tmp_path / "m.safetensors", backbone, METADATA)
    loaded, metadata = load_model(str(tmp_path / "m.safetensors"))  # as users write it; a Path does too
    assert metadata == METADATA
    assert loaded.spec == backbone.spec
    assert not loaded.training
    ours, theirs = backbone.eval().logits_and_features(IMAGES), loaded.logits_and_features(IMAGES)
    torch.testing.assert_close(ours, theirs)


def test_a_saved_model_is_a_file_for_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    saved = build_backbone("cnn8", classes=2, image_size=16, seed=3)
    save_model(path, saved, {})
    loaded = build_backbone("cnn8", classes=7, image_size=24, weights=str(path), seed=0)
    assert torch.equal(loaded.net.state_dict()["stage3.conv2.weight"], saved.net.state_dict()["stage3.conv2.weight"])


def test_the_same_model_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    backbone = build_backbone("cnn5", classes=2, image_size=8, width=0.1, seed=0)
    path = tmp_path / "m.safetensors"
    contents = set()
    for metadata in [METADATA, dict(reversed(METADATA.items()))] * 3:
        save_model(path, backbone, metadata)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def _file_about(path: Path, **spec: object) -> Path:
    values = {"name": "cnn5", "classes": 2, "image_size": 8, "width": 1.0, "layer": None, **spec}
    about = json.dumps({"spec": values, "metadata": {}})
    safetensors.torch.save_file({"x": torch.zeros(1)}, path, {"noisyknn": about})
    return path


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"m\.safetensors was not saved by noisyknn"):
        load_model(path)
    with pytest.raises(InputError, match=r"m\.safetensors was not saved by noisyknn"):
        load_model(_file_about(path, classes="many"))


def test_a_file_about_an_impossible_backbone_is_refused(tmp_path: Path) -> None:
    path = _file_about(tmp_path / "m.safetensors", name="cnn6")
    with pytest.raises(
        InputError, match=r"m\.safetensors holds a backbone that cannot be built: there is no `backbone`"
    ):
        load_model(path)
    with pytest.raises(InputError, match=r"cannot be built: `backbone` cnn5 does not run on -1-pixel"):
        load_model(_file_about(path, image_size=-1))
    with pytest.raises(InputError, match=r"m\.safetensors does not fit cnn5: stem\.0\.weight is missing"):
        load_model(_file_about(path))


def test_a_folder_that_is_not_there_is_the_machine_s_fault(tmp_path: Path) -> None:
    backbone = build_backbone("cnn5", classes=2, image_size=8, width=0.1, seed=0)
    with pytest.raises(MachineError, match="its folder does not exist"):
        save_model(tmp_path / "none" / "m.safetensors", backbone, {})
