import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from noisyknn.config import Config
from noisyknn.data.images import decode
from noisyknn.errors import UsageError
from noisyknn.observer import Silent
from noisyknn.paper import pictures, plain
from noisyknn.paper.pictures import DISTINCT, write_pictures
from noisyknn.paper.speed import Stage, measure

TINY = {"backbone": "cnn5", "image_size": 8, "batch_size": 32, "device": "cpu", "precision": "fp32"}


def test_pictures_are_jpegs_as_rough_as_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PIXELS", 0)
    paths = write_pictures(tmp_path, DISTINCT + 2, 500, 375, seed=0)
    with Image.open(paths[0]) as image:
        assert (image.format, image.size) == ("JPEG", (500, 375))
    assert 40_000 < paths[0].stat().st_size < 80_000
    raw = [path.read_bytes() for path in paths]
    assert len(set(raw)) == DISTINCT
    assert raw[DISTINCT] == raw[0]
    monkeypatch.setattr(pictures, "PIXELS", 40 * 16 * 16)
    assert len({path.read_bytes() for path in write_pictures(tmp_path, 42, 16, 16, seed=0)}) == 40


def test_pictures_depend_on_the_seed_alone(tmp_path: Path) -> None:
    def drawn(name: str, seed: int) -> bytes:
        (tmp_path / name).mkdir()
        return write_pictures(tmp_path / name, 1, 20, 20, seed)[0].read_bytes()

    assert drawn("a", 1) == drawn("b", 1) != drawn("c", 2)


def test_the_plain_loop_decodes_the_same_images(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, 3, 50, 40, seed=0)
    ours = np.stack([decode(path, 24, "squash") for path in paths])
    assert abs(plain.decode(paths, 24).astype(int) - ours).max() <= 1


def test_the_plain_loop_trains(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, 40, 8, 8, seed=0)
    config = Config(image_size=8, crop_padding=1)
    pictures = plain.Pictures(paths, [index % 2 for index in range(40)], config)
    image, label, index = pictures[3]
    assert (image.shape, label, index) == ((3, 8, 8), 1, 3)
    layer = torch.nn.Linear(192, 2)
    network = torch.nn.Sequential(torch.nn.Flatten(), layer)
    before = layer.weight.detach().clone()
    assert plain.train_epoch(network, pictures, 16, torch.device("cpu"), workers=0) > 0
    assert not torch.equal(layer.weight, before)


def test_a_stage_tells_rate_and_ratio() -> None:
    stage = Stage(name="a", rows=100, seconds=0.5, plain="b", plain_seconds=2.0)
    assert (stage.as_dict()["per_second"], stage.as_dict()["ratio"]) == (200, 4.0)
    assert Stage(name="a", rows=100, seconds=0.5).as_dict()["ratio"] is None


def test_every_stage_is_measured_for_all_it_is_asked_for() -> None:
    speed = measure([100, 150], "auto", TINY, repeats=1, workers=0)
    assert [(stage.name, stage.rows) for stage in speed.stages] == [
        ("decode 500 x 375 to 224", 100),
        ("decode 8 x 8", 100),
        ("train an epoch", 100),
        ("features of all", 100),
        ("nearest 3 of all", 100),
        ("train an epoch", 150),
        ("features of all", 150),
        ("nearest 3 of all", 150),
    ]
    assert all(stage.seconds > 0 for stage in speed.stages)
    assert all((stage.plain_seconds or 1) > 0 for stage in speed.stages)
    assert list(speed.step) == ["augmentation", "forward", "loss and backward", "optimiser", "tracking"]
    assert sum(speed.step.values()) == pytest.approx(1, abs=1e-3)
    assert all(share > 0 for share in speed.step.values())
    assert json.loads(json.dumps(speed.as_dict()))["config"]["backbone"] == "cnn5"


@pytest.mark.parametrize("preset", ["mnist", "cifar10"])
def test_presets_of_the_paper_are_measured_too(preset: str) -> None:
    speed = measure([100], preset, {"width": 0.1, "batch_size": 64, "device": "cpu"}, repeats=1, workers=0)
    assert speed.config.optimizer == "adam"


class Loud(Silent):
    def note(self, message: str) -> None:
        raise AssertionError(message)


def test_settings_that_do_not_work_are_told_before_any_work() -> None:
    with pytest.raises(UsageError, match="no --backbone cnn9"):
        measure([100], "auto", {"backbone": "cnn9"}, repeats=1, observer=Loud())
