import os
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torchvision.models import VisionTransformer

from noisyknn.errors import InputError
from noisyknn.models.backbone import Backbone
from noisyknn.models.factory import build_backbone
from noisyknn.models.weights import load_state, read_safetensors


def _build(name: str = "cnn8", classes: int = 3, seed: int = 0, weights: Path | None = None) -> Backbone:
    return build_backbone(
        name, classes=classes, image_size=32, weights=None if weights is None else str(weights), seed=seed
    )


def _save(path: Path, state: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    return path


@pytest.mark.parametrize("name", ["cnn8", "preact_resnet32", "squeezenet1_1", "mnasnet0_5"])
def test_a_file_of_the_same_classes_is_taken_whole(name: str, tmp_path: Path) -> None:
    state = _build(name, seed=1).net.state_dict()
    loaded = _build(name, weights=_save(tmp_path / "w.safetensors", state)).net.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_a_file_whose_name_is_not_utf8_is_read(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"\xff.safetensors")
    file.write_bytes(safetensors.torch.save({"a": torch.arange(3)}, {"b": "c"}))
    tensors, metadata = read_safetensors(file)
    assert tensors["a"].tolist() == [0, 1, 2]
    assert metadata == {"b": "c"}


@pytest.mark.parametrize(("name", "head"), [("cnn8", "head"), ("squeezenet1_1", "classifier.1")])
def test_a_head_of_other_classes_is_drawn_anew_from_the_seed(name: str, head: str, tmp_path: Path) -> None:
    state = _build(name, classes=5, seed=1).net.state_dict()
    loaded = _build(name, weights=_save(tmp_path / "w.safetensors", state)).net.state_dict()
    fresh = _build(name).net.state_dict()
    for key, tensor in loaded.items():
        assert torch.equal(tensor, fresh[key] if key.startswith(f"{head}.") else state[key]), key


def test_half_precision_weights_are_widened(tmp_path: Path) -> None:
    state = {key: t.half() if t.is_floating_point() else t for key, t in _build(seed=1).net.state_dict().items()}
    loaded = _build(weights=_save(tmp_path / "w.safetensors", state)).net.state_dict()
    assert loaded["stem.0.weight"].dtype == torch.float32
    assert torch.equal(loaded["stem.0.weight"], state["stem.0.weight"].float())


def test_tensors_that_are_missing_or_too_many_are_named(tmp_path: Path) -> None:
    state = _build().net.state_dict()
    state["stage7.weight"] = state.pop("stage1.conv1.weight")
    path = _save(tmp_path / "w.safetensors", state)
    message = (
        r"w\.safetensors does not fit cnn8: stage1\.conv1\.weight is missing, stage7\.weight is unexpected; .*`width`"
    )
    with pytest.raises(InputError, match=message):
        _build(weights=path)


def test_tensors_of_another_shape_are_named(tmp_path: Path) -> None:
    wide = build_backbone("cnn8", classes=3, image_size=32, width=2.0, seed=0)
    path = _save(tmp_path / "w.safetensors", wide.net.state_dict())
    with pytest.raises(InputError, match=r"stem\.0\.weight is 48×3×2×2, not 24×3×2×2, .* … and \d+ more; give the"):
        _build(weights=path)


def test_position_embeddings_of_no_square_grid_are_refused() -> None:
    net = VisionTransformer(32, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16)
    state = OrderedDict({"encoder.pos_embedding": torch.zeros(1, 4, 16)})
    with pytest.raises(InputError, match=r"w\.safetensors does not fit vit: seq_length is not a perfect square"):
        load_state(net, state, source="w.safetensors", name="vit")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(
            InputError, match=rf"{path}: no such file \(`weights` takes a \.safetensors file or DEFAULT"
        ):
            _build(weights=path)


def test_a_pytorch_file_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(_build().net.state_dict(), path)
    with pytest.raises(InputError, match=r"w\.pth is not a safetensors file .*safetensors\.torch\.save_file"):
        _build(weights=path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "w.safetensors", _build().net.state_dict())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"w\.safetensors is not a safetensors file"):
        _build(weights=path)
