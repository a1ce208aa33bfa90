import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from noisyknn.demo import write_digits
from tests.cli.conftest import Cli, Result

CUT = ["--preset", "mnist", "--rows", "400", "--epochs", "4", "--width", "0.25", "--precision", "fp32"]
CUT += ["--noise", "symmetric-40"]
OPTIONS = {
    "fig2": [],
    "fig3": ["--k", "10", "--every", "3"],
    "fig4": ["--k", "10", "--episodes", "2"],
    "fig5": ["--every", "3"],
    "fig6": ["--k", "10", "--every", "3"],
}
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
        files = ["--images", digits / "images", "--labels", digits / "labels.csv", "--out", tmp_path / "out"]
        return cli("benchmark", name, *files, *CUT, *OPTIONS[name], *options)

    return run


def is_drawn(folder: Path, name: str) -> bool:
    with Image.open(folder / f"{name}.png") as image:
        colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
    return len(colours) > 50 and (folder / f"{name}.svg").read_text().lstrip().startswith("<?xml")


@pytest.mark.parametrize("name", CURVES)
def test_a_figure_of_curves(draw: Draw, tmp_path: Path, name: str) -> None:
    result = draw(name)
    assert result.code == 0
    points = pd.read_csv(tmp_path / "out" / f"{name}.csv")
    found = list(dict.fromkeys(points["curve"]))
    assert found == CURVES[name] if name != "fig5" else set(CURVES[name]) <= set(found)
    assert sorted(set(points[points.columns[0]])) == ([1, 2] if name == "fig4" else [3, 4])
    assert points.columns[0] == ("episode" if name == "fig4" else "epoch")
    assert points["accuracy"].between(0, 1).all()
    assert is_drawn(tmp_path / "out", name)
    for ending in ("csv", "png", "svg"):
        assert f"wrote {tmp_path / 'out' / name}.{ending}" in result.stderr
    assert ("curves are left out of k = 100, 200, 500, 1000\n" in result.stderr) is (name == "fig5")


def test_true_labels_of_neighbours_tell_more_than_noisy_ones(draw: Draw, tmp_path: Path) -> None:
    assert draw("fig3", "--epochs", "8", "--every", "8").code == 0
    accuracy = pd.read_csv(tmp_path / "out" / "fig3.csv").set_index("curve")["accuracy"]
    assert accuracy["IterKNN, true labels"] > accuracy["IterKNN, noisy labels"]
    assert accuracy["SelKNN, true labels"] > accuracy["SelKNN, filtered labels"]
    assert accuracy["clean rate of references"] > 0.62


def test_a_figure_of_points(draw: Draw, tmp_path: Path) -> None:
    assert draw("fig2").code == 0
    points = pd.read_csv(tmp_path / "out" / "fig2.csv")
    assert points.groupby("layer", sort=False).size().to_dict() == {"stage1": 400, "stage3": 400, "head": 400}
    assert set(points["class"]) == set(range(10))
    assert is_drawn(tmp_path / "out", "fig2")
    assert "4 epochs, batches of 256, cross-entropy" in (tmp_path / "out" / "fig2.svg").read_text()


def test_smaller_batches_take_more_steps(draw: Draw, tmp_path: Path) -> None:
    assert draw("fig2", "--batch-size", "40", "--epochs", "1").code == 0
    assert "1 epoch, batches of 40, cross-entropy" in (tmp_path / "out" / "fig2.svg").read_text()


def test_what_is_there_is_not_drawn_over(draw: Draw, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "fig6.svg").write_text("mine")
    refused = draw("fig6")
    assert refused.code == 2
    assert "exists already; add --overwrite" in refused.stderr
    assert (tmp_path / "out" / "fig6.svg").read_text() == "mine"
    assert draw("fig6", "--overwrite").code == 0
    assert is_drawn(tmp_path / "out", "fig6")


def test_without_matplotlib_it_says_so_at_once(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    refused = draw("fig3")
    assert refused.code == 1
    assert "drawing needs matplotlib: pip install 'noisyknn[bench]'" in refused.stderr


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fig5", ["--k", "5"], "--k does nothing in fig5; remove it"),
        ("fig2", ["--every", "2"], "--every does nothing in fig2; remove it"),
        ("fig3", ["--episodes", "2"], "--episodes does nothing in fig3; remove it"),
        ("fig3", ["--k", "80"], "--k 80: only a fifth of 400 images vote"),
        ("fig6", ["--noise", "uniform-10"], "is not of the form symmetric-40"),
    ],
)
def test_wrong_usage(draw: Draw, name: str, options: list[str], message: str) -> None:
    refused = draw(name, *options)
    assert refused.code == 2
    assert message in refused.stderr


def test_points_of_few_images(draw: Draw, tmp_path: Path) -> None:
    assert draw("fig2", "--rows", "20", "--epochs", "1").code == 0
    assert len(pd.read_csv(tmp_path / "out" / "fig2.csv")) == 60
