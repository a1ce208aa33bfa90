import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from noisyknn.demo import write_digits
from tests.cli.conftest import Cli, Result

CUT = ["--preset", "mnist", "--rows", "400", "--epochs", "4", "--episodes", "2", "--width", "0.25", "--k", "10"]
CUT += ["--precision", "fp32", "--noise", "symmetric-40"]
CURVES = {
    "fig3": [
        "network",
        "IterKNN, noisy labels",
        "IterKNN, true labels",
        "SelKNN, filtered labels",
        "SelKNN, true labels",
        "clean rate of references",
    ],
    "fig4": ["from new weights", "learning rate reset", "no retraining"],
    "fig5": ["network", *(f"{m}, k = {k}" for k in (5, 20, 50) for m in ("SelKNN", "IterKNN")), "IterKNN, k = 100"],
    "fig6": ["stem", "stage1", "stage2", "stage3", "head"],
}
Draw = Callable[..., Result]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    return folder


@pytest.fixture
def draw(cli: Cli, digits: Path, tmp_path: Path) -> Draw:
    def run(name: str, *options: object) -> Result:
        files = ["--images", digits / "images", "--labels", digits / "labels.csv", "--out", tmp_path]
        return cli("benchmark", name, *files, *CUT, *options)

    return run


def is_drawn(folder: Path, name: str) -> bool:
    with Image.open(folder / f"{name}.png") as image:
        colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
    return len(colours) > 50 and (folder / f"{name}.svg").read_text().lstrip().startswith("<?xml")


@pytest.mark.parametrize("name", CURVES)
def test_a_figure_of_curves(draw: Draw, tmp_path: Path, name: str) -> None:
    result = draw(name, "--every", "3")
    assert result.code == 0
    points = pd.read_csv(tmp_path / f"{name}.csv")
    found = list(dict.fromkeys(points["curve"]))
    assert found == CURVES[name] if name != "fig5" else set(CURVES[name]) <= set(found)
    assert sorted(set(points["epoch"])) == ([1, 2] if name == "fig4" else [3, 4])
    assert points["accuracy"].between(0, 1).all()
    assert is_drawn(tmp_path, name)
    assert f"wrote {tmp_path / name}.png" in result.stderr


def test_true_labels_of_neighbours_tell_more_than_noisy_ones(draw: Draw, tmp_path: Path) -> None:
    assert draw("fig3", "--epochs", "8", "--every", "8").code == 0
    accuracy = pd.read_csv(tmp_path / "fig3.csv").set_index("curve")["accuracy"]
    assert accuracy["IterKNN, true labels"] > accuracy["IterKNN, noisy labels"]
    assert accuracy["SelKNN, true labels"] > accuracy["SelKNN, filtered labels"]
    assert accuracy["clean rate of references"] > 0.62


def test_a_figure_of_points(draw: Draw, tmp_path: Path) -> None:
    assert draw("fig2").code == 0
    points = pd.read_csv(tmp_path / "fig2.csv")
    assert points.groupby("layer", sort=False).size().to_dict() == {"stage1": 400, "stage3": 400, "head": 400}
    assert set(points["class"]) == set(range(10))
    assert is_drawn(tmp_path, "fig2")


def test_what_is_there_is_not_drawn_over(draw: Draw, tmp_path: Path) -> None:
    (tmp_path / "fig6.svg").write_text("mine")
    refused = draw("fig6")
    assert refused.code == 2
    assert "exists already; add --overwrite" in refused.stderr
    assert (tmp_path / "fig6.svg").read_text() == "mine"
    assert draw("fig6", "--overwrite").code == 0
    assert is_drawn(tmp_path, "fig6")


def test_without_matplotlib_it_says_so_at_once(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    refused = draw("fig3")
    assert refused.code == 1
    assert "drawing needs matplotlib: pip install 'noisyknn[bench]'" in refused.stderr
