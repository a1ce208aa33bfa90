import importlib
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[3] / "examples"
PARTS = ["augmentation", "forward", "loss and backward", "optimiser", "tracking"]


def test_the_speed_script_measures_every_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    speed, pictures = (importlib.import_module(name) for name in ("speed", "pictures"))  # scripts, no package

    tiny = {"backbone": "cnn5", "image_size": 8, "batch_size": 32, "device": "cpu", "precision": "fp32"}
    found = speed.measure([100], "auto", tiny, repeats=1, workers=0)
    assert [stage["name"] for stage in found["stages"]] == [
        "decode 500 x 375 to 224", "decode 8 x 8", "train an epoch", "features of all", "nearest 3 of all"
    ]  # fmt: skip
    assert all(stage["rows"] == 100 and stage["seconds"] > 0 for stage in found["stages"])
    assert list(found["step"]) == PARTS
    assert sum(found["step"].values()) == pytest.approx(1, abs=1e-3)
    assert "nearest 3 of all" in speed.as_text(found)
    with Image.open(pictures.write_pictures(tmp_path, 1, *pictures.PHOTOGRAPH, seed=0)[0]) as image:
        assert (image.format, image.size) == ("JPEG", (500, 375))
